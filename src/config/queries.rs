//! Which queries are answered over NATS, `[[query]]`, and the service that answers them, `[service]`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::broker::BrokerConfig;
use super::core_nats::Mode;
use super::limits::{validate_bind, validate_duration};
use super::parameters::ParameterConfig;
use super::routes::Codec;
use crate::error::Error;
use crate::subject::{Filter, InvalidSubject};

/// A query that is answered over NATS: a request on its subject runs its statement, and the reply holds the rows.
///
/// ```toml
/// [[query]]
/// subject = "weather.latest"
/// sql = "SELECT station, at, celsius FROM readings WHERE station = :station ORDER BY at DESC LIMIT :limit"
/// parameters.limit = { type = "integer", default = 10, min = 1, max = 1000 }
/// ```
///
/// Parameters are bound from the request as those of a [`RouteConfig`](super::RouteConfig) are from an event. `:published_s` and
/// `:published_us` are the time at which the request arrived; `:stream` and `:sequence` are NULL. The first query in the file whose
/// subject matches answers.
///
/// A request is an object; an empty request and a null are one without fields. A field that no parameter has is refused, at any depth
/// outside of values that a parameter takes whole. These rules do not apply to a query with the parameter `:payload`, which takes
/// everything.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct QueryConfig {
    /// The subject of its requests; `*` and `>` as in NATS. It must not begin with a wildcard or `$`; `{prefix}` is the setting
    /// `prefix`. It must not match any stream's subjects: the stream would store requests as events.
    pub subject: String,
    /// Its name in errors and service discovery. Default: its subject.
    #[serde(default)]
    pub name: Option<String>,
    /// One statement that only reads.
    pub sql: String,
    /// Parameters that are bound from inside the request: name and JSON Pointer.
    #[serde(default)]
    pub bind: BTreeMap<String, String>,
    /// The types, limits and defaults of parameters that are bound from the request. Default: every value is accepted, and an absent
    /// one is NULL.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterConfig>,
    /// The format of requests. Default: as a route's.
    #[serde(default)]
    pub codec: Option<Codec>,
    /// A statement that runs longer is interrupted, and the reply is an error. A request that has waited longer gets an error
    /// too. Up to a day. Default 1 s.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub timeout: Duration,
    /// The most rows of a reply; with more the reply is an error. Default 1,000.
    #[serde(default = "default_max_rows")]
    pub max_rows: usize,
    /// The most bytes of a reply, 64 B at least; with more the reply is an error. The server's `max_payload` limits it too. Default
    /// 512 KiB.
    #[serde(default = "default_max_bytes")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Size"))]
    pub max_bytes: ByteSize,
}

/// The service that answers queries: `[service]`. `nats micro ls` finds it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Its name: A to Z, a to z, digits, `-` and `_`, at most 255. Default `catchment`.
    pub name: String,
    /// Its description in service discovery. Default empty.
    pub description: String,
    /// Threads that answer, 1 to 64, each with its own connection to the database. Default 2.
    pub threads: usize,
    /// The most requests that wait for a thread, 1 to 100,000; a further one gets an error at once. Default 1,024.
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
    /// A query with the default limits.
    pub fn new(subject: impl Into<String>, sql: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            name: None,
            sql: sql.into(),
            bind: BTreeMap::new(),
            parameters: BTreeMap::new(),
            codec: None,
            timeout: default_timeout(),
            max_rows: default_max_rows(),
            max_bytes: default_max_bytes(),
        }
    }

    /// Its name in errors and service discovery.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.subject)
    }

    /// Checks what can be checked without a database.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let key = format!("query {}", self.name());
        let refused = |reason: String| Err(Error::config(key.clone(), reason));
        if let Err(error) = self.subject.parse::<Filter>() {
            return refused(format!("subject {error}"));
        }
        if self.timeout.is_zero() {
            return refused("timeout is 0; it must be more".into());
        }
        validate_duration(&key, self.timeout)?;
        if self.max_rows == 0 {
            return refused("max_rows is 0; it must be at least 1".into());
        }
        if self.max_bytes.as_u64() < 64 {
            return refused(format!("max_bytes is {}; the least is 64 B", self.max_bytes));
        }
        for (name, parameter) in &self.parameters {
            parameter.validate().map_err(|reason| format!("parameters.{name}: {reason}")).or_else(refused)?;
        }
        validate_bind(&self.bind).or_else(refused)
    }
}

/// Checks that each request reaches its own query, and no stream.
pub(super) fn validate_subjects(queries: &[QueryConfig], broker: &BrokerConfig) -> Result<(), Error> {
    let of_stream = if broker.mode == Mode::Jetstream { &broker.subjects[..] } else { &[] };
    for (at, query) in queries.iter().enumerate() {
        let refused = |reason: String| Err(Error::config(format!("query {}", query.name()), reason));
        if query.subject.starts_with(['$', '*', '>']) {
            return refused(format!("subject {:?} begins with a wildcard or $; begin it with a name", query.subject));
        }
        if let Some(before) = queries[..at].iter().find(|before| before.subject == query.subject) {
            return refused(format!("subject {:?} is the subject of query {} too", query.subject, before.name()));
        }
    }
    // Without subjects it depends on the stream.
    refuse_collected(queries, of_stream, "broker.subjects")
}

/// Refuses queries whose requests the collected stream would store: it has these subjects, as this source says.
pub(super) fn refuse_collected(queries: &[QueryConfig], of_stream: &[String], source: &str) -> Result<(), Error> {
    let filter =
        |subject: &str| subject.parse::<Filter>().map_err(|e: InvalidSubject| Error::config("subject", e.to_string()));
    for query in queries {
        let requests = filter(&query.subject)?;
        for subject in of_stream {
            if filter(subject)?.overlaps(&requests) {
                let reason = format!(
                    "subject {:?} is among {source} ({subject:?}): the stream would store requests as events, and answer \
                     them first; give queries other subjects than events",
                    query.subject
                );
                return Err(Error::config(format!("query {}", query.name()), reason));
            }
        }
    }
    Ok(())
}

impl ServiceConfig {
    /// Checks every setting.
    pub(super) fn validate(&self) -> Result<(), Error> {
        const MOST: usize = 255;
        let usable = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let refused = |detail: String| Err(Error::config("service.name", detail));
        match self.name.chars().find(|c| !usable(*c)) {
            _ if self.name.is_empty() => return refused("is empty; an example is catchment".into()),
            _ if self.name.len() > MOST => {
                return refused(format!("has {} bytes; the most are {MOST}", self.name.len()));
            }
            Some(c) => return refused(format!("{:?} has {c:?}; use A to Z, a to z, 0 to 9, - and _", self.name)),
            None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_that_discovery_does_not_allow_is_refused_in_words() {
        let refusal = |name: &str| {
            let service = ServiceConfig { name: name.into(), ..ServiceConfig::default() };
            service.validate().err().map(|error| error.to_string())
        };
        for (name, said) in [
            ("", "is empty; an example is catchment"),
            ("my service", "\"my service\" has ' '; use A to Z, a to z, 0 to 9, - and _"),
            ("a.b", "\"a.b\" has '.'; use A to Z, a to z, 0 to 9, - and _"),
            ("ä", "\"ä\" has 'ä'; use A to Z, a to z, 0 to 9, - and _"),
        ] {
            assert_eq!(refusal(name), Some(format!("configuration: service.name: {said}")));
        }
        assert_eq!(
            refusal(&"a".repeat(256)).as_deref(),
            Some("configuration: service.name: has 256 bytes; the most are 255")
        );
        assert_eq!((refusal("Catchment-2_x"), refusal(&"a".repeat(255))), (None, None));
    }

    #[test]
    fn a_wrong_type_of_a_parameter_names_query_and_parameter() {
        let mut query = QueryConfig::new("chat.recent", "SELECT :limit");
        let mut limit = ParameterConfig::new(super::super::ParameterType::Integer);
        (limit.default, limit.max) = (Some(5.into()), Some(3.into()));
        query.parameters.insert("limit".into(), limit);
        let refused = query.validate().expect_err("the default is too large").to_string();
        assert_eq!(
            refused,
            "configuration: query chat.recent: parameters.limit: default is 5, but it must be an integer of at most 3"
        );
    }
}
