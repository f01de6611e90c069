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
/// A name of this table means what it says here, also where the payload has a field of that name; `bind` reaches the field.
///
/// What is not there is NULL, and the table's own constraints decide. What is there is bound as what it is:
///
/// | JSON | MessagePack | bound as |
/// |---|---|---|
/// | string | str | text; a str that is not UTF-8 is a blob |
/// | number without point or exponent | int | integer; beyond 64 bits with a sign (from 9223372036854775808 on): text, digit for digit |
/// | any other number | float 32, float 64 | real, the nearest double; what none is near, like 1e999: text, as it is written |
/// | `true`, `false` | true, false | 1, 0 |
/// | `null` | nil, NaN | NULL |
/// | object, array | map, array | its JSON text: JSON as it stands in the payload, MessagePack as the JSON that it means |
/// | | timestamp | seconds since 1970, an integer where they are whole, else real |
/// | | bin, any other ext | blob of its data |
///
/// - Of several fields with one name the last one counts, also for pointers that reach into one of them.
/// - Pointers find elements of arrays by their index, from 0. The empty pointer is the whole payload. In a payload that is no
///   object names find nothing; pointers may find something.
/// - In MessagePack the names in a map are texts, and integers by their digits (`{7: …}` is found by `/7`). Pairs with any other
///   name are passed over. In JSON text that is made of it, blobs are base64, what JSON has no number for is null.
/// - A string that holds half of a surrogate pair (`"\ud800"`) is no text: where it is bound, the payload cannot be read. Within
///   an object or array that is bound it stays as it is written.
/// - Nesting may be of any depth. Only `bind` may reach no more than 128 levels deep.
///
/// A payload that cannot be read is a dead letter, with what is wrong and where: one that is not all JSON or all MessagePack, or
/// empty, or with something behind its end. All of it is checked, whatever is asked for; but where no statement of the route asks
/// for a part of it, it is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    /// How payloads are written. Default: what the event's `Content-Type` header says, `application/msgpack`,
    /// `application/x-msgpack` or `application/vnd.msgpack` (in any case, whatever stands behind a `;`) being `messagepack`;
    /// else JSON.
    #[serde(default)]
    pub codec: Option<Codec>,
    /// Tell whoever asks for it that an event is committed. Default false.
    ///
    /// The event names the subject for that in its header `Catchment-Reply-To`: an inbox of the publisher's, which begins with
    /// `_INBOX.` or `broker.inbox_prefix`. A stream does not keep the subject that a message names for a reply, and answers there
    /// itself that it has the event; in mode `core` that subject counts too. A plain client does so:
    ///
    /// ```text
    /// SUB _INBOX.me.1                              a subscription of its own, before it publishes
    /// PUB weather.oslo                             with the header Catchment-Reply-To: _INBOX.me.1
    /// {"sequence":7,"stored":true,"stream":"EVENTS"}      what comes once the event is as durable as the database makes it
    /// ```
    ///
    /// A dead letter is committed too: then `stored` is false, `error` is its reason, and the headers `Nats-Service-Error` and
    /// `Nats-Service-Error-Code` are there. At most one confirmation comes, and none where the connection is away in that
    /// moment, or any other subject is named; then the event is committed all the same.
    #[serde(default)]
    pub reply: bool,
    /// An event one of whose statements takes more steps of SQLite's virtual machine is a dead letter: it must not hold up all
    /// those behind it for ever. It is interrupted at most two million steps later; what a single step does, a function on a huge
    /// text say, is not interrupted. Default [`DEFAULT_MAX_STEPS`], some ten seconds.
    #[serde(default = "default_max_steps")]
    pub max_steps: u64,
}

/// Steps of SQLite's virtual machine that a statement of a route may take: some ten seconds.
pub const DEFAULT_MAX_STEPS: u64 = 1_000_000_000;

fn default_max_steps() -> u64 {
    DEFAULT_MAX_STEPS
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            subject: String::new(),
            name: None,
            sql: Vec::new(),
            bind: BTreeMap::new(),
            codec: None,
            reply: false,
            max_steps: DEFAULT_MAX_STEPS,
        }
    }
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
        if self.max_steps == 0 {
            return refused("max_steps must be at least 1".into());
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
