//! Reads the parts of a simple INSERT: which table gets a row, and what its columns get.

use super::sql_tokens::{Token, TokenKind, tokens};

/// A statement `INSERT INTO table(columns) VALUES (values)`, or the same with `REPLACE`.
#[derive(Debug, PartialEq, Eq)]
pub struct InsertStatement<'s> {
    /// The table, without quotes.
    pub(super) table: String,
    /// The columns, without quotes, if the statement lists them.
    pub(super) columns: Option<Vec<String>>,
    /// What the columns get, in their order. Empty if these are not the values of a row.
    values: Vec<Value<'s>>,
    /// It adds a row whatever the table has: there is neither `REPLACE` nor `OR …` nor `ON CONFLICT`.
    pub(super) is_plain: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Value<'s> {
    /// Its expression, without comments around it.
    sql: &'s str,
    /// The name of the parameter, if it is one and nothing else.
    parameter: Option<&'s str>,
}

impl<'s> InsertStatement<'s> {
    /// Reads a statement that SQLite has compiled; `None` if it is something else than an INSERT of one row of values.
    pub fn of(sql: &'s str) -> Option<Self> {
        let tokens: Vec<Token<'_>> = tokens(sql).filter(|token| token.kind != TokenKind::Comment).collect();
        let mut rest = &tokens[..];
        let mut is_plain = take(&mut rest, "REPLACE").is_none();
        if is_plain {
            take(&mut rest, "INSERT")?;
            if take(&mut rest, "OR").is_some() {
                is_plain = false;
                rest = rest.get(1..)?;
            }
        }
        take(&mut rest, "INTO")?;
        let mut table = take_name(&mut rest)?;
        if take(&mut rest, ".").is_some() {
            table = take_name(&mut rest)?;
        }
        if take(&mut rest, "AS").is_some() {
            rest = rest.get(1..)?;
        }
        let columns = if rest.first()?.is("(") { Some(names(&take_list(&mut rest)?)?) } else { None };
        let mut values = Vec::new();
        if take(&mut rest, "VALUES").is_some() {
            values = take_list(&mut rest)?.into_iter().map(|item| Value::of(sql, item)).collect::<Option<_>>()?;
            // A second row, or ON CONFLICT.
            is_plain &= rest.iter().all(|token| token.is(";"));
        } else {
            is_plain = false;
        }
        Some(Self { table, columns, values, is_plain })
    }

    /// Whether this table gets the row.
    pub fn is_into(&self, table: &str) -> bool {
        self.table.eq_ignore_ascii_case(table)
    }

    /// The column that gets this parameter, if the statement lists its columns.
    pub fn column_of(&self, parameter: &str) -> Option<&str> {
        let at = self.values.iter().position(|value| value.parameter == Some(parameter))?;
        self.columns.as_ref()?.get(at).map(String::as_str)
    }

    /// The columns that the statement lists, each with the expression of its value.
    pub fn filled_columns(&self) -> impl Iterator<Item = (&str, &'s str)> {
        self.columns.iter().flatten().map(String::as_str).zip(self.values.iter().map(|value| value.sql))
    }

    /// The names of the parameters that are its values, if all are.
    pub(super) fn parameters(&self) -> Option<Vec<&'s str>> {
        self.values.iter().map(|value| value.parameter).collect()
    }
}

impl<'s> Value<'s> {
    fn of(sql: &'s str, tokens: &[Token<'s>]) -> Option<Self> {
        let parameter = match tokens {
            [Token { kind: TokenKind::Parameter, text, .. }] => Some(&text[1..]),
            _ => None,
        };
        let sql = &sql[tokens.first()?.start..tokens.last()?.end()];
        Some(Self { sql, parameter })
    }
}

/// The names of a list of columns.
fn names(list: &[&[Token<'_>]]) -> Option<Vec<String>> {
    list.iter().map(|item| if let [token] = item { token.name() } else { None }).collect()
}

fn take(rest: &mut &[Token<'_>], word: &str) -> Option<()> {
    let (first, others) = rest.split_first()?;
    first.is(word).then(|| *rest = others)
}

fn take_name(rest: &mut &[Token<'_>]) -> Option<String> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    first.name()
}

/// The items of a list in parentheses, which are separated by commas.
fn take_list<'t, 's>(rest: &mut &'t [Token<'s>]) -> Option<Vec<&'t [Token<'s>]>> {
    take(rest, "(")?;
    let all = *rest;
    let (mut items, mut from, mut depth) = (Vec::new(), 0, 0);
    for (at, token) in all.iter().enumerate() {
        let is_end = token.is(")");
        if depth == 0 && (is_end || token.is(",")) {
            items.push(&all[from..at]);
            from = at + 1;
            if is_end {
                *rest = &all[from..];
                return Some(items);
            }
        }
        depth += i32::from(token.is("(")) - i32::from(is_end);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Option<(String, Option<String>, bool)> {
        InsertStatement::of(sql).map(|insert| {
            let column = insert.column_of("sequence").map(str::to_owned);
            (insert.table, column, insert.is_plain)
        })
    }

    fn is(table: &str, column: Option<&str>, is_plain: bool) -> (String, Option<String>, bool) {
        (table.into(), column.map(str::to_owned), is_plain)
    }

    #[test]
    fn the_column_of_the_sequence_is_found() {
        assert_eq!(read("INSERT INTO t(a, seq) VALUES (:a, :sequence)"), Some(is("t", Some("seq"), true)));
        assert_eq!(
            read("insert into main.\"my \"\"t\" ([b c], `seq`) values (coalesce(:x, (1), 'a,b'), $sequence);"),
            Some(is("my \"t", Some("seq"), true))
        );
        assert_eq!(
            read("INSERT INTO t -- the (table)\n (/* , */ seq) VALUES (:sequence) ON CONFLICT DO NOTHING"),
            Some(is("t", Some("seq"), false))
        );
        assert_eq!(
            read("INSERT INTO 't' ('it''s') VALUES (/* why */ :sequence -- )\n)"),
            Some(is("t", Some("it's"), true)),
            "a text in place of a name is one"
        );
        assert_eq!(read("INSERT OR IGNORE INTO t(seq) VALUES (@sequence)"), Some(is("t", Some("seq"), false)));
    }

    #[test]
    fn what_is_no_plain_sequence_has_no_column() {
        assert_eq!(read("INSERT INTO t(a, b) VALUES (:a, :sequence + 1)"), Some(is("t", None, true)));
        assert_eq!(read("INSERT INTO t VALUES (:a, :sequence)"), Some(is("t", None, true)));
        assert_eq!(read("INSERT INTO t(a) SELECT :sequence"), Some(is("t", None, false)));
        assert_eq!(read("INSERT INTO t(a) VALUES (:a), (:b)"), Some(is("t", None, false)));
        assert_eq!(read("UPDATE t SET a = :sequence"), None);
        assert_eq!(read("INSERT INTO t(a"), None);
        assert_eq!(read("INSERT INTO t(a) VALUES ('"), None);
        assert_eq!(read("REPLACE t(a) VALUES (1)"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn the_expressions_of_an_insert_are_found_by_column() {
        let sql = "INSERT OR IGNORE INTO main.\"my \"\"t\" AS m -- why
          (a, [b c], \"d\"\"e\") VALUES (:published_s, CASE WHEN f(1, ')') = 'it''s, (' THEN :x ELSE 2 END, /* , */ :y -- z
          ) ON CONFLICT DO NOTHING";
        let insert = InsertStatement::of(sql).expect("an INSERT");
        assert!(insert.is_into("MY \"t") && !insert.is_into("main"));
        let expected =
            [("a", ":published_s"), ("b c", "CASE WHEN f(1, ')') = 'it''s, (' THEN :x ELSE 2 END"), ("d\"e", ":y")];
        assert!(insert.filled_columns().eq(expected), "{insert:?}");
        for without in ["INSERT INTO t(a) SELECT 1", "INSERT INTO t VALUES (1)", "INSERT INTO t DEFAULT VALUES"] {
            assert_eq!(InsertStatement::of(without).expect("an INSERT").filled_columns().next(), None, "{without}");
        }
        let replace = InsertStatement::of("REPLACE INTO t(a) VALUES (:a)").expect("a REPLACE");
        assert!(replace.filled_columns().eq([("a", ":a")]) && !replace.is_plain);
    }

    #[test]
    fn values_that_are_all_parameters_are_named() {
        let parameters = |sql| {
            InsertStatement::of(sql).and_then(|insert| {
                insert.parameters().map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
            })
        };
        let named = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(parameters("INSERT INTO t VALUES (:a, @b, $c, :a)"), named(&["a", "b", "c", "a"]));
        assert_eq!(parameters("INSERT INTO t VALUES (:a, $b::c)"), named(&["a", "b::c"]), "as SQLite names it");
        for sql in ["INSERT INTO t VALUES (:a, 1)", "INSERT INTO t VALUES (:a, -:b)"] {
            assert_eq!(parameters(sql), None, "{sql}");
        }
    }
}
