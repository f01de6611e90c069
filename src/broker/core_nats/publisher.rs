//! Publishes without a stream. Nothing acknowledges an event here. The most that can be known is that the server has read it, for it
//! answers a flush only after it has read everything before the flush.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use log::Level;
use nats::Connection;
use parking_lot::Mutex;

use crate::broker::connection::{Cluster, ErrorListener, FlushObserver, Flusher, Link, ServerRemark, quoted};
use crate::broker::headers;
use crate::broker::publishing::{Acknowledgement, EventSource, Outgoing, PublishResult, Rejection, publish_all};
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::Signal;

/// The most denials that are kept between two flushes.
const MOST_DENIALS: usize = 10_000;

/// A live connection that publishes to the subscribers of the moment.
pub(in crate::broker) struct CorePublisher {
    link: Link,
    unread: Arc<UnreadEvents>,
    silence: Duration,
    results_in: Sender<PublishResult>,
    results_out: Receiver<PublishResult>,
}

impl CorePublisher {
    /// Connects. Blocks at most for the configured time-out.
    pub(in crate::broker) fn open(cluster: &Arc<Cluster>, stop: &Signal) -> Result<Self, Error> {
        let unread = Arc::new(UnreadEvents::default());
        let listener = Arc::<UnreadEvents>::clone(&unread);
        let link = Link::open_with(cluster, stop, listener)?;
        let (results_in, results_out) = crossbeam_channel::unbounded();
        Ok(Self { link, unread, silence: cluster.config().silence, results_in, results_out })
    }

    pub(in crate::broker) fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes events from `source` in the background until it has no more.
    pub(in crate::broker) fn start(&self, source: impl EventSource) {
        let (lost, tls, silence) = (self.link.lost().clone(), self.link.server().tls, self.silence);
        let unread = Arc::clone(&self.unread);
        let observer =
            ReadObserver { unread: Arc::clone(&unread), results: self.results_in.clone(), under_way: Vec::new() };
        self.link.post(move |connection| {
            let flusher = Flusher::start_before(connection, tls, &lost, silence, observer);
            publish_all(
                source,
                flusher,
                &lost,
                || Ok(()),
                |round| vec![(); round.len()],
                |outgoing, ()| {
                    publish(connection, &outgoing.event)?;
                    unread.published.lock().push_back(outgoing);
                    Ok(())
                },
            );
        });
    }

    /// Waits for results, at most for `wait` or until `wake` is ready, and returns all there are.
    pub(in crate::broker) fn results(&self, wait: Duration, wake: &Receiver<()>) -> Vec<PublishResult> {
        let mut results = Vec::new();
        crossbeam_channel::select! {
            recv(self.results_out) -> result => results.extend(result),
            recv(wake) -> _ => {}
            recv(self.link.lost().channel()) -> _ => {}
            default(wait) => {}
        }
        results.extend(self.results_out.try_iter());
        results
    }
}

/// Generates no identity: no event is sent twice, and there is no stream to recognise it.
fn publish(connection: &Connection, event: &Event) -> std::io::Result<()> {
    let headers = headers::of(event);
    let headers = (!headers.is_empty()).then_some(&headers);
    connection.publish_with_reply_or_headers(event.subject(), None, headers, event.payload())
}

/// Events that were published and may not have been read by the server yet, and the server's denials.
#[derive(Default)]
struct UnreadEvents {
    published: Mutex<VecDeque<Outgoing>>,
    denials: Mutex<Denials>,
}

#[derive(Default)]
struct Denials {
    /// Flushes begun so far.
    flushes: u64,
    /// For each subject as the server quotes it: the server's remark, and how many flushes had begun when it came.
    by_subject: HashMap<String, (String, u64)>,
    /// The subjects whose denial was logged on this connection.
    logged: HashSet<String>,
}

impl ErrorListener for UnreadEvents {
    fn remarked(&self, remark: &ServerRemark) {
        let mut level = Level::Warn;
        // The server reports denials before it answers the flush after the event.
        if let ServerRemark::PublishDenied(denial) = remark {
            let mut denials = self.denials.lock();
            let (flushes, subject) = (denials.flushes, denial.quoted_subject());
            if denials.by_subject.len() < MOST_DENIALS {
                denials.by_subject.insert(subject.to_owned(), (denial.to_string(), flushes));
            }
            let is_new = denials.logged.len() < MOST_DENIALS && denials.logged.insert(subject.to_owned());
            level = if is_new { Level::Warn } else { Level::Debug };
        }
        log::log!(level, event = "server.remark", remark:% = remark; "broker: the server reports: {remark}");
    }
}

/// Turns answered flushes into results.
struct ReadObserver {
    unread: Arc<UnreadEvents>,
    results: Sender<PublishResult>,
    under_way: Vec<Outgoing>,
}

impl FlushObserver for ReadObserver {
    fn begins(&mut self) {
        self.under_way.extend(self.unread.published.lock().drain(..));
        self.unread.denials.lock().flushes += 1;
    }

    fn answered(&mut self) {
        let mut denials = self.unread.denials.lock();
        for Outgoing { number, event, .. } in self.under_way.drain(..) {
            let is_clear = denials.by_subject.is_empty();
            let denial = if is_clear { None } else { denials.by_subject.get(&quoted(event.subject())) };
            let result =
                denial.map_or(Ok(Acknowledgement::ByServer), |(line, _)| Err(Rejection::ByServer(line.clone())));
            let _ = self.results.send(PublishResult { number, result });
        }
        // A denial that came since this flush began may be about later events.
        let begun = denials.flushes;
        denials.by_subject.retain(|_, (_, flushes)| *flushes >= begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> (ReadObserver, Receiver<PublishResult>) {
        let (sender, results) = crossbeam_channel::unbounded();
        (ReadObserver { unread: Arc::default(), results: sender, under_way: Vec::new() }, results)
    }

    fn remark(observer: &ReadObserver, line: &str) {
        observer.unread.remarked(&ServerRemark::parse(line.to_owned()));
    }

    fn publish(observer: &ReadObserver, number: u64, subject: &str) {
        let event = Arc::new(Event::new(subject, ""));
        observer.unread.published.lock().push_back(Outgoing { number, event, alone: false });
    }

    #[test]
    fn a_flush_answer_covers_only_what_was_published_before() {
        let (mut observer, results) = observer();
        publish(&observer, 0, "a");
        observer.begins();
        publish(&observer, 1, "a");
        observer.answered();
        assert_eq!(results.try_iter().map(|result| result.number).collect::<Vec<_>>(), [0]);
        observer.begins();
        observer.answered();
        assert_eq!(results.try_iter().map(|result| result.number).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_denial_that_comes_early_is_kept_for_its_event() {
        let (mut observer, results) = observer();
        observer.begins();
        publish(&observer, 0, "a");
        remark(&observer, "Permissions Violation for Publish to \"a\"");
        observer.answered();
        observer.begins();
        observer.answered();
        assert!(results.try_iter().all(|result| result.number == 0 && result.result.is_err()));
    }

    #[test]
    fn only_what_the_user_may_not_publish_is_refused() {
        let (mut observer, results) = observer();
        for (number, subject) in ["a", "a.b", "a.\"\\"].into_iter().enumerate() {
            publish(&observer, number as u64, subject);
        }
        observer.begins();
        remark(&observer, "Permissions Violation for Publish to \"a.b\"");
        remark(&observer, "Permissions Violation for Publish to \"a.\\\"\\\\\"");
        remark(&observer, "Permissions Violation for Subscription to \"a\"");
        observer.answered();
        let taken: Vec<bool> = results.try_iter().map(|result| result.result.is_ok()).collect();
        assert_eq!(taken, [true, false, false]);
        for number in 3..5 {
            publish(&observer, number, "a.b");
            observer.begins();
            observer.answered();
        }
        assert!(results.try_iter().last().is_some_and(|result| result.result.is_ok()), "permissions may change");
    }
}
