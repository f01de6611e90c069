//! Where a statement ends.

use crate::store::sql_tokens::{TokenKind, tokens};

/// Whether the text ends with a whole statement, or has none: nothing is open, and what follows the last semicolon is only space
/// and comments.
pub fn is_complete(sql: &str) -> bool {
    let mut is_in_statement = false;
    for token in tokens(sql) {
        if token.is_open {
            return false;
        }
        if token.kind != TokenKind::Comment {
            is_in_statement = !token.is(";");
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
            "-- SELECT 'it''s",
            "SELECT :a(;);",
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
            "SELECT 1;\u{a0}",
        ] {
            assert!(!is_complete(part), "{part}");
        }
    }
}
