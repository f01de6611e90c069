//! Receives requests. A query's request is queued or refused; a discovery request is answered at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discovery::Discovery;
use super::endpoint::Endpoint;
use super::reply_policy::ReplyPolicy;
use super::request_queue::{MAX_BYTES, QueueRejection, QueuedRequest, RequestQueue};
use crate::broker::{AddressedReply, Reply, Request, RequestHandler};
use crate::unix_time::now_ns;

/// The most headers of a request. Each takes some 300 bytes of memory, however short it is.
const MAX_HEADERS: usize = 32;

/// The handler of all requests that a connection receives.
pub(super) struct Dispatcher {
    endpoints: Arc<[Endpoint]>,
    discovery: Discovery,
    reply_policy: ReplyPolicy,
    requests: Arc<RequestQueue>,
}

impl Dispatcher {
    pub(super) fn new(
        endpoints: &Arc<[Endpoint]>,
        discovery: Discovery,
        reply_policy: ReplyPolicy,
        requests: &Arc<RequestQueue>,
    ) -> Self {
        Self { endpoints: Arc::clone(endpoints), discovery, reply_policy, requests: Arc::clone(requests) }
    }

    fn refuse(&self, endpoint: usize, to: String, code: u16, reason: String) -> AddressedReply {
        self.endpoints[endpoint].counters.failed(Duration::ZERO, code, &reason);
        AddressedReply { to, reply: Reply::failure(code, reason) }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.requests.close();
    }
}

impl RequestHandler for Dispatcher {
    fn handle(&mut self, request: Request) -> Option<AddressedReply> {
        if let Err(why) = self.reply_policy.check_answer(&request.reply) {
            log::debug!("service: a request is not answered: {why}");
            return None;
        }
        let Some(endpoint) = self.endpoints.iter().position(|endpoint| endpoint.subject.matches(&request.subject))
        else {
            let answer = self.discovery.answer(&request.subject)?;
            return Some(AddressedReply { to: request.reply, reply: Reply::answer(answer) });
        };
        let headers = request.count_headers();
        if headers > MAX_HEADERS {
            let reason = format!("the request has {headers} headers; send at most {MAX_HEADERS}");
            return Some(self.refuse(endpoint, request.reply, 400, reason));
        }
        let queued = QueuedRequest { request, endpoint, since: Instant::now(), received_ns: now_ns() };
        let (refused, why) = self.requests.offer(queued)?;
        let reason = match why {
            QueueRejection::Full => {
                let capacity = self.requests.capacity();
                format!("busy: {capacity} requests wait already, the limit of service.waiting; ask again later")
            }
            QueueRejection::FullOfBytes => {
                let limit = MAX_BYTES >> 20;
                format!("busy: the requests that wait take {limit} MiB already, their limit; ask again later")
            }
            QueueRejection::Stuck => {
                "busy: every thread runs a query that exceeds its timeout; ask again later".to_owned()
            }
            QueueRejection::Closed => "the collector is stopping".to_owned(),
        };
        Some(self.refuse(endpoint, refused.request.reply, 503, reason))
    }
}
