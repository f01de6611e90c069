//! Where requests arrive: each waits for a thread that answers it, is answered at once, or is turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::discovery::Discovery;
use super::endpoint::Endpoint;
use super::inboxes::Inboxes;
use crate::broker::{Desk, Dispatch, Reply, Request};

/// The most bytes that wait, unless a single request is larger.
const MOST_BYTES: usize = 32 << 20;

/// A request that waits for a thread.
pub(super) struct Waiting {
    pub(super) request: Request,
    /// The number of the query that takes it.
    pub(super) endpoint: usize,
    pub(super) since: Instant,
    /// When it came, in nanoseconds since 1970.
    pub(super) received_ns: i64,
}

/// What waits, taken out.
#[derive(Clone)]
pub(super) struct Queue {
    waiting: Receiver<Waiting>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    /// The request that has waited longest. Blocks until there is one; `None` when there will be none.
    pub(super) fn take(&self) -> Option<Waiting> {
        let waiting = self.waiting.recv().ok()?;
        self.bytes.fetch_sub(waiting.request.size(), Ordering::AcqRel);
        Some(waiting)
    }
}

/// Takes requests in.
pub(super) struct Front {
    endpoints: Arc<[Endpoint]>,
    discovery: Discovery,
    inboxes: Inboxes,
    waiting: Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    most: usize,
}

impl Front {
    /// At most so many requests wait.
    pub(super) fn new(
        endpoints: &Arc<[Endpoint]>,
        discovery: Discovery,
        inboxes: Inboxes,
        most: usize,
    ) -> (Self, Queue) {
        let (waiting, taken) = crossbeam_channel::bounded(most);
        let bytes = Arc::<AtomicUsize>::default();
        let queue = Queue { waiting: taken, bytes: Arc::clone(&bytes) };
        (Self { endpoints: Arc::clone(endpoints), discovery, inboxes, waiting, bytes, most }, queue)
    }

    /// Keeps a request; gives it back where there is no room.
    fn keep(&self, waiting: Waiting) -> Option<Waiting> {
        let size = waiting.request.size();
        // Only this thread adds.
        let held = self.bytes.load(Ordering::Acquire);
        if held > 0 && held + size > MOST_BYTES {
            return Some(waiting);
        }
        self.bytes.fetch_add(size, Ordering::AcqRel);
        let refused = match self.waiting.try_send(waiting) {
            Ok(()) => return None,
            Err(TrySendError::Full(waiting) | TrySendError::Disconnected(waiting)) => waiting,
        };
        self.bytes.fetch_sub(size, Ordering::AcqRel);
        Some(refused)
    }
}

impl Desk for Front {
    fn take(&mut self, request: Request) -> Option<Dispatch> {
        if let Err(why) = self.inboxes.answer(&request.reply) {
            log::debug!("service: a request is not answered: {why}");
            return None;
        }
        let Some(endpoint) = self.endpoints.iter().position(|endpoint| endpoint.subject.matches(&request.subject))
        else {
            let answer = self.discovery.answer(&request.subject)?;
            return Some(Dispatch { to: request.reply, reply: Reply::answer(answer) });
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let received_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let waiting = Waiting { request, endpoint, since: Instant::now(), received_ns };
        let refused = self.keep(waiting)?;
        let reason =
            format!("busy: {} requests wait already, the most that service.waiting allows; ask again later", self.most);
        self.endpoints[endpoint].counts.failed(Duration::ZERO, 503, &reason);
        Some(Dispatch { to: refused.request.reply, reply: Reply::failure(503, reason) })
    }
}
