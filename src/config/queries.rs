//! Which questions are answered over NATS: `[[query]]`, and the service that answers them: `[service]`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::{BrokerConfig, Codec, Mode, validate_bind, validate_longest};
use crate::error::Error;
use crate::subject::Filter;

/// A question that is answered over NATS: a request on its subject runs its statement, and the rows are the answer.
///
/// ```toml
/// [[query]]
/// subject = "weather.latest"
/// sql = "SELECT station, at, celsius FROM readings WHERE station = :station ORDER BY at DESC LIMIT coalesce(:limit, 10)"
/// ```
///
/// Parameters are bound from the request as those of a [`RouteConfig`](super::RouteConfig) are from an event; `:published_s` and
/// `:published_us` are when it came, `:stream` and `:sequence` are NULL. An empty request has no fields. The first query in the
/// file whose subject matches answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryConfig {
    /// The subject of its requests; `*` and `>` as in NATS, but not at its start; `{prefix}` is the setting `prefix`. None that
    /// a stream takes: it would keep requests as events.
    pub subject: String,
    /// What errors and service discovery call it. Default: its subject.
    #[serde(default)]
    pub name: Option<String>,
    /// One statement that reads.
    pub sql: String,
    /// Parameters that are bound from a place within the request: name and JSON Pointer.
    #[serde(default)]
    pub bind: BTreeMap<String, String>,
    /// How requests are written. Default: as a route's.
    #[serde(default)]
    pub codec: Option<Codec>,
    /// A statement that takes longer is interrupted, and the answer is an error; so is that to a request which has waited for
    /// longer. Default 1 s.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// An answer of more rows is an error instead. Default 1,000.
    #[serde(default = "default_max_rows")]
    pub max_rows: usize,
    /// An answer of more bytes is an error instead; the server's `max_payload` bounds it too. Default 512 KiB.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
}

/// The service that answers queries: `[service]`. `nats micro ls` finds it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// Its name: letters, digits, `-` and `_`. Default `catchment`.
    pub name: String,
    /// What discovery says it is for. Default empty.
    pub description: String,
    /// Threads that answer, each with a connection to the database of its own. Default 2.
    pub threads: usize,
    /// Requests that may wait for one of them; more are refused with an error. Default 1,024.
    pub waiting: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { name: "catchment".into(), description: String::new(), threads: 2, waiting: 1_024 }
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(1)
}

fn default_max_rows() -> usize {
    1_000
}

fn default_max_bytes() -> ByteSize {
    ByteSize::kib(512)
}

impl QueryConfig {
    /// A query with default limits.
    pub fn new(subject: impl Into<String>, sql: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            name: None,
            sql: sql.into(),
            bind: BTreeMap::new(),
            codec: None,
            timeout: default_timeout(),
            max_rows: default_max_rows(),
            max_bytes: default_max_bytes(),
        }
    }

    /// What errors and service discovery call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.subject)
    }

    /// Checks what can be checked without a database.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let key = format!("query {}", self.name());
        let refused = |reason: String| Err(Error::config(key.clone(), reason));
        if let Err(reason) = self.subject.parse::<Filter>() {
            return refused(format!("subject {reason}"));
        }
        if self.timeout.is_zero() {
            return refused("timeout is 0; nothing could be answered".into());
        }
        validate_longest(&key, self.timeout)?;
        if self.max_rows == 0 {
            return refused("max_rows is 0; nothing could be answered".into());
        }
        if self.max_bytes.as_u64() < 64 {
            return refused(format!("max_bytes is {}; the least is 64 B", self.max_bytes));
        }
        validate_bind(&self.bind).or_else(refused)
    }
}

/// Checks that requests come to their query and to nobody else.
pub(super) fn validate_subjects(queries: &[QueryConfig], broker: &BrokerConfig) -> Result<(), Error> {
    let filter = |subject: &str| subject.parse::<Filter>().map_err(|e| Error::config("subject", e));
    for (at, query) in queries.iter().enumerate() {
        let refused = |reason: String| Err(Error::config(format!("query {}", query.name()), reason));
        if query.subject.starts_with(['$', '*', '>']) {
            return refused(format!("subject {:?} begins with a wildcard or $; begin it with a name", query.subject));
        }
        if let Some(before) = queries[..at].iter().find(|before| before.subject == query.subject) {
            return refused(format!("subject {:?} is that of query {} too", query.subject, before.name()));
        }
        let asked = filter(&query.subject)?;
        for subject in broker.subjects.iter().filter(|_| broker.mode == Mode::Jetstream) {
            if filter(subject)?.overlaps(&asked) {
                return refused(format!(
                    "subject {:?} is among broker.subjects ({subject:?}): the stream would keep requests as events, and answer \
                     them first; give events and queries subjects that tell them apart",
                    query.subject
                ));
            }
        }
    }
    Ok(())
}

impl ServiceConfig {
    /// Checks every setting by itself.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let usable = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(usable) {
            let reason = format!("{:?} cannot be a service's name: letters, digits, - and _", self.name);
            return Err(Error::config("service.name", reason));
        }
        if !(1..=64).contains(&self.threads) {
            return Err(Error::config("service.threads", format!("is {}; from 1 to 64", self.threads)));
        }
        if !(1..=100_000).contains(&self.waiting) {
            return Err(Error::config("service.waiting", format!("is {}; from 1 to 100,000", self.waiting)));
        }
        Ok(())
    }
}
