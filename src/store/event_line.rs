//! An event as a line of JSON: what `tail events --json` and `dead-letters export` print, and `publish --events` reads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::json::{Json, LosslessJson};
use super::reader::Value;
use crate::event::Event;
use crate::event_id;
use crate::input_format::bytes_without_byte_order_mark;
use crate::subject;
use data_encoding::BASE64;
use serde::de::{IgnoredAny, MapAccess, Visitor};
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
    /// Its id in table `events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// The stream that it came from, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'a str>,
    /// Its sequence in the stream, if it was read from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    pub subject: &'a str,
    pub published_us: i64,
    pub headers: Option<&'a RawValue>,
    /// The raw header block, if it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_headers: Option<Json<'a>>,
    pub payload: LosslessJson<'a>,
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
    headers: Option<HeaderFields>,
    /// `null` is JSON too.
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(default)]
    raw_headers: Option<IgnoredAny>,
    /// The id under which the event was printed; not used.
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
    /// The stream that it came from, and its sequence there.
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    sequence: Option<u64>,
    #[serde(default)]
    published_us: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text or a list of texts")]
enum HeaderValues {
    One(String),
    Several(Vec<String>),
}

/// Headers in the order of the line.
struct HeaderFields(Vec<(String, HeaderValues)>);

impl<'de> Deserialize<'de> for HeaderFields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = HeaderFields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderFields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(HeaderFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// An event as a database stored it, to store it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its subject.
    pub subject: String,
    /// All of them, also those that a publisher must not give.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Publish time in microseconds since 1970, if the line has it.
    pub published_us: Option<i64>,
    /// The stream that it came from and its sequence there, if the line has both.
    pub position: Option<(String, u64)>,
}

/// The keys of a line, those included that are printed and not used, or refused with a reason of their own.
const KEYS: [&str; 8] = ["subject", "payload", "headers", "id", "stream", "sequence", "published_us", "raw_headers"];

/// The keys that no line lacks.
const NEEDED: [&str; 2] = ["subject", "payload"];

/// The event of a line. Its payload is text, a blob as `{"$blob":"<base64>"}`, or any other JSON, taken verbatim; `null` is the four bytes
/// `null`. An empty payload is `""`, as it is printed.
///
/// Headers that begin with `Nats-` are instructions of the first publisher to the server. They are left out, except for an identity that
/// the publisher gave. So is what a recorder generates to recognise repetitions: published again, the event is no repetition.
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
    let input = parsed(line)?;
    let mut event = Event::new(input.subject, payload(input.payload)?);
    // Another spelling is no identity for the stream either.
    for (name, values) in input.headers.map(|headers| headers.0).into_iter().flatten() {
        let values = values.list();
        if name == event_id::HEADER {
            let [id]: [String; 1] = values.try_into().map_err(|_| format!("{name} is not a single text"))?;
            if !event_id::is_generated(&name, &id) {
                event = event.id(id);
            }
        } else if name != event_id::NUMBER_HEADER
            && !name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("Nats-"))
        {
            event = values.into_iter().fold(event, |event, value| event.header(name.as_str(), value));
        }
    }
    event.validate().map_err(|invalid| invalid.to_string())?;
    Ok((event, input.published_us))
}

/// The event of a line as a database stored it, with all headers.
///
/// # Errors
///
/// As [`read`].
pub fn read_stored(line: &[u8]) -> Result<StoredEvent, String> {
    let input = parsed(line)?;
    let subject = input.subject.into_owned();
    subject::validate_stored(&subject).map_err(|invalid| invalid.to_string())?;
    let fields = input.headers.map(|headers| headers.0).into_iter().flatten();
    let all = fields.flat_map(|(name, values)| values.list().into_iter().map(move |value| (name.clone(), value)));
    Ok(StoredEvent {
        headers: all.collect(),
        payload: payload(input.payload)?,
        published_us: input.published_us,
        position: input.stream.zip(input.sequence),
        subject,
    })
}

/// Whether [`read_stored`] reads a line with this subject and these headers as the same event.
pub fn can_be_stored(subject: &str, headers: Option<&str>) -> bool {
    let are_headers = |json: &str| serde_json::from_str::<HeaderFields>(json).is_ok();
    subject::validate_stored(subject).is_ok() && headers.is_none_or(are_headers)
}

fn parsed(line: &[u8]) -> Result<InputLine<'_>, String> {
    // Files that were joined may have one at the start of any line.
    let line = bytes_without_byte_order_mark(line);
    let input: InputLine<'_> = serde_json::from_slice(line).map_err(|error| {
        let example = r#"{"subject":"a.b","headers":{"Name":"value"},"payload":"…"}"#;
        format!("does not look like {example}: {}", reason(line, &error))
    })?;
    if input.raw_headers.is_some() {
        return Err("its headers could not be read; remove raw_headers, or write them as \"headers\"".into());
    }
    if input.sequence.is_some_and(|sequence| i64::try_from(sequence).is_err()) {
        return Err(format!("\"sequence\" is more than {}", i64::MAX));
    }
    if input.published_us.is_some_and(|time| time.checked_mul(1_000).is_none()) {
        let most = i64::MAX / 1_000;
        return Err(format!("\"published_us\" is not from -{most} to {most}"));
    }
    Ok(input)
}

impl HeaderValues {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Several(values) => values,
        }
    }
}

/// Why a line is not an event, and what to do about JSON that is more than one event or less. In words of its own: the parser's texts
/// are about Rust, and number lines within the line.
fn reason(line: &[u8], error: &serde_json::Error) -> String {
    match line.trim_ascii_start().first() {
        Some(b'[') => "it is an array; write each element on a line: jq -c '.[]'".into(),
        Some(b'{') if std::str::from_utf8(line).is_err() => "it is not UTF-8".into(),
        Some(b'{') if error.is_eof() => "it ends within the object; write each event on one line: jq -c .".into(),
        Some(b'{') if error.is_syntax() => format!("it is not valid JSON, at column {}", error.column()),
        Some(b'{') => wrong_key(line, error),
        _ => "it is not a JSON object".into(),
    }
}

/// Which key of an object is too many, missing or has a wrong value.
fn wrong_key(line: &[u8], error: &serde_json::Error) -> String {
    let Ok(keys) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(line) else {
        return format!("it is not valid JSON, at column {}", error.column());
    };
    if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&&***key)) {
        return format!(
            "there is no key {unknown:?}; the keys are subject, payload and headers, and id, stream, sequence and published_us of an export"
        );
    }
    if let Some(missing) = NEEDED.iter().find(|key| !keys.contains_key(**key)) {
        return format!("{missing:?} is missing");
    }
    let is_whole = |value: &RawValue| serde_json::from_str::<Option<i64>>(value.get()).is_ok();
    let is_headers = |value: &RawValue| serde_json::from_str::<Option<HeaderFields>>(value.get()).is_ok();
    match (keys.get("subject"), keys.get("headers"), keys.get("published_us")) {
        (Some(subject), ..) if !subject.get().starts_with('"') => "\"subject\" is not text".into(),
        (_, Some(headers), _) if !is_headers(headers) => {
            "\"headers\" is not an object whose values are texts or lists of texts".into()
        }
        (.., Some(time)) if !is_whole(time) => "\"published_us\" is not a whole number of 64 bits".into(),
        _ if keys.get("sequence").is_some_and(|given| serde_json::from_str::<Option<u64>>(given.get()).is_err()) => {
            "\"sequence\" is not a whole number of 64 bits".into()
        }
        _ if keys.get("stream").is_some_and(|given| serde_json::from_str::<Option<String>>(given.get()).is_err()) => {
            "\"stream\" is not text".into()
        }
        _ => "a key is there twice".into(),
    }
}

fn payload(given: &RawValue) -> Result<Vec<u8>, String> {
    let given = given.get();
    if given.starts_with('"') {
        // Its syntax is checked already.
        let text: String = serde_json::from_str(given).map_err(|_| {
            "payload: an escape \\u stands for half a character; write both halves, or the bytes as {\"$blob\":\"<base64>\"}"
        })?;
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
        id: Some(id),
        stream: None,
        sequence: None,
        subject,
        published_us,
        headers: headers(headers_json),
        raw_headers: None,
        payload: LosslessJson(payload.borrowed()),
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
    fn a_stored_event_keeps_everything() {
        let line = br#"{"id": 3, "stream": "S", "sequence": 7, "subject": "$KV.a.b", "published_us": 9, "headers": {"b": ["1", "2"], "Nats-Msg-Id": "x", "a": "3"}, "payload": {"$blob": "/w=="}}"#;
        let headers = [("b", "1"), ("b", "2"), ("Nats-Msg-Id", "x"), ("a", "3")];
        let expected = StoredEvent {
            subject: "$KV.a.b".into(),
            headers: headers.map(|(name, value)| (name.into(), value.into())).to_vec(),
            payload: vec![0xff],
            published_us: Some(9),
            position: Some(("S".into(), 7)),
        };
        assert_eq!(read_stored(line), Ok(expected));
        let plain = read_stored(br#"{"subject": "a", "sequence": 7, "payload": 1}"#).expect("an event");
        assert_eq!((plain.position, plain.published_us, plain.payload), (None, None, b"1".to_vec()));
        for bad in [&b"{}"[..], br#"{"subject": "", "payload": 1}"#, br#"{"subject": "a b", "payload": 1}"#] {
            read_stored(bad).expect_err("must be refused");
        }
        // A server stores these as they are, unless it is pedantic.
        for odd in ["a.*", "a.>", "a..b", "$", "$JS.EVENT.a", r"a.\u0001"] {
            let line = format!("{{\"subject\": \"{odd}\", \"payload\": 1}}");
            read_stored(line.as_bytes()).expect(odd);
        }
    }

    #[test]
    fn a_payload_may_be_json() {
        for (given, payload) in [
            (r#"{"b": 1.50, "a": [null]}"#, r#"{"b": 1.50, "a": [null]}"#),
            ("12345678901234567890123", "12345678901234567890123"),
            (r#"{"$blob": "eA==", "more": 1}"#, r#"{"$blob": "eA==", "more": 1}"#),
            (r#"{"$blob": "eA=="}"#, "x"),
            ("null", "null"),
            (r#""""#, ""),
        ] {
            let event = read(format!(r#"{{"subject": "a", "payload": {given}}}"#).as_bytes()).expect(given);
            assert_eq!(std::str::from_utf8(event.payload()), Ok(payload));
        }
        assert_eq!(read("\u{feff}{\"subject\": \"a\", \"payload\": 1} ".as_bytes()), Ok(Event::new("a", "1")));
    }

    #[test]
    fn of_publish_options_only_the_identity_is_repeated() {
        let line = br#"{"subject": "a", "payload": "", "headers": {"Nats-Msg-Id": "7", "nats-msg-id": "8", "NATS-MSG-ID": "9", "Nats-Rollup": "all", "Nats-Expected-Stream": "S", "A": "1"}}"#;
        assert_eq!(read(line), Ok(Event::new("a", "").id("7").header("A", "1")));
        let line = br#"{"subject": "a", "payload": "", "headers": {"Nats-Msg-Id": "catchment-k3vfa7q2mzn5x6ohydwu-17", "Catchment-Event": "r-7", "A": "1"}}"#;
        assert_eq!(
            read(line),
            Ok(Event::new("a", "").header("A", "1")),
            "an event that is published again is no repetition"
        );
    }

    #[test]
    fn a_line_without_an_event_is_refused() {
        for (line, said) in [
            (&b"hello"[..], "does not look like {\"subject\":\"a.b\""),
            (b"no", ": it is not a JSON object"),
            (b"\"a\"", ": it is not a JSON object"),
            (b"[{\"subject\": \"a\"}]", "write each element on a line: jq -c '.[]'"),
            (b"{", ": it ends within the object; write each event on one line: jq -c ."),
            (br#"{"subject": "a",}"#, ": it is not valid JSON, at column 17"),
            (br#"{"subject": "\ud800", "payload": ""}"#, ": it is not valid JSON, at column 20"),
            (b"{\"subject\": \"\xff\", \"payload\": \"\"}", ": it is not UTF-8"),
            (br#"{"payload": "x"}"#, ": \"subject\" is missing"),
            (br#"{"subject": "a"}"#, ": \"payload\" is missing"),
            (br#"{"subject": 1, "payload": ""}"#, ": \"subject\" is not text"),
            (br#"{"subject": "a", "subject": "b", "payload": ""}"#, ": a key is there twice"),
            (
                br#"{"subject": "a", "header": {}}"#,
                ": there is no key \"header\"; the keys are subject, payload and headers",
            ),
            (
                br#"{"subject": "a", "payload": "", "published_us": "x"}"#,
                ": \"published_us\" is not a whole number of 64 bits",
            ),
            (br#"{"subject": "a", "payload": "", "sequence": "x"}"#, ": \"sequence\" is not a whole number of 64 bits"),
            (br#"{"subject": "a", "payload": "", "stream": 7}"#, ": \"stream\" is not text"),
            (
                br#"{"subject": "a", "payload": "", "headers": {"Nats-Msg-Id": ["7", "8"]}}"#,
                "Nats-Msg-Id is not a single text",
            ),
            (br#"{"subject": "a", "payload": "", "headers": {"A": 1}}"#, "whose values are texts or lists of texts"),
            (br#"{"subject": "a", "payload": "", "headers": []}"#, "\"headers\" is not an object"),
            (br#"{"subject": "a.>", "payload": ""}"#, "wildcard"),
            (
                br#"{"subject": "a", "payload": "", "sequence": 18446744073709551615}"#,
                "is more than 9223372036854775807",
            ),
            (br#"{"subject": "a", "payload": "", "published_us": 9223372036854776}"#, "to 9223372036854775"),
            (br#"{"subject": "a", "payload": "", "published_us": -9223372036854776}"#, "from -9223372036854775"),
            (br#"{"subject": "a", "payload": {"$blob": "!"}}"#, "\"!\" is not base64"),
            (br#"{"subject": "a", "payload": "\ud800"}"#, "payload: an escape \\u stands for half a character"),
            (br#"{"subject": "a", "payload": "", "raw_headers": {"$blob": "/w=="}}"#, "its headers could not be read"),
        ] {
            let refused = read(line).expect_err(said);
            assert!(refused.contains(said), "{refused}");
            assert!(!refused.contains("line 1"), "the number is that of the line in its file: {refused}");
        }
    }
}
