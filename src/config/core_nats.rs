//! Collecting from core NATS, without a stream and at most once: `[broker.core]`.

use bytesize::ByteSize;
use serde::Deserialize;

use crate::error::Error;
use crate::subject::Filter;

/// Whether a stream keeps events until the database has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// A JetStream stream keeps them: each is stored exactly once.
    #[default]
    Jetstream,
    /// Nothing keeps them: core NATS delivers an event to the subscribers of that moment. At most once: an event is lost where
    /// the collector is not connected when it is published, or has no room for it.
    Core,
}

/// How core NATS is collected: `[broker.core]`. Used in mode `core` only.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CoreConfig {
    /// A queue group: each event goes to one collector of the group. Default none: every collector gets every event.
    pub queue: Option<String>,
    /// The most events that wait in memory for the database. Default 100,000.
    pub max_events: usize,
    /// The most bytes of these events: subjects, headers, payloads, and 256 bytes an event for bookkeeping. Default 64 MiB.
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Size"))]
    pub max_bytes: ByteSize,
    /// What happens when events arrive faster than the database commits them. Default `drop_newest`.
    pub overflow: CoreOverflow,
}

/// What happens when the receive buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CoreOverflow {
    /// New events are dropped and counted. The connection is always read, so the server never waits.
    #[default]
    DropNewest,
    /// When half of the buffer is full, the connection is not read, and events wait in the server. The other half is for events
    /// that arrive until reading stops; events beyond it are dropped and counted. The server closes a connection that it cannot
    /// write to for its `write_deadline` (10 s by default) or that has more than its `max_pending` (64 MiB) waiting. Then a new
    /// connection is opened, and the events that waited in the server are lost. Needs a second connection and permission to
    /// publish to `_INBOX.>`.
    Block,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self { queue: None, max_events: 100_000, max_bytes: ByteSize::mib(64), overflow: CoreOverflow::default() }
    }
}

impl CoreConfig {
    /// Checks every setting, and that no two subjects match the same event: it would arrive twice.
    pub(super) fn validate(&self, subjects: &[Filter]) -> Result<(), Error> {
        if let Some(queue) = &self.queue
            && (queue.is_empty() || queue.chars().any(|c| c.is_whitespace() || c.is_control() || "*>".contains(c)))
        {
            let detail =
                format!("{queue:?} is not a valid name of a queue group: white space, * and > are not allowed");
            return Err(Error::config("broker.core.queue", detail));
        }
        if self.max_events == 0 {
            return Err(Error::config("broker.core.max_events", "is 0; it must be at least 1"));
        }
        if self.max_bytes.as_u64() == 0 {
            return Err(Error::config("broker.core.max_bytes", "is 0; it must be at least 1"));
        }
        for (at, one) in subjects.iter().enumerate() {
            if let Some(other) = subjects[at + 1..].iter().find(|other| one.overlaps(other)) {
                let detail = format!(
                    "{:?} and {:?} overlap: core NATS would deliver an event that matches both twice",
                    one.as_str(),
                    other.as_str(),
                );
                return Err(Error::config("broker.subjects", detail).with_remedy("give subjects that do not overlap"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let refused = |core: CoreConfig, subjects: &[&str]| {
            let subjects: Vec<Filter> = subjects.iter().map(|subject| subject.parse().expect("a filter")).collect();
            core.validate(&subjects).expect_err("must be refused").to_string()
        };
        for queue in ["", "a b", "a.*", ">"] {
            let core = CoreConfig { queue: Some(queue.into()), ..CoreConfig::default() };
            assert!(refused(core, &["a"]).contains("broker.core.queue"), "{queue}");
        }
        assert!(refused(CoreConfig { max_events: 0, ..CoreConfig::default() }, &["a"]).contains("core.max_events"));
        assert!(
            refused(CoreConfig { max_bytes: ByteSize(0), ..CoreConfig::default() }, &["a"]).contains("core.max_bytes")
        );
        let both = refused(CoreConfig::default(), &["x", "a.>", "a.b"]);
        assert!(both.contains("\"a.>\" and \"a.b\" overlap"), "{both}");
    }
}
