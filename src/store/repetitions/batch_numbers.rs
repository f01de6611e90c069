//! The numbers of a batch's events, and the recorders that they are from.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event_id::EventNumber;
use crate::pipeline::Batch;

/// Headers of messages that the server has made from another one, with its headers: copied from another stream (`sources`), published
/// again by a stream (`republish`), or made from a schedule. Their numbers say nothing: such messages come in any order, and several may
/// be made from one. <https://docs.nats.io/nats-concepts/jetstream/headers>
const OF_COPIES: [&str; 3] = ["Nats-Stream-Source", "Nats-Stream", "Nats-Scheduler"];

/// The numbers of a batch's events, in memory that is used again.
#[derive(Debug, Default)]
pub(in crate::store) struct BatchNumbers {
    /// The stream that all of them are from.
    stream: String,
    /// The name of each recorder.
    recorders: Vec<Arc<str>>,
    indices: HashMap<Arc<str>, usize>,
    /// For each event the index of its recorder, and its number. Empty if no event has a number.
    numbers: Vec<Option<(usize, u64)>>,
}

impl BatchNumbers {
    /// Reads the numbers of the batch's events. Events that are from no stream have none: nothing repeats them.
    pub(in crate::store) fn read(&mut self, batch: &Batch) {
        self.recorders.clear();
        self.indices.clear();
        self.numbers.clear();
        let Some(stream) = batch.epoch().and_then(|epoch| epoch.origin()) else { return };
        if self.stream != stream {
            stream.clone_into(&mut self.stream);
        }
        for index in 0..batch.len() {
            let headers = batch.delivery(index).headers;
            let Some(EventNumber { recorder, number }) = EventNumber::of(headers.iter()) else { continue };
            if headers.iter().any(|(name, _)| OF_COPIES.contains(&name)) {
                continue;
            }
            let recorder = self.index_of(recorder);
            self.numbers.resize(index, None);
            self.numbers.push(Some((recorder, number)));
        }
    }

    /// The index of a recorder. Most batches have one recorder, or few.
    fn index_of(&mut self, name: &str) -> usize {
        let last = self.numbers.last().and_then(|number| number.map(|(recorder, _)| recorder));
        last.filter(|at| *self.recorders[*at] == *name).unwrap_or_else(|| {
            *self.indices.entry(name.into()).or_insert_with_key(|name| {
                self.recorders.push(Arc::clone(name));
                self.recorders.len() - 1
            })
        })
    }

    /// Whether no event has a number.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The index of the recorder and the number of the event at this index.
    pub(in crate::store) fn number(&self, index: usize) -> Option<(usize, u64)> {
        self.numbers.get(index).copied().flatten()
    }

    /// The stream that the events are from.
    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// The names of the recorders, by their indices.
    pub(in crate::store) fn recorders(&self) -> &[Arc<str>] {
        &self.recorders
    }
}
