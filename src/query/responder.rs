//! A thread that answers: takes a request, runs its query, gives the rows back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::request_queue::{Place, Waiting};
use crate::binding::Envelope;
use crate::broker::{AddressedReply, Reply, ReplyQueue};
use crate::pipeline::{Batch, Limits, Mark};
use crate::store::{Answerer, Unanswered};

/// How long a reply waits for a connection that takes no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a reply counts against the server's `max_payload` beside the rows.
const ROOM: usize = 256;

pub(super) struct Responder {
    pub(super) place: Place,
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) answerer: Answerer,
    pub(super) reply_queue: ReplyQueue,
}

impl Responder {
    /// Answers until there will be nothing more to answer.
    pub(super) fn run(mut self) {
        // Carries a request as it does an event: headers are kept in a batch.
        let mut carrier = Batch::new(Limits { events: 1, bytes: 64 << 10 });
        while let Some(waiting) = self.place.take() {
            let began = Instant::now();
            let answered = self.answer(&waiting, &mut carrier);
            if !self.place.is_mine_to_answer() {
                log::debug!("service: a query ended {:?} after it began", began.elapsed());
                continue;
            }
            let counts = &self.endpoints[waiting.endpoint].counts;
            let reply = match answered {
                Ok(rows) => {
                    counts.answered(began.elapsed());
                    Reply::answer(rows)
                }
                Err(unanswered) => {
                    let (code, reason) = (code(&unanswered), unanswered.to_string());
                    counts.failed(began.elapsed(), code, &reason);
                    Reply::failure(code, reason)
                }
            };
            let to = waiting.request.reply;
            if !self.reply_queue.send(vec![AddressedReply { to, reply }], PATIENCE) {
                log::debug!("service: an answer found no connection, or none that takes it");
            }
        }
    }

    fn answer(&mut self, waiting: &Waiting, carrier: &mut Batch) -> Result<Vec<u8>, Unanswered> {
        let Waiting { request, received_ns, .. } = waiting;
        carrier.clear();
        let mark = Mark { sequence: 0, published_ns: *received_ns };
        carrier.push(mark, &request.subject, request.headers(), &request.payload);
        let most = self.reply_queue.room().map_or(usize::MAX, |room| room.saturating_sub(ROOM));
        let envelope = Envelope::of(&carrier.delivery(0), None);
        let mut rows = Vec::with_capacity(1 << 10);
        self.answerer.answer(waiting.endpoint, &envelope, most, &mut rows).map(|_| rows)
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
