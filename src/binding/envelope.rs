//! A message, and the reserved parameter names that stand for its parts.

use super::Value;
use crate::config::Codec;
use crate::event_id;
use crate::pipeline::{Delivery, Epoch, Headers};

/// A received message: an event or a request.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Its subject.
    pub subject: &'a str,
    /// Its stream, if it has one.
    pub stream: Option<&'a str>,
    /// Its sequence number in that stream.
    pub sequence: Option<u64>,
    /// When it was published, in nanoseconds since 1970.
    pub published_ns: i64,
    /// Its headers.
    pub headers: Headers<'a>,
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// The envelope of a delivery of this epoch.
    #[must_use]
    pub fn of(delivery: &Delivery<'a>, epoch: Option<&'a Epoch>) -> Self {
        let stream = epoch.and_then(Epoch::origin);
        Self {
            subject: delivery.subject,
            stream,
            sequence: stream.map(|_| delivery.mark.sequence),
            published_ns: delivery.mark.published_ns,
            headers: delivery.headers,
            payload: delivery.payload,
        }
    }

    /// The codec of its payload, by its `Content-Type`.
    pub(super) fn codec(&self) -> Codec {
        const MESSAGEPACK: [&str; 3] = ["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"];
        let Some(content_type) = self.headers.get("Content-Type") else { return Codec::Json };
        let media = content_type.split_once(';').map_or(content_type, |(media, _)| media).trim();
        if MESSAGEPACK.iter().any(|name| media.eq_ignore_ascii_case(name)) { Codec::Messagepack } else { Codec::Json }
    }
}

/// The part of a message that a reserved name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Subject,
    /// Counted from 0.
    Token(usize),
    Stream,
    Sequence,
    PublishedSeconds,
    PublishedMicros,
    MessageId,
    /// The name, with `_` for `-`.
    Header(String),
    Payload,
}

impl Part {
    /// The part with this name; `None` if the name is not reserved.
    pub(super) fn named(name: &str) -> Result<Option<Self>, String> {
        Ok(Some(match name {
            "subject" => Self::Subject,
            "stream" => Self::Stream,
            "sequence" => Self::Sequence,
            "published_s" => Self::PublishedSeconds,
            "published_us" => Self::PublishedMicros,
            "message_id" => Self::MessageId,
            "payload" => Self::Payload,
            _ => match (name.strip_prefix("token_"), name.strip_prefix("header_")) {
                (Some(number), _) if number.bytes().all(|c| c.is_ascii_digit()) => match number.parse::<usize>() {
                    Ok(number) if number > 0 => Self::Token(number - 1),
                    _ => return Err(format!(":{name} is not a token; the first is :token_1")),
                },
                (_, Some(header)) if !header.is_empty() => Self::Header(header.to_owned()),
                _ => return Ok(None),
            },
        }))
    }

    /// The value of this part in a message.
    pub(super) fn of<'a>(&self, envelope: &Envelope<'a>) -> Value<'a> {
        let text = |text: Option<&'a str>| text.map_or(Value::Null, Value::Text);
        match self {
            Self::Subject => Value::Text(envelope.subject),
            Self::Token(at) => text(envelope.subject.split('.').nth(*at)),
            Self::Stream => text(envelope.stream),
            Self::Sequence => match envelope.sequence {
                Some(sequence) => i64::try_from(sequence).map_or(Value::Null, Value::Integer),
                None => Value::Null,
            },
            Self::PublishedSeconds => Value::Integer(envelope.published_ns.div_euclid(1_000_000_000)),
            Self::PublishedMicros => Value::Integer(envelope.published_ns.div_euclid(1_000)),
            Self::MessageId => text(envelope.headers.get(event_id::HEADER)),
            Self::Header(name) => text(header(envelope.headers, name)),
            Self::Payload => {
                simdutf8::basic::from_utf8(envelope.payload).map_or(Value::Blob(envelope.payload), Value::Text)
            }
        }
    }
}

/// The first value of the header that a parameter's name stands for. The header that is spelt like the parameter comes first.
fn header<'a>(headers: Headers<'a>, parameter: &str) -> Option<&'a str> {
    let equal = |name: &str, same: fn(&u8, &u8) -> bool| {
        name.len() == parameter.len()
            && name.bytes().zip(parameter.bytes()).all(|(a, b)| same(if a == b'-' { &b'_' } else { &a }, &b))
    };
    headers.find(|name| equal(name, u8::eq_ignore_ascii_case), |name| equal(name, |a, b| a == b))
}
