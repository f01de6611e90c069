//! A thread that answers: takes a request, runs its query, gives the rows back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::front::{Queue, Waiting};
use crate::binding::Envelope;
use crate::broker::{Dispatch, Outbox, Reply};
use crate::pipeline::{Batch, Limits, Mark};
use crate::store::{Answerer, Unanswered};

/// How long a reply waits for a connection that takes no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a reply counts against the server's `max_payload` beside the rows.
const ROOM: usize = 256;

pub(super) struct Responder {
    pub(super) queue: Queue,
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) answerer: Answerer,
    pub(super) outbox: Outbox,
}

impl Responder {
    /// Answers until there will be nothing more to answer.
    pub(super) fn run(mut self) {
        // Carries a request as it does an event: headers are kept in a batch.
        let mut carrier = Batch::new(Limits { events: 1, bytes: 64 << 10 });
        while let Some(waiting) = self.queue.take() {
            let reply = self.reply(&waiting, &mut carrier);
            let to = waiting.request.reply;
            if !self.outbox.send(vec![Dispatch { to, reply }], PATIENCE) {
                log::debug!("service: an answer found no connection, or none that takes it");
            }
        }
    }

    fn reply(&mut self, waiting: &Waiting, carrier: &mut Batch) -> Reply {
        let endpoint = &self.endpoints[waiting.endpoint];
        let began = Instant::now();
        let mut rows = Vec::with_capacity(1 << 10);
        let unanswered = if waiting.since.elapsed() > endpoint.timeout {
            // Whoever asked has given up by now, or soon will; those behind it have not.
            (
                503,
                format!("busy: no thread was free within {:?}, the query's timeout; ask again later", endpoint.timeout),
            )
        } else {
            let Waiting { request, received_ns, .. } = waiting;
            carrier.clear();
            let mark = Mark { sequence: 0, published_ns: *received_ns };
            carrier.push(mark, &request.subject, request.headers(), &request.payload);
            let most = self.outbox.room().map_or(usize::MAX, |room| room.saturating_sub(ROOM));
            let envelope = Envelope::of(&carrier.delivery(0), None);
            match self.answerer.answer(waiting.endpoint, &envelope, most, &mut rows) {
                Ok(_) => {
                    endpoint.counts.answered(began.elapsed());
                    return Reply::answer(rows);
                }
                Err(unanswered) => (code(&unanswered), unanswered.to_string()),
            }
        };
        let (code, reason) = unanswered;
        endpoint.counts.failed(began.elapsed(), code, &reason);
        Reply::failure(code, reason)
    }
}

/// As HTTP has them.
fn code(unanswered: &Unanswered) -> u16 {
    match unanswered {
        Unanswered::Request(_) => 400,
        Unanswered::TooLarge(_) => 413,
        Unanswered::Misfit(_) => 500,
        Unanswered::Database(_) | Unanswered::Quitting => 503,
        Unanswered::TooSlow(_) => 504,
    }
}
