//! Which statements events run: `[[route]]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::limits::validate_bind;
use crate::error::Error;
use crate::subject::{self, Filter};

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
/// | `:stream`, `:sequence` | its stream and its sequence there; NULL without a stream |
/// | `:published_s`, `:published_us` | when the stream stored it (without a stream: when it was received or recorded), in whole seconds and in microseconds since 1970 |
/// | `:message_id` | the `Nats-Msg-Id` header |
/// | `:header_trace_id` | the first value of header `trace-id`, or of `Trace-Id` in another case; `-` is `_` |
/// | `:payload` | the whole payload: text where it is UTF-8, else a blob |
/// | a name in `bind` | the value in the payload at that JSON Pointer (RFC 6901) |
/// | any other | the payload's top-level field of that name |
///
/// If several headers have names that differ only in case, a parameter takes the one that is spelt like the parameter
/// (`:header_Trace_Id` takes `Trace-Id`), and `:message_id` takes `Nats-Msg-Id`; if there is none, the one whose name is first in
/// byte order. A collector has the values of a header in byte order: the NATS client does not keep their order.
///
/// The names of this table are reserved: a field of the payload with such a name is reached with `bind`.
///
/// An absent value is NULL; the constraints of the database's table decide whether that is allowed. A value is bound by its type:
///
/// | JSON | MessagePack | bound as |
/// |---|---|---|
/// | string | str | text; a str that is not UTF-8 is a blob |
/// | number without point or exponent | int | integer; beyond 64 bits with a sign (from 9223372036854775808 on): text, digit for digit |
/// | any other number | float 32, float 64 | real, the nearest double; beyond the range of doubles (1e999): text, as it is written |
/// | `true`, `false` | true, false | 1, 0 |
/// | `null` | nil, NaN | NULL |
/// | object, array | map, array | its JSON text: JSON as it is written in the payload, MessagePack converted to JSON |
/// | | timestamp | seconds since 1970: an integer if they are whole, else real |
/// | | bin, any other ext (such as Fluentd's `EventTime`) | blob of its data |
///
/// - If several fields have one name, the first one counts, also for pointers that go through it. SQLite's `->>` does the same.
/// - A pointer addresses elements of arrays by their index, from 0. The empty pointer is the whole payload. In a payload that is no
///   object, names match nothing; pointers may.
/// - A byte order mark before JSON is skipped. `:payload` has it.
/// - Names in a MessagePack map are str or bin, or integers by their digits (`/7` addresses `{7: …}`). A str or bin that is not UTF-8
///   is no name: if its map is looked at, the payload cannot be read. Pairs with any other key are skipped. In the JSON text made
///   from MessagePack, blobs are base64, and NaN and infinities are null.
/// - A string with half of a surrogate pair (`"\ud800"`) is no text: if it is bound, the payload cannot be read. Inside a bound
///   object or array it stays as it is written.
/// - Nesting may have any depth; `bind` reaches at most 128 levels.
///
/// A payload that cannot be read makes the event a dead letter, with the error and its position: one that is not wholly JSON or wholly
/// MessagePack, is empty, or has something after its end. The whole payload is checked, whichever fields are bound. If no
/// statement of the route binds a part of the payload, it is not read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteConfig {
    /// The events it takes; `*` and `>` as in NATS, `{prefix}` is the setting `prefix`.
    pub subject: String,
    /// Its name in errors and dead letters. Default: its subject.
    #[serde(default)]
    pub name: Option<String>,
    /// One statement, or several that run in order in the transaction of the event's batch. Each is an `INSERT`, `UPDATE` or
    /// `DELETE` (or `REPLACE`, or one that begins with `WITH`).
    #[serde(default, deserialize_with = "one_or_several")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::OneOrSeveral"))]
    pub sql: Vec<String>,
    /// Parameters that are bound from inside the payload: name and JSON Pointer.
    #[serde(default)]
    pub bind: BTreeMap<String, String>,
    /// The format of payloads. Default: by the event's `Content-Type` header. `application/msgpack`, `application/x-msgpack` and
    /// `application/vnd.msgpack` mean `messagepack`, in any case and whatever follows a `;`. Everything else means JSON.
    #[serde(default)]
    pub codec: Option<Codec>,
    /// Send a confirmation when an event is committed, if the publisher asks for one. Default false.
    ///
    /// The event's header `Catchment-Reply-To` names the subject of the confirmation. It must be an inbox of the publisher, so it
    /// begins with `_INBOX.` or `broker.inbox_prefix`. The reply subject of the message itself does not work with a stream: the
    /// stream does not keep it, and acknowledges the event there. In mode `core` the reply subject counts too. With a plain client:
    ///
    /// ```text
    /// SUB _INBOX.me.1                              subscribe before you publish
    /// PUB weather.oslo                             with the header Catchment-Reply-To: _INBOX.me.1
    /// {"sequence":7,"stored":true,"stream":"EVENTS"}      the confirmation, sent after the commit
    /// ```
    ///
    /// A dead letter is committed too: then `stored` is false, `error` is its reason, and the headers `Nats-Service-Error` and
    /// `Nats-Service-Error-Code` are set. There is at most one confirmation. There is none if the connection is lost at that
    /// moment or the subject is no inbox; the event is committed all the same.
    #[serde(default)]
    pub reply: bool,
    /// An event that it stores, for people who try it: `run --with-server` shows how to publish it. Default none.
    #[serde(default)]
    pub example: Option<RouteExample>,
    /// What happens to delete markers on its subject. Default `skip`.
    #[serde(default = "default_delete_markers")]
    pub delete_markers: DeleteMarkers,
    /// The most steps of SQLite's virtual machine that one statement may take for one event, so that no event blocks later ones
    /// for ever. A statement that takes more is interrupted at most two million steps later, and its event becomes a dead letter. A
    /// single long step, a function on a huge text for instance, is not interrupted. Default [`DEFAULT_MAX_STEPS`].
    #[serde(default = "default_max_steps")]
    pub max_steps: u64,
}

/// An event that a route stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteExample {
    /// Its subject, which the route's subject matches; `{prefix}` is the setting `prefix`.
    pub subject: String,
    /// Its payload, as text.
    pub payload: String,
}

/// The default of [`RouteConfig::max_steps`]: ten seconds or so.
pub const DEFAULT_MAX_STEPS: u64 = 1_000_000_000;

fn default_max_steps() -> u64 {
    DEFAULT_MAX_STEPS
}

fn default_delete_markers() -> DeleteMarkers {
    DeleteMarkers::Skip
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
            example: None,
            delete_markers: default_delete_markers(),
            max_steps: DEFAULT_MAX_STEPS,
        }
    }
}

/// The format of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Codec {
    /// JSON, <https://www.rfc-editor.org/rfc/rfc8259>
    Json,
    /// MessagePack, <https://github.com/msgpack/msgpack/blob/master/spec.md>
    Messagepack,
}

/// What happens to events that no route takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Unmatched {
    /// They are stored in table `events`.
    #[default]
    Store,
    /// They are dropped and counted.
    Drop,
}

/// What happens to delete markers. A delete marker is a message that reports that the earlier messages of its subject are gone: a
/// stream adds it when the last one expires (header `Nats-Marker-Reason`), a client when it deletes or purges a key of a key-value
/// bucket (header `KV-Operation: DEL` or `PURGE`). It is recognised by these headers. Usually it has no payload.
///
/// A delete marker goes to the first route whose subject matches and whose `delete_markers` is not `skip`. If every route that
/// matches has `skip`, it is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeleteMarkers {
    /// They are handled like other events: a route runs its statements.
    #[default]
    Store,
    /// They are skipped and counted.
    Skip,
    /// They become dead letters.
    DeadLetter,
    /// The route takes nothing else. Only for routes.
    Only,
}

/// How events that no route takes are named among the routes.
pub(crate) const NO_ROUTE: &str = "(none)";

impl RouteConfig {
    /// A route with these statements and the defaults.
    pub fn new<S: Into<String>>(subject: impl Into<String>, sql: impl IntoIterator<Item = S>) -> Self {
        Self { subject: subject.into(), sql: sql.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Its name in errors and dead letters.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.subject)
    }

    /// Checks what can be checked without a database.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let refused = |reason: String| Err(Error::config(format!("route {}", self.name()), reason));
        let filter = match self.subject.parse::<Filter>() {
            Ok(filter) => filter,
            Err(error) => return refused(format!("subject {error}")),
        };
        if let Some(name) = &self.name
            && (name.trim().is_empty() || name.chars().any(char::is_control) || name == NO_ROUTE)
        {
            let detail =
                "name must be text without control characters, and not (none): that is the name of no route in metrics";
            return refused(detail.into());
        }
        if let Some(RouteExample { subject, .. }) = &self.example {
            if let Err(error) = subject::validate(subject) {
                return refused(format!("example.subject: {error}"));
            }
            if !filter.matches(subject) {
                return refused(format!("example.subject {subject} is not on its subject, {}", self.subject));
            }
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
