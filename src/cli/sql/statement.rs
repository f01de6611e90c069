//! Where a statement ends.

/// Whether the text ends with a whole statement, or has none: nothing is open, and what follows the last semicolon is only space
/// and comments.
pub fn is_complete(sql: &str) -> bool {
    let mut rest = sql.chars().peekable();
    let mut is_in_statement = false;
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('-', Some('-')) => {
                // A comment without a line end may go on.
                if !rest.any(|c| c == '\n') {
                    return !is_in_statement;
                }
            }
            ('/', Some('*')) => {
                rest.next();
                let mut last = ' ';
                if !rest.any(|c| std::mem::replace(&mut last, c) == '*' && c == '/') {
                    return false;
                }
            }
            ('\'' | '"' | '`', _) => {
                is_in_statement = true;
                // A doubled quote ends one string and begins another.
                if !rest.any(|other| other == c) {
                    return false;
                }
            }
            ('[', _) => {
                is_in_statement = true;
                if !rest.any(|c| c == ']') {
                    return false;
                }
            }
            (';', _) => is_in_statement = false,
            (c, _) if c.is_whitespace() => {}
            _ => is_in_statement = true,
        }
    }
    !is_in_statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_at_a_semicolon_outside_of_strings_and_comments() {
        for whole in [
            "",
            " \n",
            "SELECT 1;",
            "SELECT 1; -- done",
            "SELECT ';';\n/* ; */ ",
            "SELECT 'it''s';",
            "SELECT \"a;b\", [c;d], `e;`;",
            "-- only a comment",
            "SELECT 1 -- one;\n;",
            "/**/;",
        ] {
            assert!(is_complete(whole), "{whole}");
        }
        for part in [
            "SELECT 1",
            "SELECT ';",
            "SELECT 1; SELECT 2",
            "SELECT 1 -- ;",
            "SELECT /* ;",
            "/* open",
            "SELECT 'it''",
            "SELECT [a;",
            "SELECT 1 /",
            "/*/;",
        ] {
            assert!(!is_complete(part), "{part}");
        }
    }
}
