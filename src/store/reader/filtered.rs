//! Reads the rows that a filter takes, and checks whether it fits a table.

use rusqlite::Connection;

use super::{EventRow, Reader, RowTable, Value, value};
use crate::binding;
use crate::error::{DatabaseFault, Error};
use crate::store::columns::bound;
use crate::store::row_filter::{self, RowFilter};

impl Reader {
    /// Why the expression of a filter cannot be used for the rows of a table: it is wrong, is more than one expression, or has
    /// parameters. `None` if it can be used. Nothing is run.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if the database cannot be read.
    pub fn misfit(&self, table: &RowTable, filter: &RowFilter) -> Result<Option<String>, Error> {
        let Some(expression) = filter.user_expression() else { return Ok(None) };
        row_filter::misfit(self.connection.sqlite(), &table.name, expression).or_else(|error| {
            match self.statement_error(error, expression) {
                Error::Database { fault: DatabaseFault::Statement, detail, .. } => Ok(Some(detail)),
                other => Err(other),
            }
        })
    }

    /// The value of an SQL expression in which `:published_s` and `:published_us` are this time, in microseconds since 1970, and all
    /// other parameters are NULL. `None` if SQLite cannot compute it.
    #[must_use]
    pub fn value_at(&self, expression: &str, published_us: i64) -> Option<Value> {
        let mut statement = self.connection.sqlite().prepare(&format!("SELECT (\n{expression}\n)")).ok()?;
        for (name, time) in [(":published_s", published_us.div_euclid(1_000_000)), (":published_us", published_us)] {
            if let Ok(Some(index)) = statement.parameter_index(name) {
                statement.raw_bind_parameter(index, bound(binding::Value::Integer(time))).ok()?;
            }
        }
        let mut rows = statement.raw_query();
        value(rows.next().ok()??, 0).ok()
    }

    /// The events after the first of these ids, up to the second, that the filter takes, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], with [`DatabaseFault::Statement`] where the filter's expression fails.
    pub fn events_in(
        &self,
        filter: &RowFilter,
        (after, last): (i64, i64),
        at_most: usize,
    ) -> Result<Vec<EventRow>, Error> {
        let sql = format!(
            "SELECT id, subject, published_us, headers, payload FROM events WHERE id > ? AND id <= ? AND {} ORDER BY id LIMIT ?",
            filter.sql()
        );
        self.filtered(filter, |sqlite| {
            let mut statement = sqlite.prepare_cached(&sql)?;
            let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
            let rows = statement.query_map([after, last, limit], |row| {
                Ok(EventRow {
                    id: row.get(0)?,
                    subject: row.get(1)?,
                    published_us: row.get(2)?,
                    headers: row.get(3)?,
                    payload: value(row, 4)?,
                })
            })?;
            rows.collect::<Result<_, _>>()
        })
    }

    /// Reads rows. Where the filter has conditions, an error of SQL is theirs.
    pub(super) fn filtered<T>(
        &self,
        filter: &RowFilter,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        if filter.is_empty() {
            return self.connection.read(read);
        }
        let rows = read(self.connection.sqlite());
        self.connection.unchanged()?;
        rows.map_err(|error| self.statement_error(error, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Editor;

    fn reader() -> (tempfile::TempDir, Reader, RowTable) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let sql = "CREATE TABLE t(subject, at, b); INSERT INTO t VALUES
                   ('a.b', 1000, 'x'), ('a.b.c', 2000, 'y'), ('b', '1970-01-01T00:50:00Z', 'x'), (x'00', 'soon', NULL)";
        Editor::open(&path).expect("opens").run(sql).expect("SQL");
        let reader = Reader::open(&path).expect("opens");
        let table = reader.row_table("t").expect("reads").expect("is there");
        (folder, reader, table)
    }

    #[test]
    fn conditions_choose_rows() {
        let (_folder, reader, table) = reader();
        let numbers = |filter: &RowFilter| -> Vec<i64> {
            let rows = reader.rows_in(&table, filter, (i64::MIN, i64::MAX), 9).expect("reads");
            rows.into_iter().map(|(number, _)| number).collect()
        };
        let all = RowFilter::default;
        let matching = |text: &str| all().subject("subject", &text.parse().expect("a filter"));
        assert_eq!(numbers(&all()), [1, 2, 3, 4]);
        assert_eq!((numbers(&matching("a.*")), numbers(&matching("a.>"))), (vec![1], vec![1, 2]));
        assert_eq!(numbers(&all().since("at", Value::Integer(1500).borrowed(), 1.0)), [2, 3]);
        assert_eq!(numbers(&all().since("at", Value::Real(3000.5).borrowed(), 1.0)), Vec::<i64>::new());
        assert_eq!(
            numbers(&all().since("at", Value::from("1970-01-01T").borrowed(), 1.0)),
            [3, 4],
            "text is compared as text"
        );
        let expressed = matching(">").expression("b = 'x' OR b = 'y' -- either");
        assert_eq!(numbers(&expressed), [1, 2, 3]);
        assert_eq!(reader.number_before_last(&table, &expressed, 2).expect("reads"), 1);
        assert_eq!(reader.rows_in(&table, &all(), (1, 3), 9).expect("reads").len(), 2);
    }

    #[test]
    fn an_expression_is_checked_before_it_is_used() {
        let (_folder, reader, table) = reader();
        let misfit = |sql: &str| reader.misfit(&table, &RowFilter::default().expression(sql)).expect("reads");
        for good in ["b = 'x'", "b IN (SELECT b FROM t) -- )", "b = ')' AND \"at\" > 1 /* ( */", "rowid < 3"] {
            assert_eq!(misfit(good), None, "{good}");
        }
        for (bad, reason) in [
            ("c = 1", "no such column: c"),
            ("b = :b", "the parameter :b has no value here"),
            ("b = ?", "the parameter ? has no value here"),
            ("b = ?2", "the parameter ?2 has no value here"),
            ("b = 1 AND", "syntax error"),
            ("1) OR (1", "a bracket ) has no beginning"),
            ("(1", "a bracket ( has no end"),
            ("$a(')) OR (1')", "a bracket ) has no beginning"),
            ("b = [x", "a bracket [ has no end"),
            ("1; DELETE FROM t", "it has a semicolon"),
            ("b = 'x", "a quote has no end"),
            ("1 /* x", "a comment has no end"),
            ("count(*) > 1", "misuse of aggregate"),
            (" ", "it is empty"),
        ] {
            let refused = misfit(bad).unwrap_or_else(|| panic!("{bad}"));
            assert!(refused.contains(reason), "{bad}: {refused}");
        }
        assert_eq!(misfit("b = 'x'\n  AND nope = 1").as_deref(), Some("no such column: nope (at 2:7, \"nope = 1\")"));
    }

    #[test]
    fn an_expression_of_a_route_has_a_value_at_each_time() {
        let (_folder, reader, _) = reader();
        let at = |sql: &str| reader.value_at(sql, 1_500_000_000_250_000);
        assert_eq!(at(":published_s"), Some(Value::Integer(1_500_000_000)));
        assert_eq!(at("CASE WHEN :at IS NULL THEN :published_us / 1e6 END"), Some(Value::Real(1_500_000_000.25)));
        assert_eq!(at("datetime(:published_s, 'unixepoch')"), Some(Value::from("2017-07-14 02:40:00")));
        assert_eq!((at(":other"), at("nope(")), (Some(Value::Null), None));
    }
}
