//! Stores the events of a file through the routes, without a broker.

use std::ops::ControlFlow;
use std::path::Path;

use sha2::Digest;

use super::import_file::{ImportFile, Part};
use super::line_chain::LineChain;
use crate::config::Config;
use crate::error::Error;
use crate::store::{Database, ImportCounts, ImportNote, Importer, LineMarks, Lock, Routes};
use crate::task::{Progress, Task};
use crate::unix_time::now_ns;

/// What is done with a line that is no event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadLines {
    /// The import ends with an error that has the number of the line. The lines before it are stored.
    #[default]
    Stop,
    /// It becomes a dead letter on subject `import`, and the import continues.
    DeadLetter,
}

/// How a file is imported.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImportOptions {
    /// What is done with a line that is no event. Default: the import ends with an error.
    pub bad_lines: BadLines,
    /// Imports the whole file, also if it, or its beginning, was imported before. Default false.
    pub again: bool,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// Lines of the file that an earlier import stored.
    pub lines_before: u64,
    /// Lines that this import read, empty ones included.
    pub lines: u64,
    /// Events whose statements ran.
    pub stored: u64,
    /// Dead letters: events that a statement refused, and bad lines.
    pub dead_letters: u64,
    /// Events that no route matches, by the settings.
    pub dropped: u64,
}

/// Stores the events of a file: one JSON object a line, as [`export`](super::export) writes table `events`, and as `catchment tail --json`
/// and `catchment dead-letters export` print. Each event goes through the routes of `config`, as a collector would store it, in the order
/// of the file and in large transactions. An event that a statement refuses becomes a dead letter. New migrations are applied.
///
/// **Each line is stored once.** Each transaction notes how many bytes of the file are stored, the SHA-256 digest of these bytes, and four
/// bytes of a digest at the end of each line. An import that ended early continues there. A file is recognised by its content alone:
/// under another name too, if lines were added at its end, and if lines at its end are missing. A file in which an imported
/// line has changed is another file, and all of it is stored. What is not a regular file (a pipe) is stored from its first byte, with no
/// note.
///
/// Headers and publish time are kept, and so are `stream` and `sequence` if a line has both. Positions in streams do not change: a
/// collector of that stream stores the same events again. An event without a time is as of now. Identities of recorders are not
/// compared.
///
/// Blocks until all lines are stored.
///
/// # Errors
///
/// [`Error::Locked`]: a collector uses the database. [`Error::File`]: the file cannot be read, or a line is no event.
/// [`Error::Config`], [`Error::Migration`], [`Error::Database`], [`Error::Thread`]. [`Error::Cancelled`]. What was stored before the error stays stored.
pub fn import(
    config: &Config,
    file: impl AsRef<Path>,
    options: &ImportOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<ImportReport, Error> {
    let mut report = None;
    import_reporting(config, file.as_ref(), options, progress, &mut report)?;
    Ok(report.unwrap_or_default())
}

/// The same, with a report of how far it came also if it ends with an error. `None`: it did not begin.
pub(crate) fn import_reporting(
    config: &Config,
    file: &Path,
    options: &ImportOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
    report: &mut Option<ImportReport>,
) -> Result<(), Error> {
    let task = Task::new("the import", progress);
    let config = config.resolved()?;
    config.validate()?;
    let mut lines = ImportFile::open(file, &task)?;
    let routes = Routes::of(&config)?;
    Database::must_not_be_of_others(&config.database, &config.routes, config.unmatched)?;
    let lock = Lock::take(&config.database.path)?;
    // With the queries, because a new migration must not break them either.
    let opened = Database::open_while(&config.database, &routes, &config.queries, &|| {
        task.report("opening", 0, None, "bytes").is_ok()
    });
    // A cancelled import has ended the opening.
    let opened = opened.or_else(|error| task.report("opening", 0, None, "bytes").and(Err(error)));
    let (_lock, (database, _)) = lock.keep_if_ok(opened)?;
    let report = report.insert(ImportReport::default());
    let imported = import_lines(&database, &mut lines, options, &task, report);
    database.close_log();
    imported
}

fn import_lines(
    database: &Database,
    lines: &mut ImportFile<'_>,
    options: &ImportOptions,
    task: &Task<'_>,
    report: &mut ImportReport,
) -> Result<(), Error> {
    let mut importer = database.importer()?;
    let mut name = new_name();
    if lines.is_regular && !options.again {
        let notes = importer.notes()?;
        if let Some(note) = lines.skip_known(&notes, task)? {
            report.lines_before = note.lines;
            name.clone_from(&note.name);
        } else {
            report.lines_before = lines.skip_part_of_known(&notes, &importer, task)?;
        }
    }
    let keeps_bad = options.bad_lines == BadLines::DeadLetter;
    loop {
        let part = lines.next_part(keeps_bad, task)?;
        if !part.lines.is_empty() {
            let counts = commit(&mut importer, lines, &part, &name)?;
            report.add(counts);
        }
        report.lines += part.end.lines;
        lines.passed(&part);
        task.report("importing", lines.bytes, lines.size, "bytes")?;
        if let Some(error) = part.bad {
            return Err(error);
        }
        if part.is_last {
            return Ok(());
        }
    }
}

fn commit(importer: &mut Importer, lines: &ImportFile<'_>, part: &Part, name: &str) -> Result<ImportCounts, Error> {
    importer.commit(&part.lines, &|after| {
        let is_all = after == part.lines.len();
        let end = if is_all { &part.end } else { &part.ends[after - 1] };
        let mut digest = lines.digest.clone();
        digest.update(&part.bytes[..end.bytes]);
        lines.is_regular.then(|| ImportNote {
            name: name.to_owned(),
            file: lines.file.canonicalize().unwrap_or_else(|_| lines.file.to_owned()),
            bytes: lines.bytes + end.bytes as u64,
            lines: lines.count + end.lines,
            sha256: data_encoding::HEXLOWER.encode(&digest.finalize()),
            chain: end.chain.as_ref().map(LineChain::to_text),
            marks: end.chain.is_some().then(|| {
                let marks = usize::try_from(end.lines).unwrap_or(usize::MAX).saturating_mul(LineChain::MARK);
                LineMarks { first: lines.count + 1, marks: part.marks[..marks.min(part.marks.len())].to_vec() }
            }),
        })
    })
}

impl ImportReport {
    fn add(&mut self, ImportCounts { stored, dead_letters, dropped }: ImportCounts) {
        self.stored += stored;
        self.dead_letters += dead_letters;
        self.dropped += dropped;
    }
}

/// A name for the note of a file.
fn new_name() -> String {
    let mut random = [0; 8];
    // Without randomness the time is unique enough: one import at a time has the lock.
    if getrandom::fill(&mut random).is_err() {
        random = now_ns().to_be_bytes();
    }
    data_encoding::HEXLOWER.encode(&random)
}
