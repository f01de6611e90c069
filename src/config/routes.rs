//! What events do to the database: `[[route]]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::validate_bind;
use crate::error::Error;
use crate::subject::Filter;

/// Which statements the events of some subjects run. The first route in the file whose subject matches takes an event.
///
/// ```toml
/// [[route]]
/// subject = "weather.*"
/// sql = "INSERT INTO readings(station, at, celsius) VALUES (:token_2, :published_s, :celsius)"
/// bind = { celsius = "/air/temperature" }
/// ```
///
/// A statement's named parameters are bound from the event:
///
/// | parameter | value |
/// |---|---|
/// | `:subject` | the subject |
/// | `:token_1`, `:token_2`, … | the subject's tokens |
/// | `:stream`, `:sequence` | where it stands in the stream; NULL where there is none |
/// | `:published_s`, `:published_us` | when the stream took it (without one: when it was handed over), in whole seconds and in microseconds since 1970 |
/// | `:message_id` | the `Nats-Msg-Id` header |
/// | `:header_trace_id` | the first value of header `Trace-Id`, whatever the case of its name; `-` is `_` |
/// | `:payload` | the whole payload: text where it is UTF-8, else a blob |
/// | a name that `bind` gives | what stands in the payload at that JSON Pointer (RFC 6901) |
/// | any other | the payload's top-level field of that name |
///
/// What is not there is NULL, and the table's own constraints decide. A payload that cannot be read is a dead letter, unless no
/// statement of the route asks for a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The events it takes; `*` and `>` as in NATS, `{prefix}` is the setting `prefix`.
    pub subject: String,
    /// What errors and dead letters call it. Default: its subject.
    #[serde(default)]
    pub name: Option<String>,
    /// One statement, or several that run in order in the transaction of the event's batch. Each is an `INSERT`, `UPDATE` or
    /// `DELETE` (or `REPLACE`, or one that begins with `WITH`).
    #[serde(default, deserialize_with = "one_or_several")]
    pub sql: Vec<String>,
    /// Parameters that are bound from a place within the payload: name and JSON Pointer.
    #[serde(default)]
    pub bind: BTreeMap<String, String>,
    /// How payloads are written. Default: what the event's `Content-Type` header says, `application/msgpack` (or `x-msgpack`,
    /// `vnd.msgpack`) being `messagepack`; else JSON.
    #[serde(default)]
    pub codec: Option<Codec>,
    /// Answer each event that asks for it once it is committed. Default false.
    #[serde(default)]
    pub reply: bool,
}

/// How a payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// <https://www.rfc-editor.org/rfc/rfc8259>
    Json,
    /// <https://github.com/msgpack/msgpack/blob/master/spec.md>
    Messagepack,
}

/// What becomes of events that no route takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// They are stored in table `events`.
    #[default]
    Store,
    /// They are dropped and counted.
    Drop,
}

impl RouteConfig {
    /// What errors and dead letters call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.subject)
    }

    /// Checks what can be checked without a database.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let refused = |reason: String| Err(Error::config(format!("route {}", self.name()), reason));
        if let Err(reason) = self.subject.parse::<Filter>() {
            return refused(format!("subject {reason}"));
        }
        if self.sql.is_empty() {
            return refused("has no sql; give a statement, as \"INSERT INTO lines(text) VALUES (:text)\"".into());
        }
        validate_bind(&self.bind).or_else(refused)
    }
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a statement or a list of statements")]
    enum Given {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::One(sql) => vec![sql],
        Given::Several(sql) => sql,
    })
}
