//! Service discovery: answers `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, with which `nats micro ls` and others find services.
//!
//! The protocol is <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::endpoint::Endpoint;
use super::service_state::ServiceState;
use crate::config::{BrokerConfig, ServiceConfig};

/// The queue group whose members share requests. Each partition has one of its own, so each answers every request.
pub(super) fn group(broker: &BrokerConfig) -> String {
    broker.partition.map_or_else(|| "q".into(), |partition| format!("q-{partition}"))
}

const PREFIX: &str = "$SRV";
const VERBS: [&str; 3] = ["PING", "INFO", "STATS"];

/// Describes a service to clients.
#[derive(Debug)]
pub(super) struct Discovery {
    name: String,
    id: String,
    description: String,
    started: String,
    endpoints: Arc<[Endpoint]>,
    group: String,
    metadata: Value,
}

impl Discovery {
    pub(super) fn new(
        config: &ServiceConfig,
        broker: &BrokerConfig,
        endpoints: &Arc<[Endpoint]>,
        state: &ServiceState,
    ) -> Self {
        let metadata = match (broker.partition, broker.partitions) {
            (Some(partition), Some(partitions)) => {
                json!({ "partition": partition.to_string(), "partitions": partitions.to_string() })
            }
            _ => json!({}),
        };
        Self {
            group: group(broker),
            metadata,
            name: config.name.clone(),
            id: state.id.clone(),
            description: config.description.clone(),
            started: state.started.clone(),
            endpoints: Arc::clone(endpoints),
        }
    }

    /// The subjects that it answers.
    pub(super) fn subjects(&self) -> Vec<String> {
        let of = |verb| {
            let all = format!("{PREFIX}.{verb}");
            let of_name = format!("{all}.{}", self.name);
            let of_id = format!("{of_name}.{}", self.id);
            [all, of_name, of_id]
        };
        VERBS.into_iter().flat_map(of).collect()
    }

    /// The answer to a request on one of them; `None` on any other subject.
    pub(super) fn answer(&self, subject: &str) -> Option<Vec<u8>> {
        let (prefix, rest) = subject.split_once('.')?;
        let verb = rest.split('.').next().filter(|_| prefix == PREFIX)?;
        let answer = match verb {
            "PING" => self.described("ping", []),
            "INFO" => {
                let endpoints = self.endpoints.iter().map(|endpoint| info(endpoint, &self.group)).collect();
                self.described("info", [("description", json!(self.description)), ("endpoints", endpoints)])
            }
            "STATS" => {
                let endpoints = self.endpoints.iter().map(|endpoint| stats(endpoint, &self.group)).collect();
                self.described("stats", [("started", json!(self.started)), ("endpoints", endpoints)])
            }
            _ => return None,
        };
        Some(answer.to_string().into_bytes())
    }

    fn described<const N: usize>(&self, kind: &str, more: [(&str, Value); N]) -> Value {
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{kind}_response"),
            "name": self.name,
            "id": self.id,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": self.metadata,
        });
        for (key, value) in more {
            answer[key] = value;
        }
        answer
    }
}

fn info(endpoint: &Endpoint, group: &str) -> Value {
    let mut metadata = Map::new();
    if !endpoint.parameters.is_empty() {
        metadata.insert("parameters".into(), endpoint.parameters.join(" ").into());
    }
    json!({
        "name": endpoint.name,
        "subject": endpoint.subject.as_str(),
        "queue_group": group,
        "metadata": metadata,
    })
}

fn stats(endpoint: &Endpoint, group: &str) -> Value {
    let counts = endpoint.counters.now();
    json!({
        "name": endpoint.name,
        "subject": endpoint.subject.as_str(),
        "queue_group": group,
        "num_requests": counts.requests,
        "num_errors": counts.errors,
        "last_error": counts.last_error,
        "processing_time": counts.nanos,
        "average_processing_time": counts.nanos.checked_div(counts.requests).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::*;
    use crate::config::QueryConfig;

    fn discovery() -> Discovery {
        discovery_of(&BrokerConfig::default())
    }

    fn discovery_of(broker: &BrokerConfig) -> Discovery {
        let query = QueryConfig::new("chat.recent", "SELECT :limit, :user");
        let state = ServiceState::default();
        let parameters = ["limit".to_owned(), "user".to_owned()];
        let endpoints = Endpoint::of([(&query, &parameters[..])], &state).expect("subjects").into();
        let config = ServiceConfig { description: "a chat".into(), ..ServiceConfig::default() };
        Discovery::new(&config, broker, &endpoints, &state)
    }

    #[test]
    fn it_answers_only_on_its_subjects() {
        let discovery = discovery();
        let subjects = discovery.subjects();
        assert_eq!(subjects.len(), 9);
        assert!(subjects.contains(&"$SRV.PING".to_owned()) && subjects.contains(&"$SRV.STATS.catchment".to_owned()));
        for subject in &subjects {
            let answer: Value = serde_json::from_slice(&discovery.answer(subject).expect(subject)).expect("JSON");
            assert_eq!((&answer["name"], answer["id"].as_str()), (&json!("catchment"), Some(discovery.id.as_str())));
            assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
        }
        assert!(!discovery.id.contains('.'), "{}", discovery.id);
        for subject in ["$SRV", "$SRV.SCHEMA", "PING", "chat.PING", ""] {
            assert_eq!(discovery.answer(subject), None, "{subject}");
        }
    }

    #[test]
    fn a_partition_is_told_and_has_a_group_of_its_own() {
        let broker = BrokerConfig { partitions: Some(4), partition: Some(2), ..BrokerConfig::default() };
        let answer = discovery_of(&broker).answer("$SRV.INFO").expect("one");
        let info: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(info["metadata"], json!({ "partition": "2", "partitions": "4" }));
        assert_eq!(info["endpoints"][0]["queue_group"], "q-2");
    }

    #[test]
    fn information_and_statistics_have_the_fields_that_tools_read() {
        let discovery = discovery();
        let ask =
            |subject| -> Value { serde_json::from_slice(&discovery.answer(subject).expect("one")).expect("JSON") };
        let info = ask("$SRV.INFO");
        assert_eq!((&info["type"], &info["description"]), (&json!("io.nats.micro.v1.info_response"), &json!("a chat")));
        let endpoint = json!({
            "name": "chat_recent", "subject": "chat.recent", "queue_group": "q", "metadata": {"parameters": "limit user"},
        });
        assert_eq!(info["endpoints"], json!([endpoint]));
        let fresh = ask("$SRV.STATS");
        assert_eq!(fresh["endpoints"][0]["average_processing_time"], 0);
        discovery.endpoints[0].counters.answered(Duration::from_nanos(10));
        discovery.endpoints[0].counters.failed(Duration::from_nanos(5), 400, "no");
        let stats = ask("$SRV.STATS");
        assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
        assert!(OffsetDateTime::parse(stats["started"].as_str().expect("a time"), &Rfc3339).is_ok());
        let endpoint = json!({
            "name": "chat_recent", "subject": "chat.recent", "queue_group": "q", "num_requests": 2, "num_errors": 1,
            "last_error": "400:no", "processing_time": 15, "average_processing_time": 7,
        });
        assert_eq!(stats["endpoints"], json!([endpoint]));
    }
}
