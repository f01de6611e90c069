//! Publishes to streams and hears what they say of each event.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use nats::{Connection, Message};
use parking_lot::Mutex;
use serde::Deserialize;

use super::api;
use crate::broker::connection::{Cluster, Flusher, Link};
use crate::broker::headers;
use crate::broker::publisher::{Outgoing, Refused, Source, Taken, Verdict, denied, publish_all};
use crate::error::Error;
use crate::pipeline::Signal;

/// A live connection that publishes to streams.
pub(in crate::broker) struct StreamPublisher {
    link: Link,
    denials: Arc<Mutex<Vec<String>>>,
    denied: Receiver<()>,
}

impl StreamPublisher {
    /// Connects. Blocks at most for the configured time-out.
    pub(in crate::broker) fn open(cluster: &Arc<Cluster>, stop: &Signal) -> Result<Self, Error> {
        let denials = Arc::new(Mutex::new(Vec::new()));
        let (heard, denied_out) = crossbeam_channel::bounded(1);
        let kept = Arc::clone(&denials);
        let ear = move |remark: &str| {
            log::warn!("broker: the server says: {remark}");
            if denied(remark).is_some() {
                kept.lock().push(remark.to_owned());
                // Full: somebody is about to look already.
                let _ = heard.try_send(());
            }
        };
        Ok(Self { link: Link::open_with(cluster, stop, Arc::new(ear))?, denials, denied: denied_out })
    }

    pub(in crate::broker) fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes what `source` gives, in the background, until it gives no more; another source comes after it. `nonce` makes
    /// the identities of events that were given none.
    pub(in crate::broker) fn start(&self, source: impl Source, nonce: &str) {
        let nonce = nonce.to_owned();
        let lost = self.link.lost().clone();
        let inbox = self.link.inbox().to_owned();
        let tls = self.link.server().tls;
        self.link.post(move |connection| {
            let flusher = Flusher::start(connection, tls, &lost);
            publish_all(source, flusher, &lost, |outgoing| publish(connection, &inbox, &nonce, &outgoing));
        });
    }

    /// What the server has said since the last call of subjects that this user may not publish to.
    pub(in crate::broker) fn denials(&self) -> Vec<String> {
        std::mem::take(&mut self.denials.lock())
    }

    /// Waits for verdicts, at most for `wait` or until something wakes it, and returns all there are.
    pub(in crate::broker) fn verdicts(&self, wait: Duration, wake: &Receiver<()>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        crossbeam_channel::select! {
            recv(self.link.messages()) -> message => {
                if let Ok(message) = message {
                    self.link.saw(&message);
                    verdicts.extend(read(&message));
                }
            }
            recv(wake) -> _ => {}
            recv(self.denied) -> _ => {}
            recv(self.link.lost().channel()) -> _ => {}
            default(wait) => {}
        }
        verdicts.extend(self.link.messages().try_iter().filter_map(|message| read(&message)));
        verdicts
    }
}

fn publish(connection: &Connection, inbox: &str, nonce: &str, outgoing: &Outgoing) -> std::io::Result<()> {
    let event = &outgoing.event;
    let mut headers = headers::of(event);
    if event.given_id().is_none() {
        headers.insert(nats::header::NATS_MSG_ID, format!("{nonce}-{}", outgoing.number));
    }
    let reply = format!("{inbox}.{}", outgoing.number);
    connection.publish_with_reply_or_headers(event.subject(), Some(&reply), Some(&headers), event.payload())
}

/// Reads a publish acknowledgement: <https://docs.nats.io/nats-concepts/jetstream/streams>. `None` for what is none.
fn read(message: &Message) -> Option<Verdict> {
    #[derive(Deserialize)]
    struct Acknowledgement {
        stream: String,
        seq: u64,
        #[serde(default)]
        duplicate: bool,
    }
    let number = message.subject.rsplit('.').next()?.parse().ok()?;
    if message.is_no_responders() {
        return Some(Verdict { number, result: Err(Refused::NoStream) });
    }
    let result = match api::read::<Acknowledgement>(&message.data) {
        Ok(ack) => Ok(Taken::ByStream { stream: ack.stream, sequence: ack.seq, duplicate: ack.duplicate }),
        Err(failure) if failure.is_temporary() => Err(Refused::ForNow(failure.to_string())),
        Err(failure) => Err(Refused::ByServer(failure.to_string())),
    };
    Some(Verdict { number, result })
}
