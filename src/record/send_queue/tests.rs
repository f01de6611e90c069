use super::source::SendQueueSource;
use super::*;
use crate::broker::{Denial, EventSource};
use crate::event_id::WIDTH;
use crate::record::FlushError;

const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn bounds() -> Bounds {
    Bounds {
        events: 4,
        bytes: 1_000,
        window: 2,
        first_window: 2,
        window_bytes: 500,
        resend_window: MINUTE,
        flush_timeout: None,
        give_up_after: None,
    }
}

pub(super) fn queue() -> Arc<SendQueue> {
    Arc::new(SendQueue::new(bounds(), 1_000))
}

pub(super) fn enqueue(queue: &SendQueue, payload: &str) -> Arc<Entry> {
    queue.enqueue(Event::new("a", payload), Overflow::Refuse).expect("there is room")
}

pub(super) fn numbers(source: &mut SendQueueSource) -> Vec<u64> {
    source.take(&mut || {}).expect("the connection is the current one").iter().map(|outgoing| outgoing.number).collect()
}

pub(super) fn kept(number: u64) -> PublishResult {
    PublishResult {
        number,
        result: Ok(Acknowledgement::ByStream { stream: "S".into(), sequence: Some(number + 1), duplicate: false }),
    }
}

/// Settles at once, without waiting for a stream to be made.
fn denial_of_a() -> Denial {
    Denial::parse("Permissions Violation for Publish to \"a\"").expect("a denial")
}

pub(super) fn settle(queue: &SendQueue, results: Vec<PublishResult>) {
    assert_eq!(queue.settle(results, Duration::ZERO), SettleResult::Done);
}

#[test]
fn no_more_events_than_the_window_are_in_flight() {
    let queue = queue();
    let entries: Vec<_> = ["x", "y", "z"].map(|payload| enqueue(&queue, payload)).into();
    let mut source = queue.connect(1_000);
    assert_eq!(numbers(&mut source), [0, 1]);
    settle(&queue, vec![kept(1)]);
    assert!(entries[0].outcome.get().is_none() && entries[1].outcome.get().is_some());
    settle(&queue, vec![kept(0)]);
    assert_eq!(numbers(&mut source), [2]);
}

#[test]
fn only_a_new_connection_gets_the_unconfirmed_events() {
    let queue = queue();
    let _entries: Vec<_> = ["x", "y"].map(|payload| enqueue(&queue, payload)).into();
    let mut old = queue.connect(1_000);
    assert_eq!(numbers(&mut old), [0, 1]);
    settle(&queue, vec![kept(1)]);
    queue.disconnect("gone".into());
    assert!(old.take(&mut || {}).is_none());
    assert_eq!(numbers(&mut queue.connect(1_000)), [0]);
}

#[test]
fn a_full_buffer_gives_the_event_back() {
    let queue = queue();
    for payload in ["1", "2", "3", "4"] {
        enqueue(&queue, payload);
    }
    let error = queue.enqueue(Event::new("a", "5"), Overflow::Refuse).expect_err("there is no room");
    assert_eq!(error.event.payload(), b"5");
    assert_eq!(error.reason, FailureReason::BufferFull { events: 4, bytes: 8 });
    let error = queue.enqueue(Event::new("a", "6"), Overflow::Block(Duration::from_millis(5))).expect_err("nor later");
    assert_eq!(error.event.payload(), b"6");
}

#[test]
fn room_wakes_a_waiting_caller() {
    let queue = queue();
    for payload in ["1", "2", "3", "4"] {
        enqueue(&queue, payload);
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.enqueue(Event::new("a", "5"), Overflow::Block(Duration::from_mins(1))));
        settle(&queue, vec![kept(0)]);
        assert!(waiting.join().expect("no panic").is_ok());
    });
}

#[test]
fn failures_without_a_receipt_come_back_with_the_flush() {
    let queue = queue();
    let held = enqueue(&queue, "held");
    queue.receipt_dropped(&enqueue(&queue, "dropped"));
    let _source = numbers(&mut queue.connect(1_000));
    settle(
        &queue,
        vec![
            PublishResult { number: 0, result: Err(Rejection::NoStream) },
            PublishResult { number: 1, result: Err(Rejection::ByServer("no".into())) },
        ],
    );
    let Err(FlushError::Failed { failed, .. }) = queue.flush(Instant::now()) else { panic!("one has failed") };
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].event.payload(), &failed[0].reason), (&b"dropped"[..], &FailureReason::Refused("no".into())));
    assert!(matches!(held.outcome.get(), Some(Outcome::Failed(FailureReason::NoStream))));
    assert!(queue.flush(Instant::now()).is_ok(), "each comes back once");
    queue.receipt_dropped(&held);
    let Err(FlushError::Failed { failed, .. }) = queue.flush(Instant::now()) else {
        panic!("its receipt was dropped later")
    };
    assert_eq!(failed[0].event.payload(), b"held");
    queue.receipt_dropped(&held);
    assert!(queue.flush(Instant::now()).is_ok(), "each comes back once");
}

#[test]
fn one_event_is_sent_while_no_answer_arrives() {
    let queue = queue();
    let _entries: Vec<_> = ["x", "y", "z"].map(|payload| enqueue(&queue, payload)).into();
    for _ in 0..3 {
        assert_eq!(numbers(&mut queue.connect(1_000)), [0, 1]);
        queue.disconnect("no answer".into());
    }
    let mut source = queue.connect(1_000);
    assert_eq!(numbers(&mut source), [0], "answers may never arrive");
    settle(&queue, vec![kept(0)]);
    assert_eq!(numbers(&mut source), [1, 2]);
}

#[test]
fn a_number_waits_for_the_one_that_the_database_may_forget() {
    let queue = queue();
    let _oldest = enqueue(&queue, "x");
    queue.state.lock().next = WIDTH - 1;
    let _entries: Vec<_> = ["y", "z"].map(|payload| enqueue(&queue, payload)).into();
    let mut source = queue.connect(1_000);
    assert_eq!(numbers(&mut source), [0, WIDTH - 1]);
    settle(&queue, vec![kept(WIDTH - 1)]);
    queue.interrupt();
    assert!(numbers(&mut source).is_empty(), "number 0 has no outcome yet");
    settle(&queue, vec![kept(0)]);
    assert_eq!(numbers(&mut source), [WIDTH]);
}

#[test]
fn an_event_past_the_duplicate_window_is_not_sent_again() {
    let queue = queue();
    let entry = enqueue(&queue, "x");
    assert_eq!(numbers(&mut queue.connect(1_000)), [0]);
    queue.disconnect("gone".into());
    queue.fail_unconfirmed(Duration::from_mins(2));
    assert!(entry.outcome.get().is_none());
    queue.fail_unconfirmed(Duration::ZERO);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::Unconfirmed(_)))));
}

#[test]
fn an_event_larger_than_the_server_takes_is_refused() {
    let queue = queue();
    let error = queue.enqueue(Event::new("a", "x".repeat(950)), Overflow::Refuse).expect_err("too large");
    assert_eq!(error.reason, FailureReason::TooLarge { size: 1_027, limit: 1_000 });
    let entry = enqueue(&queue, &"x".repeat(850));
    let _source = queue.connect(900);
    assert!(
        matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::TooLarge { .. }))),
        "the next server accepts less"
    );
}

#[test]
fn an_event_waits_a_moment_for_a_missing_stream() {
    let queue = queue();
    let entry = enqueue(&queue, "x");
    let _source = numbers(&mut queue.connect(1_000));
    let missing = || vec![PublishResult { number: 0, result: Err(Rejection::NoStream) }];
    assert!(matches!(queue.settle(missing(), Duration::from_mins(1)), SettleResult::Retry(_)));
    assert!(entry.outcome.get().is_none());
    assert_eq!(queue.settle(missing(), Duration::ZERO), SettleResult::Done);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::NoStream))));
}

#[test]
fn an_event_refused_for_now_is_sent_again_however_late() {
    let queue = queue();
    let entry = enqueue(&queue, "x");
    assert_eq!(numbers(&mut queue.connect(1_000)), [0]);
    let full = PublishResult { number: 0, result: Err(Rejection::ForNow("insufficient resources".into())) };
    assert_eq!(queue.settle(vec![full], Duration::ZERO), SettleResult::Retry("insufficient resources".into()));
    queue.fail_unconfirmed(Duration::ZERO);
    assert!(entry.outcome.get().is_none(), "it is known not to be stored");
    assert_eq!(numbers(&mut queue.connect(1_000)), [0]);
    settle(&queue, vec![kept(0)]);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Recorded(_))));
}

#[test]
fn trouble_lasts_until_every_refused_event_has_its_outcome() {
    let queue = queue();
    let _entries: Vec<_> = ["x", "y", "z"].map(|payload| enqueue(&queue, payload)).into();
    let mut source = queue.connect(1_000);
    assert_eq!(numbers(&mut source), [0, 1]);
    let refused = |number, what: &str| PublishResult { number, result: Err(Rejection::ForNow(what.into())) };
    let settle = |results| queue.settle(results, MINUTE);
    assert_eq!(settle(vec![refused(0, "full")]), SettleResult::Retry("full".into()));
    assert_eq!(settle(vec![refused(1, "busy")]), SettleResult::Retry("full".into()), "the same trouble as before");
    assert_eq!(settle(vec![kept(1)]), SettleResult::Retry("full".into()), "another event was stored");
    assert_eq!(settle(vec![refused(0, "busy")]), SettleResult::Retry("busy".into()), "news of the same event");
    assert_eq!(
        queue.flush(Instant::now()).expect_err("two are pending").to_string(),
        "2 events not confirmed yet: busy"
    );
    assert_eq!(settle(vec![kept(0)]), SettleResult::Done);
    assert_eq!(queue.flush(Instant::now()).expect_err("one is pending").to_string(), "1 event not confirmed yet");
}

#[test]
fn an_unanswered_attempt_may_have_stored_what_is_refused_later() {
    let queue = queue();
    let entry = enqueue(&queue, "x");
    assert_eq!(numbers(&mut queue.connect(1_000)), [0]);
    queue.disconnect("gone".into());
    assert_eq!(numbers(&mut queue.connect(1_000)), [0]);
    let full = PublishResult { number: 0, result: Err(Rejection::ForNow("insufficient resources".into())) };
    assert!(matches!(queue.settle(vec![full], Duration::ZERO), SettleResult::Retry(_)));
    queue.fail_unconfirmed(Duration::ZERO);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::Unconfirmed(_)))));
}

#[test]
fn an_event_refused_and_then_stored_is_stored() {
    let queue = queue();
    let _entry = enqueue(&queue, "x");
    assert_eq!(numbers(&mut queue.connect(1_000)), [0]);
    let full = PublishResult { number: 0, result: Err(Rejection::ForNow("insufficient resources".into())) };
    settle(&queue, vec![full, kept(0)]);
}

#[test]
fn no_more_bytes_than_the_window_are_in_flight() {
    let bounds = Bounds { events: 9, bytes: 9_000, window: 9, first_window: 9, window_bytes: 250, ..bounds() };
    let queue = Arc::new(SendQueue::new(bounds, 9_000));
    let payload = "x".repeat(99);
    let _entries: Vec<_> = [&payload, &payload, &payload].map(|payload| enqueue(&queue, payload)).into();
    let mut source = queue.connect(9_000);
    assert_eq!(numbers(&mut source), [0, 1]);
    settle(&queue, vec![kept(1)]);
    assert_eq!(numbers(&mut source), [2]);
    let _large = enqueue(&queue, &"x".repeat(900));
    settle(&queue, vec![kept(0), kept(2)]);
    assert_eq!(numbers(&mut source), [3], "a larger event is sent alone");
}

#[test]
fn a_slow_connection_gets_no_more_than_it_carries() {
    let flush_timeout = Some(Duration::from_hours(4));
    let bounds = Bounds {
        events: 99,
        bytes: 90_000,
        window: 99,
        first_window: 99,
        window_bytes: 20_000,
        flush_timeout,
        ..bounds()
    };
    let queue = Arc::new(SendQueue::new(bounds, 90_000));
    let _entries: Vec<_> = (0..30).map(|_| enqueue(&queue, &"x".repeat(999))).collect();
    let mut source = queue.connect(90_000);
    assert_eq!(numbers(&mut source).len(), 20);
    for pending in queue.state.lock().pending.values_mut() {
        pending.sent.iter_mut().for_each(|sent| sent.last -= Duration::from_mins(6));
    }
    // 1,000 bytes in a tenth of an hour are at most 10,000 bytes in an hour.
    settle(&queue, vec![kept(0)]);
    let window = queue.state.lock().window_bytes;
    assert!((1..=10_000).contains(&window), "{window}");
    settle(&queue, (1..20).map(kept).collect());
    queue.shrink_window();
    queue.shrink_window();
    let window = queue.state.lock().window_bytes;
    assert!(window <= 20_000 / 16, "{window}");
    assert_eq!(numbers(&mut source), [20], "one event is sent in any case");
    settle(&queue, vec![kept(20)]);
    assert_eq!(queue.state.lock().window_bytes, 20_000, "answered within three minutes");
}

#[test]
fn one_late_answer_halves_the_window_at_most() {
    let bounds = Bounds {
        events: 99,
        bytes: 90_000,
        window: 99,
        first_window: 99,
        window_bytes: 16_000,
        flush_timeout: Some(Duration::from_hours(4)),
        ..bounds()
    };
    let queue = Arc::new(SendQueue::new(bounds, 90_000));
    let mut source = queue.connect(90_000);
    let mut answered_after = |number: u64, wait: Duration| {
        let _entry = enqueue(&queue, &"x".repeat(999));
        assert_eq!(numbers(&mut source), [number]);
        queue.state.lock().pending.values_mut().for_each(|pending| {
            pending.sent.iter_mut().for_each(|sent| sent.last -= wait);
        });
        settle(&queue, vec![kept(number)]);
        queue.state.lock().window_bytes
    };
    // A kilobyte an hour.
    let late = Duration::from_hours(1);
    assert_eq!((0..4).map(|number| answered_after(number, late)).collect::<Vec<_>>(), [8_000, 4_000, 2_000, 1_000]);
    assert!(answered_after(4, late) < 1_000, "the speed of the connection is the bound");
    assert_eq!(answered_after(5, Duration::ZERO), 16_000);
}

#[test]
fn failures_are_kept_within_the_bounds_of_the_buffer() {
    let queue = queue();
    for payload in ["x", "y", "z"] {
        let entry = enqueue(&queue, &payload.repeat(400));
        queue.receipt_dropped(&entry);
        let _source = queue.connect(10);
        queue.connect(1_000);
    }
    let Err(FlushError::Failed { failed, .. }) = queue.flush(Instant::now()) else { panic!("they have failed") };
    assert_eq!(failed.len(), 2, "1,000 bytes have no room for three");
}

#[test]
fn an_event_without_an_answer_delays_no_later_event() {
    let queue = queue();
    let _stuck = enqueue(&queue, "stuck");
    let mut source = queue.connect(1_000);
    assert_eq!(numbers(&mut source), [0]);
    for number in 1..100 {
        let entry = enqueue(&queue, "x");
        assert_eq!(numbers(&mut source), [number]);
        settle(&queue, vec![kept(number)]);
        assert!(entry.outcome.get().is_some());
    }
    queue.fail_denied(&denial_of_a());
    queue.flush(Instant::now()).expect("no receipt was dropped, and nothing is pending");
}

#[test]
fn the_sequence_before_unconfirmed_events_names_its_stream() {
    let queue = queue();
    let of = |stream: &str, number| {
        let taken = Acknowledgement::ByStream { stream: stream.into(), sequence: Some(7), duplicate: false };
        vec![PublishResult { number, result: Ok(taken) }]
    };
    let _entries: Vec<_> = ["1", "2", "3", "4"].map(|payload| enqueue(&queue, payload)).into();
    let mut source = queue.connect(1_000);
    assert_eq!(numbers(&mut source), [0, 1]);
    settle(&queue, of("A", 0));
    settle(&queue, of("A", 1));
    assert_eq!(numbers(&mut source), [2, 3]);
    let (events, after) = queue.unconfirmed(Duration::ZERO);
    assert_eq!((events.len(), after), (2, Some(("A".to_owned(), 7))));
    settle(&queue, of("B", 2));
    assert_eq!(queue.unconfirmed(Duration::ZERO).1, None, "with two streams, no sequence is known");
}

/// Passes each line to the callback of the thread that logs.
struct CallbackLogger;

type Callback = Box<dyn Fn(String)>;

thread_local! {
    static CALLBACK: std::cell::RefCell<Option<Callback>> = const { std::cell::RefCell::new(None) };
}

impl log::Log for CallbackLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        CALLBACK.with_borrow(|set| set.iter().for_each(|callback| callback(record.args().to_string())));
    }

    fn flush(&self) {}
}

#[test]
fn nothing_is_logged_while_the_queue_is_locked() {
    log::set_logger(&CallbackLogger).expect("no other test sets one");
    log::set_max_level(log::LevelFilter::Warn);
    let bounds = Bounds { events: 9, bytes: 10, window: 9, first_window: 9, window_bytes: 900, ..bounds() };
    let queue = Arc::new(SendQueue::new(bounds, 1_000));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (kept, locked) = (Arc::clone(&lines), Arc::clone(&queue));
    CALLBACK.set(Some(Box::new(move |line| kept.lock().push((line, locked.state.try_lock().is_none())))));
    let logged = |words: &str| {
        let lines = std::mem::take(&mut *lines.lock());
        // The next failure of the same kind would not be logged so soon.
        queue.state.lock().failures.forget_lines();
        assert!(lines.iter().any(|(line, _)| line.contains(words)), "{words}: {lines:?}");
        assert!(lines.iter().all(|(_, locked)| !locked), "{words}: {lines:?}");
    };
    let dropped = || queue.receipt_dropped(&enqueue(&queue, "x"));
    let refused = |number| vec![PublishResult { number, result: Err(Rejection::ByServer("refused".into())) }];
    // Settled, denied, too large for the next server, too old to be sent again, and failed before the receipt was dropped.
    dropped();
    numbers(&mut queue.connect(1_000));
    settle(&queue, refused(0));
    logged("refused");
    dropped();
    numbers(&mut queue.connect(1_000));
    queue.fail_denied(&denial_of_a());
    logged("Permissions Violation");
    dropped();
    queue.connect(1);
    logged("server accepts");
    queue.connect(1_000);
    dropped();
    numbers(&mut queue.connect(1_000));
    queue.fail_unconfirmed(Duration::ZERO);
    logged("event");
    queue.fail_unconfirmed(MINUTE);
    dropped();
    numbers(&mut queue.connect(1_000));
    queue.state.lock().resend_window = Duration::ZERO;
    let mut source = queue.connect(1_000);
    queue.interrupt();
    assert!(numbers(&mut source).is_empty());
    logged("event");
    let entry = enqueue(&queue, "x");
    numbers(&mut source);
    settle(&queue, refused(5));
    queue.receipt_dropped(&entry);
    logged("refused");
    assert!(queue.failures().is_err());
    logged("no room to give them back");
}

#[test]
fn a_queues_debug_shows_no_event() {
    let queue = queue();
    let _entry = enqueue(&queue, "hunter2");
    assert!(!format!("{queue:?}").contains("hunter2"));
}
