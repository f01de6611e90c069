//! Fast batches: many events with one acknowledgement, for streams with `allow_batched` (nats-server 2.14 and later).
//!
//! The reply subject of each event says where it is in its batch: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>.
//! The server stores the events one by one as they arrive, and answers the last one. Where it refuses an event, it ends the batch there
//! and answers how many events before it are stored. It then refuses each later event of the batch too. So the answers tell for each
//! event whether it is stored, and those that are not are sent again, each for itself.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::api_error::ErrorBody;
use crate::broker::publishing::Outgoing;

/// A batch of fewer events is not worth its second acknowledgement, which tells that the batch has begun.
const MIN_EVENTS: usize = 16;

/// After how many events the server should acknowledge a batch that goes on: more than a batch has.
const FLOW: usize = 1_000;

/// Names batches, so that no two publishers of a stream use the same name, and no two connections.
#[derive(Clone, Debug)]
pub(super) struct BatchNames(String);

impl BatchNames {
    /// For one connection. `recorder` is the recorder's name, which is random.
    pub(super) fn new(recorder: &str) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}{connection}", recorder.get(..12).unwrap_or(recorder)))
    }

    /// The last part of each event's reply subject, in order.
    pub(super) fn reply_tokens(&self, round: &[Outgoing], is_batched: impl FnMut(&Outgoing) -> bool) -> Vec<String> {
        let Self(name) = self;
        let mut tokens = Vec::with_capacity(round.len());
        let batched: Vec<bool> = round.iter().map(is_batched).collect();
        let mut at = 0;
        while at < round.len() {
            let first = round[at].number;
            let follow =
                |(index, outgoing): (usize, &Outgoing)| batched[at + index] && outgoing.number == first + index as u64;
            let length =
                round[at..].iter().enumerate().take_while(|(index, outgoing)| follow((*index, outgoing))).count();
            if length < MIN_EVENTS {
                let end = at + length.max(1);
                tokens.extend(round[at..end].iter().map(|outgoing| outgoing.number.to_string()));
                at = end;
                continue;
            }
            let last = first + length as u64 - 1;
            tokens.extend((1..=length).map(|position| {
                let operation = if position == length { 2 } else { usize::from(position > 1) };
                format!("{name}-{first}-{last}.{FLOW}.fail.{position}.{operation}.$FI")
            }));
            at += length;
        }
        tokens
    }
}

/// An event's place in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchPlace {
    /// The number of the batch's first event, and of its last.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The number of this event.
    pub(super) number: u64,
}

impl BatchPlace {
    /// Parses the last part of a reply subject. `None` where it is not that of a batch.
    pub(super) fn parse(token: &str) -> Option<Self> {
        let (name, rest) = token.strip_suffix(".$FI")?.split_once('.')?;
        let (rest_of_name, last) = name.rsplit_once('-')?;
        let (_, first) = rest_of_name.rsplit_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let position: u64 = rest.split('.').nth(2)?.parse().ok()?;
        let number = first.checked_add(position.checked_sub(1)?)?;
        (number <= last).then_some(Self { first, last, number })
    }
}

/// What an answer says about a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BatchAnswer {
    /// The batch goes on.
    Progress,
    /// The stream has ended the batch. It has stored this many of its events, the last one at this sequence.
    Ended { stream: String, stored: u64, sequence: u64 },
    /// The stream has not stored this event.
    Refused { stream: String, code: u64, description: String },
}

impl BatchAnswer {
    /// Parses an answer of the server. `None` where it is not one.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            /// `ack`, `gap` or `err` while the batch goes on; what ends it comes in an answer of its own.
            r#type: Option<String>,
            stream: Option<String>,
            #[serde(default)]
            seq: u64,
            #[serde(default)]
            count: u64,
            error: Option<ErrorBody>,
        }
        let answer: Answer = serde_json::from_slice(data).ok()?;
        if answer.r#type.is_some() {
            return Some(Self::Progress);
        }
        let stream = answer.stream?;
        match answer.error {
            Some(error) => Some(Self::Refused { stream, code: error.err_code, description: error.description }),
            None => Some(Self::Ended { stream, stored: answer.count, sequence: answer.seq }),
        }
    }
}
