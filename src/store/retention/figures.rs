//! What retention has done.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// What `[retention]` has deleted since the collector's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionStatus {
    /// Deleted rows of each table, by its name in the settings.
    pub tables: BTreeMap<String, u64>,
    /// How many rows were added to an archive before they were deleted.
    pub archived_rows: u64,
    /// Bytes of pages that have become free: in the file they are used again for new rows.
    pub freed_bytes: u64,
    /// Bytes of pages that were given back to the file system: the file is smaller by so much.
    pub returned_bytes: u64,
    /// Transactions that deleted rows or gave pages back.
    pub transactions: u64,
    /// How long the longest of these transactions took, its commit included. A batch waits at most so long for one.
    pub longest_transaction: Duration,
}

impl RetentionStatus {
    /// Deleted rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().sum()
    }
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub struct RetentionFigures(Mutex<RetentionStatus>);

impl RetentionFigures {
    /// The figures now.
    #[must_use]
    pub fn now(&self) -> RetentionStatus {
        self.0.lock().clone()
    }

    pub(super) fn add_rows(&self, table: &str, rows: u64) {
        let mut status = self.0.lock();
        match status.tables.get_mut(table) {
            Some(count) => *count += rows,
            None => _ = status.tables.insert(table.to_owned(), rows),
        }
    }

    pub(super) fn add_archived(&self, rows: u64) {
        self.0.lock().archived_rows += rows;
    }

    pub(super) fn add_transaction(&self, took: Duration, freed_bytes: u64, returned_bytes: u64) {
        let mut status = self.0.lock();
        status.transactions += 1;
        status.freed_bytes += freed_bytes;
        status.returned_bytes += returned_bytes;
        status.longest_transaction = status.longest_transaction.max(took);
    }
}
