//! Which dead letters an operation applies to.

use std::ops::ControlFlow;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use crate::subject::Filter;

/// Selects the dead letters that meet every condition. [`Selection::default()`] selects all of them, from the oldest to the newest.
///
/// ```
/// use catchment::dead_letters::Selection;
///
/// let mut selection = Selection::default();
/// selection.route = Some("chat".into());
/// selection.limit = Some(10);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Selection {
    /// With one of these numbers; an empty list selects no letter. `None`: any number.
    pub ids: Option<Vec<i64>>,
    /// That last failed at this time or later, in microseconds since 1970.
    pub since_us: Option<i64>,
    /// That last failed before this time, in microseconds since 1970.
    pub until_us: Option<i64>,
    /// With a subject that this matches.
    pub subject: Option<Filter>,
    /// With this text in the error. ASCII letters match in upper and lower case.
    pub error: Option<String>,
    /// Of the route with this name.
    pub route: Option<String>,
    /// At most this many.
    pub limit: Option<u64>,
    /// From the newest to the oldest; `limit` then counts from the newest.
    pub newest_first: bool,
}

impl Selection {
    /// Selects the letters with these numbers. An empty list selects no letter.
    pub fn with_ids(ids: impl IntoIterator<Item = i64>) -> Self {
        Self { ids: Some(ids.into_iter().collect()), ..Self::default() }
    }
}

/// The position of a scan through the letters. The scan ends with the last letter that existed when it began, even if more are
/// added meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// The first and the last number that are left.
    from: i64,
    to: i64,
    /// How many letters may still be visited.
    left: u64,
}

impl Cursor {
    /// The position before the first letter.
    pub(super) fn start(connection: &Connection, selection: &Selection) -> rusqlite::Result<Self> {
        let sql = "SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM catchment_dead_letters";
        connection.query_row(sql, [], |row| {
            Ok(Self { from: row.get(0)?, to: row.get(1)?, left: selection.limit.unwrap_or(u64::MAX) })
        })
    }

    /// Goes back: this letter and those after it, so many in all, are visited again.
    pub(super) fn go_back(&mut self, selection: &Selection, id: i64, letters: u64) {
        if selection.newest_first {
            self.to = id;
        } else {
            self.from = id;
        }
        self.left = self.left.saturating_add(letters);
    }
}

impl Selection {
    /// Calls `visit` for the letters from this cursor on, until it breaks. `columns` are those of its rows, the first two `id` and
    /// `subject`. Moves the cursor behind the last visited letter.
    pub(super) fn scan(
        &self,
        connection: &Connection,
        columns: &str,
        cursor: &mut Cursor,
        mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<()> {
        let (conditions, values) = self.conditions(*cursor);
        let order = if self.newest_first { "DESC" } else { "ASC" };
        let sql = format!("SELECT {columns} FROM catchment_dead_letters WHERE {conditions} ORDER BY id {order}");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while cursor.left > 0 {
            let Some(row) = rows.next()? else { break };
            let id: i64 = row.get(0)?;
            if self.newest_first {
                cursor.to = id - 1;
            } else {
                cursor.from = id + 1;
            }
            if self.subject.as_ref().is_some_and(|filter| row.get_ref(1).is_ok_and(|subject| !matches(filter, subject)))
            {
                continue;
            }
            cursor.left -= 1;
            if visit(row)?.is_break() {
                return Ok(());
            }
        }
        cursor.left = 0;
        Ok(())
    }

    /// The conditions that SQL can check.
    fn conditions(&self, cursor: Cursor) -> (String, Vec<Value>) {
        let mut conditions = String::from("id BETWEEN ? AND ?");
        let mut values = vec![Value::Integer(cursor.from), Value::Integer(cursor.to)];
        let mut add = |condition: &str, value: Value| {
            conditions.push_str(" AND ");
            conditions.push_str(condition);
            values.push(value);
        };
        if let Some(ids) = &self.ids {
            add("id IN (SELECT value FROM json_each(?))", Value::Text(format!("{ids:?}")));
        }
        if let Some(since_us) = self.since_us {
            add("recorded_us >= ?", Value::Integer(since_us));
        }
        if let Some(until_us) = self.until_us {
            add("recorded_us < ?", Value::Integer(until_us));
        }
        if let Some(error) = &self.error {
            add("instr(lower(error), lower(?)) > 0", Value::Text(error.clone()));
        }
        if let Some(route) = &self.route {
            add("route = ?", Value::Text(route.clone()));
        }
        (conditions, values)
    }
}

fn matches(filter: &Filter, subject: rusqlite::types::ValueRef<'_>) -> bool {
    subject.as_str().is_ok_and(|subject| filter.matches(subject))
}
