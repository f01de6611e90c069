//! The database: whether it is readable and undamaged, which process collects into it, which events could not be stored.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytesize::ByteSize;

use super::finding::ReportBuilder;
use super::options::CheckOptions;
use crate::broker::has_streams;
use crate::config::{BrokerConfig, Config, Mode};
use crate::counted;
use crate::error::Error;
use crate::hint;
use crate::store::{Database, FileSizes, Inspection, Routes, file_beside};

/// A write-ahead log larger than this: a reader keeps it from being reset.
const LARGE_WAL: ByteSize = ByteSize::mib(256);

/// What is known of the database.
pub(super) enum Examined {
    /// There is no file yet.
    Missing,
    /// There is one, and it cannot be read.
    Unreadable,
    Readable(Box<Inspection>),
}

pub(super) fn check(
    config: &Config,
    options: &CheckOptions,
    holder: Result<Option<String>, Error>,
    report: &mut ReportBuilder<'_>,
) -> Examined {
    let path = &config.database.path;
    let shown = path.display();
    if !path.exists() {
        match Database::must_be_usable(&config.database, &Routes::default()) {
            Ok(()) => report.ok("database", format!("{shown} does not exist yet; the first start makes it")),
            Err(error) => report.error("database", &error),
        }
        return Examined::Missing;
    }
    let opened = Inspection::open(path).and_then(|inspection| Ok((inspection.dead_letters()?, inspection)));
    let (dead_letters, inspection) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            report.error("database", &error);
            collector(config, holder, options, report);
            return Examined::Unreadable;
        }
    };
    permissions(config, report);
    if let Err(error) = inspection.has_one_name() {
        report.error("database", &error);
    }
    if let Err(error) = Database::must_not_be_of_others(&config.database, &config.routes, config.unmatched) {
        report.error("database", &error);
    }
    integrity(&inspection, options, &format!("{shown}"), report);
    size(path, report);
    gaps(config, &inspection, report);
    if let (false, Ok(false)) = (config.retention.is_empty(), inspection.gives_pages_back()) {
        let what = format!("{shown} keeps the space of deleted rows: an earlier version made it");
        report.warning("retention", what, format!("stop the collector and run {}", hint::command("compact")));
    }
    match inspection.file_identity() {
        Ok(Some(file)) if config.broker.mode == Mode::Jetstream => {
            if let Err(error) = file.refuse_copy(path).and_then(|()| inspection.must_have_partition(&config.broker)) {
                report.error("database", &error);
            }
        }
        Ok(_) => {}
        Err(error) => report.error("database", &error),
    }
    collector(config, holder, options, report);
    report.measure("dead_letters", "Events that could not be stored.", dead_letters);
    if dead_letters == 0 {
        report.ok("dead letters", "none");
    } else {
        let newest = inspection.newest_dead_letter().ok().flatten();
        let newest = newest.map_or_else(String::new, |(subject, error)| format!("; the newest: {subject}: {error}"));
        let remedy = format!("list them: {}", hint::command("dead-letters list"));
        report.warning("dead letters", format!("{dead_letters}{newest}"), remedy);
    }
    Examined::Readable(Box::new(inspection))
}

/// Other users who may read the database although its settings do not let them: files that existed before keep their permissions.
fn permissions(config: &Config, report: &mut ReportBuilder<'_>) {
    let database = &config.database;
    let mut files = vec![database.path.clone()];
    files.extend(["-wal", "-shm"].map(|ending| file_beside(&database.path, ending)));
    for file in files {
        let Ok(found) = std::fs::metadata(&file) else { continue };
        let mode = found.mode() & 0o777;
        if mode & !database.permissions & 0o066 != 0 {
            let (file, wanted) = (file.display(), database.permissions);
            let what = format!("other users may use {file} ({mode:04o}), and database.permissions is {wanted:04o}");
            report.ok("database", format!("{what}; to set it: chmod {wanted:04o} {file}"));
        }
    }
}

/// Which process collects into the database.
fn collector(
    config: &Config,
    holder: Result<Option<String>, Error>,
    options: &CheckOptions,
    report: &mut ReportBuilder<'_>,
) {
    let shown = config.database.path.display();
    match holder {
        Ok(Some(holder)) => report.ok("collector", format!("{holder} collects into {shown}")),
        Ok(None) if options.offline => report.ok("collector", format!("no process collects into {shown}")),
        Ok(None) => {
            let remedy = format!("start one: {}", hint::start(has_own_server(config)));
            report.warning("collector", format!("no process collects into {shown}"), remedy);
        }
        Err(error) => report.error("collector", &error),
    }
}

/// Whether the last collector was started with a nats-server of its own, and no other server is named.
fn has_own_server(config: &Config) -> bool {
    has_streams(&file_beside(&config.database.path, ".nats"))
        && config.broker.servers == BrokerConfig::default().servers
}

fn integrity(inspection: &Inspection, options: &CheckOptions, shown: &str, report: &mut ReportBuilder<'_>) {
    if options.quick {
        return report.ok("database", format!("{shown} is readable; not checked for damage (quick)"));
    }
    match inspection.damage() {
        Ok(damage) if damage.is_empty() => report.ok("database", format!("{shown} is not damaged")),
        Ok(damage) => {
            let remedy = "restore a copy; the collector then reads what it lacks from the stream";
            report.critical("database", format!("{shown} is damaged: {}", damage.join("; ")), remedy);
        }
        Err(error) => report.error("database", &error),
    }
}

/// Sequences that the stream did not have when they were due. They cannot be recovered.
fn gaps(config: &Config, inspection: &Inspection, report: &mut ReportBuilder<'_>) {
    if config.broker.mode == Mode::Core {
        return;
    }
    let stream = &config.broker.stream;
    match inspection.history(stream) {
        Ok(history) => {
            let missing: u64 = history.iter().map(|epoch| epoch.gaps.missing()).sum();
            report.measure("missing_sequences", "Sequences that the stream did not have when they were due.", missing);
            if missing > 0 {
                let ranges: usize = history.iter().map(|epoch| epoch.gaps.len()).sum();
                let (missing, ranges) = (counted(missing, "sequence"), counted(ranges as u64, "range"));
                let what = format!("missing in stream {stream} when they were due: {missing} in {ranges}");
                report.ok("gaps", format!("{what}; table catchment_gaps lists them"));
            }
        }
        Err(error) => report.error("gaps", &error),
    }
}

fn size(database: &Path, report: &mut ReportBuilder<'_>) {
    let size = FileSizes::of(database);
    report.measure("database_size_bytes", "Size of the database.", size.database);
    report.measure("wal_size_bytes", "Size of the write-ahead log of the database.", size.wal);
    let wal = ByteSize::b(size.wal);
    if wal > LARGE_WAL {
        let what = format!("the write-ahead log has {wal}: a read transaction does not end");
        report.warning("database", what, "end that reader; then SQLite reuses the log from its start");
    }
}
