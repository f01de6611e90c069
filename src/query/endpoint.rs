//! A query as an endpoint of the service: its subject, its name in discovery, and its counters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint_counters::{EndpointCounters, EndpointCounts};
use super::service_state::ServiceState;
use crate::config::QueryConfig;
use crate::error::Error;
use crate::pipeline::Distribution;
use crate::subject::{Filter, InvalidSubject};

/// A query in the service. The first whose subject matches answers a request.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Letters, digits, `-` and `_`.
    pub(super) name: String,
    /// Its name in the configuration.
    pub(super) query: String,
    pub(super) subject: Filter,
    pub(super) timeout: Duration,
    /// The names that a request may have.
    pub(super) parameters: Vec<String>,
    pub(super) counters: Arc<EndpointCounters>,
}

/// The requests of a query, from the collector's start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryStatus {
    /// The query's name.
    pub name: String,
    /// Requests that were answered, errors included.
    pub requests: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// The last error, after its status code: `400:limit must be a number`. Empty without one.
    pub last_error: String,
    /// How long the answers took, in seconds, without the time in the queue.
    pub duration: Distribution,
}

impl Endpoint {
    /// Its counts now.
    pub(super) fn status(&self) -> QueryStatus {
        let EndpointCounts { requests, errors, last_error, .. } = self.counters.now();
        let duration = self.counters.durations();
        QueryStatus { name: self.query.clone(), requests, errors, last_error, duration }
    }

    /// One endpoint for each query, with unique names and the counters that the state has for the query.
    pub(super) fn of<'a>(
        queries: impl IntoIterator<Item = (&'a QueryConfig, &'a [String])>,
        state: &ServiceState,
    ) -> Result<Vec<Self>, Error> {
        let mut names = BTreeSet::new();
        let endpoint = |(query, parameters): (&QueryConfig, &[String])| {
            let subject = query
                .subject
                .parse()
                .map_err(|e: InvalidSubject| Error::config(format!("query {}", query.name()), e.to_string()))?;
            let plain = plain_name(query.name());
            let numbered = (2..).map(|number| format!("{plain}_{number}"));
            let name = std::iter::once(plain.clone()).chain(numbered).find(|name| !names.contains(name));
            let name = name.unwrap_or(plain);
            names.insert(name.clone());
            let parameters = parameters.to_vec();
            let (query, timeout) = (query.name().to_owned(), query.timeout);
            let counters = state.counters_of(&query);
            Ok(Self { name, query, subject, timeout, parameters, counters })
        };
        queries.into_iter().map(endpoint).collect()
    }
}

/// A name that discovery allows: <https://docs.nats.io/reference/services/info-response.md> has the pattern.
fn plain_name(name: &str) -> String {
    let usable = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    name.chars().map(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_unique() {
        let queries = ["chat.recent", "chat_recent", "chat.*.stats", "chat recent"]
            .map(|name| QueryConfig { name: Some(name.into()), ..QueryConfig::new("chat.q", "SELECT 1") });
        let endpoints =
            Endpoint::of(queries.iter().map(|query| (query, &[][..])), &ServiceState::default()).expect("subjects");
        let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
        assert_eq!(names, ["chat_recent", "chat_recent_2", "chat___stats", "chat_recent_3"]);
    }
}
