//! Replies of the listener itself, until the connection takes them. The listener must never wait: meanwhile the client would queue
//! requests without a bound.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::reply::AddressedReply;
use super::reply_queue::ReplyChannel;

/// The most bytes of replies that wait: some 30,000 refusals. A connection that takes nothing for so long will soon be given up.
const MOST_BYTES: usize = 16 << 20;

/// The most replies given to the connection's thread at once.
const MAX_BATCH: usize = 256;

/// Replies, in the order of their requests.
#[derive(Default)]
pub(super) struct Unsent {
    replies: VecDeque<AddressedReply>,
    bytes: usize,
    has_dropped: bool,
    has_refused: bool,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Adds a reply, if there is one. The error is why a request cannot be answered; the client chooses the subject of the reply, so only
    /// the first such error is a warning.
    pub(super) fn add(&mut self, reply: Result<Option<AddressedReply>, String>) {
        let reply = match reply {
            Ok(reply) => reply,
            Err(why) => {
                let was_logged = std::mem::replace(&mut self.has_refused, true);
                let level = if was_logged { log::Level::Debug } else { log::Level::Warn };
                log::log!(
                    level, event = "request.unanswerable", reason = why;
                    "service: a request is not answered: {why}"
                );
                return;
            }
        };
        let Some(reply) = reply else { return };
        if self.bytes < MOST_BYTES {
            self.bytes += reply.memory();
            self.replies.push_back(reply);
        } else if !std::mem::replace(&mut self.has_dropped, true) {
            let waiting = self.replies.len();
            log::warn!(
                event = "replies.held_up", replies = waiting;
                "service: {waiting} replies wait and the connection takes none; further requests get no reply"
            );
        }
    }

    /// Gives the connection as many replies as it takes now. Does not block.
    pub(super) fn send(&mut self, channel: &ReplyChannel) {
        self.send_all(channel, Duration::ZERO);
    }

    /// The same, and waits for the connection to take all of it, at most for `timeout`.
    pub(super) fn send_all(&mut self, channel: &ReplyChannel, timeout: Duration) {
        let until = Instant::now() + timeout;
        while !self.replies.is_empty() {
            let first: Vec<_> = self.replies.drain(..MAX_BATCH.min(self.replies.len())).collect();
            let bytes: usize = first.iter().map(AddressedReply::memory).sum();
            if let Err(back) = channel.try_send(first, until.saturating_duration_since(Instant::now())) {
                back.into_iter().rev().for_each(|reply| self.replies.push_front(reply));
                return;
            }
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}
