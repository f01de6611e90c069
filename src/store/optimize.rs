//! Brings SQLite's statistics about tables and indexes up to date, so that it chooses the right indexes
//! (<https://sqlite.org/pragma.html#pragma_optimize>).

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::checkpointer::Checkpointer;
use super::commit_turn::CommitTurn;
use super::database_file::DatabaseFile;
use super::pool::ConnectionManager;
use super::sqlite_error::database_error;
use super::statement_limit::StatementLimit;
use super::wal_frames;
use crate::error::Error;
use crate::pipeline::Signal;

/// For all tables: only list the statements that are due.
const LIST: &str = "PRAGMA optimize(0x10003)";

/// How many entries of an index are read, from the first try on. A try that takes too long is followed by the next.
const ENTRIES: [u32; 3] = [400, 100, 20];

/// How long commits may wait for one statement.
const TOO_LONG: Duration = Duration::from_millis(30);

/// Brings the statistics of a database up to date.
#[derive(Debug)]
pub struct Optimizer {
    manager: ConnectionManager,
    checkpointer: Arc<Checkpointer>,
    turn: CommitTurn,
    file: DatabaseFile,
}

impl Optimizer {
    pub(super) fn new(
        manager: ConnectionManager,
        checkpointer: Arc<Checkpointer>,
        turn: CommitTurn,
        file: DatabaseFile,
    ) -> Self {
        Self { manager, checkpointer, turn, file }
    }

    /// Analyses the tables for which that is due, one at a time; commits wait a few milliseconds for each at most. A table for which that
    /// is not enough is left as it is. Returns how many were analysed.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn run(&self, stop: &Signal) -> Result<u64, Error> {
        self.try_to_run(stop).map_err(|e| database_error(self.file.path(), e))
    }

    fn try_to_run(&self, stop: &Signal) -> rusqlite::Result<u64> {
        if self.file.was_replaced() {
            return Ok(0);
        }
        let connection = self.manager.open_plain()?;
        wal_frames::count(&connection);
        let limit = StatementLimit::of(&connection, stop)?;
        let due: Vec<String> =
            connection.prepare(LIST)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let mut analysed = 0;
        for statement in due.iter().filter(|statement| statement.starts_with("ANALYZE")) {
            if stop.is_raised() {
                break;
            }
            analysed += u64::from(self.analyse(&connection, &limit, statement, stop)?);
        }
        Ok(analysed)
    }

    fn analyse(
        &self,
        connection: &Connection,
        limit: &StatementLimit,
        statement: &str,
        stop: &Signal,
    ) -> rusqlite::Result<bool> {
        for entries in ENTRIES {
            connection.pragma_update(None, "analysis_limit", entries)?;
            let ran = {
                let _turn = self.turn.take();
                limit.within(TOO_LONG, || connection.execute_batch(statement))
            };
            match ran {
                Ok(()) => {
                    self.checkpointer.committed(connection);
                    return Ok(true);
                }
                Err(_) if stop.is_raised() => return Ok(false),
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {}
                Err(error) => return Err(error),
            }
        }
        log::debug!("database: {statement} takes too long; it was left out");
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unmatched;
    use crate::store::fixture::Fixture;

    #[test]
    fn a_table_that_was_never_analysed_gets_statistics() {
        let schema = "CREATE TABLE t(a, b); CREATE INDEX t_by_a ON t(a);
            WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i % 10, i FROM n;";
        let fixture = Fixture::with_routes(schema, &[], Unmatched::Store).expect("opens");
        let optimizer = fixture.open().optimizer();
        assert!(optimizer.run(&Signal::default()).expect("runs") > 0);
        assert_eq!(fixture.texts("SELECT idx FROM sqlite_stat1 WHERE tbl = 't'"), ["t_by_a"]);
    }
}
