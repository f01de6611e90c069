//! Which tables are followed, and how far each of them is read.

use std::sync::Arc;

use crate::closest::did_you_mean;
use anyhow::bail;

use super::lines::Rows;
use crate::cli::values::printable;
use crate::config::{Config, Unmatched};
use crate::error::Error;
use crate::hint;
use crate::store::{Reader, RowTable};

/// The table of events that no route takes.
pub const EVENTS: &str = "events";

/// Rows read at a time. A payload may have a megabyte.
const PAGE: usize = 100;

/// The tables to follow.
pub enum Selection {
    /// Those with these names.
    Named(Vec<String>),
    /// Those to which these statements add rows, and `events` if `events` is set.
    OfRoutes { statements: Vec<String>, events: bool },
}

impl Selection {
    /// The tables that are named, else those of the routes.
    pub fn new(names: Vec<String>, config: &Config) -> Self {
        if !names.is_empty() {
            return Self::Named(names);
        }
        let statements: Vec<String> = config.routes.iter().flat_map(|route| route.sql.iter().cloned()).collect();
        let events = statements.is_empty() || config.unmatched == Unmatched::Store;
        Self::OfRoutes { statements, events }
    }

    /// Whether only table `events` is followed because there are no routes.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::OfRoutes { statements, .. } if statements.is_empty())
    }

    /// The tables that exist, each before its last `back` rows.
    ///
    /// # Errors
    ///
    /// One of the named tables is missing or has no row numbers.
    pub fn existing(&self, reader: &Reader, back: usize) -> anyhow::Result<Vec<FollowedTable>> {
        let (tables, missing) = self.found(reader)?;
        // Without routes it is table events that is missing.
        let missing = if tables.is_empty() && missing.is_empty() { vec![EVENTS.to_owned()] } else { missing };
        must_be_none(reader, &missing)?;
        if self.is_plain() {
            hint_at_other_tables(reader)?;
        }
        tables.into_iter().map(|table| FollowedTable::new(reader, table, back)).collect()
    }

    /// The tables that exist, and the names of those that do not.
    pub fn found(&self, reader: &Reader) -> Result<(Vec<RowTable>, Vec<String>), Error> {
        let (mut found, mut missing): (Vec<RowTable>, _) = (Vec::new(), Vec::new());
        match self {
            Self::Named(names) => {
                for name in names {
                    match reader.row_table(name)? {
                        Some(table) if found.contains(&table) => {}
                        Some(table) => found.push(table),
                        None => missing.push(name.clone()),
                    }
                }
            }
            Self::OfRoutes { statements, events } => {
                let names = reader.inserted_tables(statements.iter().map(String::as_str))?;
                for name in names.iter().filter(|name| *name != EVENTS) {
                    // Tables without row numbers cannot be followed. An index repeats what is in the other tables.
                    found.extend(reader.row_table(name).ok().flatten().filter(|table| !table.is_virtual));
                }
                // Routes may insert into it too.
                if *events || names.iter().any(|name| name == EVENTS) {
                    found.extend(reader.row_table(EVENTS)?);
                }
            }
        }
        Ok((found, missing))
    }
}

/// Refuses a database in which tables are missing.
///
/// # Errors
///
/// Names the missing tables and those that are there.
pub fn must_be_none(reader: &Reader, missing: &[String]) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let all = reader.table_names()?;
    let meant = match missing {
        [one] => did_you_mean(one, all.iter().map(String::as_str)),
        _ => String::new(),
    };
    if !meant.is_empty() {
        bail!("there is no table {}{}", printable(&missing.join(", ")), printable(&meant));
    }
    let (missing, all) = (missing.join(", "), all.join(", "));
    let all = if all.is_empty() { "there are no tables".to_owned() } else { format!("the tables are {all}") };
    bail!("there is no table {}; {}", printable(&missing), printable(&all))
}

/// Without settings, the routes of a database are not known. So an empty table `events` is explained.
pub fn hint_at_other_tables(reader: &Reader) -> Result<(), Error> {
    match reader.row_table(EVENTS)? {
        Some(events) if reader.number_before_last(&events, 0)? == i64::MIN => {}
        _ => return Ok(()),
    }
    let others: Vec<String> = reader.table_names()?.into_iter().filter(|name| name != EVENTS).collect();
    if !others.is_empty() {
        log::info!(
            "table events is empty, and no routes are known; follow another table: {}, with one of {}",
            hint::command("tail TABLE"),
            others.join(", ")
        );
    }
    Ok(())
}

/// A table, and the last row that was read of it.
pub struct FollowedTable {
    pub table: Arc<RowTable>,
    position: Position,
    has_warned: bool,
}

enum Position {
    Events {
        after: i64,
        /// When the event with id `after` was published, if it exists.
        published_us: Option<i64>,
        /// When the last event that was printed was published.
        printed_us: Option<i64>,
    },
    Other {
        after: i64,
    },
}

impl FollowedTable {
    /// The position before the last `back` rows.
    pub fn new(reader: &Reader, table: RowTable, back: usize) -> anyhow::Result<Self> {
        let position = if table.name == EVENTS && has_event_columns(&table) {
            let after = reader.id_before_last(back)?;
            let published_us = reader.published_us(after)?;
            Position::Events { after, published_us, printed_us: published_us }
        } else {
            Position::Other { after: reader.number_before_last(&table, back)? }
        };
        Ok(Self { table: table.into(), position, has_warned: false })
    }

    /// The position before the first row of the table.
    pub fn from_its_start(table: RowTable) -> Self {
        let position = if table.name == EVENTS && has_event_columns(&table) {
            Position::Events { after: 0, published_us: None, printed_us: None }
        } else {
            Position::Other { after: i64::MIN }
        };
        Self { table: table.into(), position, has_warned: false }
    }

    /// Warns once if the last row has the largest number that there is. SQLite gives later rows unused numbers at random
    /// (<https://sqlite.org/autoinc.html>), so they cannot be recognised.
    pub fn warn_if_numbers_end(&mut self) {
        let (Position::Events { after, .. } | Position::Other { after }) = self.position;
        if after == i64::MAX && !self.has_warned {
            self.has_warned = true;
            log::warn!(
                "table {}: a row has the largest number that there is, so new rows get random numbers and are not printed; read them with \
                 {}",
                printable(&self.table.name),
                hint::command("sql")
            );
        }
    }

    /// The next rows, at most so many.
    pub fn next(&mut self, reader: &Reader, at_most: usize) -> Result<Rows, Error> {
        let at_most = at_most.min(PAGE);
        match &mut self.position {
            Position::Events { after, published_us, printed_us } => {
                if ids_restarted(reader, *after, *published_us)? {
                    // Earlier rows that remain were published no later than the last printed one.
                    *after = printed_us.map_or(Ok(0), |printed| reader.id_before_later(printed))?;
                    *published_us = reader.published_us(*after)?;
                }
                let events = reader.events_after(*after, at_most)?;
                if let Some(last) = events.last() {
                    (*after, *published_us) = (last.id, Some(last.published_us));
                    *printed_us = *published_us;
                }
                Ok(Rows::Events(events))
            }
            Position::Other { after } => {
                // The last rows were deleted, and SQLite uses their numbers again.
                *after = (*after).min(reader.number_before_last(&self.table, 0)?);
                let numbered = reader.rows_after(&self.table, *after, at_most)?;
                if let Some((last, _)) = numbered.last() {
                    *after = *last;
                }
                let rows = numbered.into_iter().map(|(_, row)| row).collect();
                Ok(Rows::Other { table: Arc::clone(&self.table), rows })
            }
        }
    }
}

/// Whether this is the table that catchment makes, and not one of the user with the same name.
fn has_event_columns(table: &RowTable) -> bool {
    ["id", "subject", "published_us", "headers", "payload"]
        .iter()
        .all(|name| table.columns.iter().any(|column| column == name))
}

/// Whether ids are used again, as happens after the last rows were deleted. There may be new rows since then.
fn ids_restarted(reader: &Reader, after: i64, known_us: Option<i64>) -> Result<bool, Error> {
    Ok(match reader.published_us(after)? {
        Some(published_us) => known_us != Some(published_us),
        // Or the row was deleted, and there are later ones.
        None => reader.id_before_last(0)? < after,
    })
}
