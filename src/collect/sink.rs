//! The sinks of a collector.

use std::sync::Arc;

use crate::pipeline::{Batch, Committed, Refusal, Sink};
use crate::store::{Database, Writer};
use crate::{counted, printable};

/// A writer, which keeps its database open.
pub(super) struct CollectorSink {
    writer: Writer,
    database: Arc<Database>,
}

impl CollectorSink {
    pub(super) fn new(writer: Writer, database: &Arc<Database>) -> Self {
        Self { writer, database: Arc::clone(database) }
    }

    /// One line for a committed batch. The reasons are in the table: they may quote the payload.
    fn report_dead_letters(&self, batch: &Batch, first: usize, count: usize) {
        let (path, first) = (self.database.file().path().display(), batch.delivery(first));
        let subject = printable(first.subject);
        let sequence = batch.epoch().filter(|epoch| epoch.origin().is_some()).map(|_| first.mark.sequence);
        let place = sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
        let stored = counted(count as u64, "dead letter");
        log::warn!(
            event = "dead_letters.stored", database:% = path, events = count, subject:% = subject, sequence = sequence;
            "database {path}: {stored} stored, the first from {subject}{place}; the table catchment_dead_letters has the reason"
        );
    }
}

impl Sink for CollectorSink {
    fn prepare(&mut self, batch: &Batch) {
        self.writer.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let committed = self.writer.commit(batch)?;
        if let Some(first) = committed.first_dead {
            self.report_dead_letters(batch, first, committed.dead_letters);
        }
        Ok(committed)
    }
}
