//! What a database offers to the upkeep of a running collector, and to commands that do the same once.

use std::sync::Arc;

use super::Database;
use crate::config::RetentionConfig;
use crate::error::Error;
use crate::store::optimize::Optimizer;
use crate::store::retention::{self, Retention, RetentionFigures};
use crate::store::sqlite_error::database_error;

impl Database {
    /// What keeps the rules of `[retention]`. It counts what it does in `figures`.
    #[must_use]
    pub fn retention(&self, config: &RetentionConfig, figures: Arc<RetentionFigures>) -> Retention {
        let (manager, checkpointer) = (self.manager.clone(), Arc::clone(&self.checkpointer));
        Retention::new(manager, checkpointer, self.turn.clone(), self.file.clone(), self.permissions, config, figures)
    }

    /// Checks that the rules fit the tables. Logs which indexes they need that do not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a rule that does not fit.
    pub fn check_retention(&self, config: &RetentionConfig) -> Result<(), Error> {
        if config.is_empty() {
            return Ok(());
        }
        let path = self.file.path();
        let connection = self.manager.open_plain().map_err(|e| database_error(path, e))?;
        for (table, statement) in retention::check(&connection, path, config)? {
            log::warn!(
                event = "retention.index", table = table, statement = statement;
                "retention.{table}: each round reads the whole table, because an index is missing; add a migration with {statement}"
            );
        }
        Ok(())
    }

    /// What brings SQLite's statistics up to date.
    #[must_use]
    pub fn optimizer(&self) -> Optimizer {
        Optimizer::new(self.manager.clone(), Arc::clone(&self.checkpointer), self.turn.clone(), self.file.clone())
    }
}
