//! The least permissions that a command needs at the broker: which subjects its user must be allowed to publish and to subscribe to.

use crate::config::{Config, CoreOverflow, Mode};

/// What the permissions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerUse {
    /// A collector, and its queries and confirmations if the settings have some.
    Collector,
    /// A recorder, and `catchment publish`.
    Recorder,
    /// `catchment query`.
    Query,
    /// `catchment check`.
    Check,
    /// `catchment tail --incoming`, `infer`, `test --from-stream`, `gaps` and `verify`.
    Read,
    /// `catchment replay`.
    Replay,
    /// `catchment repartition`.
    Repartition,
}

/// Publish or subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Publish.
    Publish,
    /// Subscribe.
    Subscribe,
}

/// One permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Whether it is to publish or to subscribe.
    pub access: Access,
    /// The subject, which may have wildcards.
    pub subject: String,
    /// What it is for.
    pub purpose: &'static str,
    /// Where it is not always needed: when it is.
    pub only_if: Option<&'static str>,
    pub(super) probe: Probe,
}

/// How to find out whether the server allows it, without any effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Subscribe to the subject itself for a moment.
    Subscribe,
    /// Publish this on a subject of the permission: nobody acts upon it.
    Publish { subject: String, body: &'static str },
    /// Nothing: what is published would be an event, or would run a query.
    None,
}

/// No JSON: JetStream refuses a request with it before it does anything.
const NO_REQUEST: &str = "catchment check --permissions";

/// A consumer that does not exist.
const NO_CONSUMER: &str = "check_permissions";

/// The least permissions for this use with these settings, which are valid and have no placeholder.
#[must_use]
pub fn permissions(config: &Config, of: BrokerUse) -> Vec<Permission> {
    let list = List { config, permissions: Vec::new() };
    let list = match (of, config.broker.mode) {
        (BrokerUse::Collector, Mode::Jetstream) => list.stream_collector().queries(),
        (BrokerUse::Collector, Mode::Core) => list.core_collector().queries(),
        (BrokerUse::Recorder, Mode::Jetstream) => list.events().recorder(),
        (BrokerUse::Recorder, Mode::Core) => list.events(),
        (BrokerUse::Query, mode) => list.query(mode),
        (BrokerUse::Check, Mode::Jetstream) => list.check(),
        (BrokerUse::Read, Mode::Jetstream) => list.read(),
        (BrokerUse::Replay, Mode::Jetstream) => list.replay(),
        (BrokerUse::Repartition, Mode::Jetstream) => list.repartition(),
        (BrokerUse::Check | BrokerUse::Read | BrokerUse::Replay | BrokerUse::Repartition, Mode::Core) => list,
    };
    let mut all = list.inbox().permissions;
    // Queries and a full buffer both publish to inboxes.
    let mut seen = Vec::new();
    all.retain(|one| {
        let key = (one.access == Access::Publish, one.subject.clone());
        let is_new = !seen.contains(&key);
        seen.push(key);
        is_new
    });
    all
}

struct List<'c> {
    config: &'c Config,
    permissions: Vec<Permission>,
}

impl List<'_> {
    fn add(mut self, access: Access, subject: String, purpose: &'static str, probe: Probe) -> Self {
        self.permissions.push(Permission { access, subject, purpose, only_if: None, probe });
        self
    }

    /// A request to JetStream; `asked` is one of its subjects.
    fn request(self, subject: &str, asked: &str, body: &'static str, purpose: &'static str) -> Self {
        let prefix = self.config.broker.api_prefix();
        let probe = Probe::Publish { subject: format!("{prefix}.{asked}"), body };
        self.add(Access::Publish, format!("{prefix}.{subject}"), purpose, probe)
    }

    /// A request about the stream.
    fn of_stream(self, request: &str, body: &'static str, purpose: &'static str) -> Self {
        let subject = format!("{request}.{}", self.config.broker.stream);
        self.request(&subject, &subject, body, purpose)
    }

    /// A request about a consumer of the stream. The collector chooses the consumer's name.
    fn of_consumer(self, request: &str, body: &'static str, purpose: &'static str) -> Self {
        let stream = &self.config.broker.stream;
        let (subject, asked) =
            (format!("CONSUMER.{request}.{stream}.*"), format!("CONSUMER.{request}.{stream}.{NO_CONSUMER}"));
        self.request(&subject, &asked, body, purpose)
    }

    /// The last one is needed only in this case.
    fn only_if(mut self, case: &'static str) -> Self {
        if let Some(last) = self.permissions.last_mut() {
            last.only_if = Some(case);
        }
        self
    }

    fn subscribe(self, subject: String, purpose: &'static str) -> Self {
        self.add(Access::Subscribe, subject, purpose, Probe::Subscribe)
    }

    /// Publishing an event is no probe.
    fn publish(self, subject: String, purpose: &'static str) -> Self {
        self.add(Access::Publish, subject, purpose, Probe::None)
    }

    fn inbox_prefix(&self) -> &str {
        self.config.broker.inbox_prefix.as_deref().unwrap_or("_INBOX")
    }

    fn inbox(self) -> Self {
        let subject = format!("{}.>", self.inbox_prefix());
        self.subscribe(subject, "answers")
    }

    /// To the inboxes of others, or its own.
    fn inboxes(self, prefix: &str, purpose: &'static str) -> Self {
        let probe = Probe::Publish { subject: format!("{prefix}.{NO_CONSUMER}"), body: "" };
        self.add(Access::Publish, format!("{prefix}.>"), purpose, probe)
    }

    fn stream_collector(self) -> Self {
        let stream = self.config.broker.stream.clone();
        let may_create = self.config.broker.create_stream && self.config.broker.subjects_of_new_stream().is_some();
        let list = self
            .of_stream("STREAM.INFO", "", "find the stream, watch it")
            .of_stream("STREAM.MSG.GET", NO_REQUEST, "compare the stream with the database")
            .of_stream("CONSUMER.NAMES", NO_REQUEST, "find consumers of earlier starts")
            .of_consumer("CREATE", NO_REQUEST, "make the consumer of a session")
            .of_consumer("INFO", "", "watch the consumer")
            .of_consumer("DELETE", "", "delete the consumer at the end")
            .of_consumer("MSG.NEXT", NO_REQUEST, "receive events");
        let list = if may_create {
            list.of_stream("STREAM.CREATE", NO_REQUEST, "create the stream").only_if("the stream does not exist")
        } else {
            list
        };
        // No consumer has this name, so nothing is acknowledged.
        let ack = format!("$JS.ACK.{stream}.{NO_CONSUMER}.1.1.1.1.0");
        list.add(
            Access::Publish,
            format!("$JS.ACK.{stream}.>"),
            "acknowledge events after their commit",
            Probe::Publish { subject: ack, body: "" },
        )
        .only_if("the stream has interest retention")
        .of_consumer("RESET", NO_REQUEST, "continue with the consumer of an earlier start")
        .only_if("the stream has interest retention and allows no second consumer, nats-server 2.14 or later")
    }

    fn core_collector(self) -> Self {
        let filters = self.config.broker.filters();
        let list = filters.into_iter().fold(self, |list, filter| list.subscribe(filter, "receive events"));
        if list.config.broker.core.overflow == CoreOverflow::Block {
            let prefix = list.inbox_prefix().to_owned();
            return list.inboxes(&prefix, "measure what waits (overflow = \"block\")");
        }
        list
    }

    fn queries(self) -> Self {
        let Config { queries, routes, service, broker, .. } = self.config;
        let mut list = self;
        if routes.iter().any(|route| route.reply) {
            list = list.inboxes("_INBOX", "send confirmations");
        }
        if queries.is_empty() {
            return list;
        }
        for query in queries {
            list = list.subscribe(query.subject.clone(), "receive requests of queries");
        }
        for subject in ["$SRV.*".to_owned(), format!("$SRV.*.{}", service.name), format!("$SRV.*.{}.*", service.name)] {
            list = list.subscribe(subject, "answer service discovery");
        }
        list = list.inboxes("_INBOX", "send replies");
        match broker.mode {
            Mode::Jetstream => list.request("STREAM.NAMES", "STREAM.NAMES", "", "warn of streams that store requests"),
            Mode::Core => list,
        }
    }

    fn events(self) -> Self {
        let broker = &self.config.broker;
        let subjects = broker.subjects_of_new_stream().unwrap_or_else(|| broker.filters());
        subjects.into_iter().fold(self, |list, subject| list.publish(subject, "publish events"))
    }

    fn recorder(self) -> Self {
        self.of_stream("STREAM.INFO", "", "how long the stream recognises a repeated event")
            .request("STREAM.NAMES", "STREAM.NAMES", "", "find out whether an event that nobody takes has a stream")
            .only_if("a cluster may elect a leader meanwhile, or other programs answer on the events' subjects")
            .of_stream("STREAM.MSG.GET", NO_REQUEST, "look for an event before it is sent again")
            .only_if("an event has no answer for longer than the stream's duplicate window")
    }

    fn query(self, mode: Mode) -> Self {
        let subjects: Vec<String> = self.config.queries.iter().map(|query| query.subject.clone()).collect();
        let list = subjects.into_iter().fold(self, |list, subject| list.publish(subject, "send requests"));
        let list = list.request("STREAM.NAMES", "STREAM.NAMES", "", "send no request that a stream would store");
        match mode {
            Mode::Jetstream => list,
            Mode::Core => {
                let probe = Probe::Publish { subject: "$SRV.INFO".into(), body: "" };
                list.add(Access::Publish, "$SRV.INFO".into(), "send no request that a collector would store", probe)
            }
        }
    }

    fn read(self) -> Self {
        self.of_stream("STREAM.INFO", "", "which messages the stream has").of_stream(
            "STREAM.MSG.GET",
            NO_REQUEST,
            "read messages",
        )
    }

    fn replay(self) -> Self {
        self.of_stream("STREAM.INFO", "", "find the stream, watch it")
            .of_stream("STREAM.MSG.GET", NO_REQUEST, "find the beginning, read without a consumer")
            .of_stream("CONSUMER.NAMES", NO_REQUEST, "find consumers of earlier replays")
            .of_consumer("CREATE", NO_REQUEST, "make a consumer")
            .of_consumer("INFO", "", "watch the consumer")
            .of_consumer("DELETE", "", "delete the consumer at the end")
            .of_consumer("MSG.NEXT", NO_REQUEST, "receive events")
    }

    fn repartition(self) -> Self {
        self.of_stream("STREAM.INFO", "", "how the stream is divided now").of_stream(
            "STREAM.UPDATE",
            NO_REQUEST,
            "change its subject_transform",
        )
    }

    fn check(self) -> Self {
        self.request("INFO", "INFO", "", "the account's storage")
            .of_stream("STREAM.INFO", "", "the stream")
            .of_stream("STREAM.MSG.GET", NO_REQUEST, "compare the stream with the database")
            .of_stream("CONSUMER.NAMES", NO_REQUEST, "find the collector's consumer")
            .of_consumer("INFO", "", "the collector's consumer")
            .request("STREAM.NAMES", "STREAM.NAMES", "", "name the stream that has the subjects")
            .only_if("the stream does not exist")
    }
}
