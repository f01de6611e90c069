//! The numbers of a batch's events, and the recorders that they are from.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event_id::EventNumber;
use crate::pipeline::Batch;

/// The header that a stream adds to a message that it copies from another: the name of that stream, then its sequence there.
/// <https://docs.nats.io/nats-concepts/jetstream/source_and_mirror>
const SOURCE_HEADER: &str = "Nats-Stream-Source";

/// The numbers of a batch's events, in memory that is used again.
#[derive(Debug, Default)]
pub(in crate::store) struct BatchNumbers {
    /// The stream and the name of each recorder.
    recorders: Vec<(Arc<str>, Arc<str>)>,
    indices: HashMap<(Arc<str>, Arc<str>), usize>,
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
        for index in 0..batch.len() {
            let headers = batch.delivery(index).headers;
            let Some(EventNumber { recorder, number }) = EventNumber::of(headers.iter()) else { continue };
            let source = headers.iter().find(|(name, _)| *name == SOURCE_HEADER);
            let origin = source.and_then(|(_, value)| value.split(' ').next()).unwrap_or(stream);
            let recorder = self.index_of(origin, recorder);
            self.numbers.resize(index, None);
            self.numbers.push(Some((recorder, number)));
        }
    }

    /// The index of a recorder. Most batches have one recorder, or few.
    fn index_of(&mut self, stream: &str, name: &str) -> usize {
        let last = self.numbers.last().and_then(|number| number.map(|(recorder, _)| recorder));
        let is_last = |at: &usize| *self.recorders[*at].0 == *stream && *self.recorders[*at].1 == *name;
        last.filter(is_last).unwrap_or_else(|| {
            let key: (Arc<str>, Arc<str>) = (stream.into(), name.into());
            *self.indices.entry(key).or_insert_with_key(|key| {
                self.recorders.push(key.clone());
                self.recorders.len() - 1
            })
        })
    }

    /// Whether no event has a number.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The index of the recorder and the number of the event at this index.
    pub(super) fn number(&self, index: usize) -> Option<(usize, u64)> {
        self.numbers.get(index).copied().flatten()
    }

    /// The stream and the name of the recorder with this index.
    pub(super) fn recorder(&self, index: usize) -> (&str, &str) {
        let (stream, name) = &self.recorders[index];
        (stream, name)
    }

    /// The stream and the name of each recorder.
    pub(super) fn recorders(&self) -> impl Iterator<Item = (&str, &str)> {
        self.recorders.iter().map(|(stream, name)| (&**stream, &**name))
    }
}
