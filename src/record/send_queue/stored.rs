//! A queue for events that are kept elsewhere too, in a spool or a table, and that are sent until they are in the stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::entry::{Entry, Outcome, PendingEvent};
use super::state::{Report, State, unlock_and_log};
use super::{SendQueue, too_large};
use crate::broker::Denial;
use crate::event::Event;
use crate::printable;
use crate::record::FailureReason;
use crate::store::FirstRefusal;
use crate::unix_time::since_us;

impl SendQueue {
    /// Reports there what happens to each event.
    pub(in crate::record) fn report_to(&self, reports: Sender<Report>) {
        self.state.lock().reports = Some(reports);
    }

    /// Adds events that have numbers already, in ascending order, each with what an earlier start has noted of its refusal. Does not
    /// wait for room.
    pub(in crate::record) fn enqueue_stored(
        &self,
        events: impl IntoIterator<Item = (u64, Event, Option<FirstRefusal>)>,
    ) {
        let mut state = self.state.lock();
        for (number, event, refused) in events {
            let reason = too_large(&event, state.max_payload);
            self.insert(&mut state, number, event);
            if let (Some(refused), Some(pending)) = (refused, state.pending.get_mut(&number)) {
                pending.first_refused = Instant::now().checked_sub(since_us(refused.at_us));
                pending.others_stored = refused.others_stored;
            }
            if let Some(reason) = reason {
                state.settle(number, Outcome::Failed(reason));
            }
        }
        unlock_and_log(state);
    }

    /// Sends no more of the events up to this number: they are not kept any more. One that was sent may be stored.
    pub(in crate::record) fn drop_through(&self, number: u64) {
        let mut state = self.state.lock();
        let dropped: Vec<u64> = state.pending.range(..=number).map(|(number, _)| *number).collect();
        for number in dropped {
            let sent = state.pending.get(&number).and_then(|pending| pending.sent);
            let reason = sent.map_or(FailureReason::Dropped, |sent| FailureReason::Unconfirmed(sent.first.elapsed()));
            state.settle(number, Outcome::Failed(reason));
        }
        self.notify_waiters(&state);
        unlock_and_log(state);
    }

    /// Sends this event from now on instead of the one that the server refuses under this number, if that is another. Does nothing while an
    /// attempt has no answer.
    pub(in crate::record) fn replace(&self, number: u64, event: Event) {
        let mut state = self.state.lock();
        let reason = too_large(&event, state.max_payload);
        let Some(pending) = state.pending.get_mut(&number) else { return };
        if pending.sent.is_some() || pending.in_flight || *pending.entry.event == event {
            return;
        }
        let (size, is_moved) = (event.size(), pending.entry.event.subject() != event.subject());
        let is_refused = pending.is_refused;
        let after = PendingEvent { is_refused, ..PendingEvent::new(Arc::new(Entry::new(event))) };
        let before = std::mem::replace(pending, after).entry;
        state.bytes = state.bytes - before.event.size() + size;
        if is_moved {
            state.leave_line(number, before.event.subject());
        }
        if let Some(reason) = reason {
            state.settle(number, Outcome::Failed(reason));
        }
        self.notify_waiters(&state);
        unlock_and_log(state);
    }

    /// Stops sending this event: its file no longer has it.
    pub(in crate::record) fn forget(&self, number: u64) {
        let mut state = self.state.lock();
        state.settle(number, Outcome::Failed(FailureReason::Dropped));
        self.notify_waiters(&state);
        unlock_and_log(state);
    }

    /// Whether the server refuses the event with this number at the moment.
    pub(in crate::record) fn is_refused(&self, number: u64) -> bool {
        self.state.lock().pending.get(&number).is_some_and(|pending| pending.is_refused)
    }

    /// Whether the server has answered on the present connection.
    pub(in crate::record) fn is_answered(&self) -> bool {
        let state = self.state.lock();
        state.connection > 0 && state.last_answer == state.connection
    }

    /// How long an event that the server refuses is sent again at least, in a queue of events that are kept elsewhere too.
    pub(in crate::record) fn give_up_after(&self) -> Option<Duration> {
        self.bounds.give_up_after
    }
}

impl State {
    /// Schedules the denied events in flight to be sent again, as far as they are held.
    pub(super) fn hold_denied(&mut self, denial: &Denial, give_up_after: Duration) {
        let is_denied = |subject: &str| denial.is_about(subject);
        let denied = self.pending.iter().filter(|(_, one)| one.in_flight && is_denied(one.entry.event.subject()));
        let denied: Vec<u64> = denied.map(|(number, _)| *number).collect();
        for number in denied {
            if self.is_held(number, give_up_after) {
                self.schedule_retry(number, printable(&denial.to_string()).into_owned());
                self.put_in_line(number, false);
            }
        }
        self.note_answers(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Acknowledgement, EventSource, PublishResult, Rejection};
    use crate::event_id::narrowed;
    use crate::record::Overflow;
    use crate::record::send_queue::source::SendQueueSource;
    use crate::record::send_queue::tests::{bounds, numbers};
    use crate::record::send_queue::{Bounds, SettleResult, Settled};

    /// A queue of stored events with these numbers, all sent, and where it reports their outcomes.
    fn patient(numbers: &[u64]) -> (Arc<SendQueue>, SendQueueSource, crossbeam_channel::Receiver<Report>) {
        let bounds = Bounds {
            events: usize::MAX,
            bytes: usize::MAX,
            window: 9,
            first_window: 9,
            window_bytes: 900,
            resend_window: Duration::MAX,
            give_up_after: Some(Duration::ZERO),
            ..bounds()
        };
        let queue = Arc::new(SendQueue::new(bounds, usize::MAX));
        let (reports, results) = crossbeam_channel::unbounded();
        queue.report_to(reports);
        queue.enqueue_stored(numbers.iter().map(|number| (*number, Event::new("a", "x"), None)));
        let mut source = queue.connect(1_000);
        let sent: Vec<u64> = source.take(&mut || {}).expect("events").iter().map(|outgoing| outgoing.number).collect();
        assert_eq!(sent, numbers);
        (queue, source, results)
    }

    fn settled(results: &crossbeam_channel::Receiver<Report>) -> Vec<(u64, bool)> {
        outcomes(results).map(|settled| (settled.number, settled.result.is_ok())).collect()
    }

    fn outcomes(results: &crossbeam_channel::Receiver<Report>) -> impl Iterator<Item = Settled> {
        results.try_iter().filter_map(|report| if let Report::Settled(settled) = report { Some(settled) } else { None })
    }

    fn refused(number: u64, rejection: Rejection) -> PublishResult {
        PublishResult { number, result: Err(rejection) }
    }

    #[test]
    fn a_stored_event_is_given_up_only_if_others_are_stored() {
        let (queue, _source, results) = patient(&[7, 9, 12]);
        let refuse = |number| queue.settle(vec![refused(number, Rejection::NoStream)], Duration::ZERO);
        for _ in 0..3 {
            assert!(matches!(refuse(7), SettleResult::Retry(reason) if reason == "no stream takes a at the moment"));
        }
        assert!(matches!(
            queue.settle(vec![refused(9, Rejection::ByServer("maximum messages exceeded".into()))], Duration::ZERO),
            SettleResult::Retry(_)
        ));
        assert_eq!(settled(&results), []);
        let taken = Acknowledgement::ByStream { stream: "S".into(), sequence: Some(1), duplicate: false };
        let _ = queue.settle(vec![PublishResult { number: 12, result: Ok(taken) }], Duration::ZERO);
        assert_eq!(settled(&results), [(12, true)]);
        let _ = queue.settle(vec![refused(7, Rejection::NoStream)], Duration::from_secs(60));
        assert_eq!(settled(&results), [], "it was refused for less than a minute");
        let _ = refuse(7);
        assert_eq!(settled(&results), [(7, false)]);
        // A stream that is full may have room again.
        let full = Rejection::ByServer("maximum messages exceeded".into());
        let _ = queue.settle(vec![refused(9, full)], Duration::ZERO);
        assert_eq!(settled(&results), []);
    }

    #[test]
    fn one_refused_event_delays_no_other_once_others_are_stored() {
        let (queue, mut source, _results) = patient(&[1]);
        let stored = || Ok(Acknowledgement::ByStream { stream: "S".into(), sequence: None, duplicate: false });
        let settle = |number, result| queue.settle(vec![PublishResult { number, result }], Duration::from_secs(60));
        let mut add = |number| {
            queue.enqueue_stored([(number, Event::new("b", "x"), None)]);
            queue.interrupt();
            numbers(&mut source)
        };
        let _ = settle(1, Err(Rejection::NoStream));
        assert_eq!(add(2), [] as [u64; 0], "a stream may be about to be made");
        queue.state.lock().retry_at = Instant::now();
        assert_eq!(add(3), [1]);
        let _ = settle(1, Err(Rejection::NoStream));
        queue.state.lock().refused_since = Instant::now().checked_sub(Duration::from_secs(2));
        assert_eq!(add(4), [2, 3, 4], "others may be taken");
        let _ = (settle(2, stored()), settle(1, Err(Rejection::NoStream)));
        assert_eq!(add(5), [5]);
        let _ = settle(1, Err(Rejection::NoStream));
        assert_eq!(add(6), [6], "also when 1 was refused again");
    }

    #[test]
    fn an_event_that_has_waited_for_a_refused_one_of_its_subject_is_given_up_as_soon() {
        let (queue, mut source, results) = patient(&[1]);
        queue.enqueue_stored([(2, Event::new("a", "x"), None), (3, Event::new("b", "x"), None)]);
        let settle = |number, result| queue.settle(vec![PublishResult { number, result }], Duration::from_millis(20));
        let _ = settle(1, Err(Rejection::NoStream));
        queue.state.lock().refused_since = None;
        assert_eq!(numbers(&mut source), [3], "2 waits for 1");
        std::thread::sleep(Duration::from_millis(30));
        let stored = Acknowledgement::ByStream { stream: "S".into(), sequence: None, duplicate: false };
        let _ = (settle(3, Ok(stored)), settle(1, Err(Rejection::NoStream)));
        assert_eq!(numbers(&mut source), [2]);
        let _ = settle(2, Err(Rejection::NoStream));
        assert_eq!(settled(&results), [(3, true), (1, false), (2, false)]);
    }

    #[test]
    fn a_stored_event_is_given_up_if_the_others_are_too_far_from_it_to_be_sent() {
        let (queue, mut source, results) = patient(&[1, 2]);
        let refuse = |number| queue.settle(vec![refused(number, Rejection::NoStream)], Duration::ZERO);
        let _ = (refuse(1), refuse(2), refuse(1));
        assert_eq!(settled(&results), [], "nothing else waits");
        queue.enqueue_stored([(100_000, Event::new("a", "x"), None)]);
        let _ = refuse(2);
        assert_eq!(settled(&results), [], "it is not the oldest");
        let _ = (refuse(1), refuse(2));
        assert_eq!(settled(&results), [(1, false), (2, false)]);
        assert_eq!(
            source.take(&mut || {}).expect("one").iter().map(|outgoing| outgoing.number).collect::<Vec<_>>(),
            [100_000]
        );
        let _ = refuse(100_000);
        assert_eq!(settled(&results), [], "nothing else waits");
    }

    #[test]
    fn no_number_is_sent_before_the_one_a_width_below_has_its_outcome() {
        const WIDTH: u64 = 64;
        let bounds = Bounds {
            events: 1_000,
            bytes: 1_000_000,
            window: 1_000,
            first_window: 1_000,
            window_bytes: 1_000_000,
            resend_window: Duration::MAX,
            ..bounds()
        };
        // This queue gives the numbers itself. The other gets them, with gaps.
        let numbering = Arc::new(SendQueue::new(bounds, 1_000));
        for _ in 0..300 {
            numbering.enqueue(Event::new("a", "x"), Overflow::Refuse).expect("there is room");
        }
        let stored = Arc::new(SendQueue::new(bounds, 1_000));
        stored.enqueue_stored((0..300).map(|number| (number + number / 10, Event::new("a", "x"), None)));
        for queue in [numbering, stored] {
            let mut source = queue.connect(1_000);
            let mut take = || {
                queue.interrupt();
                let batch =
                    narrowed::within(WIDTH, || source.take(&mut || {}).expect("the connection is the current one"));
                batch.iter().map(|outgoing| outgoing.number).collect::<Vec<_>>()
            };
            let acknowledge = |numbers: &[u64]| {
                let stored = Acknowledgement::ByStream { stream: "S".into(), sequence: None, duplicate: false };
                let answer = |number: &u64| PublishResult { number: *number, result: Ok(stored.clone()) };
                let _ = queue.settle(numbers.iter().map(answer).collect(), Duration::ZERO);
            };
            let mut rounds = 0;
            let mut sent = take();
            while let [oldest, others @ ..] = &sent[..] {
                assert!(others.last().is_none_or(|last| last - oldest < WIDTH), "{sent:?}");
                acknowledge(others);
                assert_eq!(take(), [0_u64; 0], "{oldest} has no outcome yet");
                acknowledge(&[*oldest]);
                sent = take();
                rounds += 1;
            }
            assert!(rounds >= 5 && queue.state.lock().pending.is_empty(), "{rounds}");
        }
    }

    #[test]
    fn events_wait_for_those_of_their_subject_that_a_full_stream_has_refused() {
        let (queue, mut source, results) = patient(&[1, 2, 3, 4]);
        let settle = |results: &[(u64, bool)]| {
            let answer = |&(number, is_stored)| {
                let stored = Acknowledgement::ByStream { stream: "S".into(), sequence: None, duplicate: false };
                let full = Rejection::ByServer("maximum messages exceeded".into());
                PublishResult { number, result: if is_stored { Ok(stored) } else { Err(full) } }
            };
            queue.settle(results.iter().map(answer).collect(), Duration::ZERO)
        };
        let mut take = || {
            queue.state.lock().retry_at = Instant::now();
            queue.interrupt();
            numbers(&mut source)
        };
        queue.enqueue_stored([(5, Event::new("b", "x"), None), (6, Event::new("a", "x"), None)]);
        let SettleResult::Retry(full) = settle(&[(1, true), (2, false), (3, false), (4, true)]) else { panic!() };
        assert_eq!(take(), [2, 5], "5 has another subject");
        assert_eq!(settle(&[(2, true)]), SettleResult::Retry(full.clone()), "3 waits");
        assert_eq!((take(), take()), (vec![3], vec![]), "one at a time");
        assert_eq!(settle(&[(3, false)]), SettleResult::Retry(full));
        queue.replace(3, Event::new("a", "y"));
        queue.replace(3, Event::new("c", "y"));
        assert_eq!(take(), [3, 6], "6 waits for none of another subject");
        let mut source = queue.connect(1_000);
        assert_eq!(numbers(&mut source), [3, 5, 6], "also on the next connection");
        assert_eq!(settle(&[(3, true), (5, true), (6, true)]), SettleResult::Done);
        assert_eq!(settled(&results), [(1, true), (4, true), (2, true), (3, true), (5, true), (6, true)]);
    }

    #[test]
    fn a_stored_event_that_is_too_large_for_its_stream_is_given_up() {
        let (queue, _source, results) = patient(&[1, 2]);
        let too_large = Rejection::ByServer("message size exceeds maximum allowed (error 10054)".into());
        let full = Rejection::ByServer("maximum bytes exceeded (error 10077)".into());
        let _ = queue.settle(vec![refused(1, too_large), refused(2, full)], Duration::from_secs(60));
        assert_eq!(settled(&results), [(1, false)]);
    }

    #[test]
    fn stored_events_that_are_dropped_or_too_large_are_not_sent() {
        let (queue, mut source, results) = patient(&[1, 2]);
        queue.enqueue_stored([
            (3, Event::new("a", vec![0; 2_000]), None),
            (4, Event::new("a", "x"), None),
            (5, Event::new("a", "x"), None),
        ]);
        let reports: Vec<_> = outcomes(&results).collect();
        assert!(
            matches!(&reports[..], [Settled { number: 3, result: Err(FailureReason::TooLarge { .. }) }]),
            "{reports:?}"
        );
        queue.drop_through(4);
        let sent: Vec<u64> = source.take(&mut || {}).expect("one").iter().map(|outgoing| outgoing.number).collect();
        assert_eq!(sent, [5]);
        let reasons: Vec<_> = outcomes(&results).map(|settled| settled.result.expect_err("is dropped")).collect();
        assert!(
            matches!(
                &reasons[..],
                [FailureReason::Unconfirmed(_), FailureReason::Unconfirmed(_), FailureReason::Dropped]
            ),
            "{reasons:?}"
        );
    }
}
