//! Commits a pipeline's batches into a spool.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Spool, SpoolLimits, Sum, refusals};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Batch, Committed, Delivery, Problem, Refusal, Sink};
use crate::store::columns::{headers_json, micros, text_or_blob};

/// A sink whose commits are on the disk when they return.
pub struct SpoolSink {
    spool: Spool,
    limits: Option<SpoolLimits>,
    /// The headers of the batch's events.
    headers: Vec<Option<String>>,
    /// After an error the batch may be committed.
    unclear: bool,
}

impl Spool {
    /// A pipeline's sink. With `limits`, it drops the oldest events that exceed them.
    #[must_use]
    pub fn sink(&self, limits: Option<SpoolLimits>) -> SpoolSink {
        SpoolSink { spool: self.clone(), limits, headers: Vec::new(), unclear: false }
    }
}

#[cfg(test)]
impl SpoolSink {
    /// As after an error.
    pub(super) fn unclear_for_test(&mut self) {
        self.unclear = true;
    }
}

/// The bytes that count against a spool's limit for an event: as [`Event::size`](crate::Event::size), with the name of an identity.
fn size(delivery: &Delivery<'_>) -> usize {
    crate::event::size(delivery.subject, delivery.headers.iter(), delivery.payload)
}

impl Sink for SpoolSink {
    fn prepare(&mut self, batch: &Batch) {
        self.headers.clear();
        self.headers.extend((0..batch.len()).map(|index| headers_json(batch.delivery(index).headers)));
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let file = &self.spool.shared.file;
        file.must_be_the_same().map_err(|problem| Refusal::Fatal(problem.at(file.path())))?;
        self.spool.must_have_room(batch.bytes() as u64).map_err(Refusal::Retry)?;
        let Self { spool, limits, headers, unclear } = self;
        let first = spool.first();
        let was_unclear = std::mem::replace(unclear, true);
        let committed = spool.change("FULL", |transaction| {
            // Several attempts store an event once. An event that was forwarded meanwhile is sent again with the same number.
            if was_unclear && is_stored(transaction, first + batch.after().sequence - 1)? {
                return Ok(None);
            }
            let (mut added, mut last) = (Sum::default(), 0);
            let sql = "INSERT INTO catchment_spool_events(position, recorded_us, size, subject, headers, payload)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let mut insert = transaction.prepare_cached(sql)?;
            for (index, headers) in headers.iter().enumerate() {
                let delivery = batch.delivery(index);
                let (mark, size) = (delivery.mark, size(&delivery) as u64);
                let payload = text_or_blob(delivery.payload);
                let position = first + mark.sequence - 1;
                last = position;
                insert.execute(params![position, micros(mark), size, delivery.subject, headers, payload])?;
                added.add(size);
            }
            let sql = "UPDATE catchment_spool SET events = events + ?1, bytes = bytes + ?2, last = max(last, ?3)
                       RETURNING events, bytes";
            let total =
                transaction.prepare_cached(sql)?.query_row(params![added.events, added.bytes, last], |row| {
                    Ok(Sum { events: row.get(0)?, bytes: row.get(1)? })
                })?;
            limits.map_or(Ok(None), |limits| drop_oldest(transaction, &total, limits))
        });
        match committed {
            Ok(()) => {
                *unclear = false;
                Ok(Committed::default())
            }
            Err(problem) => Err(refusal(spool, problem)),
        }
    }
}

/// A damaged file does not get better: the recorder ends, and the next start moves the file aside.
fn refusal(spool: &Spool, problem: Problem) -> Refusal {
    if problem.fault != DatabaseFault::Corrupt {
        return Refusal::Retry(problem);
    }
    let Problem { fault, detail, .. } = problem;
    let error = Error::database(fault, spool.path(), detail);
    Refusal::Fatal(error.with_remedy("the spool is damaged: start again, and it is moved aside whole"))
}

fn is_stored(connection: &Connection, position: u64) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM catchment_spool_events WHERE position = ?";
    Ok(connection.query_row(sql, [position], |_| Ok(())).optional()?.is_some())
}

/// Drops the oldest events that exceed the limits, but never the last one. Returns the position of the last that is dropped.
fn drop_oldest(connection: &Connection, total: &Sum, limits: SpoolLimits) -> rusqlite::Result<Option<u64>> {
    let (mut dropped, mut last) = (Sum::default(), None);
    if total.events > limits.events || total.bytes > limits.bytes {
        let mut statement =
            connection.prepare_cached("SELECT position, size FROM catchment_spool_events ORDER BY position")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (events, bytes) = (total.events - dropped.events, total.bytes - dropped.bytes);
            if events <= 1 || (events <= limits.events && bytes <= limits.bytes) {
                break;
            }
            last = Some(row.get(0)?);
            dropped.add(row.get(1)?);
        }
    }
    if let Some(last) = last {
        connection.prepare_cached("DELETE FROM catchment_spool_events WHERE position <= ?")?.execute([last])?;
        refusals::forget(connection, (0, last))?;
        connection
            .prepare_cached(
                "UPDATE catchment_spool SET events = events - ?1, bytes = bytes - ?2, dropped = dropped + ?1",
            )?
            .execute(params![dropped.events, dropped.bytes])?;
    }
    Ok(last)
}
