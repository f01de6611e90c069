//! Stores messages of a stream that a database lacks although they are behind the ledger's position, and corrects rows of table `events`.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::columns::{event_headers_json, micros, text_or_blob};
use super::dead_letters;
use super::pool::WriteConnection;
use super::routes::decoded_batch::{DecodedBatch, Disposition};
use super::routes::statements::{StatementError, Statements};
use super::sqlite_error::{database_error, is_constraint, one_line};
use super::{Database, ledger};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Batch, Epoch};

/// What a repair has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Messages that were stored.
    pub stored: u64,
    /// Messages that the routes refused: they are dead letters now.
    pub dead_letters: u64,
}

/// Why a transaction was rolled back.
enum RepairError {
    /// An event's statements ended the transaction, or COMMIT refuses what they did.
    ByEvent(String),
    Failed(Error),
}

impl Database {
    /// Stores the messages of the batch with these indices, through the routes, in one transaction. What the routes refuse becomes a dead
    /// letter. The ledger does not move: it must be past all of them. The caller has the database's lock, and knows that they are missing.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: nothing of it is stored then. With [`DatabaseFault::Conflict`] if the ledger is not past the messages.
    pub fn repair(&self, batch: &Batch, indices: &[usize]) -> Result<Repaired, Error> {
        let connection = self.connect()?;
        let mut decoded = DecodedBatch::new(std::sync::Arc::clone(&self.plan));
        decoded.read(batch);
        match self.try_repair(&connection, &decoded, batch, indices, false) {
            Ok(repaired) => Ok(repaired),
            Err(RepairError::Failed(error)) => Err(error),
            Err(RepairError::ByEvent(_)) => {
                let mut sum = Repaired::default();
                for index in indices {
                    let one = std::slice::from_ref(index);
                    let repaired = match self.try_repair(&connection, &decoded, batch, one, false) {
                        Err(RepairError::ByEvent(error)) => {
                            log::debug!("message {}: {error}", batch.delivery(*index).mark.sequence);
                            self.try_repair(&connection, &decoded, batch, one, true)
                        }
                        done => done,
                    };
                    match repaired {
                        Ok(Repaired { stored, dead_letters }) => {
                            sum.stored += stored;
                            sum.dead_letters += dead_letters;
                        }
                        Err(RepairError::Failed(error)) => return Err(error),
                        Err(RepairError::ByEvent(detail)) => {
                            return Err(self.repair_error(DatabaseFault::Other, detail));
                        }
                    }
                }
                Ok(sum)
            }
        }
    }

    /// One transaction. With `as_dead_letters` no statement runs.
    fn try_repair(
        &self,
        pooled: &WriteConnection,
        decoded: &DecodedBatch,
        batch: &Batch,
        indices: &[usize],
        as_dead_letters: bool,
    ) -> Result<Repaired, RepairError> {
        let on_error = |e| RepairError::Failed(database_error(self.file().path(), e));
        let transaction =
            Transaction::new_unchecked(&pooled.sqlite, TransactionBehavior::Immediate).map_err(on_error)?;
        let epoch = batch.epoch().map(AsRef::as_ref);
        self.must_be_behind(&transaction, epoch, batch, indices).map_err(RepairError::Failed)?;
        let mut repaired = Repaired::default();
        let mut statements = Statements::new(decoded.plan(), pooled);
        for index in indices {
            let delivery = batch.delivery(*index);
            let ran = match decoded.disposition(*index) {
                Disposition::Dropped | Disposition::SkippedMarker => continue,
                _ if as_dead_letters => {
                    Err(StatementError::Event(decoded.at_commit(*index, "its statements end the transaction".into())))
                }
                _ => statements.run_in_savepoint(decoded, *index, &delivery, epoch),
            };
            match ran {
                Ok(()) => repaired.stored += 1,
                Err(StatementError::Event(reason)) => {
                    dead_letters::insert(&transaction, epoch, &delivery, &reason).map_err(on_error)?;
                    repaired.dead_letters += 1;
                }
                Err(StatementError::EndedTransaction(reason)) => return Err(RepairError::ByEvent(reason.error)),
                Err(StatementError::Invalid(error)) => return Err(RepairError::Failed(error)),
                Err(StatementError::Database(error)) => return Err(on_error(error)),
            }
        }
        drop(statements);
        transaction.commit().map_err(|error| {
            if is_constraint(&error) { RepairError::ByEvent(one_line(&error)) } else { on_error(error) }
        })?;
        Ok(repaired)
    }

    /// Refuses messages that the collector is still to store.
    fn must_be_behind(
        &self,
        transaction: &Connection,
        epoch: Option<&Epoch>,
        batch: &Batch,
        indices: &[usize],
    ) -> Result<(), Error> {
        let Some(epoch) = epoch else { return Ok(()) };
        let history = ledger::history(transaction, &epoch.stream).map_err(|e| database_error(self.file().path(), e))?;
        let is_behind = |index: &usize| {
            let mark = batch.delivery(*index).mark;
            history.iter().any(|progress| progress.epoch.created == epoch.created && progress.has(mark))
        };
        if indices.iter().all(is_behind) {
            return Ok(());
        }
        let detail = "the ledger has changed while it was repaired: another program writes it".to_owned();
        Err(self.repair_error(DatabaseFault::Conflict, detail))
    }

    /// Gives rows of table `events` the content of their messages: of each the index and the row's number. And deletes these rows. One
    /// transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: nothing is changed then.
    pub fn rewrite_events(&self, batch: &Batch, rows: &[(usize, i64)], surplus: &[i64]) -> Result<(), Error> {
        let connection = self.connect()?;
        let rewrite = || -> rusqlite::Result<()> {
            let transaction = Transaction::new_unchecked(&connection.sqlite, TransactionBehavior::Immediate)?;
            for (index, id) in rows {
                let delivery = batch.delivery(*index);
                let sql = "UPDATE events SET subject = ?2, published_us = ?3, headers = ?4, payload = ?5 WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute(params![
                    id,
                    delivery.subject,
                    micros(delivery.mark),
                    event_headers_json(delivery.headers),
                    text_or_blob(delivery.payload),
                ])?;
            }
            for id in surplus {
                transaction.prepare_cached("DELETE FROM events WHERE id = ?")?.execute([id])?;
            }
            transaction.commit()
        };
        rewrite().map_err(|e| database_error(self.file().path(), e))
    }

    fn repair_error(&self, fault: DatabaseFault, detail: String) -> Error {
        Error::database(fault, self.file().path(), detail)
    }
}
