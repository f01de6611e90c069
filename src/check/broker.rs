//! The broker and the stream: whether they can be collected from, and how far behind them the database is.

use bytesize::ByteSize;
use humantime::format_duration;

use super::Options;
use super::finding::Notebook;
use crate::broker::{BrokerStatus, DatabasePosition, JetStreamStatus, StreamStatus};
use crate::collect::owner;
use crate::config::Config;
use crate::error::Error;
use crate::pipeline;
use crate::store::{Inspection, beside};
use crate::subject::Filter;

/// The oldest server that is supported, and the first that takes several subjects for one consumer.
const OLDEST: (u32, u32) = (2, 9);
const SEVERAL_SUBJECTS: (u32, u32) = (2, 10);

/// Of what an account may store, in per cent: from here on somebody should look.
const NEARLY_FULL: u64 = 90;

pub(super) fn look(
    config: &Config,
    options: &Options,
    inspection: Option<&Inspection>,
    collecting: bool,
    notes: &mut Notebook<'_>,
) {
    let status = match survey(config, inspection) {
        Ok(status) => status,
        Err(error) => return notes.error("broker", &error),
    };
    let (server, version) = (&status.server, &status.version);
    if numbers(version).is_some_and(|version| version < OLDEST) {
        let way_out = "use nats-server 2.9 or later";
        notes.warning("broker", format!("{server} is a nats-server {version}, older than what is tested"), way_out);
    } else {
        let largest = ByteSize::b(status.max_payload as u64);
        notes.ok("broker", format!("{server} answers: nats-server {version}, events of up to {largest}"));
    }
    match &status.jetstream {
        Some(jetstream) => look_at_jetstream(config, options, &status, jetstream, collecting, notes),
        None => look_at_core(config, notes),
    }
}

fn survey(config: &Config, inspection: Option<&Inspection>) -> Result<BrokerStatus, Error> {
    let (owner, history) = match inspection {
        Some(inspection) => {
            let owner = match (inspection.identity()?, inspection.file_identity()?) {
                (Some(identity), Some(file)) => Some(owner(&identity, &file)),
                _ => None,
            };
            (owner, inspection.history(&config.broker.stream)?)
        }
        None => (None, Vec::new()),
    };
    let pipeline_holds = pipeline::holds(&config.batch, config.database.writers);
    BrokerStatus::make(&config.broker, DatabasePosition { owner: owner.as_ref(), history: &history, pipeline_holds })
}

fn look_at_core(config: &Config, notes: &mut Notebook<'_>) {
    notes.ok("broker", "core NATS: at most once, what nobody listens to is lost");
    for (query, subject) in overlaps(config, &config.broker.subjects) {
        let what = format!("the requests of query {query} are among broker.subjects ({subject}) and stored as events");
        notes.warning("queries", what, "give events and queries subjects that tell them apart");
    }
}

fn look_at_jetstream(
    config: &Config,
    options: &Options,
    status: &BrokerStatus,
    jetstream: &JetStreamStatus,
    collecting: bool,
    notes: &mut Notebook<'_>,
) {
    storage(jetstream, notes);
    sync(config, notes);
    let name = &config.broker.stream;
    let Some(stream) = &jetstream.stream else {
        if config.broker.create_stream {
            let subjects = config.broker.subjects.join(", ");
            notes.ok("stream", format!("{name} is not there yet; the first start makes it on {subjects}"));
        } else {
            notes.critical(
                "stream",
                format!("there is no stream {name}"),
                "make it, or set broker.create_stream = true",
            );
        }
        return;
    };
    let before = notes.report.findings.len();
    if let Some(refusal) = &stream.refusal {
        return notes.critical("stream", refusal, "name another stream in broker.stream");
    }
    subjects(config, status, stream, notes);
    limits(config, stream, notes);
    if notes.report.findings.len() == before {
        let StreamStatus { messages, retention, storage, .. } = stream;
        let age = stream.max_age.map_or_else(String::new, |age| format!(" for {}", format_duration(age)));
        notes.ok("stream", format!("{name} keeps {messages} events by {retention}{age}, in {storage}"));
    }
    lag(config, options, stream, collecting, notes);
    consumers(config, stream, collecting, notes);
}

/// Consumers of ours that somebody paused, or that somebody else uses or has left.
fn consumers(config: &Config, stream: &StreamStatus, collecting: bool, notes: &mut Notebook<'_>) {
    let name = &config.broker.stream;
    let copies = "stop one of the two, or give one an identity of its own: catchment adopt";
    if let Some(consumer) = &stream.consumer {
        if let Some(until) = &consumer.paused {
            let what = format!("somebody has paused consumer {} of {name} until {until}", consumer.name);
            notes.warning("collector", what, "nats consumer resume ends that");
        }
        if consumer.in_use && !collecting {
            let what = format!("another collector uses consumer {}, made by {}", consumer.name, consumer.maker);
            notes.critical("collector", format!("{what}: it has a copy of this database"), copies);
        }
    }
    for other in &stream.others {
        let (consumer, maker) = (&other.name, &other.maker);
        if other.in_use {
            notes.warning("collector", format!("{maker} collects {name} into a copy of this database"), copies);
        } else if stream.retention == "interest" {
            let what =
                format!("{name} also keeps events for consumer {consumer}, made by {maker} on a copy of this database");
            let way_out = format!("if that is gone for good: nats consumer rm {name} {consumer}");
            notes.warning("stream", what, way_out);
        }
    }
}

/// Whether the stream has what is to be collected, and nothing that is to be answered.
fn subjects(config: &Config, status: &BrokerStatus, stream: &StreamStatus, notes: &mut Notebook<'_>) {
    let name = &config.broker.stream;
    if let Some(mismatch) = &stream.mismatch {
        notes.critical("stream", &mismatch.what, &mismatch.way_out);
    }
    if let Some(silent) = &stream.silent {
        notes.warning("stream", &silent.what, &silent.way_out);
    }
    let several = config.broker.subjects.len() > 1 && !stream.is_whole;
    if several && numbers(&status.version).is_some_and(|version| version < SEVERAL_SUBJECTS) {
        let what = format!("nats-server {} takes no several subjects for a consumer", status.version);
        let way_out = "give one subject, or exactly those of the stream, or use server 2.10 or later";
        notes.critical("stream", what, way_out);
    }
    for (query, subject) in overlaps(config, &stream.subjects) {
        let way_out =
            "give events and queries subjects that tell them apart; the stream's are changed by nats stream edit";
        if stream.acknowledges {
            let what =
                format!("{name} takes {subject}: it answers the requests of query {query} itself, and stores them");
            notes.critical("stream", what, way_out);
        } else {
            notes.warning(
                "stream",
                format!("{name} takes {subject}: it stores the requests of query {query}"),
                way_out,
            );
        }
    }
}

/// Limits of the stream that something of ours runs into.
fn limits(config: &Config, stream: &StreamStatus, notes: &mut Notebook<'_>) {
    let name = &config.broker.stream;
    if let Some((limit, need)) = stream.unacknowledged {
        let what = format!("{name} lets {limit} events be unacknowledged at a time, and a collector would have {need}");
        notes.warning("stream", what, "raise max_ack_pending there; until then it is collected more slowly");
    }
    if let Some(forgets) = stream.forgets {
        let what = format!(
            "{name} forgets our consumer when no collector has run for {}, and drops what it keeps for it",
            format_duration(forgets)
        );
        notes.warning("stream", what, "raise inactive_threshold of its consumer_limits, or have no longer outages");
    }
    let repeats_within = config.broker.repeats_within();
    // Nobody publishes to a mirror.
    if stream.duplicate_window < repeats_within && !stream.subjects.is_empty() {
        let what = format!(
            "{name} recognises a publisher's repetition for {}, and after a lost connection one may come {} later",
            format_duration(stream.duplicate_window),
            format_duration(repeats_within)
        );
        notes.warning("stream", what, "raise its duplicate window: nats stream edit --dupe-window 2m");
    }
    if stream.loses_what_it_acknowledges {
        let what = format!("{name} has persist_mode async: a kill of its server loses events that it has acknowledged");
        notes.critical("stream", what, "make it anew without persist_mode");
    }
    if stream.storage == "memory" {
        let what = format!("{name} is kept in memory: what is not collected is lost when the server ends");
        notes.warning("stream", what, "make it anew with storage on disk");
    }
}

fn lag(config: &Config, options: &Options, stream: &StreamStatus, collecting: bool, notes: &mut Notebook<'_>) {
    let name = &config.broker.stream;
    if let Some(news) = &stream.news {
        notes.warning("progress", news, "nothing to be done; the next start says it once more and goes on");
    }
    // Of a stream that is collected in part only the consumer knows what is still to come.
    let behind = match &stream.consumer {
        Some(consumer) if !stream.is_whole => consumer.pending,
        _ => stream.behind,
    };
    notes.measure("lag_events", "Events in the stream that are not in the database yet, at most.", behind);
    let what = format!("events of {name} that are not in the database yet: {behind}");
    let way_out = "see whether the collector runs, and what keeps it";
    if behind >= options.lag_critical {
        notes.critical("progress", what, way_out);
    } else if behind >= options.lag_warning {
        notes.warning("progress", what, way_out);
    } else if behind == 0 {
        notes.ok("progress", format!("all of {name} is in the database"));
    } else {
        notes.ok("progress", what);
    }
    if collecting && stream.consumer.is_none() {
        let what = format!("a collector holds the database and has no consumer on {name}");
        notes.warning("collector", what, "see its log; it may be connected to another server, or to none");
    }
}

fn storage(jetstream: &JetStreamStatus, notes: &mut Notebook<'_>) {
    let Some(most) = jetstream.most_stored else { return };
    let (stored, limit) = (ByteSize::b(jetstream.stored), ByteSize::b(most));
    let what = format!("JetStream stores {stored} of the {limit} that this account may have");
    if jetstream.stored.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL) {
        notes.warning(
            "broker",
            what,
            "raise the limit, or let streams keep less; when it is full nothing can be published",
        );
    } else {
        notes.ok("broker", what);
    }
}

/// When the server writes to its disk. It does not tell those who are not its administrators.
fn sync(config: &Config, notes: &mut Notebook<'_>) {
    let own = std::fs::read_to_string(beside(&config.database.path, "server")).unwrap_or_default();
    let is_own = config.broker.servers.iter().any(|server| own.lines().any(|line| line.trim() == server.as_str()));
    let loss = "a power cut may take events of that time that publishers were told are kept";
    let what = if is_own {
        format!("the server of run --with-server syncs its disk every 2 minutes: {loss}; kills lose nothing")
    } else {
        format!(
            "how often the server syncs its disk it does not tell; by default every 2 minutes, and {loss} (sync_interval)"
        )
    };
    notes.ok("broker", what);
}

/// Queries whose requests some of these subjects take, with the first that does.
fn overlaps<'c>(config: &'c Config, subjects: &'c [String]) -> impl Iterator<Item = (&'c str, &'c str)> {
    config.queries.iter().filter_map(move |query| {
        let taken = subjects.iter().find(|subject| overlap(subject, &query.subject));
        taken.map(|subject| (query.name(), subject.as_str()))
    })
}

fn overlap(one: &str, other: &str) -> bool {
    match (one.parse::<Filter>(), other.parse::<Filter>()) {
        (Ok(one), Ok(other)) => one.overlaps(&other),
        _ => false,
    }
}

/// Major and minor number.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}
