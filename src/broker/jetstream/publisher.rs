//! One connection that publishes events and hears what the stream says of each.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use nats::{Connection, HeaderMap, Message};
use serde::Deserialize;

use super::api;
use crate::broker::connection::Cluster;
use crate::broker::connection::Flusher;
use crate::broker::connection::{Link, one_line};
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::Signal;

/// An event on its way.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its number, by which the verdict names it.
    pub number: u64,
    /// The event.
    pub event: Arc<Event>,
}

/// What the stream says of an event.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The event's number.
    pub number: u64,
    /// Where it is, or why it is nowhere.
    pub result: Result<Stored, Refused>,
}

/// Where the stream keeps an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The stream.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// The stream had it already, under the same identity.
    pub duplicate: bool,
}

/// Why the stream did not take an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No stream takes this subject, or none does at the moment.
    NoStream,
    /// The server says no.
    ByServer(String),
    /// The server says that it cannot at the moment.
    ForNow(String),
}

/// Gives events to publish. Called on a thread that may be left behind.
pub trait Source: Send + 'static {
    /// Blocks until there are events to publish; `None` when there will be none.
    fn take(&mut self) -> Option<Vec<Outgoing>>;
}

/// A live connection that publishes.
pub struct Publisher {
    link: Link,
}

impl Publisher {
    /// Connects. Blocks at most for the configured time-out.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(cluster: &Arc<Cluster>, stop: &Signal) -> Result<Self, Error> {
        Ok(Self { link: Link::open(cluster, stop)? })
    }

    /// Publishes what `source` gives, in the background, until it gives no more; another source comes after it. `nonce` makes
    /// the identities of events that were given none.
    pub fn start(&self, mut source: impl Source, nonce: &str) {
        let nonce = nonce.to_owned();
        let lost = self.link.lost().clone();
        let inbox = self.link.inbox().to_owned();
        let tls = self.link.server().tls;
        self.link.post(move |connection| {
            let mut flusher = Flusher::start(connection, tls, &lost);
            while let Some(batch) = source.take() {
                for outgoing in batch {
                    flusher.before(wire_size(&outgoing.event) + outgoing.event.subject().len());
                    if let Err(e) = publish(connection, &inbox, &nonce, &outgoing) {
                        log::debug!("broker: publishing broke off: {}", one_line(&e));
                        lost.raise();
                        return;
                    }
                }
                flusher.flush();
            }
        });
    }

    /// The largest event the server takes, headers included.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.link.server().max_payload
    }

    /// The server's address, without secrets.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.link.server().address
    }

    /// Switched on when the connection has ended.
    #[must_use]
    pub fn lost(&self) -> &Signal {
        self.link.lost()
    }

    /// Whether the server is about to go out of service while another one is known.
    #[must_use]
    pub fn should_move(&self) -> bool {
        self.link.should_move()
    }

    /// Hears that the server does not answer, so that closing does not wait for it either.
    pub fn fell_silent(&self) {
        self.link.fell_silent();
    }

    /// Waits for verdicts, at most for `wait` or until something wakes it, and returns all there are.
    pub fn verdicts(&self, wait: Duration, wake: &Receiver<()>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        crossbeam_channel::select! {
            recv(self.link.messages()) -> message => verdicts.extend(message.ok().as_ref().and_then(read)),
            recv(wake) -> _ => {}
            recv(self.link.lost().channel()) -> _ => {}
            default(wait) => {}
        }
        verdicts.extend(self.link.messages().try_iter().filter_map(|message| read(&message)));
        verdicts
    }
}

fn publish(connection: &Connection, inbox: &str, nonce: &str, outgoing: &Outgoing) -> std::io::Result<()> {
    let event = &outgoing.event;
    let mut headers: HeaderMap = HeaderMap::new();
    match event.given_id() {
        Some(id) => headers.insert(nats::header::NATS_MSG_ID, id),
        None => headers.insert(nats::header::NATS_MSG_ID, format!("{nonce}-{}", outgoing.number)),
    };
    for (name, value) in event.headers() {
        headers.append(name.as_str(), value.as_str());
    }
    let reply = format!("{inbox}.{}", outgoing.number);
    connection.publish_with_reply_or_headers(event.subject(), Some(&reply), Some(&headers), event.payload())
}

/// What an event counts against the server's `max_payload`, at most: its payload and its headers as they are written.
#[must_use]
pub fn wire_size(event: &Event) -> usize {
    /// `NATS/1.0`, its line end, and the one behind the last header.
    const FRAME: usize = 12;
    /// `Nats-Msg-Id:`, an identity made up here, a line end.
    const IDENTITY: usize = 12 + 80 + 2;
    let headers: usize = event.headers().iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    FRAME + IDENTITY + event.given_id().map_or(0, str::len) + headers + event.payload().len()
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
        Ok(ack) => Ok(Stored { stream: ack.stream, sequence: ack.seq, duplicate: ack.duplicate }),
        Err(failure) if failure.is_temporary() => Err(Refused::ForNow(failure.to_string())),
        Err(failure) => Err(Refused::ByServer(failure.to_string())),
    };
    Some(Verdict { number, result })
}
