//! The settings: one struct for the TOML file and for programs that embed a collector.
//!
//! Each struct has a `Default`. A program starts with it and sets fields: later versions may add fields.
//!
//! ```
//! use catchment::Config;
//!
//! let mut config = Config::default();
//! config.broker.stream = "CHAT".into();
//! config.database.path = "chat.db".into();
//! assert!(config.validate().is_ok());
//! ```
//!
//! With the feature `toml`, `Config::from_toml` reads the settings from text in the file's format, and `Config::from_toml_file` from a
//! file.

mod authentication;
mod backup;
mod broker;
mod changes;
mod core_nats;
mod database;
#[cfg(feature = "toml")]
mod file;
mod limits;
mod migrations;
mod observe;
mod parameters;
mod partitions;
mod queries;
mod reachability;
mod retention;
mod routes;
#[cfg(feature = "cli")]
mod schema;
#[cfg(feature = "cli")]
mod schema_types;
mod secrets;
#[cfg(feature = "cli")]
mod setting_lines;
mod subjects;
mod upkeep;
#[cfg(feature = "cli")]
mod written;

use serde::{Deserialize, Deserializer};

use crate::error::Error;
use crate::subject::is_prefix;

pub(crate) use authentication::{Authentication, AuthenticationSetting, Secret};
pub use backup::BackupConfig;
pub(crate) use broker::is_stream_name;
pub use broker::{BrokerConfig, PrefetchConfig, TlsConfig};
#[doc(no_inline)]
pub use bytesize::ByteSize;
pub use core_nats::{CoreConfig, CoreOverflow, Mode};
pub(crate) use database::validate_database_path;
pub use database::{BatchConfig, Checkpoints, DatabaseConfig, Synchronous};
#[cfg(feature = "cli")]
pub(crate) use file::{from_table, keys_of, line_in, table_of};
pub(crate) use limits::validate_bind;
pub use migrations::Migrations;
#[cfg(feature = "cli")]
pub(crate) use observe::ListenAddress;
pub use observe::ObserveConfig;
pub(crate) use parameters::seconds_of;
pub use parameters::{ParameterConfig, ParameterType, ParameterValue};
pub use queries::{QueryConfig, ServiceConfig};
pub(crate) use retention::ArchiveKind;
pub use retention::{RetentionConfig, RetentionRule, RetentionRules};
pub(crate) use routes::NO_ROUTE;
pub use routes::{Codec, DEFAULT_MAX_STEPS, DeleteMarkers, RouteConfig, RouteExample, Unmatched};
#[cfg(feature = "cli")]
pub(crate) use schema::schema;
pub(crate) use secrets::{is_jwt, split_scheme, without_login, without_secrets};
#[cfg(feature = "cli")]
pub(crate) use setting_lines::lines_of;
pub use upkeep::UpkeepConfig;
#[cfg(feature = "cli")]
pub(crate) use written::{Section, sections};

/// All settings. `Config::default()` is valid: a broker on this machine, stream `EVENTS`, `catchment.db` in the current
/// directory.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Replaces `{prefix}` in the subjects of routes, queries and broker. Default none.
    pub prefix: Option<String>,
    /// What happens to events that no route takes. Default `store`.
    pub unmatched: Unmatched,
    /// What happens to delete markers whose subject no route matches. Default `store`: the same as to other events.
    #[serde(deserialize_with = "of_unmatched")]
    pub delete_markers: DeleteMarkers,
    /// The source of events: `[broker]`.
    pub broker: BrokerConfig,
    /// The database: `[database]`.
    pub database: DatabaseConfig,
    /// How many events share a transaction: `[batch]`.
    pub batch: BatchConfig,
    /// Which statements the events run: `[[route]]`. Default none: no event has a route.
    #[serde(rename = "route")]
    pub routes: Vec<RouteConfig>,
    /// Which queries are answered: `[[query]]`. Default none.
    #[serde(rename = "query")]
    pub queries: Vec<QueryConfig>,
    /// The service that answers them: `[service]`.
    pub service: ServiceConfig,
    /// Backups that the collector makes by itself: `[backup]`. Default none.
    pub backup: BackupConfig,
    /// How the collector can be watched: `[observe]`.
    pub observe: ObserveConfig,
    /// How long rows are kept: `[retention]`. Default: everything is kept.
    pub retention: RetentionConfig,
    /// What the collector does for its database from time to time: `[upkeep]`.
    pub upkeep: UpkeepConfig,
}

impl Config {
    /// The same settings with `prefix` in place of each `{prefix}`. All functions that take a [`Config`] call this themselves.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where `prefix` is needed and not given, or no subject can begin with it.
    pub fn resolved(&self) -> Result<Self, Error> {
        let mut config = self.clone();
        if let Some(prefix) = config.prefix.as_deref().filter(|prefix| !is_prefix(prefix)) {
            let detail = format!("{prefix:?} is not a valid prefix; examples are chat and bots.echo");
            return Err(Error::config("prefix", detail));
        }
        let subjects = config.broker.subjects.iter_mut().map(|subject| ("broker.subjects", subject));
        let routes = config.routes.iter_mut().flat_map(|route| {
            let example = route.example.as_mut().map(|example| ("route.example.subject", &mut example.subject));
            std::iter::once(("route", &mut route.subject)).chain(example)
        });
        let queries = config.queries.iter_mut().map(|query| ("query", &mut query.subject));
        for (key, subject) in subjects.chain(routes).chain(queries) {
            refuse_other_placeholders(key, subject)?;
            if !subject.contains(PREFIX) {
                continue;
            }
            let Some(prefix) = &config.prefix else {
                let detail = format!("{subject:?} needs the setting prefix, which is not given");
                return Err(Error::config(key, detail));
            };
            *subject = subject.replace(PREFIX, prefix);
        }
        Ok(config)
    }

    /// Checks all settings but three kinds: the SQL of routes and queries, which needs the database; whether files exist; and the
    /// form of the servers' addresses. Those are checked when they are used. Opens neither broker nor database, and does not block.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), Error> {
        let Self { broker, database, batch, routes, queries, service, backup, observe, retention, upkeep, .. } =
            self.resolved()?;
        broker.validate()?;
        database.validate()?;
        batch.validate()?;
        service.validate()?;
        backup.validate()?;
        observe.validate()?;
        retention.validate()?;
        upkeep.validate()?;
        if self.delete_markers == DeleteMarkers::Only {
            let reason = "is only, which is for routes";
            return Err(Error::config("delete_markers", reason).with_remedy("give store, skip or dead_letter"));
        }
        validate_routes(&routes)?;
        validate_names("query", queries.iter().map(QueryConfig::name))?;
        queries.iter().try_for_each(QueryConfig::validate)?;
        queries::validate_subjects(&queries, &broker)
    }
}

/// Checks that no query has a subject of the collected stream. A mirror or a source, which may have any subject (`>`), takes no requests.
pub(crate) fn validate_queries_of_stream(queries: &[QueryConfig], of_stream: &[String]) -> Result<(), Error> {
    let known: Vec<String> = of_stream.iter().filter(|subject| *subject != ">").cloned().collect();
    queries::refuse_collected(queries, &known, "the stream's subjects")
}

/// Checks what can be checked of routes without a database.
pub(crate) fn validate_routes(routes: &[RouteConfig]) -> Result<(), Error> {
    validate_names("route", routes.iter().map(RouteConfig::name))?;
    routes.iter().try_for_each(RouteConfig::validate)
}

/// Reads [`Config::delete_markers`]. An unknown value is refused with those that it can have. `only` is for routes: [`Config::validate`]
/// refuses it with the reason.
fn of_unmatched<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DeleteMarkers, D::Error> {
    match &*String::deserialize(deserializer)? {
        "store" => Ok(DeleteMarkers::Store),
        "skip" => Ok(DeleteMarkers::Skip),
        "dead_letter" => Ok(DeleteMarkers::DeadLetter),
        "only" => Ok(DeleteMarkers::Only),
        other => Err(serde::de::Error::unknown_variant(other, &["store", "skip", "dead_letter"])),
    }
}

/// What the setting `prefix` replaces in subjects.
pub(crate) const PREFIX: &str = "{prefix}";

/// Refuses a subject with a placeholder that nothing replaces, most likely a misspelt one. NATS itself allows braces.
fn refuse_other_placeholders(key: &str, subject: &str) -> Result<(), Error> {
    let rest = subject.replace(PREFIX, "");
    let Some(placeholder) = rest.find('{').and_then(|at| Some(&rest[at..=at + rest[at..].find('}')?])) else {
        return Ok(());
    };
    let detail = format!("{subject:?} has {placeholder}, and only {PREFIX} is replaced");
    let remedy = format!("write {PREFIX}, or * for a token that has braces itself");
    Err(Error::config(key, detail).with_remedy(remedy))
}

/// Checks that no name is used twice: errors, dead letters and discovery identify routes and queries by it.
fn validate_names<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::config(format!("{key} {name}"), "is used twice").with_remedy("rename one of them"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn no_secret_is_shown() {
        let broker = BrokerConfig {
            servers: vec!["nats://me:hunter2@a:1".into(), "tok3n@b".into()],
            password: Some("hunter3".into()),
            token: Some("t0ken".into()),
            ..BrokerConfig::default()
        };
        let shown = format!("{broker:?}");
        assert!(!["hunter", "tok3n", "t0ken"].iter().any(|secret| shown.contains(secret)), "{shown}");
        // Given by mistake where a file was meant.
        let seed = format!("SU{}", "A".repeat(56));
        let broker = BrokerConfig {
            nkey: Some(seed.clone().into()),
            jwt: Some("eyJhbGciOiJlZDI1NTE5.eyJzdWIi.c2ln".into()),
            creds: Some(format!("-----BEGIN USER NKEY SEED-----\n{seed}").into()),
            ..BrokerConfig::default()
        };
        let shown = format!("{broker:?} {}", broker.validate().expect_err("must be refused"));
        assert!(![&seed, "eyJ"].iter().any(|secret| shown.contains(secret)), "{shown}");
        let broker = BrokerConfig { nkey: Some(seed.clone().into()), ..BrokerConfig::default() };
        let refusal = broker.validate().expect_err("must be refused").to_string();
        assert!(refusal.contains("broker.nkey: is a seed") && !refusal.contains(&seed), "{refusal}");
    }

    #[test]
    fn what_stands_before_the_at_sign_is_not_shown() {
        let servers = ["nats://me:hunter2@a:1", "tok3n@b", "tls://me:p@ss@c"].map(str::to_owned).into();
        let broker = BrokerConfig { servers, ..BrokerConfig::default() };
        assert_eq!(broker.shown_servers(), "nats://a:1, b, tls://c");
    }

    #[test]
    fn requests_go_where_domain_or_prefix_say() {
        let mut broker = BrokerConfig::default();
        assert_eq!(broker.api_prefix(), "$JS.API");
        broker.domain = Some("hub".into());
        assert_eq!(broker.api_prefix(), "$JS.hub.API");
        (broker.domain, broker.api_prefix) = (None, Some("js.hub".into()));
        assert_eq!(broker.api_prefix(), "js.hub");
    }

    #[test]
    fn the_prefix_stands_in_all_subjects() {
        let mut config = Config { prefix: Some("my.bot".into()), ..Config::default() };
        config.broker.subjects = vec!["{prefix}.>".into()];
        let example = RouteExample { subject: "{prefix}.log".into(), payload: "{prefix}".into() };
        config.routes =
            vec![RouteConfig { subject: "{prefix}.log".into(), example: Some(example), ..RouteConfig::default() }];
        config.queries = vec![QueryConfig::new("{prefix}.recent", "SELECT 1")];
        let resolved = config.resolved().expect("a prefix");
        let subjects = [&resolved.broker.subjects[0], &resolved.routes[0].subject, &resolved.queries[0].subject];
        assert_eq!(subjects, ["my.bot.>", "my.bot.log", "my.bot.recent"]);
        let example = resolved.routes[0].example.as_ref().expect("an example");
        assert_eq!((example.subject.as_str(), example.payload.as_str()), ("my.bot.log", "{prefix}"));
        config.prefix = None;
        let missing = config.resolved().expect_err("must be refused").to_string();
        assert!(missing.contains("needs the setting prefix"), "{missing}");
        config.prefix = Some("a.*".into());
        assert!(config.resolved().expect_err("must be refused").to_string().contains("is not a valid prefix"));
    }

    #[test]
    fn a_placeholder_that_nothing_replaces_is_refused() {
        type Place<'a> = (&'a str, &'a dyn Fn(&mut Config, &str));
        let refused = |change: &dyn Fn(&mut Config, &str), subject: &str| {
            let mut config = Config { prefix: Some("chat".into()), ..Config::default() };
            change(&mut config, subject);
            config.validate().err().map(|error| error.to_string())
        };
        let route = |c: &mut Config, subject: &str| c.routes = vec![RouteConfig::new(subject, ["-"])];
        let query = |c: &mut Config, subject: &str| c.queries = vec![QueryConfig::new(subject, "SELECT 1")];
        let broker = |c: &mut Config, subject: &str| c.broker.subjects = vec![subject.into()];
        let places: [Place<'_>; 3] = [("route", &route), ("query", &query), ("broker.subjects", &broker)];
        for (key, place) in places {
            assert_eq!(
                refused(place, "{prfix}.message").expect("must be refused"),
                format!(
                    "configuration: {key}: \"{{prfix}}.message\" has {{prfix}}, and only {{prefix}} is replaced; write {{prefix}}, or * \
                     for a token that has braces itself"
                )
            );
            for subject in ["{prefix}.{room}", "a.${room}", "{}.a", "{Prefix}.a"] {
                assert!(refused(place, subject).is_some_and(|said| said.contains("only {prefix}")), "{subject}");
            }
            for subject in ["{prefix}.a", "a.{", "a}.b{"] {
                assert_eq!(refused(place, subject), None, "{subject}");
            }
        }
        let example = |c: &mut Config, subject: &str| {
            route(c, "a.*");
            c.routes[0].example = Some(RouteExample { subject: subject.into(), payload: String::new() });
        };
        assert!(
            refused(&example, "a.{b}").is_some_and(|said| said.contains("route.example.subject: \"a.{b}\" has {b}"))
        );
    }

    #[test]
    fn routes_and_queries_that_cannot_work_are_refused_by_name() {
        let refused = |change: fn(&mut RouteConfig)| {
            let mut route = RouteConfig { subject: "a.b".into(), sql: vec!["-".into()], ..RouteConfig::default() };
            assert!(route.validate().is_ok());
            change(&mut route);
            let config = Config { routes: vec![route], ..Config::default() };
            config.validate().expect_err("must be refused").to_string()
        };
        assert!(refused(|r| r.subject = "a..b".into()).contains("route a..b: subject \"a..b\" is not a valid subject"));
        assert!(refused(|r| r.sql.clear()).contains("route a.b: has no sql"));
        assert!(
            refused(|r| r.bind = [("x".into(), "city".into())].into())
                .contains("bind.x is \"city\", which is not a JSON Pointer")
        );
        assert!(refused(|r| r.bind = [("x".into(), "/~2".into())].into()).contains("not a JSON Pointer"));
        assert!(refused(|r| r.bind = [("x".into(), "/".repeat(129))].into()).contains("129 levels deep"));
        let example = |subject: &str| Some(RouteExample { subject: subject.into(), ..RouteExample::default() });
        let route = RouteConfig { example: example("a.b"), ..RouteConfig::new("a.*", ["-"]) };
        assert!(route.validate().is_ok());
        let off = RouteConfig { example: example("b.b"), ..route.clone() }.validate().expect_err("another subject");
        assert!(off.to_string().ends_with("route a.*: example.subject b.b is not on its subject, a.*"), "{off}");
        let wild = RouteConfig { example: example("a.*"), ..route }.validate().expect_err("no subject of an event");
        assert!(wild.to_string().contains("route a.*: example.subject: "), "{wild}");
        let twice = vec![QueryConfig::new("q", "SELECT 1"); 2];
        let config = Config { queries: twice, ..Config::default() };
        assert!(config.validate().expect_err("must be refused").to_string().contains("query q: is used twice"));
    }

    #[test]
    fn a_query_whose_requests_would_go_elsewhere_is_refused() {
        let refused = |subjects: &[&str], mode| {
            let queries = subjects.iter().zip(0..).map(|(subject, number)| QueryConfig {
                name: Some(format!("q{number}")),
                ..QueryConfig::new(*subject, "SELECT 1")
            });
            let broker = BrokerConfig { mode, subjects: vec!["chat.>".into()], ..BrokerConfig::default() };
            let config = Config { queries: queries.collect(), broker, ..Config::default() };
            config.validate().err().map(|e| e.to_string())
        };
        assert_eq!(refused(&["ask.recent", "ask.*"], Mode::Jetstream), None);
        let among = refused(&["ask.recent", "chat.recent"], Mode::Jetstream).expect("must be refused");
        assert!(among.contains("query q1: subject \"chat.recent\" is among broker.subjects"), "{among}");
        assert_eq!(refused(&["chat.recent"], Mode::Core), None);
        for subject in [">", "*.recent", "$SRV.PING"] {
            assert!(refused(&[subject], Mode::Core).expect("must be refused").contains("begin it with a name"));
        }
        assert!(refused(&["a", "a"], Mode::Core).expect("must be refused").contains("is the subject of query q0 too"));
    }

    #[test]
    fn a_refused_setting_is_named() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().expect_err("must be refused").to_string()
        };
        assert!(refused(|c| c.broker.stream = "A B".into()).starts_with("configuration: broker.stream:"));
        assert!(refused(|c| c.broker.subjects = vec!["a.>.b".into()]).contains("\"a.>.b\""));
        assert!(refused(|c| c.broker.user = Some("me".into())).contains("go together"));
        assert!(refused(|c| c.broker.password_file = Some("pw".into())).contains("go together"));
        let both = |c: &mut Config| (c.broker.token, c.broker.token_file) = (Some("t".into()), Some("t".into()));
        assert!(refused(both).starts_with("configuration: broker.token_file:"));
        let two = |c: &mut Config| (c.broker.nkey, c.broker.creds) = (Some("n".into()), Some("c".into()));
        assert!(refused(two).contains("only one"));
        let in_url = |c: &mut Config| (c.broker.servers, c.broker.token) = (vec!["t@a".into()], Some("t".into()));
        assert!(refused(in_url).contains("only one"));
        assert!(refused(|c| c.broker.jwt = Some("j".into())).contains("needs broker.nkey"));
        assert!(refused(|c| c.broker.tls.cert = Some("c".into())).contains("needs broker.tls.key"));
        assert!(refused(|c| c.broker.tls.key = Some("k".into())).contains("needs broker.tls.cert"));
        assert!(refused(|c| c.broker.domain = Some("a.b".into())).contains("\"a.b\""));
        assert!(refused(|c| c.broker.api_prefix = Some("a.".into())).contains("\"a.\""));
        assert!(refused(|c| c.broker.inbox_prefix = Some("a.*".into())).contains("broker.inbox_prefix"));
        let two = |c: &mut Config| (c.broker.domain, c.broker.api_prefix) = (Some("a".into()), Some("b".into()));
        assert!(refused(two).contains("only one"));
        assert!(refused(|c| c.batch.max_events = 0).contains("batch.max_events"));
        assert!(refused(|c| c.database.writers = 0).contains("database.writers"));
    }
}
