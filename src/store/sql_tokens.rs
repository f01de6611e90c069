//! Divides SQL into tokens where SQLite does: <https://sqlite.org/draft/tokenreq.html>.

use std::iter;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// `-- …` without its line end, or `/* … */`.
    Comment,
    /// `'…'`. In place of a name SQLite takes it for the name.
    Text,
    /// `"…"`, `` `…` `` or `[…]`.
    QuotedName,
    /// A keyword, a name, or the digits and letters of a number.
    Word,
    /// `:name`, `@name` or `$name`.
    Parameter,
    /// A single character that is nothing else.
    Other,
}

/// A token, in the text that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'s> {
    pub kind: TokenKind,
    /// Where it begins, in bytes.
    pub start: usize,
    pub text: &'s str,
    /// The SQL ends within it, before its quote or `*/`.
    pub is_open: bool,
}

impl Token<'_> {
    /// Whether it is this keyword or character.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::Other) && self.text.eq_ignore_ascii_case(text)
    }

    /// Where it ends, in bytes.
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// The name that it is, without quotes, where SQLite expects a name.
    pub fn name(&self) -> Option<String> {
        let quote = match self.kind {
            TokenKind::Word => return Some(self.text.to_owned()),
            TokenKind::QuotedName | TokenKind::Text if !self.is_open => &self.text[..1],
            _ => return None,
        };
        let inner = &self.text[1..self.text.len() - 1];
        // Between square brackets no quote can be doubled.
        Some(inner.replace(&quote.repeat(2), quote))
    }
}

/// The tokens of this text, which need not be whole statements.
pub fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    iter::from_fn(move || {
        let rest = sql[at..].trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r', '\u{feff}']);
        let start = sql.len() - rest.len();
        let (kind, length) = first_token(rest)?;
        let text = &rest[..length.unwrap_or(rest.len())];
        at = start + text.len();
        Some(Token { kind, start, text, is_open: length.is_none() })
    })
}

/// The kind of the token at the beginning, and its length; `None` if it has no end.
fn first_token(sql: &str) -> Option<(TokenKind, Option<usize>)> {
    let first = sql.chars().next()?;
    Some(match first {
        '-' if sql.starts_with("--") => (TokenKind::Comment, Some(sql.find('\n').unwrap_or(sql.len()))),
        '/' if sql.starts_with("/*") => (TokenKind::Comment, sql[2..].find("*/").map(|at| at + 4)),
        '\'' => (TokenKind::Text, quoted_length(sql, first)),
        '"' | '`' => (TokenKind::QuotedName, quoted_length(sql, first)),
        '[' => (TokenKind::QuotedName, sql.find(']').map(|at| at + 1)),
        _ if is_of_word(first) && first != '$' => (TokenKind::Word, Some(word_length(sql))),
        _ => match parameter_length(sql) {
            Some(length) => (TokenKind::Parameter, Some(length)),
            None => (TokenKind::Other, Some(first.len_utf8())),
        },
    })
}

/// A doubled quote is one of the content.
fn quoted_length(sql: &str, quote: char) -> Option<usize> {
    let mut end = 1;
    loop {
        end += sql[end..].find(quote)? + 1;
        if !sql[end..].starts_with(quote) {
            return Some(end);
        }
        end += 1;
    }
}

/// The length of a parameter with a name. As in Tcl, `::` and a suffix in parentheses without space belong to it.
fn parameter_length(sql: &str) -> Option<usize> {
    let name = sql.strip_prefix([':', '@', '$'])?;
    let (mut end, mut is_named) = (0, false);
    loop {
        let word = word_length(&name[end..]);
        is_named |= word > 0;
        end += word;
        if !name[end..].starts_with("::") {
            break;
        }
        end += 2;
    }
    if let Some(suffix) = name[end..].strip_prefix('(')
        && let Some(at) = suffix.find(|c: char| c == ')' || c.is_ascii_whitespace())
        && suffix[at..].starts_with(')')
    {
        end += at + 2;
    }
    is_named.then_some(end + 1)
}

fn word_length(sql: &str) -> usize {
    sql.find(|c| !is_of_word(c)).unwrap_or(sql.len())
}

/// Every character beyond ASCII is of a word, spaces of other scripts too.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::TokenKind::{Comment, Other, Parameter, QuotedName, Text, Word};
    use super::*;

    fn read(sql: &str) -> Vec<(TokenKind, &str)> {
        let all: Vec<Token<'_>> = tokens(sql).collect();
        assert!(all.iter().all(|token| &sql[token.start..token.end()] == token.text), "{sql}");
        all.iter().map(|token| (token.kind, token.text)).collect()
    }

    #[test]
    fn sql_is_divided_as_sqlite_does() {
        assert_eq!(
            read("SELECT a1,\"b \"\"c\" -- ;\n/* ' */ FROM[d e]`f`=x'0f'>-1.5;"),
            [
                (Word, "SELECT"),
                (Word, "a1"),
                (Other, ","),
                (QuotedName, "\"b \"\"c\""),
                (Comment, "-- ;"),
                (Comment, "/* ' */"),
                (Word, "FROM"),
                (QuotedName, "[d e]"),
                (QuotedName, "`f`"),
                (Other, "="),
                (Word, "x"),
                (Text, "'0f'"),
                (Other, ">"),
                (Other, "-"),
                (Word, "1"),
                (Other, "."),
                (Word, "5"),
                (Other, ";"),
            ]
        );
        assert_eq!(read("\u{feff}\r\n\x0bgrün\u{a0}$é 'it''s'"), [(Word, "grün\u{a0}$é"), (Text, "'it''s'")]);
        assert_eq!(read(" \n"), []);
    }

    #[test]
    fn a_parameter_has_the_name_that_sqlite_gives_it() {
        for sql in [":a", "@a_1", "$a$b", ":é", "$a::b", ":::a", ":a(b'')", "$a()", "$a::(;)"] {
            assert_eq!(read(sql), [(Parameter, sql)]);
            let sqlite = rusqlite::Connection::open_in_memory().expect("opens");
            let statement = sqlite.prepare(&format!("SELECT {sql}")).expect("compiles");
            assert_eq!(statement.parameter_name(1), Some(sql));
        }
        assert_eq!(read(":a-:b"), [(Parameter, ":a"), (Other, "-"), (Parameter, ":b")]);
        assert_eq!(read("$a(b c)")[..2], [(Parameter, "$a"), (Other, "(")]);
        assert_eq!(read("?1: ::"), [(Other, "?"), (Word, "1"), (Other, ":"), (Other, ":"), (Other, ":")]);
    }

    #[test]
    fn what_has_no_end_is_open() {
        for sql in ["'", "'it''", "\"a", "`a``", "[a", "/*", "/*/", "/* *"] {
            let all: Vec<Token<'_>> = tokens(sql).collect();
            assert!(matches!(all[..], [Token { is_open: true, .. }]), "{sql}: {all:?}");
            assert_eq!((all[0].text, all[0].name()), (sql, None));
        }
        for sql in ["''", "'it''s'", "[a", "-- a", "/**/"] {
            assert_eq!(tokens(sql).any(|token| token.is_open), sql == "[a", "{sql}");
        }
    }

    #[test]
    fn a_name_has_no_quotes() {
        let names = |sql| tokens(sql).map(|token| token.name()).collect::<Vec<_>>();
        let expected = ["a", "b\"c", "d`e", "f\"\"g", "h'i"].map(|name| Some(name.to_owned()));
        assert_eq!(names("a \"b\"\"c\" `d``e` [f\"\"g] 'h''i'"), expected);
        assert_eq!(names(":a . /* b */"), [None, None, None]);
    }
}
