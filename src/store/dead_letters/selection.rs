//! Which dead letters are meant.

use std::ops::ControlFlow;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use crate::subject::Filter;

/// Dead letters that meet every condition: `Selection::default()` means all of them, from the oldest to the newest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// These numbers; any where there are none.
    pub ids: Vec<i64>,
    /// Last tried at this time or later, in microseconds since 1970.
    pub since_us: Option<i64>,
    /// Last tried before this time, in microseconds since 1970.
    pub until_us: Option<i64>,
    /// With a subject that this takes.
    pub subject: Option<Filter>,
    /// With this in the error's text; letters of ASCII are taken as equal in upper and lower case.
    pub error: Option<String>,
    /// Of the route with this name.
    pub route: Option<String>,
    /// At most this many.
    pub limit: Option<u64>,
    /// From the newest to the oldest; `limit` counts from there.
    pub newest_first: bool,
}

impl Selection {
    /// Those with these numbers.
    pub fn of(ids: impl IntoIterator<Item = i64>) -> Self {
        Self { ids: ids.into_iter().collect(), ..Self::default() }
    }
}

/// Where a walk through the letters stands. The walk ends with the last letter that was there when it began, however many are
/// added meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The numbers that are left: from the one, to the other.
    from: i64,
    to: i64,
    left: u64,
}

impl Place {
    /// Before the first letter.
    pub(super) fn start(connection: &Connection, selection: &Selection) -> rusqlite::Result<Self> {
        let sql = "SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM catchment_dead_letters";
        connection.query_row(sql, [], |row| {
            Ok(Self { from: row.get(0)?, to: row.get(1)?, left: selection.limit.unwrap_or(u64::MAX) })
        })
    }
}

impl Selection {
    /// Shows the letters from this place on, until `visit` has enough. `columns` are those of the rows shown, the first two
    /// `id` and `subject`. The place is then behind the last that was shown.
    pub(super) fn walk(
        &self,
        connection: &Connection,
        columns: &str,
        place: &mut Place,
        mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<()> {
        let (conditions, values) = self.conditions(*place);
        let order = if self.newest_first { "DESC" } else { "ASC" };
        let sql = format!("SELECT {columns} FROM catchment_dead_letters WHERE {conditions} ORDER BY id {order}");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while place.left > 0 {
            let Some(row) = rows.next()? else { break };
            let id: i64 = row.get(0)?;
            if self.newest_first {
                place.to = id - 1;
            } else {
                place.from = id + 1;
            }
            if self.subject.as_ref().is_some_and(|filter| row.get_ref(1).is_ok_and(|subject| !takes(filter, subject))) {
                continue;
            }
            place.left -= 1;
            if visit(row)?.is_break() {
                return Ok(());
            }
        }
        place.left = 0;
        Ok(())
    }

    /// What can be asked in SQL.
    fn conditions(&self, place: Place) -> (String, Vec<Value>) {
        let mut conditions = String::from("id BETWEEN ? AND ?");
        let mut values = vec![Value::Integer(place.from), Value::Integer(place.to)];
        let mut add = |condition: &str, value: Value| {
            conditions.push_str(" AND ");
            conditions.push_str(condition);
            values.push(value);
        };
        if !self.ids.is_empty() {
            add("id IN (SELECT value FROM json_each(?))", Value::Text(format!("{:?}", self.ids)));
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

fn takes(filter: &Filter, subject: rusqlite::types::ValueRef<'_>) -> bool {
    subject.as_str().is_ok_and(|subject| filter.matches(subject))
}
