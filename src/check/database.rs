//! The database: whether it can be read and is sound, who collects into it, what could not be stored.

use bytesize::ByteSize;

use super::Options;
use super::disk::folder_of;
use super::finding::Notebook;
use crate::config::{Config, Mode};
use crate::error::Error;
use crate::store::Inspection;

/// A write-ahead log that has grown beyond this: a reader keeps it from starting again.
const LARGE_WAL: ByteSize = ByteSize::mib(256);

/// Gives the opened database back, where there is one.
pub(super) fn look(
    config: &Config,
    options: &Options,
    holder: Result<Option<String>, Error>,
    notes: &mut Notebook<'_>,
) -> Option<Inspection> {
    let path = &config.database.path;
    let shown = path.display();
    if !path.exists() {
        if folder_of(path).is_dir() {
            notes.ok("database", format!("{shown} is not there yet; the first start makes it"));
        } else {
            let way_out = "make it, or give another database.path";
            notes.critical("database", format!("{shown}: there is no such directory"), way_out);
        }
        return None;
    }
    let opened = Inspection::open(path).and_then(|inspection| Ok((inspection.dead_letters()?, inspection)));
    let (dead_letters, inspection) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            notes.error("database", &error);
            return None;
        }
    };
    if let Err(error) = inspection.has_one_name() {
        notes.error("database", &error);
    }
    integrity(&inspection, options, &format!("{shown}"), notes);
    size(&inspection, notes);
    gaps(config, &inspection, notes);
    match inspection.file_identity() {
        Ok(Some(file)) if config.broker.mode == Mode::Jetstream => {
            if let Err(error) = file.refuse_copy(path) {
                notes.error("database", &error);
            }
        }
        Ok(_) => {}
        Err(error) => notes.error("database", &error),
    }
    match holder {
        Ok(Some(holder)) => notes.ok("collector", format!("{holder} collects into {shown}")),
        Ok(None) if options.offline => notes.ok("collector", format!("nobody collects into {shown} now")),
        Ok(None) => notes.warning("collector", format!("nobody collects into {shown} now"), "start it: catchment run"),
        Err(error) => notes.error("collector", &error),
    }
    notes.measure("dead_letters", "Events that could not be stored.", dead_letters);
    if dead_letters == 0 {
        notes.ok("dead letters", "none");
    } else {
        let newest = inspection.newest_dead_letter().ok().flatten();
        let newest = newest.map_or_else(String::new, |(subject, error)| format!("; the newest: {subject}: {error}"));
        let way_out = "look at them: catchment dead-letters list";
        notes.warning("dead letters", format!("{dead_letters}{newest}"), way_out);
    }
    Some(inspection)
}

fn integrity(inspection: &Inspection, options: &Options, shown: &str, notes: &mut Notebook<'_>) {
    if options.quick {
        return notes.ok("database", format!("{shown} can be read; whether it is sound was not looked at (--quick)"));
    }
    match inspection.damage() {
        Ok(damage) if damage.is_empty() => notes.ok("database", format!("{shown} is sound")),
        Ok(damage) => {
            let way_out = "restore a copy; what that lacks is read from the stream again";
            notes.critical("database", format!("{shown} is damaged: {}", damage.join("; ")), way_out);
        }
        Err(error) => notes.error("database", &error),
    }
}

/// What the stream did not have when it was due: nothing can be done about it, but it should be known.
fn gaps(config: &Config, inspection: &Inspection, notes: &mut Notebook<'_>) {
    if config.broker.mode == Mode::Core {
        return;
    }
    let stream = &config.broker.stream;
    match inspection.history(stream) {
        Ok(history) => {
            let missing: u64 = history.iter().map(|life| life.gaps.missing()).sum();
            notes.measure("missing_sequences", "Sequences that the stream did not have when they were due.", missing);
            if missing > 0 {
                let ranges: usize = history.iter().map(|life| life.gaps.len()).sum();
                let what =
                    format!("stream {stream} did not have {missing} sequences in {ranges} ranges when they were due");
                notes.ok("gaps", format!("{what}; table catchment_gaps lists them"));
            }
        }
        Err(error) => notes.error("gaps", &error),
    }
}

fn size(inspection: &Inspection, notes: &mut Notebook<'_>) {
    let size = inspection.size();
    notes.measure("database_size_bytes", "Size of the database.", size.database);
    notes.measure("wal_size_bytes", "Size of its write-ahead log.", size.wal);
    let wal = ByteSize::b(size.wal);
    if wal > LARGE_WAL {
        let what = format!("the write-ahead log has {wal}: somebody reads in a transaction that does not end");
        notes.warning("database", what, "end that reader; then the log starts again from the front");
    }
}
