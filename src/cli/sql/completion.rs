//! What the prompt does while a statement is typed: completes names, and asks for more lines until the statement ends.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::commands::{COMMANDS, is_command};
use super::statement::is_complete;
use crate::cli::identifier::identifier;

/// The words of queries.
const KEYWORDS: [&str; 52] = [
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COLLATE",
    "COUNT",
    "CROSS",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FILTER",
    "FROM",
    "GLOB",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INTERSECT",
    "IS",
    "ISNULL",
    "JOIN",
    "JSON_VALID",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NOTNULL",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PRAGMA",
    "RECURSIVE",
    "SELECT",
    "THEN",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
];

/// Completes and validates what is typed.
#[derive(Default)]
pub struct Completion {
    /// Tables, views and columns.
    pub names: Vec<String>,
}

impl Helper for Completion {}
impl Hinter for Completion {
    type Hint = String;
}
impl Highlighter for Completion {}

impl Validator for Completion {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        let is_whole = is_command(input) || is_complete(input);
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(&line[..at]))
    }
}

impl Completion {
    /// Where the last word of the line begins, and what it may become.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        if line.starts_with('.') && !line.contains(' ') {
            let commands = COMMANDS.iter().map(|(command, _)| *command);
            return (0, commands.filter(|command| command.starts_with(line)).map(str::to_owned).collect());
        }
        let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
        let start = line.trim_end_matches(is_of_name).len();
        let word = &line[start..];
        let begins = |name: &&str| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let mut all: Vec<String> = self.names.iter().map(String::as_str).filter(begins).map(identifier).collect();
        // Without a word there are too many.
        if !word.is_empty() && !line.starts_with('.') {
            let is_lower = word.chars().any(char::is_lowercase);
            let keywords = KEYWORDS.into_iter().filter(begins);
            all.extend(keywords.map(|word| if is_lower { word.to_lowercase() } else { word.to_owned() }));
        }
        all.sort_unstable();
        all.dedup();
        (start, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keywords_and_commands_are_completed() {
        let completion = Completion { names: ["messages", "message id", "Subject", "order"].map(str::to_owned).into() };
        let after = |line: &str| completion.candidates(line);
        assert_eq!(after("SELECT * FROM mes"), (14, vec!["\"message id\"".into(), "messages".into()]));
        assert_eq!(after("sel"), (0, vec!["select".into()]));
        assert_eq!(after("SELECT su"), (7, vec!["Subject".into()]));
        assert_eq!(after("SELECT a ORD"), (9, vec!["\"order\"".into(), "ORDER".into()]));
        assert_eq!(after(".sc"), (0, vec![".schema".into()]));
        assert_eq!(after(".schema mess"), (8, vec!["\"message id\"".into(), "messages".into()]));
        assert_eq!(after("SELECT a FROM ").1.len(), 4);
        assert_eq!(after("käse"), (0, vec![]));
    }
}
