//! Messages of the stream for commands that read it without a collector: `tail --incoming`, `test --from-stream`, `infer`.

use std::io::{self, Write};

use super::failure::UsageError;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::starting::{self, Failure};
use super::values::{for_display, printable, shown_time};
use crate::broker::{RawHeaders, StreamMessage, StreamReader};
use crate::config::Mode;
use crate::store::event_line::{self, EventLine};
use crate::store::{Json, LosslessJson, Value};
use crate::subject::Filter;

/// Connects to the broker, and returns a reader of the stream and the filters for its messages: the given one, else those of the
/// settings. While the collector of the database is starting, waits for it, at most for `broker.timeout`.
///
/// # Errors
///
/// The broker cannot be reached, or has no such stream; the settings are for core NATS.
pub fn open(
    settings: &Settings,
    database: &DatabaseArgs,
    broker: &BrokerArgs,
    subject: Option<&Filter>,
    signals: &Signals,
) -> anyhow::Result<(StreamReader, Vec<Filter>)> {
    let config = settings.for_broker(database, broker)?;
    if config.broker.mode == Mode::Core {
        let text = "broker.mode is core: there is no stream to read; nats sub shows what is published";
        return Err(UsageError(text.into()).into());
    }
    let filters = match subject {
        Some(filter) => vec![filter.clone()],
        None => config.broker.filters().iter().filter_map(|filter| filter.parse().ok()).collect(),
    };
    let is_named = settings.names_servers(broker)?;
    let keep_going = || !signals.end_asked();
    let reader = starting::connect(&config.database.path, config.broker.timeout, is_named, &keep_going, || {
        let broker = settings.for_broker(database, broker)?.broker;
        StreamReader::open(&broker, &filters).map_err(Failure::from)
    });
    Ok((reader.map_err(|error| starting::with_way_out(error, &config))?, filters))
}

/// A payload as table `events` has it: text if it is UTF-8, else a blob.
pub fn payload(message: &StreamMessage) -> Value {
    match std::str::from_utf8(&message.payload) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Blob(message.payload.clone()),
    }
}

/// Writes a line for people: publish time, subject, payload.
pub fn write_text(to: &mut impl Write, message: &StreamMessage) -> io::Result<()> {
    let time = shown_time(message.published_ns.div_euclid(1_000));
    writeln!(to, "{time} {} {}", printable(&message.subject), for_display(&payload(message)))
}

/// Writes a line of JSON, which `test` and `publish --events` read.
pub fn write_json(to: &mut impl Write, message: &StreamMessage) -> io::Result<()> {
    let headers = message.headers.as_deref().ok().and_then(headers_json);
    let raw = message.headers.as_ref().err().map(|RawHeaders { bytes, .. }| Value::Blob(bytes.clone()));
    let payload = payload(message);
    let line = EventLine {
        id: None,
        stream: None,
        sequence: Some(message.sequence),
        subject: &message.subject,
        published_us: message.published_ns.div_euclid(1_000),
        headers: event_line::headers(headers.as_deref()),
        raw_headers: raw.as_ref().map(|raw| Json(raw.borrowed())),
        payload: LosslessJson(payload.borrowed()),
    };
    serde_json::to_writer(&mut *to, &line)?;
    writeln!(to)
}

/// Headers as table `events` has them: an object; a name with several values has an array.
fn headers_json(headers: &[(String, String)]) -> Option<String> {
    let mut object = serde_json::Map::new();
    for (name, value) in headers {
        match object.get_mut(name) {
            None => drop(object.insert(name.clone(), value.clone().into())),
            Some(serde_json::Value::Array(values)) => values.push(value.clone().into()),
            Some(first) => *first = serde_json::Value::Array(vec![first.take(), value.clone().into()]),
        }
    }
    (!object.is_empty()).then(|| serde_json::Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line_that_other_commands_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut message = StreamMessage {
            sequence: 7,
            published_ns: 1_795_428_000_000_001_999,
            subject: "a.b".into(),
            headers: Ok(vec![pair("A", "1"), pair("B", "2"), pair("B", "3")]),
            payload: b"\xff".to_vec(),
        };
        let written = |message: &StreamMessage| {
            let mut line = Vec::new();
            write_json(&mut line, message).expect("writes");
            String::from_utf8(line).expect("UTF-8")
        };
        let line = written(&message);
        let expected = r#"{"sequence":7,"subject":"a.b","published_us":1795428000000001,"headers":{"A":"1","B":["2","3"]},"payload":{"$blob":"/w=="}}"#;
        assert_eq!(line.trim_end(), expected);
        let (event, at) = event_line::read_with_time(line.as_bytes()).expect("an event");
        assert_eq!((event.headers().len(), event.payload(), at), (3, &b"\xff"[..], Some(1_795_428_000_000_001)));
        message.headers = Err(RawHeaders { bytes: b"NATS".to_vec(), defect: "bad" });
        assert!(written(&message).contains(r#""headers":null,"raw_headers":{"$blob":"TkFUUw=="}"#));
        let mut text = Vec::new();
        message.payload = b"x\x1b[1m".to_vec();
        write_text(&mut text, &message).expect("writes");
        assert_eq!(String::from_utf8_lossy(&text), "2026-11-23T10:00:00.000001Z a.b x\\u001b[1m\n");
    }
}
