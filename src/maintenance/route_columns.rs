//! Which expression of an `INSERT` statement fills which column.

/// The columns of the table that a statement inserts into, each with its expression: of `INSERT INTO table(a, b) VALUES (:x, 1)` and of
/// the same with `REPLACE`. Empty for any other statement.
pub fn filled_columns<'s>(sql: &'s str, table: &str) -> Vec<(String, &'s str)> {
    read(sql, table).unwrap_or_default()
}

fn read<'s>(sql: &'s str, table: &str) -> Option<Vec<(String, &'s str)>> {
    let mut tokens = Tokens { sql, at: 0 };
    match tokens.next()? {
        word if word.eq_ignore_ascii_case("REPLACE") => {}
        word if word.eq_ignore_ascii_case("INSERT") => {}
        _ => return None,
    }
    let mut word = tokens.next()?;
    if word.eq_ignore_ascii_case("OR") {
        tokens.next()?;
        word = tokens.next()?;
    }
    if !word.eq_ignore_ascii_case("INTO") || !unquoted(tokens.next()?).eq_ignore_ascii_case(table) {
        return None;
    }
    let mut word = tokens.next()?;
    if word.eq_ignore_ascii_case("AS") {
        tokens.next()?;
        word = tokens.next()?;
    }
    let columns = list(word)?;
    if !tokens.next()?.eq_ignore_ascii_case("VALUES") {
        return None;
    }
    let values = list(tokens.next()?)?;
    let names = columns.into_iter().map(unquoted);
    Some(names.zip(values).collect())
}

/// The items of `(a, b)`, without the space around each.
fn list(brackets: &str) -> Option<Vec<&str>> {
    let inner = brackets.strip_prefix('(')?.strip_suffix(')')?;
    let (mut items, mut from) = (Vec::new(), 0);
    let mut tokens = Tokens { sql: inner, at: 0 };
    while let Some(token) = tokens.next() {
        if token == "," {
            items.push(inner[from..tokens.at - 1].trim());
            from = tokens.at;
        }
    }
    items.push(inner[from..].trim());
    Some(items)
}

/// A name without its quotes.
fn unquoted(name: &str) -> String {
    for (open, close) in [('"', '"'), ('`', '`'), ('[', ']'), ('\'', '\'')] {
        if let Some(inner) = name.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)) {
            return inner.replace(&format!("{close}{close}"), &close.to_string());
        }
    }
    name.to_owned()
}

/// Words, strings, quoted names, whole brackets `( … )` and single characters, without comments.
struct Tokens<'s> {
    sql: &'s str,
    at: usize,
}

impl<'s> Tokens<'s> {
    fn next(&mut self) -> Option<&'s str> {
        self.skip_space();
        let from = self.at;
        let first = self.take()?;
        match first {
            '\'' | '"' | '`' => {
                while self.take()? != first || self.peek() == Some(first) {
                    if self.sql[..self.at].ends_with(first) {
                        self.take()?;
                    }
                }
            }
            '[' => while self.take()? != ']' {},
            '(' => loop {
                match self.next()? {
                    ")" => break,
                    _ => self.skip_space(),
                }
            },
            c if is_of_word(c) => {
                while self.peek().is_some_and(is_of_word) {
                    self.take();
                }
            }
            _ => {}
        }
        Some(&self.sql[from..self.at])
    }

    fn skip_space(&mut self) {
        loop {
            let rest = &self.sql[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            let end = match (trimmed.starts_with("--"), trimmed.starts_with("/*")) {
                (true, _) => trimmed.find('\n').map(|at| at + 1),
                (_, true) => trimmed.find("*/").map(|at| at + 2),
                _ => return,
            };
            self.at += end.unwrap_or(trimmed.len());
        }
    }

    fn peek(&self) -> Option<char> {
        self.sql[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || "_$:@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expressions_of_an_insert_are_found_by_column() {
        let sql = "INSERT OR IGNORE INTO \"my \"\"t\" -- why
          (a, [b c], \"d\"\"e\") VALUES (:published_s, CASE WHEN f(1, ')') = 'it''s, (' THEN :x ELSE 2 END, /* , */ :y)
          ON CONFLICT DO NOTHING";
        let found = filled_columns(sql, "MY \"t");
        let expected = [
            ("a", ":published_s"),
            ("b c", "CASE WHEN f(1, ')') = 'it''s, (' THEN :x ELSE 2 END"),
            ("d\"e", "/* , */ :y"),
        ];
        assert_eq!(found, expected.map(|(name, sql)| (name.to_owned(), sql)));
        for other in [
            "INSERT INTO t(a) SELECT 1",
            "INSERT INTO other(a) VALUES (1)",
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "INSERT INTO t(a) VALUES ('",
            "INSERT INTO t(a",
            "",
        ] {
            assert_eq!(filled_columns(other, "t"), [], "{other}");
        }
        assert_eq!(filled_columns("REPLACE INTO t(a) VALUES (:a)", "t"), [("a".to_owned(), ":a")]);
    }
}
