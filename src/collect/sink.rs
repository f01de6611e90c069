//! The sinks of a collector.

use std::sync::Arc;

use crate::pipeline::{Batch, Committed, Refusal, Sink};
use crate::store::{Database, Writer};

/// A writer, which keeps its database open.
pub(super) struct CollectorSink {
    writer: Writer,
    _database: Arc<Database>,
}

impl CollectorSink {
    pub(super) fn new(writer: Writer, database: &Arc<Database>) -> Self {
        Self { writer, _database: Arc::clone(database) }
    }
}

impl Sink for CollectorSink {
    fn prepare(&mut self, batch: &Batch) {
        self.writer.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        self.writer.commit(batch)
    }
}
