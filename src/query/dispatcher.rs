//! Where requests arrive: each waits for a thread that answers it, is answered at once, or is turned away.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::discovery::Discovery;
use super::endpoint::Endpoint;
use super::reply_policy::Inboxes;
use super::request_queue::{MOST_BYTES, NoRoom, Waiting, Work};
use crate::broker::{AddressedReply, Reply, Request, RequestHandler};

/// The most headers of a request. Each takes some 300 bytes of memory, however short it is.
const MOST_HEADERS: usize = 32;

/// Takes requests in.
pub(super) struct Front {
    endpoints: Arc<[Endpoint]>,
    discovery: Discovery,
    inboxes: Inboxes,
    work: Arc<Work>,
}

impl Front {
    pub(super) fn new(endpoints: &Arc<[Endpoint]>, discovery: Discovery, inboxes: Inboxes, work: &Arc<Work>) -> Self {
        Self { endpoints: Arc::clone(endpoints), discovery, inboxes, work: Arc::clone(work) }
    }

    fn refuse(&self, endpoint: usize, to: String, code: u16, reason: String) -> AddressedReply {
        self.endpoints[endpoint].counts.failed(Duration::ZERO, code, &reason);
        AddressedReply { to, reply: Reply::failure(code, reason) }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.work.close();
    }
}

impl RequestHandler for Front {
    fn handle(&mut self, request: Request) -> Option<AddressedReply> {
        if let Err(why) = self.inboxes.answer(&request.reply) {
            log::debug!("service: a request is not answered: {why}");
            return None;
        }
        let Some(endpoint) = self.endpoints.iter().position(|endpoint| endpoint.subject.matches(&request.subject))
        else {
            let answer = self.discovery.answer(&request.subject)?;
            return Some(AddressedReply { to: request.reply, reply: Reply::answer(answer) });
        };
        let headers = request.count_headers();
        if headers > MOST_HEADERS {
            let reason = format!("the request has {headers} headers; the most are {MOST_HEADERS}");
            return Some(self.refuse(endpoint, request.reply, 400, reason));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let received_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let waiting = Waiting { request, endpoint, since: Instant::now(), received_ns };
        let (refused, why) = self.work.offer(waiting)?;
        let reason = match why {
            NoRoom::Full => {
                let most = self.work.most();
                format!("busy: {most} requests wait already, the most that service.waiting allows; ask again later")
            }
            NoRoom::FullOfBytes => {
                let most = MOST_BYTES >> 20;
                format!("busy: the requests that wait take {most} MiB already, the most that they may; ask again later")
            }
            NoRoom::Stuck => {
                "busy: every thread is at a query that takes longer than its timeout; ask again later".to_owned()
            }
            NoRoom::Closed => "the collector is stopping".to_owned(),
        };
        Some(self.refuse(endpoint, refused.request.reply, 503, reason))
    }
}
