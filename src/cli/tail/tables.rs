//! Which tables are followed, and how far each of them is read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::closest::did_you_mean;
use anyhow::bail;

use super::lines::Rows;
use crate::cli::values::printable;
use crate::config::{Config, Unmatched};
use crate::error::Error;
use crate::hint;
use crate::maintenance::TableFilters;
use crate::store::{Reader, RowFilter, RowTable};

/// The table of events that no route takes.
pub const EVENTS: &str = "events";

/// Rows read at a time. A payload may have a megabyte.
const PAGE: usize = 100;

/// The tables to follow, and which of their rows.
pub struct Selection {
    tables: Tables,
    filters: TableFilters,
    /// Tables that were left out, and a log line says so.
    logged: RefCell<BTreeSet<String>>,
}

enum Tables {
    /// Those with these names.
    Named(Vec<String>),
    /// Those to which these statements add rows, and `events` if `events` is set.
    OfRoutes { statements: Vec<String>, events: bool },
}

/// What a database has of the selected tables.
#[derive(Default)]
pub struct Found {
    /// The tables, each with the conditions for its rows.
    pub tables: Vec<(RowTable, RowFilter)>,
    /// The names of those that are missing.
    pub missing: Vec<String>,
    /// Why the conditions do not fit other tables, in one line each.
    pub misfits: Vec<String>,
}

impl Found {
    /// Whether there are tables, and the conditions fit none of them.
    pub fn is_unfit(&self) -> bool {
        self.tables.is_empty() && !self.misfits.is_empty()
    }

    /// Refuses conditions that fit none of the tables.
    ///
    /// # Errors
    ///
    /// Says why they do not fit the first table.
    pub fn must_be_fit(&self) -> anyhow::Result<()> {
        match self.misfits.first() {
            Some(misfit) if self.tables.is_empty() => bail!("{misfit}"),
            _ => Ok(()),
        }
    }
}

impl Selection {
    /// The tables that are named, else those of the routes.
    pub fn new(names: Vec<String>, filters: TableFilters, config: &Config) -> Self {
        let statements: Vec<String> = config.routes.iter().flat_map(|route| route.sql.iter().cloned()).collect();
        let events = statements.is_empty() || config.unmatched == Unmatched::Store;
        let tables = if names.is_empty() { Tables::OfRoutes { statements, events } } else { Tables::Named(names) };
        Self { tables, filters, logged: RefCell::default() }
    }

    /// Whether only table `events` is followed because there are no routes.
    pub fn is_plain(&self) -> bool {
        matches!(&self.tables, Tables::OfRoutes { statements, .. } if statements.is_empty())
    }

    /// The tables that exist, each before its last `back` rows.
    ///
    /// # Errors
    ///
    /// One of the named tables is missing or has no row numbers, or the conditions do not fit.
    pub fn existing(&self, reader: &Reader, back: usize) -> anyhow::Result<Vec<FollowedTable>> {
        let found = self.found(reader)?;
        let Found { tables, missing, misfits } = &found;
        // Without routes it is table events that is missing.
        let is_none = tables.is_empty() && missing.is_empty() && misfits.is_empty();
        let events = [EVENTS.to_owned()];
        must_be_none(reader, if is_none { &events } else { missing })?;
        found.must_be_fit()?;
        if self.is_plain() {
            hint_at_other_tables(reader)?;
        }
        found.tables.into_iter().map(|(table, filter)| FollowedTable::new(reader, table, filter, back)).collect()
    }

    /// The tables that exist. Tables that are not named and do not fit the conditions are left out.
    ///
    /// # Errors
    ///
    /// The database cannot be read, or the conditions do not fit a table that is named.
    pub fn found(&self, reader: &Reader) -> anyhow::Result<Found> {
        let (mut tables, mut found): (Vec<RowTable>, _) = (Vec::new(), Found::default());
        match &self.tables {
            Tables::Named(names) => {
                for name in names {
                    match reader.row_table(name)? {
                        Some(table) if tables.contains(&table) => {}
                        Some(table) => tables.push(table),
                        None => found.missing.push(name.clone()),
                    }
                }
            }
            Tables::OfRoutes { statements, events } => {
                let names = reader.inserted_tables(statements.iter().map(String::as_str))?;
                for name in names.iter().filter(|name| *name != EVENTS) {
                    // Tables without row numbers cannot be followed. An index repeats what is in the other tables.
                    tables.extend(reader.row_table(name).ok().flatten().filter(|table| !table.is_virtual));
                }
                // Routes may insert into it too.
                if *events || names.iter().any(|name| name == EVENTS) {
                    tables.extend(reader.row_table(EVENTS)?);
                }
            }
        }
        for table in tables {
            match (self.filters.of(reader, &table)?, &self.tables) {
                (Ok(filter), _) => found.tables.push((table, filter)),
                (Err(misfit), Tables::Named(_)) => bail!(misfit),
                (Err(misfit), Tables::OfRoutes { .. }) => found.misfits.push(misfit),
            }
        }
        if !found.tables.is_empty() {
            for misfit in &found.misfits {
                if self.logged.borrow_mut().insert(misfit.clone()) {
                    log::info!("not followed: {misfit}");
                }
            }
        }
        Ok(found)
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
        Some(events) if reader.number_before_last(&events, &RowFilter::default(), 0)? == i64::MIN => {}
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
    /// Which of its rows are printed.
    filter: RowFilter,
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
    /// The position before the last `back` rows that the filter takes.
    pub fn new(reader: &Reader, table: RowTable, filter: RowFilter, back: usize) -> anyhow::Result<Self> {
        let after = match back {
            // What the filter does not take is skipped while the rows are read.
            usize::MAX => i64::MIN,
            back => reader.number_before_last(&table, &filter, back)?,
        };
        let position = if table.name == EVENTS && has_event_columns(&table) {
            let after = after.max(0);
            let published_us = reader.published_us(after)?;
            Position::Events { after, published_us, printed_us: published_us }
        } else {
            Position::Other { after }
        };
        Ok(Self { table: table.into(), filter, position, has_warned: false })
    }

    /// The position before the first row of the table.
    pub fn from_its_start(table: RowTable, filter: RowFilter) -> Self {
        let position = if table.name == EVENTS && has_event_columns(&table) {
            Position::Events { after: 0, published_us: None, printed_us: None }
        } else {
            Position::Other { after: i64::MIN }
        };
        Self { table: table.into(), filter, position, has_warned: false }
    }

    /// The table was changed.
    pub fn replace(&mut self, table: RowTable, filter: RowFilter) {
        (self.table, self.filter) = (Arc::new(table), filter);
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
                let last = reader.id_before_last(0)?;
                let events = reader.events_in(&self.filter, (*after, last), at_most)?;
                match events.last() {
                    Some(event) if events.len() == at_most || event.id == last => {
                        (*after, *published_us) = (event.id, Some(event.published_us));
                        *printed_us = *published_us;
                    }
                    // The filter took none of the rows up to this one, so they need not be read again.
                    _ if last > *after => {
                        (*after, *published_us) = (last, reader.published_us(last)?);
                        *printed_us = published_us.or(*printed_us);
                    }
                    _ => {}
                }
                Ok(Rows::Events(events))
            }
            Position::Other { after } => {
                let last = reader.number_before_last(&self.table, &RowFilter::default(), 0)?;
                // The last rows were deleted, and SQLite uses their numbers again.
                *after = (*after).min(last);
                let numbered = reader.rows_in(&self.table, &self.filter, (*after, last), at_most)?;
                *after = numbered.last().filter(|_| numbered.len() == at_most).map_or(last, |(number, _)| *number);
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
