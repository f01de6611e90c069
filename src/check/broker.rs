//! The broker and the stream: whether they can be collected from, and how many events the database lacks.

use bytesize::ByteSize;
use humantime::format_duration;

use super::database::Examined;
use super::finding::ReportBuilder;
use super::options::CheckOptions;
use crate::broker::{BrokerStatus, DatabasePosition, JetStreamStatus, Owner, StreamStatus, address_in};
use crate::collect::owner;
use crate::config::Config;
use crate::counted;
use crate::error::{BrokerFault, Error};
use crate::hint;
use crate::pipeline::{self, EpochProgress};
use crate::store::{Lock, file_beside};
use crate::subject::Filter;

/// The oldest supported server, and the first with several filter subjects for one consumer.
const OLDEST: (u32, u32) = (2, 9);
const SEVERAL_SUBJECTS: (u32, u32) = (2, 10);

/// Warn from this part of what an account may store on, in per cent.
const NEARLY_FULL: u64 = 90;

pub(super) fn check(
    config: &Config,
    options: &CheckOptions,
    database: &Examined,
    collecting: bool,
    report: &mut ReportBuilder<'_>,
) {
    let position = position(config, database);
    let status = match broker_status(config, position.as_ref()) {
        Ok(status) => status,
        Err(error) => return report.error("broker", &with_way_out(error, config)),
    };
    let (server, version) = (&status.server, &status.version);
    if major_minor(version).is_some_and(|version| version < OLDEST) {
        let remedy = "use nats-server 2.9 or later";
        report.warning(
            "broker",
            format!("{server} runs nats-server {version}, which is older than the supported versions"),
            remedy,
        );
    } else {
        let largest = ByteSize::b(status.max_payload as u64);
        report.ok("broker", format!("{server} answers: nats-server {version}, events up to {largest}"));
    }
    match &status.jetstream {
        Some(jetstream) => {
            let stream = check_jetstream(config, &status, jetstream, report);
            // Without a position, every event would count as missing, and our own consumer as one of others.
            if let (Some(stream), Some(_)) = (stream, &position) {
                lag(config, options, stream, collecting, report);
                consumers(config, stream, collecting, report);
            }
        }
        None => check_core(config, report),
    }
}

/// A missing server may also be the wrong address: nothing was started, and the address may be the default.
fn with_way_out(error: Error, config: &Config) -> Error {
    if !matches!(error, Error::Broker { fault: BrokerFault::Unreachable, .. }) {
        return error;
    }
    let path = &config.database.path;
    let own = address_in(&file_beside(path, ".server")).filter(|address| !config.broker.servers.contains(address));
    if let Some(own) = own.filter(|_| Lock::phase(path).is_some()) {
        let path = path.display();
        return error
            .with_remedy(format!("the collector of {path} has a nats-server of its own at {own}: use --server {own}"));
    }
    error.with_remedy(format!(
        "check that nats-server runs at this address, or name another in broker.servers ({} starts one)",
        hint::start(true)
    ))
}

/// Whose consumers belong to the database, and how far each epoch is committed; `None` if that cannot be read. Why it cannot be read was
/// reported with the database.
fn position(config: &Config, database: &Examined) -> Option<(Option<Owner>, Vec<EpochProgress>)> {
    let inspection = match database {
        Examined::Missing => return Some((None, Vec::new())),
        Examined::Unreadable => return None,
        Examined::Readable(inspection) => inspection,
    };
    let owner = match (inspection.identity().ok()?, inspection.file_identity().ok()?) {
        (Some(identity), Some(file)) => Some(owner(&identity, &file)),
        _ => None,
    };
    Some((owner, inspection.history(&config.broker.stream).ok()?))
}

fn broker_status(
    config: &Config,
    position: Option<&(Option<Owner>, Vec<EpochProgress>)>,
) -> Result<BrokerStatus, Error> {
    let (owner, history) = position.map_or((None, &[][..]), |(owner, history)| (owner.as_ref(), history));
    let pipeline_holds = pipeline::holds(&config.batch, config.database.writers);
    BrokerStatus::ask(&config.broker, DatabasePosition { owner, history, pipeline_holds })
}

fn check_core(config: &Config, report: &mut ReportBuilder<'_>) {
    report.ok("broker", "core NATS: at most once; events without a listener are lost");
    for (query, subject) in overlaps(config, &config.broker.filters()) {
        let what =
            format!("broker.subjects ({subject}) includes the requests of query {query}: they are stored as events");
        report.warning("queries", what, "give queries subjects that no events have");
    }
}

/// Returns the stream, if it can be collected.
fn check_jetstream<'s>(
    config: &Config,
    status: &BrokerStatus,
    jetstream: &'s JetStreamStatus,
    report: &mut ReportBuilder<'_>,
) -> Option<&'s StreamStatus> {
    storage(jetstream, report);
    sync(config, report);
    let name = &config.broker.stream;
    let Some(stream) = &jetstream.stream else {
        match &jetstream.new_stream {
            Some(Ok(subjects)) => {
                let shown = subjects.join(", ");
                let partitions =
                    config.broker.partitions.map_or_else(String::new, |number| format!(" with {number} partitions"));
                report.ok(
                    "stream",
                    format!("{name} does not exist yet; the first start makes it on {shown}{partitions}"),
                );
                for (query, subject) in overlaps(config, subjects) {
                    let what =
                        format!("{name} would take {subject}: it would answer the requests of query {query} itself");
                    report.critical("stream", what, "give queries subjects that no events have");
                }
            }
            Some(Err(obstacle)) => report.critical("stream", &obstacle.what, &obstacle.remedy),
            None => {}
        }
        return None;
    };
    if config.broker.takes_all_of_stream() {
        let all = stream.collected.join(", ");
        report.ok("stream", format!("broker.subjects is not set: all of {name} is collected ({all})"));
        for unreachable in config.unreachable_from(&stream.collected) {
            report.warning(unreachable.section, unreachable.what, unreachable.remedy);
        }
    }
    let before = report.len();
    if let Some(refusal) = &stream.refusal {
        report.critical("stream", refusal, "name another stream in broker.stream");
        return None;
    }
    if let (Some(_), Some(mismatch)) = (config.broker.partitions, &stream.mismatch) {
        report.critical("stream", &mismatch.what, &mismatch.remedy);
        return None;
    }
    subjects(config, status, stream, report);
    limits(config, stream, report);
    if report.len() == before {
        let StreamStatus { messages, retention, storage, .. } = stream;
        let age = stream.max_age.map_or_else(String::new, |age| format!(" for {}", format_duration(age)));
        let messages = counted(*messages, "event");
        report.ok("stream", format!("{name} keeps {messages} by {retention}{age}, in {storage}"));
    }
    Some(stream)
}

/// Our consumers that are paused, and those that another collector uses or has left.
fn consumers(config: &Config, stream: &StreamStatus, collecting: bool, report: &mut ReportBuilder<'_>) {
    let name = &config.broker.stream;
    let copies = "stop one of the two, or give one its own identity: catchment adopt --database FILE";
    if let Some(consumer) = &stream.consumer {
        if let Some(until) = &consumer.paused {
            let what = format!("consumer {} of {name} is paused until {until}", consumer.name);
            report.warning("collector", what, "resume it: nats consumer resume");
        }
        if consumer.in_use && !collecting {
            let what = format!("another collector uses consumer {}, made by {}", consumer.name, consumer.maker);
            report.critical("collector", format!("{what}: it has a copy of this database"), copies);
        }
    }
    for other in &stream.others {
        let (consumer, maker) = (&other.name, &other.maker);
        if other.in_use {
            report.warning("collector", format!("{maker} collects {name} into a copy of this database"), copies);
        } else if stream.retention == "interest" {
            let what =
                format!("{name} also keeps events for consumer {consumer}, made by {maker} on a copy of this database");
            let remedy = format!("if that collector will not return: nats consumer rm {name} {consumer}");
            report.warning("stream", what, remedy);
        }
    }
}

/// Whether the stream stores what is to be collected, and no requests of queries.
fn subjects(config: &Config, status: &BrokerStatus, stream: &StreamStatus, report: &mut ReportBuilder<'_>) {
    let name = &config.broker.stream;
    if let Some(mismatch) = &stream.mismatch {
        report.critical("stream", &mismatch.what, &mismatch.remedy);
    }
    if let Some(silent) = &stream.silent {
        report.warning("stream", &silent.what, &silent.remedy);
    }
    let several = stream.consumer_filters > 1 && !stream.is_whole;
    if several && major_minor(&status.version).is_some_and(|version| version < SEVERAL_SUBJECTS) {
        let what = format!("nats-server {} takes only one subject for a consumer", status.version);
        let remedy = "give one subject or exactly those of the stream, or use nats-server 2.10 or later";
        report.critical("stream", what, remedy);
    }
    for (query, subject) in overlaps(config, &stream.subjects) {
        let remedy = "give queries subjects that the stream does not take; nats stream edit changes the stream's";
        if stream.acknowledges {
            let what =
                format!("{name} takes {subject}: it answers the requests of query {query} itself, and stores them");
            report.critical("stream", what, remedy);
        } else {
            report.warning(
                "stream",
                format!("{name} takes {subject}: it stores the requests of query {query}"),
                remedy,
            );
        }
    }
}

/// Limits of the stream that a collector or recorder can reach.
fn limits(config: &Config, stream: &StreamStatus, report: &mut ReportBuilder<'_>) {
    let name = &config.broker.stream;
    if let Some((limit, need)) = stream.unacknowledged {
        let what = format!("{name} allows {limit} unacknowledged events, and a collector needs {need}");
        report.warning("stream", what, "raise its max_ack_pending; until then collecting is slower");
    }
    if let Some(forgets) = stream.forgets {
        let what = format!(
            "{name} deletes our consumer and the events kept for it if no collector runs for {}",
            format_duration(forgets)
        );
        report.warning("stream", what, "raise inactive_threshold in its consumer_limits above the longest outage");
    }
    let repeats_within = config.broker.repeats_within();
    // A mirror has no publishers.
    if stream.duplicate_window < repeats_within && !stream.subjects.is_empty() {
        let what = format!(
            "{name} detects duplicates for {}, and a recorder may repeat an event {} later, after a lost connection: then the \
             stream has it twice, and the database once",
            format_duration(stream.duplicate_window),
            format_duration(repeats_within)
        );
        report.warning("stream", what, "raise its duplicate window: nats stream edit --dupe-window 2m");
    }
    if stream.loses_what_it_acknowledges {
        let what = format!("{name} has persist_mode async: if its server is killed, acknowledged events are lost");
        report.critical("stream", what, "make it again without persist_mode");
    }
    if stream.storage == "memory" {
        let what = format!("{name} is stored in memory: when the server ends, events that were not collected are lost");
        report.warning("stream", what, "make it again with file storage");
    }
}

fn lag(
    config: &Config,
    options: &CheckOptions,
    stream: &StreamStatus,
    collecting: bool,
    report: &mut ReportBuilder<'_>,
) {
    let name = &config.broker.stream;
    if let Some(news) = &stream.news {
        report.warning("progress", news, "nothing; the next start logs this again and continues");
    }
    // If only part of a stream is collected, only the consumer has the number.
    let behind = match &stream.consumer {
        Some(consumer) if !stream.is_whole => consumer.pending,
        _ => stream.behind,
    };
    report.measure("lag_events", "Events in the stream that are not in the database yet, at most.", behind);
    let what = format!("events of {name} that are not in the database yet: {behind}");
    let remedy = "check that the collector runs, and its log";
    if behind >= options.lag_critical {
        report.critical("progress", what, remedy);
    } else if behind >= options.lag_warning {
        report.warning("progress", what, remedy);
    } else if behind == 0 {
        report.ok("progress", format!("all of {name} is in the database"));
    } else {
        report.ok("progress", what);
    }
    if collecting && stream.consumer.is_none() {
        let what = format!("a collector has the database open, but no consumer on {name}");
        report.warning("collector", what, "see its log; it may be connected to another server or to none");
    }
}

fn storage(jetstream: &JetStreamStatus, report: &mut ReportBuilder<'_>) {
    let Some(most) = jetstream.most_stored else { return };
    let (stored, limit) = (ByteSize::b(jetstream.stored), ByteSize::b(most));
    let what = format!("this account stores {stored} of {limit} in JetStream");
    if jetstream.stored.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL) {
        report.warning(
            "broker",
            what,
            "raise the limit, or let streams keep less; at the limit the server refuses events",
        );
    } else {
        report.ok("broker", what);
    }
}

/// When the server syncs its disk. Only its administrators can read that setting.
fn sync(config: &Config, report: &mut ReportBuilder<'_>) {
    let own = std::fs::read_to_string(file_beside(&config.database.path, ".server")).unwrap_or_default();
    let is_own = config.broker.servers.iter().any(|server| own.lines().any(|line| line.trim() == server.as_str()));
    let loss = "a power cut may lose events acknowledged since the last sync";
    let what = if is_own {
        format!("the server that catchment run started syncs its disk every 2 minutes: {loss}; a kill loses nothing")
    } else {
        format!("the server syncs its disk every 2 minutes by default (sync_interval, not readable here): {loss}")
    };
    report.ok("broker", what);
}

/// Queries whose requests match one of these subjects, with the first subject that matches.
fn overlaps<'c>(config: &'c Config, subjects: &[String]) -> Vec<(&'c str, String)> {
    let overlaps = config.queries.iter().filter_map(move |query| {
        let taken = subjects.iter().find(|subject| overlap(subject, &query.subject));
        taken.map(|subject| (query.name(), subject.clone()))
    });
    overlaps.collect()
}

fn overlap(one: &str, other: &str) -> bool {
    match (one.parse::<Filter>(), other.parse::<Filter>()) {
        (Ok(one), Ok(other)) => one.overlaps(&other),
        _ => false,
    }
}

/// Major and minor version.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}
