//! A queue for events that are kept elsewhere too, in a spool or a table, and that are sent until they are in the stream.

use std::time::Duration;

use crossbeam_channel::Sender;

use super::entry::Outcome;
use super::state::{Settled, State, unlock_and_log};
use super::{SendQueue, too_large};
use crate::broker::Denial;
use crate::event::Event;
use crate::printable;
use crate::record::FailureReason;

impl SendQueue {
    /// Sends the outcome of each event there.
    pub(in crate::record) fn report_to(&self, reports: Sender<Settled>) {
        self.state.lock().reports = Some(reports);
    }

    /// Adds events that have numbers already, in ascending order. Does not wait for room.
    pub(in crate::record) fn enqueue_stored(&self, events: impl IntoIterator<Item = (u64, Event)>) {
        let mut state = self.state.lock();
        for (number, event) in events {
            let reason = too_large(&event, state.max_payload);
            self.insert(&mut state, number, event);
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
        self.notify_waiters();
        unlock_and_log(state);
    }

    /// How long an event that the server refuses is sent again at least, in a queue of events that are kept elsewhere too.
    pub(in crate::record) fn patience(&self) -> Option<Duration> {
        self.bounds.patience
    }
}

impl State {
    /// Schedules the denied events in flight to be sent again, as far as they are held.
    pub(super) fn hold_denied(&mut self, denial: &Denial, patience: Duration) {
        let is_denied = |subject: &str| denial.is_about(subject);
        let denied = self.pending.iter().filter(|(_, one)| one.in_flight && is_denied(one.entry.event.subject()));
        let denied: Vec<u64> = denied.map(|(number, _)| *number).collect();
        for number in denied {
            if self.is_held(number, patience) {
                self.schedule_retry(number, printable(&denial.to_string()).into_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::{Acknowledgement, EventSource, PublishResult, Rejection};
    use crate::record::send_queue::source::SendQueueSource;
    use crate::record::send_queue::{Bounds, SettleResult};

    /// A queue of stored events with these numbers, all sent, and where it reports their outcomes.
    fn patient(numbers: &[u64]) -> (Arc<SendQueue>, SendQueueSource, crossbeam_channel::Receiver<Settled>) {
        let bounds = Bounds {
            events: usize::MAX,
            bytes: usize::MAX,
            window: 9,
            window_bytes: 900,
            resend_window: Duration::MAX,
            flush_timeout: None,
            patience: Some(Duration::ZERO),
        };
        let queue = Arc::new(SendQueue::new(bounds, usize::MAX));
        let (reports, results) = crossbeam_channel::unbounded();
        queue.report_to(reports);
        queue.enqueue_stored(numbers.iter().map(|number| (*number, Event::new("a", "x"))));
        let mut source = queue.connect(1_000);
        let sent: Vec<u64> = source.take().expect("events").iter().map(|outgoing| outgoing.number).collect();
        assert_eq!(sent, numbers);
        (queue, source, results)
    }

    fn settled(results: &crossbeam_channel::Receiver<Settled>) -> Vec<(u64, bool)> {
        results.try_iter().map(|settled| (settled.number, settled.result.is_ok())).collect()
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
    fn a_stored_event_is_given_up_if_the_others_are_too_far_from_it_to_be_sent() {
        let (queue, mut source, results) = patient(&[1, 2]);
        let refuse = |number| queue.settle(vec![refused(number, Rejection::NoStream)], Duration::ZERO);
        let _ = (refuse(1), refuse(2), refuse(1));
        assert_eq!(settled(&results), [], "nothing else waits");
        queue.enqueue_stored([(100_000, Event::new("a", "x"))]);
        let _ = refuse(2);
        assert_eq!(settled(&results), [], "it is not the oldest");
        let _ = (refuse(1), refuse(2));
        assert_eq!(settled(&results), [(1, false), (2, false)]);
        assert_eq!(source.take().expect("one").iter().map(|outgoing| outgoing.number).collect::<Vec<_>>(), [100_000]);
        let _ = refuse(100_000);
        assert_eq!(settled(&results), [], "nothing else waits");
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
            (3, Event::new("a", vec![0; 2_000])),
            (4, Event::new("a", "x")),
            (5, Event::new("a", "x")),
        ]);
        let reports: Vec<_> = results.try_iter().collect();
        assert!(
            matches!(&reports[..], [Settled { number: 3, result: Err(FailureReason::TooLarge { .. }) }]),
            "{reports:?}"
        );
        queue.drop_through(4);
        let sent: Vec<u64> = source.take().expect("one").iter().map(|outgoing| outgoing.number).collect();
        assert_eq!(sent, [5]);
        let reasons: Vec<_> = results.try_iter().map(|settled| settled.result.expect_err("is dropped")).collect();
        assert!(
            matches!(
                &reasons[..],
                [FailureReason::Unconfirmed(_), FailureReason::Unconfirmed(_), FailureReason::Dropped]
            ),
            "{reasons:?}"
        );
    }
}
