//! One connection that publishes events and reports the result of each: from the stream, or in core NATS from the server.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::connection::{Cluster, Denial, Link, Liveness, SessionEnd};
use super::core_nats::CorePublisher;
use super::jetstream::{KnownStreams, StreamPublisher};
use super::publishing::{EventSource, Outgoing, PublishResult};
use crate::config::Mode;
use crate::error::Error;
use crate::event_id::EventIds;
use crate::pipeline::Signal;

/// A live connection that publishes, in the broker's mode.
pub struct Publisher(Transport);

enum Transport {
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
            Mode::Jetstream => Transport::Stream(StreamPublisher::open(cluster, stop, known)?),
            Mode::Core => Transport::Core(CorePublisher::open(cluster, stop)?),
        }))
    }

    /// Publishes events from `source` in the background until it has no more. To a stream another source may follow. `ids` makes
    /// the headers by which repeated events are recognised.
    pub fn start(&self, source: impl EventSource, ids: &EventIds) {
        match &self.0 {
            Transport::Stream(publisher) => publisher.start(source, ids),
            Transport::Core(publisher) => publisher.start(source),
        }
    }

    /// Asks the streams for what [`KnownStreams`] needs before events on these subjects are sent again. Blocks for half of `silence` at
    /// most. Call it before [`Publisher::start`].
    pub fn ask_streams(&self, subjects: &[String], stop: &Signal) {
        if let Transport::Stream(publisher) = &self.0 {
            publisher.ask_streams(subjects, stop);
        }
    }

    /// Searches the streams for events that were sent before and must not be sent again; `ids` as for [`Publisher::start`].
    /// `after` names a stream and a sequence up to which it has none of them. An event that is not found may be stored or not. Blocks
    /// for twice `broker.timeout` at most. Call it between [`Publisher::ask_streams`] and [`Publisher::start`].
    pub fn search(
        &self,
        events: &[Outgoing],
        ids: &EventIds,
        after: Option<&(String, u64)>,
        stop: &Signal,
    ) -> Vec<PublishResult> {
        match &self.0 {
            Transport::Stream(publisher) => publisher.search(events, ids, after, stop),
            Transport::Core(_) => Vec::new(),
        }
    }

    /// Waits for results, at most for `wait` or until `wake` is ready, and returns all there are. `subject_of` finds the subject of an
    /// event by its number; some answers can be judged only with it.
    pub fn results(
        &self,
        wait: Duration,
        wake: &Receiver<()>,
        subject_of: &dyn Fn(u64) -> Option<String>,
    ) -> Vec<PublishResult> {
        match &self.0 {
            Transport::Stream(publisher) => publisher.results(wait, wake, subject_of),
            Transport::Core(publisher) => publisher.results(wait, wake),
        }
    }

    /// The server's denials since the last call. In core NATS they become results instead.
    #[must_use]
    pub fn denials(&self) -> Vec<Denial> {
        match &self.0 {
            Transport::Stream(publisher) => publisher.denials(),
            Transport::Core(_) => Vec::new(),
        }
    }

    /// Whether there is something else to publish than events: then the source must return from [`EventSource::take`].
    #[must_use]
    pub fn has_questions(&self) -> bool {
        match &self.0 {
            Transport::Stream(publisher) => publisher.has_questions(),
            Transport::Core(_) => false,
        }
    }

    /// A remark that something other than a stream answers events; once a connection.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        match &self.0 {
            Transport::Stream(publisher) => publisher.remark(),
            Transport::Core(_) => None,
        }
    }

    /// The largest event the server takes, headers included.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.link().server().max_payload
    }

    /// Whether the connection was lost.
    #[must_use]
    pub fn loss(&self, liveness: &Liveness) -> Option<SessionEnd> {
        liveness.loss(self.link(), None)
    }

    /// Whether the server is about to shut down and another one is known.
    #[must_use]
    pub fn departure(&self, liveness: &Liveness) -> Option<SessionEnd> {
        liveness.departure(self.link())
    }

    /// Whether events stay unconfirmed for too long; `oldest_wait` is how long the oldest has waited. Results are what counts as
    /// answers in `liveness`.
    #[must_use]
    pub fn check_confirmations(&self, liveness: &Liveness, oldest_wait: Duration) -> Option<SessionEnd> {
        liveness.check_confirmations(self.link(), oldest_wait)
    }

    fn link(&self) -> &Link {
        match &self.0 {
            Transport::Stream(publisher) => publisher.link(),
            Transport::Core(publisher) => publisher.link(),
        }
    }
}
