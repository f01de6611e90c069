//! Collecting from core NATS: no stream, at most once.

use bytesize::ByteSize;
use serde::Deserialize;

use crate::error::Error;
use crate::subject::Filter;

/// Where the broker keeps events until the database has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In a JetStream stream: nothing lost, nothing twice.
    #[default]
    Jetstream,
    /// Nowhere: core NATS sends an event to whoever listens when it is published. At most once: what is published while
    /// the collector is away, or what it has no room for, is lost.
    Core,
}

/// How core NATS is collected: `[broker.core]`. Heeded in mode `core` only.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoreConfig {
    /// A queue group: of all collectors in it, one gets each event. Default none: every collector gets every event.
    pub queue: Option<String>,
    /// At most this many events wait in memory for the database. Default 100,000.
    pub max_events: usize,
    /// At most this many bytes of them: subjects, headers, payloads, and 256 bytes an event for what surrounds them.
    /// Default 64 MiB.
    pub max_bytes: ByteSize,
    /// What happens when the database is slower than events come. Default `drop_newest`.
    pub overflow: CoreOverflow,
}

/// What happens to events that the database is too slow for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoreOverflow {
    /// What there is no room for is dropped and counted. The connection is always read, so the server never has to wait.
    #[default]
    DropNewest,
    /// From half of the room on the connection is not read, and events wait in the server, which ends a connection that it
    /// cannot write to for its `write_deadline` (10 s by default) or has more than `max_pending` (64 MiB) waiting for. Then a
    /// new one is made, and what was waiting in the server is lost. What arrives until reading has stopped takes up the other
    /// half; what exceeds that is dropped and counted. Needs a second connection and may publish to `_INBOX.>`.
    Block,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self { queue: None, max_events: 100_000, max_bytes: ByteSize::mib(64), overflow: CoreOverflow::default() }
    }
}

impl CoreConfig {
    /// Checks every setting by itself, and that no two of the subjects bring the same event twice.
    pub(super) fn validate(&self, subjects: &[Filter]) -> Result<(), Error> {
        if let Some(queue) = &self.queue
            && (queue.is_empty() || queue.chars().any(|c| c.is_whitespace() || c.is_control() || "*>".contains(c)))
        {
            let reason = format!("{queue:?} cannot be a queue group's name: no white space, * or >");
            return Err(Error::config("broker.core.queue", reason));
        }
        if self.max_events == 0 {
            return Err(Error::config("broker.core.max_events", "is 0; there must be room for an event"));
        }
        if self.max_bytes.as_u64() == 0 {
            return Err(Error::config("broker.core.max_bytes", "is 0; there must be room for an event"));
        }
        for (at, one) in subjects.iter().enumerate() {
            if let Some(other) = subjects[at + 1..].iter().find(|other| one.overlaps(other)) {
                let reason = format!(
                    "{:?} and {:?} overlap: core NATS would bring what both match twice; give subjects that do not",
                    one.as_str(),
                    other.as_str(),
                );
                return Err(Error::config("broker.subjects", reason));
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
