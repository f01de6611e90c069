//! The commands of the prompt that are not SQL.

/// The commands, and what they do.
pub const COMMANDS: [(&str, &str); 6] = [
    (".exit", "end, as .quit and Ctrl-D do"),
    (".help", "list these commands"),
    (".mode", "table, json or csv: how rows are printed"),
    (".quit", "end"),
    (".schema", "[TABLE]: the SQL that made the tables"),
    (".tables", "list the tables and views"),
];

/// Whether the text is a command and not SQL. The words that end other programs are commands too.
pub fn is_command(text: &str) -> bool {
    text.starts_with('.') || ["exit", "quit", "help"].contains(&text.trim().trim_end_matches(';').trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_end_other_programs_are_commands_with_a_semicolon_too() {
        for command in [".tables", "exit", "exit;", " quit ; ", "help;"] {
            assert!(is_command(command), "{command}");
        }
        for sql in ["SELECT 1;", "exits;", "exit, 1;", ";"] {
            assert!(!is_command(sql), "{sql}");
        }
    }
}
