//! Batches between an intake and writers that each test can hold up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::*;
use crate::pipeline::{Batch, Committed, Intake, IntakeState, Limits, Mark, Refusal, Sink};

const LIMITS: Limits = Limits { events: 2, bytes: 1_000 };

/// Yields numbered events without pauses, up to the last.
struct Numbers {
    last: u64,
    counts: Arc<Counts>,
}

/// Commits one batch for each permit, and all batches once the channel of permits is closed.
struct Held {
    permits: Receiver<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    given: AtomicU64,
    committed: AtomicU64,
    batches: AtomicU64,
    /// The most events that were in the pipeline.
    most: AtomicU64,
}

impl Counts {
    fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }
}

impl Intake for Numbers {
    fn fill(&mut self, batch: &mut Batch, _wait: Duration) -> Result<IntakeState, Error> {
        while !batch.is_full() && self.counts.given() < self.last {
            let given = self.counts.given.fetch_add(1, Ordering::AcqRel) + 1;
            batch.push(Mark { sequence: given, published_ns: 0 }, "n", [], b"");
            self.counts.most.fetch_max(given - self.counts.committed.load(Ordering::Acquire), Ordering::AcqRel);
        }
        Ok(if self.counts.given() < self.last { IntakeState::Open } else { IntakeState::Drained })
    }
}

impl Sink for Held {
    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        let _ = self.permits.recv();
        let first = batch.delivery(0).mark.sequence;
        let before = self.counts.committed.fetch_add(batch.len() as u64, Ordering::AcqRel);
        assert_eq!(first, before + 1, "in order");
        self.counts.batches.fetch_add(1, Ordering::AcqRel);
        Ok(Committed::default())
    }
}

fn start(events: u64, writers: usize) -> (Pipeline, Arc<Counts>, crossbeam_channel::Sender<()>) {
    let counts = Arc::<Counts>::default();
    let (permit, permits) = crossbeam_channel::unbounded();
    let sinks = (0..writers).map(|_| Held { permits: permits.clone(), counts: Arc::clone(&counts) }).collect();
    let intake = Numbers { last: events, counts: Arc::clone(&counts) };
    let settings = Settings { limits: LIMITS, linger: Duration::ZERO };
    (Pipeline::start(intake, sinks, settings, Shared::new("sink")).expect("starts"), counts, permit)
}

#[test]
fn a_held_sink_stops_the_intake_and_a_full_batch_is_queued() {
    for writers in 1..=3 {
        let holds = (LIMITS.events * (writers + BESIDE_WRITERS)) as u64;
        let (pipeline, counts, permit) = start(20 * holds, writers);
        while counts.given() < holds {
            std::thread::yield_now();
        }
        assert_eq!(counts.committed.load(Ordering::Acquire), 0);
        // For each committed event, another one is received.
        for _ in 0..holds {
            permit.send(()).expect("the sink receives it");
        }
        drop(permit);
        assert!(pipeline.wait(Duration::from_secs(60)).expect("no failure"), "{writers} writers commit everything");
        assert_eq!(counts.committed.load(Ordering::Acquire), 20 * holds);
        assert_eq!(counts.most.load(Ordering::Acquire), holds, "with {writers} writers");
        assert_eq!(counts.batches.load(Ordering::Acquire), 10 * holds, "all of them full");
    }
}

#[test]
fn a_stop_commits_what_was_received() {
    for writers in 1..=3 {
        let holds = (LIMITS.events * (writers + BESIDE_WRITERS)) as u64;
        let (pipeline, counts, permit) = start(u64::MAX, writers);
        while counts.given() < holds {
            std::thread::yield_now();
        }
        drop(permit);
        pipeline.stop(Duration::from_secs(60)).expect("stops");
        assert_eq!(counts.committed.load(Ordering::Acquire), counts.given(), "with {writers} writers");
    }
}
