//! A rule and the table that it is for: which columns, which index, which SQL.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::closest::did_you_mean;
use crate::config::RetentionRule;
use crate::error::Error;
use crate::store::reader::rowid_name;
use crate::store::row_filter;
use crate::store::schema::{is_ours, quoted, tables};
use crate::store::sqlite_error::database_error;

/// The name of the dead letters in the settings, and of their table.
const DEAD_LETTERS: [&str; 2] = ["dead_letters", "catchment_dead_letters"];

/// A rule of a table.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) rule: RetentionRule,
    /// The table as the settings name it.
    pub(super) name: String,
    /// The table as the database spells it.
    pub(super) table: String,
    /// All columns.
    pub(super) columns: Vec<String>,
    /// The columns that identify a row: its number, or the primary key of a table without numbers. In quotes.
    key: Vec<String>,
    /// The number of its rows, if they have one.
    pub(super) rowid: Option<&'static str>,
    pub(super) time: Option<Time>,
    /// Which rows the rule is for, in SQL.
    condition: String,
}

/// The column with the time of a row.
#[derive(Clone, Debug)]
pub(super) struct Time {
    pub(super) column: String,
    pub(super) is_indexed: bool,
    /// The column is catchment's own: microseconds, and rows are added in the order of their times.
    pub(super) is_own: bool,
}

impl Target {
    /// Finds the table and what the rule names.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the setting that does not fit the database.
    pub(super) fn resolve(
        connection: &Connection,
        path: &Path,
        name: &str,
        rule: &RetentionRule,
    ) -> Result<Self, Error> {
        let key = format!("retention.{name}");
        let on_error = |e| database_error(path, e);
        let is_dead_letters = DEAD_LETTERS.iter().any(|own| name.eq_ignore_ascii_case(own));
        let wanted = if is_dead_letters { DEAD_LETTERS[1] } else { name };
        if !is_dead_letters && (is_ours(wanted) || wanted.to_ascii_lowercase().starts_with("sqlite_")) {
            let error = Error::config(key, "is no table whose rows may be deleted");
            return Err(error.with_remedy("name events, dead_letters or a table of your own"));
        }
        let Some((table, kind, is_without_rowid)) = find(connection, wanted).map_err(on_error)? else {
            let mut known = tables(connection).map_err(on_error)?;
            known.retain(|table| !is_ours(table));
            known.push(DEAD_LETTERS[0].to_owned());
            let meant = did_you_mean(wanted, known.iter().map(String::as_str));
            return Err(Error::config(key, format!("the database has no table {wanted}{meant}")));
        };
        if kind != "table" {
            let error = Error::config(key, format!("is a {kind}, which has no rows of its own"));
            return Err(error.with_remedy("name the table that has the rows"));
        }
        let columns = columns(connection, &table).map_err(on_error)?;
        let (rowid, row_key) = if is_without_rowid {
            (None, primary_key(connection, &table).map_err(on_error)?)
        } else {
            let Some(rowid) = rowid_name(&columns) else {
                let detail = "has columns rowid, _rowid_ and oid: its rows' numbers have no name";
                return Err(Error::config(key, detail).with_remedy("rename one of them"));
            };
            (Some(rowid), vec![rowid.to_owned()])
        };
        let time = time(connection, path, name, &table, &columns, rule)?;
        let condition = condition(connection, path, &key, &table, rule)?;
        Ok(Self { rule: rule.clone(), name: name.to_owned(), table, columns, key: row_key, rowid, time, condition })
    }

    /// The statement that makes the index which the rule needs, if it is missing.
    pub(super) fn missing_index(&self) -> Option<String> {
        let time = self.time.as_ref().filter(|time| !time.is_indexed && !time.is_own)?;
        let index = quoted(&format!("{}_by_{}", self.table, time.column));
        Some(format!("CREATE INDEX {index} ON {}({});", quoted(&self.table), quoted(&time.column)))
    }

    /// How many columns identify a row.
    pub(super) fn key_length(&self) -> usize {
        self.key.len()
    }

    /// The number of rows.
    pub(super) fn count_sql(&self) -> String {
        format!("SELECT count(*) FROM {} WHERE {}", quoted(&self.table), self.condition)
    }

    /// The number of rows that are too old; parameters are the range of their times.
    pub(super) fn count_old_sql(&self, column: &str) -> String {
        let column = quoted(column);
        format!(
            "SELECT count(*) FROM {} WHERE {column} >= ?1 AND {column} < ?2 AND {}",
            quoted(&self.table),
            self.condition
        )
    }

    /// Some of the newest and of the oldest times: so many of each. Reads no more entries, if there is an index or the rows have numbers.
    pub(super) fn samples_sql(&self, time: &Time, count: usize) -> String {
        let (table, column) = (quoted(&self.table), quoted(&time.column));
        let order = match self.rowid {
            Some(rowid) if !time.is_indexed => rowid,
            _ => &column,
        };
        let some = |direction: &str| {
            format!(
                "SELECT * FROM (SELECT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY {order} {direction} LIMIT {count})"
            )
        };
        format!("{} UNION ALL {}", some("DESC"), some("ASC"))
    }

    /// The keys of the oldest rows; the parameter is their number.
    pub(super) fn oldest_sql(&self) -> String {
        let key = self.key.join(", ");
        let order = self.time.as_ref().map_or_else(|| key.clone(), |time| quoted(&time.column));
        format!("SELECT {key} FROM {} WHERE {} ORDER BY {order} LIMIT ?1", quoted(&self.table), self.condition)
    }

    /// The keys of rows that are too old; parameters are the range of their times and the number of rows.
    pub(super) fn old_sql(&self, column: &str) -> String {
        let column = quoted(column);
        format!(
            "SELECT {} FROM {} WHERE {column} >= ?1 AND {column} < ?2 AND {} ORDER BY {column} LIMIT ?3",
            self.key.join(", "),
            quoted(&self.table),
            self.condition
        )
    }

    /// The rows with numbers above `?1`, up to `?2`: each number, and whether the row is older than `?3` and the rule is for it.
    pub(super) fn window_sql(&self, rowid: &str, column: &str) -> String {
        let column = quoted(column);
        format!(
            "SELECT {rowid}, {column} < ?3, {column} < ?3 AND {} FROM {} WHERE {rowid} > ?1 AND {rowid} <= ?2 ORDER BY {rowid}",
            self.condition,
            quoted(&self.table)
        )
    }

    /// All columns of the row with a key.
    pub(super) fn row_sql(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| quoted(column)).collect();
        format!("SELECT {} FROM {} WHERE {}", columns.join(", "), quoted(&self.table), self.has_key())
    }

    /// Deletes the row with a key, if the rule is still for it. `range`: and if its time is still in a range, whose two values
    /// follow the key. `same`: and if it has still the values that follow, one for each column.
    pub(super) fn delete_sql(&self, range: bool, same: bool) -> String {
        let mut numbers = self.key.len() + 1..;
        let mut next = || numbers.next().unwrap_or_default();
        let mut conditions = vec![self.has_key()];
        if let (true, Some(time)) = (range, &self.time) {
            let column = quoted(&time.column);
            conditions.push(format!("{column} >= ?{} AND {column} < ?{}", next(), next()));
        }
        if same {
            let is_same = |column| format!("{} COLLATE BINARY IS ?{}", quoted(column), next());
            conditions.extend(self.columns.iter().map(String::as_str).map(is_same));
        }
        conditions.push(self.condition.clone());
        format!("DELETE FROM {} WHERE {}", quoted(&self.table), conditions.join(" AND "))
    }

    fn has_key(&self) -> String {
        let parts = self.key.iter().zip(1..).map(|(column, number)| format!("{column} = ?{number}"));
        parts.collect::<Vec<_>>().join(" AND ")
    }
}

fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<(String, String, bool)>> {
    let sql = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE";
    let row = |row: &rusqlite::Row<'_>| {
        let kind: String = row.get(1)?;
        let kind = if kind == "virtual" { "virtual table".to_owned() } else { kind };
        Ok((row.get(0)?, kind, row.get(2)?))
    };
    connection.query_row(sql, [name], row).optional()
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid";
    connection.prepare(sql)?.query_map([table], |row| row.get(0))?.collect()
}

fn primary_key(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk";
    let names =
        connection.prepare(sql)?.query_map([table], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(names.iter().map(|name| quoted(name)).collect())
}

/// The column with the time: that of the rule, or catchment's own.
fn time(
    connection: &Connection,
    path: &Path,
    name: &str,
    table: &str,
    columns: &[String],
    rule: &RetentionRule,
) -> Result<Option<Time>, Error> {
    let own = match table {
        "events" => Some("published_us"),
        table if table == DEAD_LETTERS[1] => Some("recorded_us"),
        _ => None,
    };
    let wanted = match (&rule.column, own) {
        (Some(column), _) => column.as_str(),
        (None, Some(own)) if rule.keep.is_some() => own,
        (None, _) if rule.keep.is_none() => return Ok(None),
        (None, _) => {
            let error = Error::config(format!("retention.{name}"), "keep needs the column with the time of a row");
            let times = columns.iter().find(|column| ["timestamp", "time", "at"].contains(&column.as_str()));
            let example = times.map_or("timestamp", String::as_str);
            return Err(error.with_remedy(format!("add column = {example:?}")));
        }
    };
    let Some(column) = columns.iter().find(|column| column.eq_ignore_ascii_case(wanted)) else {
        let meant = did_you_mean(wanted, columns.iter().map(String::as_str));
        let detail = format!("table {table} has no column {wanted}{meant}");
        return Err(Error::config(format!("retention.{name}.column"), detail));
    };
    let is_own = own == Some(column.as_str());
    let is_indexed = is_indexed(connection, table, column).map_err(|e| database_error(path, e))?;
    Ok(Some(Time { column: column.clone(), is_indexed, is_own }))
}

/// Whether a whole index begins with this column, or it is the number of the rows.
fn is_indexed(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (
            SELECT 1 FROM pragma_index_list(?1) AS list, pragma_index_info(list.name) AS info
            WHERE NOT list.partial AND info.seqno = 0 AND info.name = ?2 COLLATE NOCASE
        ) OR (
            SELECT count(*) = 1 AND max(name = ?2 COLLATE NOCASE AND type = 'INTEGER' COLLATE NOCASE)
            FROM pragma_table_info(?1) WHERE pk > 0
        )";
    connection.query_row(sql, [table, column], |row| Ok(row.get::<_, Option<bool>>(0)?.unwrap_or(false)))
}

/// The condition of the rule in SQL, between brackets.
fn condition(
    connection: &Connection,
    path: &Path,
    key: &str,
    table: &str,
    rule: &RetentionRule,
) -> Result<String, Error> {
    let Some(expression) = &rule.condition else { return Ok("true".into()) };
    match row_filter::misfit(connection, table, expression) {
        // A line end: the expression may end with a comment.
        Ok(None) => Ok(format!("(\n{expression}\n)")),
        Ok(Some(reason)) => Err(Error::config(format!("{key}.where"), reason)),
        Err(error) => Err(database_error(path, error)),
    }
}
