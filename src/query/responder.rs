//! A thread that answers: takes a request from the queue, runs its query and sends the rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::request_queue::{QueueWorker, QueuedRequest};
use crate::binding::Envelope;
use crate::broker::{AddressedReply, Reply, ReplyQueue};
use crate::pipeline::{Mark, SingleEvent};
use crate::store::{QueryError, QueryErrorKind, QueryRunner};

/// How long a reply waits while the connection is full.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a reply counts against the server's `max_payload` besides the rows.
const REPLY_OVERHEAD: usize = 256;

pub(super) struct Responder {
    pub(super) worker: QueueWorker,
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) runner: QueryRunner,
    pub(super) reply_queue: ReplyQueue,
}

impl Responder {
    /// Answers requests until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut event = SingleEvent::default();
        while let Some(queued) = self.worker.take() {
            let began = Instant::now();
            let answer = self.answer(&queued, &mut event);
            if !self.worker.finish() {
                log::debug!("service: a query ended {:?} after it began", began.elapsed());
                continue;
            }
            let counters = &self.endpoints[queued.endpoint].counters;
            let reply = match answer {
                Ok(rows) => {
                    counters.answered(began.elapsed());
                    Reply::answer(rows)
                }
                Err(error) => {
                    let (code, reason) = (code(error.kind()), error.to_string());
                    counters.failed(began.elapsed(), code, &reason);
                    Reply::failure(code, reason)
                }
            };
            let to = queued.request.reply;
            if !self.reply_queue.send(vec![AddressedReply { to, reply }], TIMEOUT) {
                log::debug!("service: an answer was not sent: the connection is lost or full");
            }
        }
    }

    fn answer(&mut self, queued: &QueuedRequest, event: &mut SingleEvent) -> Result<Vec<u8>, QueryError> {
        let QueuedRequest { request, received_ns, .. } = queued;
        let mark = Mark { sequence: 0, published_ns: *received_ns };
        event.replace(mark, &request.subject, request.headers(), &request.payload);
        let max_bytes = self.reply_queue.room().map_or(usize::MAX, |room| room.saturating_sub(REPLY_OVERHEAD));
        let envelope = Envelope::of(&event.delivery(), None);
        let mut rows = Vec::with_capacity(1 << 10);
        self.runner.answer(queued.endpoint, &envelope, max_bytes, &mut rows).map(|_| rows)
    }
}

/// The status code of HTTP.
fn code(kind: QueryErrorKind) -> u16 {
    match kind {
        QueryErrorKind::Request => 400,
        QueryErrorKind::TooLarge => 413,
        QueryErrorKind::SchemaMismatch => 500,
        QueryErrorKind::Database | QueryErrorKind::Stopping => 503,
        QueryErrorKind::Timeout => 504,
    }
}
