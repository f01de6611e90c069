use super::*;
use crate::broker::{Denial, EventSource};
use crate::record::FlushError;

const MINUTE: Duration = Duration::from_secs(60);

fn desk() -> Arc<Desk> {
    let bounds = Bounds { events: 4, bytes: 1_000, window: 2, window_bytes: 500, repeatable: MINUTE, patience: None };
    Arc::new(Desk::new(bounds, 1_000))
}

fn hand_in(desk: &Desk, payload: &str) -> Arc<Entry> {
    desk.hand_in(Event::new("a", payload), Overflow::Refuse).expect("there is room")
}

fn numbers(source: &mut ToSend) -> Vec<u64> {
    source.take().expect("the connection is the present one").iter().map(|outgoing| outgoing.number).collect()
}

fn kept(number: u64) -> PublishResult {
    PublishResult {
        number,
        result: Ok(Acknowledgement::ByStream { stream: "S".into(), sequence: number + 1, duplicate: false }),
    }
}

/// Settles without patience for a stream that may come.
fn denial_of_a() -> Denial {
    Denial::parse("Permissions Violation for Publish to \"a\"").expect("a denial")
}

fn settle(desk: &Desk, verdicts: Vec<PublishResult>) {
    assert_eq!(desk.settle(verdicts, Duration::ZERO), Settled::AsSaid);
}

#[test]
fn no_more_than_the_window_is_under_way() {
    let desk = desk();
    let entries: Vec<_> = ["x", "y", "z"].map(|payload| hand_in(&desk, payload)).into();
    let mut source = desk.connect(1_000);
    assert_eq!(numbers(&mut source), [0, 1]);
    settle(&desk, vec![kept(1)]);
    assert!(entries[0].outcome.get().is_none() && entries[1].outcome.get().is_some());
    settle(&desk, vec![kept(0)]);
    assert_eq!(numbers(&mut source), [2]);
}

#[test]
fn only_a_new_connection_gets_the_unsettled_events() {
    let desk = desk();
    let _entries: Vec<_> = ["x", "y"].map(|payload| hand_in(&desk, payload)).into();
    let mut old = desk.connect(1_000);
    assert_eq!(numbers(&mut old), [0, 1]);
    settle(&desk, vec![kept(1)]);
    desk.disconnect("gone".into());
    assert!(old.take().is_none());
    assert_eq!(numbers(&mut desk.connect(1_000)), [0]);
}

#[test]
fn a_full_buffer_gives_the_event_back() {
    let desk = desk();
    for payload in ["1", "2", "3", "4"] {
        hand_in(&desk, payload);
    }
    let error = desk.hand_in(Event::new("a", "5"), Overflow::Refuse).expect_err("there is no room");
    assert_eq!(error.event.payload(), b"5");
    assert_eq!(error.reason, FailureReason::BufferFull { events: 4, bytes: 8 });
    let error = desk.hand_in(Event::new("a", "6"), Overflow::Block(Duration::from_millis(5))).expect_err("nor later");
    assert_eq!(error.event.payload(), b"6");
}

#[test]
fn room_wakes_who_waits_for_it() {
    let desk = desk();
    for payload in ["1", "2", "3", "4"] {
        hand_in(&desk, payload);
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| desk.hand_in(Event::new("a", "5"), Overflow::Block(Duration::from_mins(1))));
        settle(&desk, vec![kept(0)]);
        assert!(waiting.join().expect("no panic").is_ok());
    });
}

#[test]
fn failures_without_a_receipt_come_back_with_the_flush() {
    let desk = desk();
    let held = hand_in(&desk, "held");
    desk.release(&hand_in(&desk, "dropped"));
    let _source = numbers(&mut desk.connect(1_000));
    settle(
        &desk,
        vec![
            PublishResult { number: 0, result: Err(Rejection::NoStream) },
            PublishResult { number: 1, result: Err(Rejection::ByServer("no".into())) },
        ],
    );
    let Err(FlushError::Failed { failed, .. }) = desk.flush(Instant::now()) else { panic!("one has failed") };
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].event.payload(), &failed[0].reason), (&b"dropped"[..], &FailureReason::Refused("no".into())));
    assert!(matches!(held.outcome.get(), Some(Outcome::Failed(FailureReason::NoStream))));
    assert!(desk.flush(Instant::now()).is_ok(), "each comes back once");
    desk.release(&held);
    let Err(FlushError::Failed { failed, .. }) = desk.flush(Instant::now()) else {
        panic!("its receipt was dropped later")
    };
    assert_eq!(failed[0].event.payload(), b"held");
    desk.release(&held);
    assert!(desk.flush(Instant::now()).is_ok(), "each comes back once");
}

#[test]
fn an_event_past_the_duplicate_window_is_given_back() {
    let desk = desk();
    let entry = hand_in(&desk, "x");
    assert_eq!(numbers(&mut desk.connect(1_000)), [0]);
    desk.disconnect("gone".into());
    desk.give_up_unconfirmed(Duration::from_mins(2));
    assert!(entry.outcome.get().is_none());
    desk.give_up_unconfirmed(Duration::ZERO);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::Unconfirmed(_)))));
}

#[test]
fn an_event_larger_than_the_server_takes_is_refused() {
    let desk = desk();
    let error = desk.hand_in(Event::new("a", "x".repeat(950)), Overflow::Refuse).expect_err("too large");
    assert_eq!(error.reason, FailureReason::TooLarge { size: 1_056, limit: 1_000 });
    let entry = hand_in(&desk, &"x".repeat(850));
    let _source = desk.connect(900);
    assert!(
        matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::TooLarge { .. }))),
        "the next server takes less"
    );
}

#[test]
fn a_missing_stream_is_waited_for_a_little() {
    let desk = desk();
    let entry = hand_in(&desk, "x");
    let _source = numbers(&mut desk.connect(1_000));
    let missing = || vec![PublishResult { number: 0, result: Err(Rejection::NoStream) }];
    assert!(matches!(desk.settle(missing(), Duration::from_mins(1)), Settled::Again(_)));
    assert!(entry.outcome.get().is_none());
    assert_eq!(desk.settle(missing(), Duration::ZERO), Settled::AsSaid);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::NoStream))));
}

#[test]
fn what_the_server_refuses_for_now_is_sent_again_however_late() {
    let desk = desk();
    let entry = hand_in(&desk, "x");
    assert_eq!(numbers(&mut desk.connect(1_000)), [0]);
    let full = PublishResult { number: 0, result: Err(Rejection::ForNow("insufficient resources".into())) };
    assert_eq!(desk.settle(vec![full], Duration::ZERO), Settled::Again("insufficient resources".into()));
    desk.give_up_unconfirmed(Duration::ZERO);
    assert!(entry.outcome.get().is_none(), "it is known not to be stored");
    assert_eq!(numbers(&mut desk.connect(1_000)), [0]);
    settle(&desk, vec![kept(0)]);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Kept(_))));
}

#[test]
fn an_unanswered_first_send_leaves_its_event_unconfirmed() {
    let desk = desk();
    let entry = hand_in(&desk, "x");
    assert_eq!(numbers(&mut desk.connect(1_000)), [0]);
    desk.disconnect("gone".into());
    assert_eq!(numbers(&mut desk.connect(1_000)), [0]);
    let full = PublishResult { number: 0, result: Err(Rejection::ForNow("insufficient resources".into())) };
    assert!(matches!(desk.settle(vec![full], Duration::ZERO), Settled::Again(_)));
    desk.give_up_unconfirmed(Duration::ZERO);
    assert!(matches!(entry.outcome.get(), Some(Outcome::Failed(FailureReason::Unconfirmed(_)))));
}

#[test]
fn a_refusal_that_good_news_overtook_is_none() {
    let desk = desk();
    let _entry = hand_in(&desk, "x");
    assert_eq!(numbers(&mut desk.connect(1_000)), [0]);
    let full = PublishResult { number: 0, result: Err(Rejection::ForNow("insufficient resources".into())) };
    settle(&desk, vec![full, kept(0)]);
}

#[test]
fn no_more_bytes_than_the_window_are_under_way() {
    let bounds = Bounds { events: 9, bytes: 9_000, window: 9, window_bytes: 250, repeatable: MINUTE, patience: None };
    let desk = Arc::new(Desk::new(bounds, 9_000));
    let payload = "x".repeat(99);
    let _entries: Vec<_> = [&payload, &payload, &payload].map(|payload| hand_in(&desk, payload)).into();
    let mut source = desk.connect(9_000);
    assert_eq!(numbers(&mut source), [0, 1]);
    settle(&desk, vec![kept(1)]);
    assert_eq!(numbers(&mut source), [2]);
    let _large = hand_in(&desk, &"x".repeat(900));
    settle(&desk, vec![kept(0), kept(2)]);
    assert_eq!(numbers(&mut source), [3], "one that is larger goes alone");
}

#[test]
fn a_slow_connection_gets_no_more_than_it_carries() {
    let patience = Some(Duration::from_hours(4));
    let bounds = Bounds { events: 99, bytes: 90_000, window: 99, window_bytes: 20_000, repeatable: MINUTE, patience };
    let desk = Arc::new(Desk::new(bounds, 90_000));
    let _entries: Vec<_> = (0..30).map(|_| hand_in(&desk, &"x".repeat(999))).collect();
    let mut source = desk.connect(90_000);
    assert_eq!(numbers(&mut source).len(), 20);
    for waiting in desk.state.lock().waiting.values_mut() {
        waiting.sent.iter_mut().for_each(|sent| sent.last -= Duration::from_mins(6));
    }
    // A thousand bytes in a tenth of an hour are no more than ten thousand in one.
    settle(&desk, vec![kept(0)]);
    let window = desk.state.lock().window_bytes;
    assert!((1..=10_000).contains(&window), "{window}");
    settle(&desk, (1..20).map(kept).collect());
    desk.fell_silent();
    desk.fell_silent();
    let window = desk.state.lock().window_bytes;
    assert!(window <= 20_000 / 16, "{window}");
    assert_eq!(numbers(&mut source), [20], "one goes in any case");
    settle(&desk, vec![kept(20)]);
    assert_eq!(desk.state.lock().window_bytes, 20_000, "answered within three minutes");
}

#[test]
fn failures_are_kept_within_the_bounds_of_the_buffer() {
    let desk = desk();
    for payload in ["x", "y", "z"] {
        let entry = hand_in(&desk, &payload.repeat(400));
        desk.release(&entry);
        let _source = desk.connect(10);
        desk.connect(1_000);
    }
    let Err(FlushError::Failed { failed, .. }) = desk.flush(Instant::now()) else { panic!("they have failed") };
    assert_eq!(failed.len(), 2, "1,000 bytes have no room for three");
}

#[test]
fn one_event_without_an_answer_holds_up_nothing_behind_it() {
    let desk = desk();
    let _stuck = hand_in(&desk, "stuck");
    let mut source = desk.connect(1_000);
    assert_eq!(numbers(&mut source), [0]);
    for number in 1..100 {
        let entry = hand_in(&desk, "x");
        assert_eq!(numbers(&mut source), [number]);
        settle(&desk, vec![kept(number)]);
        assert!(entry.outcome.get().is_some());
    }
    desk.deny(&denial_of_a());
    desk.flush(Instant::now()).expect("nobody dropped the receipt, and nothing waits");
}

#[test]
fn the_sequence_before_unconfirmed_events_names_its_stream() {
    let desk = desk();
    let of = |stream: &str, number| {
        let taken = Acknowledgement::ByStream { stream: stream.into(), sequence: 7, duplicate: false };
        vec![PublishResult { number, result: Ok(taken) }]
    };
    let _entries: Vec<_> = ["1", "2", "3", "4"].map(|payload| hand_in(&desk, payload)).into();
    let mut source = desk.connect(1_000);
    assert_eq!(numbers(&mut source), [0, 1]);
    settle(&desk, of("A", 0));
    settle(&desk, of("A", 1));
    assert_eq!(numbers(&mut source), [2, 3]);
    let (events, after) = desk.doubtful(Duration::ZERO);
    assert_eq!((events.len(), after), (2, Some(("A".to_owned(), 7))));
    settle(&desk, of("B", 2));
    assert_eq!(desk.doubtful(Duration::ZERO).1, None, "whose sequence it was is not known any more");
}

/// Calls what the thread that logs has set.
struct Ear;

type Hears = Box<dyn Fn(String)>;

thread_local! {
    static HEARS: std::cell::RefCell<Option<Hears>> = const { std::cell::RefCell::new(None) };
}

impl log::Log for Ear {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        HEARS.with_borrow(|hears| hears.iter().for_each(|hears| hears(record.args().to_string())));
    }

    fn flush(&self) {}
}

#[test]
fn nothing_is_logged_while_the_desk_is_locked() {
    log::set_logger(&Ear).expect("no other test sets one");
    log::set_max_level(log::LevelFilter::Warn);
    let bounds = Bounds { events: 9, bytes: 10, window: 9, window_bytes: 900, repeatable: MINUTE, patience: None };
    let desk = Arc::new(Desk::new(bounds, 1_000));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (kept, locked) = (Arc::clone(&lines), Arc::clone(&desk));
    HEARS.set(Some(Box::new(move |line| kept.lock().push((line, locked.state.try_lock().is_none())))));
    let logged = |words: &str| {
        let lines = std::mem::take(&mut *lines.lock());
        assert!(lines.iter().any(|(line, _)| line.contains(words)), "{words}: {lines:?}");
        assert!(lines.iter().all(|(_, locked)| !locked), "{words}: {lines:?}");
    };
    let dropped = || desk.release(&hand_in(&desk, "x"));
    let refused = |number| vec![PublishResult { number, result: Err(Rejection::ByServer("refused".into())) }];
    // Settled, denied, too large for the next server, too old to be sent again, and released behind all that.
    dropped();
    numbers(&mut desk.connect(1_000));
    settle(&desk, refused(0));
    logged("refused");
    dropped();
    numbers(&mut desk.connect(1_000));
    desk.deny(&denial_of_a());
    logged("Permissions Violation");
    dropped();
    desk.connect(1);
    logged("server takes");
    desk.connect(1_000);
    dropped();
    numbers(&mut desk.connect(1_000));
    desk.give_up_unconfirmed(Duration::ZERO);
    logged("event");
    desk.give_up_unconfirmed(MINUTE);
    dropped();
    numbers(&mut desk.connect(1_000));
    desk.state.lock().repeatable = Duration::ZERO;
    let mut source = desk.connect(1_000);
    desk.interrupt();
    assert!(numbers(&mut source).is_empty());
    logged("event");
    let entry = hand_in(&desk, "x");
    numbers(&mut source);
    settle(&desk, refused(5));
    desk.release(&entry);
    logged("refused");
    assert!(desk.failures().is_err());
    logged("are only in the log above");
}
