//! An event as a line of JSON: what `tail events --json` and `dead-letters export` print, and `publish --events` reads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::lines::BOM;
use crate::Event;
use crate::store::{Json, Value};
use data_encoding::BASE64;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A payload that is not text: `{"$blob":"<base64>"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Blob<'a> {
    #[serde(rename = "$blob", borrow)]
    base64: Cow<'a, str>,
}

/// A line to print.
#[derive(Serialize)]
pub struct EventLine<'a> {
    pub id: i64,
    pub subject: &'a str,
    pub published_us: i64,
    pub headers: Option<&'a RawValue>,
    /// The raw header block, if it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_headers: Option<Json<'a>>,
    pub payload: Json<'a>,
}

/// Stored headers, which are JSON already.
pub fn headers(json: Option<&str>) -> Option<&RawValue> {
    json.and_then(|json| serde_json::from_str(json).ok())
}

/// A line to read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputLine<'a> {
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(default)]
    headers: Option<BTreeMap<String, HeaderValues>>,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    raw_headers: Option<IgnoredAny>,
    /// The id under which the event was printed; not used.
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
    #[serde(default)]
    published_us: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text or a list of texts")]
enum HeaderValues {
    One(String),
    Several(Vec<String>),
}

/// The header with an event's identity.
const IDENTITY: &str = "Nats-Msg-Id";

/// The event of a line. Its payload is text, a blob as `{"$blob":"<base64>"}`, or any other JSON, taken verbatim.
///
/// Headers that begin with `Nats-` are instructions of the first publisher to the server. They are left out, except for the
/// event's identity.
///
/// # Errors
///
/// What is wrong with the line, in one line.
pub fn read(line: &[u8]) -> Result<Event, String> {
    read_with_time(line).map(|(event, _)| event)
}

/// The same with its publish time in microseconds since 1970, if the line has one.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_time(line: &[u8]) -> Result<(Event, Option<i64>), String> {
    // Files that were joined may have one at the start of any line.
    let line = line.strip_prefix(BOM).unwrap_or(line);
    let input: InputLine<'_> = serde_json::from_slice(line).map_err(|error| {
        let example = r#"{"subject":"a.b","headers":{"Name":"value"},"payload":"…"}"#;
        format!("does not look like {example}: {}", reason(line, &error))
    })?;
    if input.raw_headers.is_some() {
        return Err("its headers could not be read; remove raw_headers, or write them as \"headers\"".into());
    }
    let mut event = Event::new(input.subject, payload(input.payload)?);
    // Another spelling is no identity for the stream either.
    for (name, values) in input.headers.into_iter().flatten() {
        let values = match values {
            HeaderValues::One(value) => vec![value],
            HeaderValues::Several(values) => values,
        };
        if name == IDENTITY {
            let [id]: [String; 1] = values.try_into().map_err(|_| format!("{IDENTITY} is not a single text"))?;
            event = event.id(id);
        } else if !name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("Nats-")) {
            event = values.into_iter().fold(event, |event, value| event.header(name.as_str(), value));
        }
    }
    event.validate().map_err(|invalid| invalid.to_string())?;
    Ok((event, input.published_us))
}

/// Why a line is not an event, and what to do about JSON that is more than one event or less.
fn reason(line: &[u8], error: &serde_json::Error) -> String {
    // Each line is parsed by itself, so its number within that says nothing.
    let text = error.to_string().replace(" at line 1 column ", " at column ");
    match line.trim_ascii_start().first() {
        Some(b'[') => format!("{text}; of an array, write each element on a line: jq -c '.[]'"),
        Some(b'{') if error.is_eof() => format!("{text}; write each event on one line: jq -c ."),
        _ => text,
    }
}

fn payload(given: Option<&RawValue>) -> Result<Vec<u8>, String> {
    let Some(given) = given.map(RawValue::get) else { return Ok(Vec::new()) };
    if given.starts_with('"') {
        let text: String = serde_json::from_str(given).map_err(|e| format!("payload: {e}"))?;
        return Ok(text.into_bytes());
    }
    match serde_json::from_str::<Blob<'_>>(given) {
        Ok(blob) => BASE64
            .decode(blob.base64.as_bytes())
            .map_err(|e| format!("payload: {:?} is not base64: {e}", blob.base64.chars().take(40).collect::<String>())),
        Err(_) => Ok(given.into()),
    }
}

/// The line for a stored event.
pub fn line<'a>(
    id: i64,
    subject: &'a str,
    published_us: i64,
    headers_json: Option<&'a str>,
    payload: &'a Value,
) -> EventLine<'a> {
    EventLine {
        id,
        subject,
        published_us,
        headers: headers(headers_json),
        raw_headers: None,
        payload: Json(payload.borrowed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_line_is_read_as_the_same_event() {
        for payload in
            [Value::Text("{\"a\": 1}\n\u{1}\"".into()), Value::Text(String::new()), Value::Blob(b"\xff\0".to_vec())]
        {
            let headers = r#"{"Trace-Id":"7","Two":["a","b"]}"#;
            let printed = serde_json::to_vec(&line(3, "a.b", 9, Some(headers), &payload)).expect("JSON");
            let bytes = match payload {
                Value::Text(text) => text.into_bytes(),
                Value::Blob(bytes) => bytes,
                _ => unreachable!(),
            };
            let event = Event::new("a.b", bytes).header("Trace-Id", "7").header("Two", "a").header("Two", "b");
            assert_eq!(read_with_time(&printed), Ok((event, Some(9))));
        }
    }

    #[test]
    fn a_payload_may_be_json() {
        for (given, payload) in [
            (r#"{"b": 1.50, "a": [null]}"#, r#"{"b": 1.50, "a": [null]}"#),
            ("12345678901234567890123", "12345678901234567890123"),
            (r#"{"$blob": "eA==", "more": 1}"#, r#"{"$blob": "eA==", "more": 1}"#),
            (r#"{"$blob": "eA=="}"#, "x"),
            ("null", ""),
        ] {
            let event = read(format!(r#"{{"subject": "a", "payload": {given}}}"#).as_bytes()).expect(given);
            assert_eq!(std::str::from_utf8(event.payload()), Ok(payload));
        }
        assert_eq!(read(br#"{"subject": "a"}"#), Ok(Event::new("a", "")));
        assert_eq!(read("\u{feff}{\"subject\": \"a\"} ".as_bytes()), Ok(Event::new("a", "")));
    }

    #[test]
    fn of_publish_options_only_the_identity_is_repeated() {
        let line = br#"{"subject": "a", "headers": {"Nats-Msg-Id": "7", "nats-msg-id": "8", "NATS-MSG-ID": "9", "Nats-Rollup": "all", "Nats-Expected-Stream": "S", "A": "1"}}"#;
        assert_eq!(read(line), Ok(Event::new("a", "").id("7").header("A", "1")));
    }

    #[test]
    fn a_line_without_an_event_is_refused() {
        for (line, said) in [
            (&b"hello"[..], "does not look like {\"subject\":\"a.b\""),
            (b"[{\"subject\": \"a\"}]", "write each element on a line: jq -c '.[]'"),
            (b"{", "at column 1; write each event on one line: jq -c ."),
            (br#"{"payload": "x"}"#, "missing field `subject`"),
            (br#"{"subject": "a", "header": {}}"#, "unknown field `header`"),
            (br#"{"subject": "a", "headers": {"Nats-Msg-Id": ["7", "8"]}}"#, "Nats-Msg-Id is not a single text"),
            (br#"{"subject": "a", "headers": {"A": 1}}"#, "expected text or a list of texts"),
            (br#"{"subject": "a.>"}"#, "wildcard"),
            (br#"{"subject": "a", "payload": {"$blob": "!"}}"#, "\"!\" is not base64"),
            (br#"{"subject": "a", "raw_headers": {"$blob": "/w=="}}"#, "its headers could not be read"),
        ] {
            let refused = read(line).expect_err(said);
            assert!(refused.contains(said), "{refused}");
        }
    }
}
