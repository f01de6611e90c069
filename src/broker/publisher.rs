//! One connection that publishes events and hears what became of each: from the stream, or in core NATS from the server.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::connection::{Cluster, Flusher, Link, one_line};
use super::core_nats::CorePublisher;
use super::jetstream::{KnownStreams, StreamPublisher};
use crate::config::Mode;
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

/// What is said of an event.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The event's number.
    pub number: u64,
    /// Who has it, or why nobody does.
    pub result: Result<Taken, Refused>,
}

/// Who has an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The stream keeps it.
    ByStream {
        /// The stream.
        stream: String,
        /// Its sequence there.
        sequence: u64,
        /// The stream had it already, under the same identity.
        duplicate: bool,
    },
    /// The server has read it and passed it on to whoever listened.
    ByServer,
}

/// Why nobody took an event.
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
    /// Blocks until there are events to publish, or something else to do on the connection; `None` when there will be none.
    fn take(&mut self) -> Option<Vec<Outgoing>>;
}

/// A live connection that publishes, as the broker's mode says.
pub struct Publisher(Way);

enum Way {
    Stream(StreamPublisher),
    Core(CorePublisher),
}

impl Publisher {
    /// Connects. Blocks at most for the configured time-out.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(cluster: &Arc<Cluster>, stop: &Signal, known: &Arc<KnownStreams>) -> Result<Self, Error> {
        Ok(Self(match cluster.config().mode {
            Mode::Jetstream => Way::Stream(StreamPublisher::open(cluster, stop, known)?),
            Mode::Core => Way::Core(CorePublisher::open(cluster, stop)?),
        }))
    }

    /// Publishes what `source` gives, in the background, until it gives no more. To a stream another source may come after
    /// it. `nonce` makes the identities by which a stream recognises events that were given none.
    pub fn start(&self, source: impl Source, nonce: &str) {
        match &self.0 {
            Way::Stream(publisher) => publisher.start(source, nonce),
            Way::Core(publisher) => publisher.start(source),
        }
    }

    /// Asks the streams for what [`KnownStreams`] has to know before events on these subjects are sent again. Blocks for half
    /// of `silence` at most. Call it before [`Publisher::start`].
    pub fn ask_streams(&self, subjects: &[String], stop: &Signal) {
        if let Way::Stream(publisher) = &self.0 {
            publisher.ask_streams(subjects, stop);
        }
    }

    /// Looks in the streams for events that were sent before and must not be sent again; `nonce` as for [`Publisher::start`].
    /// `after` names a stream and a sequence up to which it has none of them. What is not found may be stored or not. Blocks for twice
    /// `broker.timeout` at most. Call it between [`Publisher::ask_streams`] and [`Publisher::start`].
    pub fn search(
        &self,
        events: &[Outgoing],
        nonce: &str,
        after: Option<&(String, u64)>,
        stop: &Signal,
    ) -> Vec<Verdict> {
        match &self.0 {
            Way::Stream(publisher) => publisher.search(events, nonce, after, stop),
            Way::Core(_) => Vec::new(),
        }
    }

    /// Waits for verdicts, at most for `wait` or until something wakes it, and returns all there are. `subject_of` tells the
    /// subject of an event by its number, where its verdict can be judged no other way.
    pub fn verdicts(
        &self,
        wait: Duration,
        wake: &Receiver<()>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<Verdict> {
        match &self.0 {
            Way::Stream(publisher) => publisher.verdicts(wait, wake, subject_of),
            Way::Core(publisher) => publisher.verdicts(wait, wake),
        }
    }

    /// What the server has said since the last call of subjects that this user may not publish to: see [`is_denied`]. In core
    /// NATS it becomes a verdict.
    #[must_use]
    pub fn denials(&self) -> Vec<String> {
        match &self.0 {
            Way::Stream(publisher) => publisher.denials(),
            Way::Core(_) => Vec::new(),
        }
    }

    /// Whether there is something else to publish than events: then the source must return from [`Source::take`].
    #[must_use]
    pub fn has_questions(&self) -> bool {
        match &self.0 {
            Way::Stream(publisher) => publisher.has_questions(),
            Way::Core(_) => false,
        }
    }

    /// That something which is no stream answers events, once a connection.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        match &self.0 {
            Way::Stream(publisher) => publisher.remark(),
            Way::Core(_) => None,
        }
    }

    /// The largest event the server takes, headers included.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.link().server().max_payload
    }

    /// The server's address, without secrets.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.link().server().address
    }

    /// Switched on when the connection has ended.
    #[must_use]
    pub fn lost(&self) -> &Signal {
        self.link().lost()
    }

    /// Whether the server is about to go out of service while another one is known.
    #[must_use]
    pub fn should_move(&self) -> bool {
        self.link().should_move()
    }

    /// Hears that the server does not answer, so that closing does not wait for it either.
    pub fn fell_silent(&self) {
        self.link().fell_silent();
    }

    fn link(&self) -> &Link {
        match &self.0 {
            Way::Stream(publisher) => publisher.link(),
            Way::Core(publisher) => publisher.link(),
        }
    }
}

/// So many bytes are worth a write of their own: some dozens of small events.
const MANY: usize = 8 << 10;

/// Publishes what `source` gives until it gives no more or the connection has ended: what is taken counts as sent, so nothing
/// is taken for a connection that has. `before` publishes what else there is, before the events of each round.
pub(super) fn publish_all(
    mut source: impl Source,
    mut flusher: Flusher,
    lost: &Signal,
    before: impl Fn() -> std::io::Result<()>,
    publish: impl Fn(Outgoing) -> std::io::Result<()>,
) {
    let broke_off = |e: &std::io::Error| {
        log::debug!("broker: publishing broke off: {}", one_line(e));
        lost.raise();
    };
    while let Some(batch) = (!lost.is_raised()).then(|| source.take()).flatten() {
        if let Err(e) = before() {
            return broke_off(&e);
        }
        let mut published = 0;
        for outgoing in batch {
            let size = wire_size(&outgoing.event) + outgoing.event.subject().len();
            flusher.before(size);
            published += size;
            if let Err(e) = publish(outgoing) {
                return broke_off(&e);
            }
        }
        flusher.flush();
        // Those that come next, written one by one, would cost a switch of threads each.
        if published < MANY {
            flusher.gather();
        }
    }
}

/// How the server says, `Permissions Violation for Publish to "a.b"`, that a user may not publish there.
const DENIED: &str = "Violation for Publish to ";

/// The subject, quoted, that a remark of the server's says this user may not publish to.
pub(super) fn denied(remark: &str) -> Option<&str> {
    remark.split_once(DENIED).map(|(_, subject)| subject)
}

/// Whether a remark of the server's says that this user may not publish to this subject.
#[must_use]
pub fn is_denied(remark: &str, subject: &str) -> bool {
    denied(remark).is_some_and(|denied| denied == quoted(subject))
}

/// As the server quotes a subject, which is as Go does.
pub(super) fn quoted(subject: &str) -> String {
    format!("\"{}\"", subject.replace('\\', "\\\\").replace('"', "\\\""))
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
