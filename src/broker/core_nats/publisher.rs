//! Publishes without a stream. Nobody acknowledges an event here; the most that can be known is that the server has read it,
//! for it answers a flush behind what stands before it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nats::Connection;
use parking_lot::Mutex;

use crate::broker::connection::{Cluster, Flusher, Link, Witness};
use crate::broker::headers;
use crate::broker::publisher::{Outgoing, Refused, Source, Taken, Verdict, denied, publish_all, quoted};
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::Signal;

/// The most denials that are kept between two flushes.
const MOST_DENIALS: usize = 10_000;

/// A live connection that publishes to whoever listens.
pub(in crate::broker) struct CorePublisher {
    link: Link,
    account: Arc<Account>,
    silence: Duration,
    told: Sender<Verdict>,
    verdicts: Receiver<Verdict>,
}

impl CorePublisher {
    /// Connects. Blocks at most for the configured time-out.
    pub(in crate::broker) fn open(cluster: &Arc<Cluster>, stop: &Signal) -> Result<Self, Error> {
        let account = Arc::new(Account::default());
        let ear = Arc::clone(&account);
        let link = Link::open_with(cluster, stop, Arc::new(move |remark: &str| ear.hear(remark)))?;
        let (told, verdicts) = crossbeam_channel::unbounded();
        Ok(Self { link, account, silence: cluster.config().silence, told, verdicts })
    }

    pub(in crate::broker) fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes what `source` gives, in the background, until it gives no more.
    pub(in crate::broker) fn start(&self, source: impl Source) {
        let (lost, tls, silence) = (self.link.lost().clone(), self.link.server().tls, self.silence);
        let account = Arc::clone(&self.account);
        let witness = Teller { account: Arc::clone(&account), told: self.told.clone(), under_way: Vec::new() };
        self.link.post(move |connection| {
            let flusher = Flusher::start_before(connection, tls, &lost, silence, witness);
            publish_all(
                source,
                flusher,
                &lost,
                || Ok(()),
                |outgoing| {
                    publish(connection, &outgoing.event)?;
                    account.published.lock().push_back(outgoing);
                    Ok(())
                },
            );
        });
    }

    /// Waits for verdicts, at most for `wait` or until something wakes it, and returns all there are.
    pub(in crate::broker) fn verdicts(&self, wait: Duration, wake: &Receiver<()>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        crossbeam_channel::select! {
            recv(self.verdicts) -> verdict => verdicts.extend(verdict),
            recv(wake) -> _ => {}
            recv(self.link.lost().channel()) -> _ => {}
            default(wait) => {}
        }
        verdicts.extend(self.verdicts.try_iter());
        verdicts
    }
}

/// No identity is made up here: nothing is sent twice, and there is no stream to recognise it.
fn publish(connection: &Connection, event: &Event) -> std::io::Result<()> {
    let headers = headers::of(event);
    let headers = (!headers.is_empty()).then_some(&headers);
    connection.publish_with_reply_or_headers(event.subject(), None, headers, event.payload())
}

/// What was published and is not known to be read by the server, and what the server denies.
#[derive(Default)]
struct Account {
    published: Mutex<VecDeque<Outgoing>>,
    denials: Mutex<Denials>,
}

#[derive(Default)]
struct Denials {
    /// Flushes begun so far.
    flushes: u64,
    /// Subjects as the server quotes them, what it said, and how many flushes had begun then.
    of: HashMap<String, (String, u64)>,
}

impl Account {
    fn hear(&self, remark: &str) {
        log::warn!("broker: the server says: {remark}");
        let mut denials = self.denials.lock();
        // It says so before it answers a flush behind the event.
        if let Some(subject) = denied(remark)
            && denials.of.len() < MOST_DENIALS
        {
            let heard = denials.flushes;
            denials.of.insert(subject.to_owned(), (remark.to_owned(), heard));
        }
    }
}

/// Turns answered flushes into verdicts.
struct Teller {
    account: Arc<Account>,
    told: Sender<Verdict>,
    under_way: Vec<Outgoing>,
}

impl Witness for Teller {
    fn begins(&mut self) {
        self.under_way.extend(self.account.published.lock().drain(..));
        self.account.denials.lock().flushes += 1;
    }

    fn answered(&mut self) {
        let mut denials = self.account.denials.lock();
        for Outgoing { number, event } in self.under_way.drain(..) {
            let denial = if denials.of.is_empty() { None } else { denials.of.get(&quoted(event.subject())) };
            let result = denial.map_or(Ok(Taken::ByServer), |(denial, _)| Err(Refused::ByServer(denial.clone())));
            let _ = self.told.send(Verdict { number, result });
        }
        // What was heard since this flush began may be about events behind it.
        let begun = denials.flushes;
        denials.of.retain(|_, (_, heard)| *heard >= begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teller() -> (Teller, Receiver<Verdict>) {
        let (told, verdicts) = crossbeam_channel::unbounded();
        (Teller { account: Arc::default(), told, under_way: Vec::new() }, verdicts)
    }

    fn publish(teller: &Teller, number: u64, subject: &str) {
        let event = Arc::new(Event::new(subject, ""));
        teller.account.published.lock().push_back(Outgoing { number, event });
    }

    #[test]
    fn a_flush_answer_covers_only_what_was_published_before() {
        let (mut teller, verdicts) = teller();
        publish(&teller, 0, "a");
        teller.begins();
        publish(&teller, 1, "a");
        teller.answered();
        assert_eq!(verdicts.try_iter().map(|verdict| verdict.number).collect::<Vec<_>>(), [0]);
        teller.begins();
        teller.answered();
        assert_eq!(verdicts.try_iter().map(|verdict| verdict.number).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_denial_that_is_heard_early_is_kept_for_its_event() {
        let (mut teller, verdicts) = teller();
        teller.begins();
        publish(&teller, 0, "a");
        teller.account.hear("Permissions Violation for Publish to \"a\"");
        teller.answered();
        teller.begins();
        teller.answered();
        assert!(verdicts.try_iter().all(|verdict| verdict.number == 0 && verdict.result.is_err()));
    }

    #[test]
    fn what_the_user_may_not_publish_is_refused_and_the_rest_is_not() {
        let (mut teller, verdicts) = teller();
        for (number, subject) in ["a", "a.b", "a.\"\\"].into_iter().enumerate() {
            publish(&teller, number as u64, subject);
        }
        teller.begins();
        teller.account.hear("Permissions Violation for Publish to \"a.b\"");
        teller.account.hear("Permissions Violation for Publish to \"a.\\\"\\\\\"");
        teller.account.hear("Permissions Violation for Subscription to \"a\"");
        teller.answered();
        let taken: Vec<bool> = verdicts.try_iter().map(|verdict| verdict.result.is_ok()).collect();
        assert_eq!(taken, [true, false, false]);
        for number in 3..5 {
            publish(&teller, number, "a.b");
            teller.begins();
            teller.answered();
        }
        assert!(verdicts.try_iter().last().is_some_and(|verdict| verdict.result.is_ok()), "permissions may change");
    }
}
