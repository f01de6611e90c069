use super::*;
use crate::error::DatabaseFault;
use crate::pipeline::{Pipeline, Settings, Shared};
use crossbeam_channel::{Receiver, Sender};

/// Reports that a commit begins, then waits for the result that the test gives it.
struct ScriptedSink {
    begun: Sender<usize>,
    results: Receiver<Result<Committed, Refusal>>,
}

impl Sink for ScriptedSink {
    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        self.begun.send(batch.len()).expect("the test receives it");
        self.results.recv().unwrap_or(Err(retry("the test gives no result")))
    }
}

fn retry(detail: &str) -> Refusal {
    Refusal::Retry(Problem::new(DatabaseFault::Busy, detail))
}

struct Fixture {
    queue: Arc<CommitQueue>,
    pipeline: Pipeline,
    shared: Shared,
    begun: Receiver<usize>,
    results: Sender<Result<Committed, Refusal>>,
}

fn fixture() -> Fixture {
    let settings = Settings { limits: Limits { events: 10, bytes: 1_000 }, linger: Duration::ZERO };
    let queue = Arc::new(CommitQueue::new(Epoch::local(1, "now".into()), settings.limits));
    let (to_test, begun) = crossbeam_channel::unbounded();
    let (results, from_test) = crossbeam_channel::unbounded();
    let sink = ScriptedSink { begun: to_test, results: from_test };
    let shared = Shared::new("sink");
    let sinks = vec![queue.notified_by(sink, &shared.sink)];
    let pipeline = Pipeline::start(queue.intake(), sinks, settings, shared.clone()).expect("starts");
    Fixture { queue, pipeline, shared, begun, results }
}

impl Fixture {
    /// Enqueues an event and drops its receipt.
    fn record(&self, payload: &str) -> u64 {
        let event = Event::new("a", payload);
        let number = self.queue.enqueue(&event, Overflow::Refuse, |_| {}).expect("there is room");
        self.queue.receipt_dropped(number, event);
        number
    }
}

#[test]
fn a_commit_under_way_at_the_end_of_a_stop_is_waited_for() {
    let fixture = fixture();
    let first = fixture.record("is being committed");
    assert_eq!(fixture.begun.recv(), Ok(1));
    let second = fixture.record("waits for the writer");
    // As `Pipeline::stop` does. Then the intake ends before the writer.
    fixture.shared.stop.raise();
    fixture.shared.quit.raise();
    let until = Instant::now() + Duration::from_mins(1);
    while fixture.queue.state.lock().parts > 1 {
        assert!(Instant::now() < until, "the intake does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!fixture.queue.is_settled(first) && !fixture.queue.is_settled(second), "nothing is known of them yet");
    fixture.results.send(Ok(Committed::default())).expect("it waits");
    assert_eq!(fixture.queue.wait_for(first, until), Some(Ok(())));
    assert_eq!(fixture.queue.wait_for(second, until), Some(Err(FailureReason::Closed)));
    assert!(fixture.pipeline.wait(Duration::from_mins(1)).expect("no error") && fixture.begun.is_empty());
}

/// Payloads and reasons.
fn failed(error: FlushError) -> Vec<(String, FailureReason)> {
    let FlushError::Failed { failed, .. } = error else { panic!("{error}") };
    let payload = |event: &Event| String::from_utf8_lossy(event.payload()).into_owned();
    failed.into_iter().map(|error| (payload(&error.event), error.reason)).collect()
}

#[test]
fn events_of_a_hanging_commit_come_back_as_unconfirmed() {
    let fixture = fixture();
    fixture.record("hangs");
    assert_eq!(fixture.begun.recv(), Ok(1));
    fixture.record("waits");
    let until = Instant::now() + Duration::from_millis(20);
    assert!(matches!(fixture.queue.flush(until), Err(FlushError::Deadline { waiting: 2, trouble: None })));
    fixture.queue.close();
    assert!(fixture.pipeline.stop(Duration::from_millis(600)).is_err(), "it hangs");
    let came_back = failed(fixture.queue.abandon().expect_err("not all is committed"));
    let [(hangs, FailureReason::Unconfirmed(_)), (waits, FailureReason::Closed)] = &came_back[..] else {
        panic!("{came_back:?}")
    };
    assert_eq!((hangs.as_str(), waits.as_str()), ("hangs", "waits"));
    // The commit succeeds after all, and the receipt reports it as soon as the writer has.
    fixture.results.send(Ok(Committed::default())).expect("it waits");
    let until = Instant::now() + Duration::from_mins(1);
    while fixture.queue.wait_for(1, until) != Some(Ok(())) {
        assert!(Instant::now() < until, "it stays unconfirmed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn events_that_came_back_as_not_stored_are_not_committed_later() {
    let fixture = fixture();
    fixture.record("hangs");
    assert_eq!(fixture.begun.recv(), Ok(1));
    fixture.record("waits");
    fixture.queue.close();
    assert!(fixture.pipeline.stop(Duration::from_millis(600)).is_err(), "it hangs");
    let came_back = failed(fixture.queue.abandon().expect_err("not all is committed"));
    assert_eq!(came_back[1], ("waits".into(), FailureReason::Closed));
    // The batch of the second event is at the writer already.
    fixture.results.send(Ok(Committed::default())).expect("it waits");
    assert!(fixture.pipeline.wait(Duration::from_mins(1)).expect("no error"), "it has ended");
    assert_eq!(fixture.begun.try_recv().ok(), None, "no second commit was begun");
    assert!(!fixture.queue.is_committed(2));
}

#[test]
fn a_closed_queue_takes_no_event_whatever_its_last_trouble_was() {
    let fixture = fixture();
    fixture.record("kept at last");
    fixture.results.send(Err(retry("it is locked"))).expect("it works");
    assert_eq!((fixture.begun.recv(), fixture.begun.recv()), (Ok(1), Ok(1)), "it is tried again");
    fixture.queue.close();
    let refused = fixture.queue.enqueue(&Event::new("a", "late"), Overflow::Refuse, |_| {});
    assert_eq!((refused, fixture.queue.closed_reason()), (Err(FailureReason::Closed), FailureReason::Closed));
    fixture.results.send(Ok(Committed::default())).expect("it works");
}

#[test]
fn failed_events_come_back_once_with_the_cause() {
    let fixture = fixture();
    let kept = fixture.record("kept");
    fixture.results.send(Ok(Committed::default())).expect("it works");
    assert_eq!(fixture.queue.wait_for(kept, Instant::now() + Duration::from_mins(1)), Some(Ok(())));
    fixture.record("one");
    let held = fixture.queue.enqueue(&Event::new("a", "held"), Overflow::Refuse, |_| {}).expect("there is room");
    fixture.record("two");
    fixture.results.send(Err(retry("it is locked"))).expect("it works");
    fixture.results.send(Err(Refusal::Fatal(Error::config("x", "is gone")))).expect("it works");
    let reason = || FailureReason::from(Problem::new(DatabaseFault::Other, "configuration: x: is gone"));
    let lost = fixture.queue.flush(Instant::now() + Duration::from_mins(1)).expect_err("it is gone");
    assert_eq!(failed(lost), [("one".into(), reason()), ("two".into(), reason())]);
    // The third event is still with its receipt.
    let again = fixture.queue.flush(Instant::now() + Duration::from_mins(1)).expect_err("it is gone").to_string();
    assert_eq!(again, "1 event not confirmed yet: configuration: x: is gone");
    assert_eq!(fixture.queue.wait_for(held, Instant::now()), Some(Err(reason())));
    fixture.queue.receipt_dropped(held, Event::new("a", "held"));
    let dropped = fixture.queue.flush(Instant::now()).expect_err("it is gone");
    assert_eq!(failed(dropped), [("held".into(), reason())]);
    assert!(fixture.queue.flush(Instant::now()).is_ok(), "all was given back");
}
