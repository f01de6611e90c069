//! Fast batches: many events with one acknowledgement, for streams with `allow_batched` (nats-server 2.14 and later).
//!
//! The reply subject of each event says where it is in its batch: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>.
//! The server stores the events one by one as they arrive, and answers the last one. Where it refuses an event, it ends the batch there
//! and answers how many events before it are stored. It then refuses each later event of the batch too. So the answers tell for each
//! event whether it is stored, and those that are not are sent again, each for itself.

use std::fmt::Write;
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

    /// Appends the last part of the reply subject of an event in a batch.
    pub(super) fn push_token(&self, place: BatchPlace, to: &mut String) {
        let (Self(name), BatchPlace { first, last, number }) = (self, place);
        let operation = match number {
            number if number == last => "2",
            number if number == first => "0",
            _ => "1",
        };
        let position = number - first + 1;
        // Writing to a string cannot fail.
        let _ = write!(to, "{name}-{first}-{last}.{FLOW}.fail.{position}.{operation}.$FI");
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
    /// The place of each event of a round; `None` for one that is sent for itself. Events with successive numbers that can be batched make
    /// a batch.
    pub(super) fn of_round(round: &[Outgoing], can_be_batched: impl IntoIterator<Item = bool>) -> Vec<Option<Self>> {
        let numbers: Vec<Option<u64>> = round
            .iter()
            .zip(can_be_batched)
            .map(|(outgoing, can_be_batched)| can_be_batched.then_some(outgoing.number))
            .collect();
        let follows = |one: &Option<u64>, next: &Option<u64>| one.zip(*next).is_some_and(|(one, next)| one + 1 == next);
        let runs = numbers.chunk_by(follows);
        let place = |run: &[Option<u64>]| {
            let ends = run[0].zip(run[run.len() - 1]).filter(|_| run.len() >= MIN_EVENTS);
            run.iter()
                .map(|number| {
                    let ((first, last), number) = (ends?, (*number)?);
                    Some(Self { first, last, number })
                })
                .collect::<Vec<_>>()
        };
        runs.flat_map(place).collect()
    }

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Event;

    fn round(numbers: impl IntoIterator<Item = u64>) -> Vec<Outgoing> {
        let event = Arc::new(Event::new("a", ""));
        numbers.into_iter().map(|number| Outgoing { number, event: Arc::clone(&event), alone: false }).collect()
    }

    #[test]
    fn successive_numbers_make_a_batch_if_there_are_enough() {
        let least = MIN_EVENTS as u64;
        let places = |numbers: Vec<u64>| {
            let can_be_batched: Vec<bool> = numbers.iter().map(|number| *number != 100).collect();
            BatchPlace::of_round(&round(numbers), can_be_batched)
        };
        assert_eq!(places(Vec::new()), []);
        assert!(places((0..least - 1).collect()).iter().all(Option::is_none));
        let whole = places((5..5 + least).collect());
        assert_eq!(whole[0], Some(BatchPlace { first: 5, last: 4 + least, number: 5 }));
        assert!(whole.iter().all(Option::is_some));
        let parted = places((80..100 + least).collect());
        assert_eq!(parted[19], Some(BatchPlace { first: 80, last: 99, number: 99 }));
        assert!(parted[20..].iter().all(Option::is_none), "the rest is too short");
        let gap = places((0..least).chain(50..60).collect());
        assert_eq!((gap[0].map(|place| place.last), gap[MIN_EVENTS]), (Some(least - 1), None));
    }

    #[test]
    fn a_place_is_read_from_its_reply_subject() {
        let names = BatchNames::new("k3vfa7q2mzn5x6ohydwu");
        let token = |place| {
            let mut token = String::new();
            names.push_token(place, &mut token);
            token
        };
        for (number, operation) in [(7, ".1.0."), (8, ".2.1."), (30, ".24.2.")] {
            let place = BatchPlace { first: 7, last: 30, number };
            let token = token(place);
            assert!(token.starts_with("k3vfa7q2mzn5") && token.contains(operation), "{token}");
            assert_eq!(BatchPlace::parse(&token), Some(place));
        }
        assert_ne!(token(BatchPlace { first: 7, last: 30, number: 7 }), {
            let mut other = String::new();
            BatchNames::new("k3vfa7q2mzn5x6ohydwu")
                .push_token(BatchPlace { first: 7, last: 30, number: 7 }, &mut other);
            other
        });
        for wrong in
            ["", "17", "a.$FI", "a-1-2.$FI", "a-1-2.9.fail.0.1.$FI", "a-1-2.9.fail.3.1.$FI", "a-x-2.9.fail.1.1.$FI"]
        {
            assert_eq!(BatchPlace::parse(wrong), None, "{wrong}");
        }
    }
}
