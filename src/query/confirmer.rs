//! Replies of routes: the word that an event is committed, for whoever asked for it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use serde_json::json;

use super::reply_policy::Inboxes;
use crate::broker::{AddressedReply, Reply, ReplyQueue, ServiceError};
use crate::pipeline::{Confirmation, Counters, Signal};

/// The most that wait for this thread. A writer waits for nobody; what does not fit is dropped and counted.
pub(super) const WAITING: usize = 50_000;

/// The most that are sent at once.
const MOUTHFUL: usize = 256;

/// How long they wait for a connection that takes no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends confirmations.
pub(super) struct Confirmer {
    confirmations: Receiver<Confirmation>,
    reply_queue: ReplyQueue,
    inboxes: Inboxes,
    counters: Arc<Counters>,
    quit: Signal,
    has_refused: bool,
}

impl Confirmer {
    pub(super) fn new(
        confirmations: Receiver<Confirmation>,
        reply_queue: ReplyQueue,
        inboxes: &Inboxes,
        counters: &Arc<Counters>,
        quit: &Signal,
    ) -> Self {
        let (inboxes, counters, quit) = (inboxes.clone(), Arc::clone(counters), quit.clone());
        Self { confirmations, reply_queue, inboxes, counters, quit, has_refused: false }
    }

    /// Sends them until there will be no more.
    pub(super) fn run(mut self) {
        loop {
            let first = crossbeam_channel::select! {
                recv(self.confirmations) -> first => first,
                recv(self.quit.channel()) -> _ => return,
            };
            let Ok(first) = first else { return };
            let all: Vec<_> = std::iter::once(first).chain(self.confirmations.try_iter().take(MOUTHFUL)).collect();
            let asked = all.len();
            let replies: Vec<_> = all.into_iter().filter_map(|confirmation| self.dispatch(confirmation)).collect();
            let sent = replies.len();
            let is_sent = sent > 0 && self.reply_queue.send(replies, PATIENCE);
            self.counters.unconfirmed.add(if is_sent { asked - sent } else { asked });
        }
    }

    fn dispatch(&mut self, mut confirmation: Confirmation) -> Option<AddressedReply> {
        let to = std::mem::take(&mut confirmation.reply_to);
        if let Err(why) = self.inboxes.confirm(&to) {
            let level = if self.has_refused { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "service: an event is committed without a word to who asked for it: {why}");
            self.has_refused = true;
            return None;
        }
        Some(AddressedReply { to, reply: reply(confirmation) })
    }
}

/// `{"stream":"EVENTS","sequence":7,"stored":true}`; a dead letter is a failure with its reason.
fn reply(confirmation: Confirmation) -> Reply {
    let Confirmation { stream, sequence, dead_letter, .. } = confirmation;
    let mut body = json!({ "stream": stream, "sequence": sequence, "stored": dead_letter.is_none() });
    let failure = dead_letter.map(|reason| {
        body["error"] = reason.as_str().into();
        ServiceError { code: 400, reason }
    });
    Reply { body: body.to_string().into_bytes(), failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_says_where_the_event_is_or_why_it_is_not_stored() {
        let stored = Confirmation {
            reply_to: "_INBOX.a".into(),
            stream: Some("EVENTS".into()),
            sequence: Some(7),
            dead_letter: None,
        };
        let told = reply(stored.clone());
        assert_eq!(told, Reply::answer(br#"{"sequence":7,"stored":true,"stream":"EVENTS"}"#.to_vec()));
        let dead = Confirmation { stream: None, sequence: None, dead_letter: Some("no such city".into()), ..stored };
        let told = reply(dead);
        assert_eq!(told.failure, Some(ServiceError { code: 400, reason: "no such city".into() }));
        let body = r#"{"error":"no such city","sequence":null,"stored":false,"stream":null}"#;
        assert_eq!(String::from_utf8(told.body).expect("UTF-8"), body);
    }
}
