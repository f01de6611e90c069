//! The recorders' side of the model: the spool's file, the forwarder and the send queue, as in a `SpooledRecorder`, without threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::broker::{Acknowledgement, EventSource, PublishResult, Rejection};
use crate::config::DatabaseConfig;
use crate::event_id::{EventIds, Identity, NUMBER_HEADER};
use crate::pipeline::{Batch, Epoch, Limits, Mark, Sink};
use crate::record::send_queue::Bounds;
use crate::record::spool_store::SpoolStore;
use crate::store::{Lock, Spool, SpoolLimits, SpoolSink};

/// What does not differ between the starts of a recorder.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) identity: Identity,
    /// With limits, the oldest events are dropped.
    pub(super) limits: Option<SpoolLimits>,
}

/// A recorder that runs.
pub(super) struct Site {
    pub(super) path: PathBuf,
    kind: Kind,
    spool: Spool,
    sink: SpoolSink,
    forwarder: Forwarder<SpoolStore>,
    queue: Arc<SendQueue>,
    source: Box<dyn EventSource>,
    ids: EventIds,
    /// As `ids`, with the number of each event by itself.
    numbers: EventIds,
    /// No other connection of the model has this number.
    pub(super) connection: u64,
    /// Events that this start has taken.
    recorded: u64,
    dropped_through: Arc<AtomicU64>,
}

/// A message on its way from a recorder to the stream.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) connection: u64,
    position: u64,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: String,
}

impl Site {
    /// Opens the spool, as a start of the application does.
    pub(super) fn start(path: &Path, kind: Kind, connection: u64) -> Self {
        let dropped_through = Arc::new(AtomicU64::new(0));
        let config = DatabaseConfig { path: path.to_owned(), ..DatabaseConfig::default() };
        let dropped = Arc::clone(&dropped_through);
        let on_change = move |change: crate::store::SpoolChange| {
            if let Some(through) = change.dropped_through {
                dropped.store(through, Ordering::Relaxed);
            }
        };
        let lock = Lock::take_spool(path).expect("is free");
        let (spool, _) = Spool::open(&config, on_change).expect("opens");
        assert_eq!(spool.moved_to(), None, "it is whole");
        let bounds = Bounds {
            events: usize::MAX,
            bytes: usize::MAX,
            window: 1_000,
            first_window: 1_000,
            window_bytes: 1 << 20,
            resend_window: Duration::MAX,
            flush_timeout: None,
            give_up_after: Some(Duration::ZERO),
        };
        let queue = Arc::new(SendQueue::new(bounds, usize::MAX));
        let (reports, results) = crossbeam_channel::unbounded();
        queue.report_to(reports);
        let store = SpoolStore::new(spool.clone(), Arc::clone(&dropped_through), Arc::new(lock));
        let (_, woken) = crossbeam_channel::bounded(1);
        let (shown, condition) = (Arc::default(), Condition::new("spool file"));
        let forwarder = Forwarder::new(store, 0, Arc::clone(&queue), (results, woken), shown, condition);
        Self {
            path: path.to_owned(),
            kind,
            sink: spool.sink(kind.limits),
            forwarder,
            source: Box::new(queue.connect(1 << 20)),
            queue,
            ids: EventIds::with_names(kind.identity, spool.names()),
            numbers: EventIds::with_names(Identity::Database, spool.names()),
            spool,
            connection,
            recorded: 0,
            dropped_through,
        }
    }

    /// The application ends at once, and starts again.
    pub(super) fn crash(self, connection: u64) -> Self {
        let (path, kind) = (self.path.clone(), self.kind);
        drop(self);
        Self::start(&path, kind, connection)
    }

    /// The name and number of the event at this position.
    fn number(&self, position: u64) -> String {
        self.numbers.of_database(position, None).expect("has a number")
    }

    /// The names under which it sends.
    pub(super) fn names(&self) -> Vec<String> {
        self.spool.names().into_iter().map(|range| range.name).collect()
    }

    /// Commits these events to the spool. Returns their numbers, and those of events that were dropped for lack of room.
    pub(super) fn record(&mut self, payloads: &[String], now_us: i64) -> (Vec<String>, Vec<String>) {
        let mark = |sequence| match sequence {
            0 => Mark::START,
            sequence => Mark { sequence, published_ns: now_us * 1_000 },
        };
        let mut batch = Batch::new(Limits { events: 10_000, bytes: 1 << 20 });
        batch.begin(Arc::new(Epoch::local(1, String::new())), mark(self.recorded));
        let mut numbers = Vec::new();
        for payload in payloads {
            self.recorded += 1;
            batch.push(mark(self.recorded), "a", [], payload.as_bytes());
            let number = self.number(self.spool.first() + self.recorded - 1);
            assert_eq!(number, format!("{}-{}", self.ids.recorder(), self.recorded - 1));
            numbers.push(number);
        }
        let before = self.dropped_through.load(Ordering::Relaxed);
        self.sink.prepare(&batch);
        self.sink.commit(&batch).expect("commits");
        let through = self.dropped_through.load(Ordering::Relaxed);
        if through > before {
            self.queue.drop_through(through);
        }
        (numbers, (before + 1..=through).map(|position| self.number(position)).collect())
    }

    /// The forwarder takes the outcomes, and reads further events.
    pub(super) fn forward(&mut self) {
        self.forwarder.is_at_end = false;
        self.forwarder.take_results();
        self.forwarder.work(false).expect("reads");
    }

    /// The forwarder removes what is done.
    pub(super) fn mark(&mut self) {
        self.forwarder.take_results();
        self.forwarder.work(true).expect("marks");
    }

    /// What the connection sends now.
    pub(super) fn send(&mut self) -> Vec<Flight> {
        // So that it does not wait for further events.
        self.queue.interrupt();
        let sent = self.source.take(&mut || {}).expect("is the current connection");
        let flight = |outgoing: crate::broker::Outgoing| {
            let position = outgoing.number;
            let own = [
                (crate::event_id::HEADER, self.ids.of_stream(position, None)),
                (NUMBER_HEADER, self.ids.of_database(position, None)),
            ];
            let headers = own.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let payload = String::from_utf8(outgoing.event.payload().to_vec()).expect("text");
            Flight { connection: self.connection, position, headers, payload }
        };
        sent.into_iter().map(flight).collect()
    }

    /// The connection is lost, and the next one is made.
    pub(super) fn reconnect(&mut self, connection: u64) {
        self.queue.disconnect("gone".into());
        self.source = Box::new(self.queue.connect(1 << 20));
        self.connection = connection;
    }

    /// The stream has stored the message.
    pub(super) fn acknowledged(&self, flight: &Flight, sequence: u64) {
        let stored = Acknowledgement::ByStream { stream: "S".into(), sequence: Some(sequence), duplicate: false };
        self.answered(flight, Ok(stored));
    }

    /// The stream will never store the message.
    pub(super) fn refused(&self, flight: &Flight) {
        let too_large = "message size exceeds maximum allowed (error 10054)";
        self.answered(flight, Err(Rejection::ByServer(too_large.into())));
    }

    fn answered(&self, flight: &Flight, result: Result<Acknowledgement, Rejection>) {
        let _ = self.queue.settle(vec![PublishResult { number: flight.position, result }], Duration::ZERO);
    }

    /// Whether the spool has no event that waits.
    pub(super) fn is_empty(&self) -> bool {
        self.spool.reader().after(0, 1, 1).expect("reads").is_empty()
    }
}
