//! A publisher in the background that keeps account of what the stream has acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use catchment::config::BrokerConfig;
use catchment::record::{Identity, Overflow};
use catchment::{Event, NatsRecorder, NatsRecorderConfig, Receipt, Recorder};

use super::oracle::Kept;
use super::server::Server;

/// Events that flow while a test does its worst, each with a payload of its own.
pub struct Load {
    thread: JoinHandle<Vec<Kept>>,
    progress: Arc<Progress>,
    lead: u64,
}

#[derive(Default)]
struct Progress {
    handed_over: AtomicU64,
    acknowledged: AtomicU64,
    committed: AtomicU64,
}

impl Load {
    /// Publishes `total` events, at most `lead` of them ahead of what [`Load::committed`] was last told: that way events
    /// flow until the end, however fast the one side or the other is.
    pub fn start(server: &Server, total: u64, lead: u64) -> Self {
        Self::start_on(server.config(), total, lead)
    }

    /// As [`Load::start`], on the way that this configuration goes.
    pub fn start_on(broker: BrokerConfig, total: u64, lead: u64) -> Self {
        let recorder = patient(broker);
        let progress = Arc::new(Progress::default());
        let seen = Arc::clone(&progress);
        let thread = std::thread::spawn(move || {
            let mut account = Account::default();
            for number in 0..total {
                while number >= seen.committed.load(Ordering::Relaxed) + lead {
                    std::thread::sleep(Duration::from_millis(1));
                    account.settle();
                    seen.acknowledged.store(account.kept.len() as u64, Ordering::Relaxed);
                }
                account.record(&recorder, payload(number));
                seen.handed_over.store(number + 1, Ordering::Relaxed);
                seen.acknowledged.store(account.kept.len() as u64, Ordering::Relaxed);
            }
            account.close(&recorder)
        });
        Self { thread, progress, lead }
    }

    /// Lets it go on up to its lead before these many.
    pub fn committed(&self, rows: u64) {
        self.progress.committed.store(rows, Ordering::Relaxed);
    }

    /// How many events the recorder has been given.
    pub fn handed_over(&self) -> u64 {
        self.progress.handed_over.load(Ordering::Relaxed)
    }

    /// How many of them are known to be in the stream.
    pub fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether it is as far ahead as it may be, and waits.
    pub fn is_held_back(&self) -> bool {
        self.handed_over() >= self.progress.committed.load(Ordering::Relaxed) + self.lead
    }

    /// Waits for its end. Every event must have been acknowledged by then.
    pub fn finish(self) -> Vec<Kept> {
        self.committed(u64::MAX / 2);
        match self.thread.join() {
            Ok(kept) => kept,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Publishes so many events and returns when the stream has them all.
pub fn publish(server: &Server, total: u64) -> Vec<Kept> {
    publish_from(server, 0, total)
}

/// As [`publish`], beginning with another number.
pub fn publish_from(server: &Server, first: u64, total: u64) -> Vec<Kept> {
    let recorder = patient(server.config());
    let mut account = Account::default();
    (first..first + total).for_each(|number| account.record(&recorder, payload(number)));
    account.close(&recorder)
}

/// A recorder that waits for a broker as long as a test may take.
pub fn patient(broker: BrokerConfig) -> NatsRecorder {
    patient_with(broker, Identity::default())
}

/// As [`patient`], whose repetitions are recognised so.
pub fn patient_with(broker: BrokerConfig, identity: Identity) -> NatsRecorder {
    let mut config = NatsRecorderConfig::default();
    (config.broker, config.identity) = (broker, identity);
    config.overflow = Overflow::Block(Duration::from_secs(60));
    NatsRecorder::open(config).expect("connects")
}

/// About 100 bytes, different for each number.
pub fn payload(number: u64) -> String {
    format!("{{\"n\":{number},\"text\":\"{:x>72}\"}}", number * 7)
}

/// Receipts, turned into what is kept as they come true.
#[derive(Default)]
pub struct Account {
    open: VecDeque<(String, Receipt)>,
    kept: Vec<Kept>,
}

impl Account {
    /// Hands the payload over and keeps its receipt.
    pub fn record(&mut self, recorder: &NatsRecorder, payload: String) {
        let receipt = recorder.record(Event::new("events.load", payload.as_str())).expect("takes it");
        self.open.push_back((payload, receipt));
        self.settle();
    }

    /// Writes down what has come true.
    fn settle(&mut self) {
        while self.open.front().is_some_and(|(_, receipt)| receipt.is_settled()) {
            self.settle_first();
        }
    }

    /// Flushes, and says where each event is.
    pub fn close(mut self, recorder: &NatsRecorder) -> Vec<Kept> {
        recorder.close(Duration::from_secs(60)).expect("all are in the stream");
        while !self.open.is_empty() {
            self.settle_first();
        }
        self.kept
    }

    fn settle_first(&mut self) {
        if let Some((payload, receipt)) = self.open.pop_front() {
            let recorded = receipt.wait(Duration::ZERO).expect("acknowledged");
            self.kept.push(Kept { payload, sequence: recorded.sequence().expect("in a stream") });
        }
    }
}
