//! What the listener answers itself, until the connection takes it: the listener waits for nobody, or the client would keep what
//! comes meanwhile, without a bound.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::reply_queue::{AddressedReply, Way};

/// The most bytes of replies that wait: some 30,000 refusals. A connection that takes none for so long is about to be given up.
const MOST_BYTES: usize = 16 << 20;

/// The most replies given to the connection's thread at once.
const MOUTHFUL: usize = 256;

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

    /// Takes what is answered at once; of a request that cannot be answered, why. Whoever asks chooses the subject of the reply, so
    /// only the first of those is worth a warning.
    pub(super) fn add(&mut self, reply: Result<Option<AddressedReply>, String>) {
        let reply = match reply {
            Ok(reply) => reply,
            Err(why) => {
                let was_said = std::mem::replace(&mut self.has_refused, true);
                let level = if was_said { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "service: a request is not answered: {why}");
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
                "service: {waiting} replies wait and the connection takes none; further requests have no answer"
            );
        }
    }

    /// Gives the connection what it takes now. Does not block.
    pub(super) fn send(&mut self, way: &Way) {
        self.send_all(way, Duration::ZERO);
    }

    /// The same, and waits for the connection to take all of it, at most for `patience`.
    pub(super) fn send_all(&mut self, way: &Way, patience: Duration) {
        let until = Instant::now() + patience;
        while !self.replies.is_empty() {
            let first: Vec<_> = self.replies.drain(..MOUTHFUL.min(self.replies.len())).collect();
            let bytes: usize = first.iter().map(AddressedReply::memory).sum();
            if let Err(back) = way.try_send(first, until.saturating_duration_since(Instant::now())) {
                back.into_iter().rev().for_each(|reply| self.replies.push_front(reply));
                return;
            }
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}
