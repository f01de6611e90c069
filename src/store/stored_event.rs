//! An event as it is read back from columns, to be published.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use serde::Deserialize;

use crate::event::Event;
use crate::event_id;

/// An event that is kept in a file until it is in a stream.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its place in the order of the file's events.
    pub position: u64,
    /// When it was recorded, in microseconds since 1970.
    pub recorded_us: i64,
    /// The event, or why the row is none.
    pub event: Result<Event, String>,
}

/// An event that is given up.
#[derive(Clone, Debug)]
pub struct GivenUp {
    /// Its place in the order of the file's events.
    pub position: u64,
    /// Why.
    pub reason: String,
    /// It was sent, and an answer is missing.
    pub may_be_stored: bool,
}

/// When the server first refused an event, as it was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstRefusal {
    /// In microseconds since 1970.
    pub at_us: i64,
    /// Others were stored after that.
    pub others_stored: bool,
}

impl StoredEvent {
    /// The bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.event.as_ref().map_or(0, Event::size)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
}

/// The event of these columns. Headers are a JSON object, as in table `events`.
pub(super) fn event(subject: &str, headers: Option<&str>, payload: &[u8]) -> Result<Event, String> {
    let mut event = Event::new(subject, payload);
    let headers: BTreeMap<String, Values> = match headers {
        None => BTreeMap::new(),
        Some(json) => {
            serde_json::from_str(json).map_err(|e| format!("its headers are not a JSON object of texts: {e}"))?
        }
    };
    for (name, values) in headers {
        for value in match values {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        } {
            event = if name == event_id::HEADER { event.id(value) } else { event.header(&*name, value) };
        }
    }
    event.validate().map_err(|invalid| invalid.to_string())?;
    Ok(event)
}

/// The bytes of a payload that is a text or a blob; a number as its text.
pub(super) fn payload(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Null => Vec::new(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Batch, Limits, Mark};
    use crate::store::columns::headers_json;

    #[test]
    fn headers_are_read_back_as_they_were_written() {
        let given =
            Event::new("a.b", [0, 255]).id("order-1").header("B", "1").header("A", "say \"hi\"").header("B", "2");
        let mut batch = Batch::new(Limits { events: 9, bytes: 999 });
        let headers = [("Nats-Msg-Id", "order-1"), ("B", "1"), ("A", "say \"hi\""), ("B", "2")];
        batch.push(Mark::START, "a.b", headers, &[0, 255]);
        let json = headers_json(batch.delivery(0).headers);
        let read = event("a.b", json.as_deref(), &[0, 255]).expect("an event");
        assert_eq!((read.given_id(), read.payload(), read.size()), (Some("order-1"), &[0, 255][..], given.size()));
        let of = |name: &str| -> Vec<String> {
            read.headers().iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
        };
        assert_eq!((of("A"), of("B")), (vec!["say \"hi\"".to_owned()], vec!["1".to_owned(), "2".to_owned()]));
    }

    #[test]
    fn a_row_that_is_no_event_says_why() {
        let why = |subject: &str, headers| event(subject, headers, b"x").expect_err("is none");
        assert!(why("a b", None).contains("subject"), "{}", why("a b", None));
        assert!(why("a", Some("[1]")).starts_with("its headers are not a JSON object of texts"));
    }
}
