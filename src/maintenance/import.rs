//! Stores the events of a file through the routes, without a broker.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::error::Error;
use crate::input_format::{HEAD, unreadable};
use crate::new_file::failed;
use crate::store::event_line;
use crate::store::{Database, ImportCounts, ImportNote, ImportedLine, Importer, Lock, Routes};
use crate::task::{Progress, Task};

/// A transaction ends with the line that reaches one of these.
const LINES: usize = 5_000;
const BYTES: usize = 8 << 20;

/// The longest line in bytes. The largest event has half of it; JSON may write a byte of it as several.
const LONGEST: u64 = 256 << 20;

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
    /// What is done with a line that is no event.
    pub bad_lines: BadLines,
    /// Imports the whole file, also if it, or its beginning, was imported before.
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
/// **Each line is stored once.** Each transaction notes how many bytes of the file are stored, and the SHA-256 digest of these bytes. An
/// import that ended early continues there. A file is recognised by these bytes alone: under another name too, and if
/// lines were added at its end. A file whose beginning has changed is another file, and all of it is stored. What is not a regular file (a
/// pipe) is stored from its first byte, with no note.
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
/// [`Error::Config`], [`Error::Migration`], [`Error::Database`]. [`Error::Cancelled`]. What was stored before the error stays stored.
pub fn import(
    config: &Config,
    file: &Path,
    options: &ImportOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<ImportReport, Error> {
    let task = Task::new("the import", progress);
    let config = config.resolved()?;
    config.validate()?;
    let mut lines = Lines::open(file)?;
    let routes = Routes::new(&config.routes, config.unmatched)?.with_delete_markers(config.delete_markers);
    Database::must_not_be_of_others(&config.database, &config.routes, config.unmatched)?;
    let lock = Lock::take(&config.database.path)?;
    // With the queries, because a new migration must not break them either.
    let opened = Database::open_while(&config.database, &routes, &config.queries, &|| {
        task.report("opening", 0, None, "bytes").is_ok()
    });
    let database = match opened {
        Ok((database, _)) => database,
        Err(error) => {
            lock.withdraw();
            task.report("opening", 0, None, "bytes")?;
            return Err(error);
        }
    };
    let imported = import_lines(&database, &mut lines, options, &task);
    database.close_log();
    imported
}

fn import_lines(
    database: &Database,
    lines: &mut Lines<'_>,
    options: &ImportOptions,
    task: &Task<'_>,
) -> Result<ImportReport, Error> {
    let mut importer = database.importer()?;
    let mut report = ImportReport::default();
    let mut name = new_name();
    if lines.is_regular && !options.again {
        let notes = importer.notes()?;
        if let Some(note) = lines.skip_known(&notes, task)? {
            report.lines_before = note.lines;
            name.clone_from(&note.name);
        }
    }
    loop {
        let part = lines.next_part(options.bad_lines)?;
        if !part.lines.is_empty() {
            let counts = commit(&mut importer, lines, &part, &name)?;
            report.add(counts);
        }
        report.lines += part.count;
        lines.passed(&part);
        task.report("importing", lines.bytes, lines.size, "bytes")?;
        if let Some(error) = part.bad {
            return Err(error);
        }
        if part.is_last {
            return Ok(report);
        }
    }
}

fn commit(importer: &mut Importer, lines: &Lines<'_>, part: &Part, name: &str) -> Result<ImportCounts, Error> {
    importer.commit(&part.lines, &|after| {
        let is_all = after == part.lines.len();
        let (bytes, count) = if is_all { (part.bytes.len(), part.count) } else { part.ends[after - 1] };
        let mut digest = lines.digest.clone();
        digest.update(&part.bytes[..bytes]);
        lines.is_regular.then(|| ImportNote {
            name: name.to_owned(),
            file: lines.file.canonicalize().unwrap_or_else(|_| lines.file.to_owned()),
            bytes: lines.bytes + bytes as u64,
            lines: lines.count + count,
            sha256: data_encoding::HEXLOWER.encode(&digest.finalize()),
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

/// A file that is read line by line.
struct Lines<'f> {
    file: &'f Path,
    input: BufReader<File>,
    is_regular: bool,
    size: Option<u64>,
    /// Bytes and lines that are passed, and the digest of the bytes.
    bytes: u64,
    count: u64,
    digest: Sha256,
}

/// The lines of one call of the importer.
#[derive(Default)]
struct Part {
    /// The text of all lines, empty ones included.
    bytes: Vec<u8>,
    count: u64,
    lines: Vec<ImportedLine>,
    /// For each of `lines`, the bytes and the number of lines up to its end.
    ends: Vec<(usize, u64)>,
    /// A line after these that ends the import.
    bad: Option<Error>,
    is_last: bool,
}

impl<'f> Lines<'f> {
    fn open(file: &'f Path) -> Result<Self, Error> {
        let on_error = |error| failed(file, &error);
        let metadata = std::fs::metadata(file).map_err(on_error)?;
        if metadata.is_dir() {
            let detail = "it is a folder; name a file in it".into();
            return Err(Error::File { path: file.to_owned(), detail, source: None });
        }
        let is_regular = metadata.is_file();
        let mut input = BufReader::with_capacity(256 << 10, File::open(file).map_err(on_error)?);
        let head = input.fill_buf().map_err(on_error)?;
        if let Some(detail) = unreadable(&head[..head.len().min(HEAD)], Some(file)) {
            return Err(Error::File { path: file.to_owned(), detail, source: None });
        }
        let size = is_regular.then_some(metadata.len());
        Ok(Self { file, input, is_regular, size, bytes: 0, count: 0, digest: Sha256::new() })
    }

    /// Passes what an earlier import has stored, by the largest note that is about the beginning of this file.
    fn skip_known<'n>(&mut self, notes: &'n [ImportNote], task: &Task<'_>) -> Result<Option<&'n ImportNote>, Error> {
        let size = self.size.unwrap_or(0);
        let mut candidates: Vec<&ImportNote> =
            notes.iter().filter(|note| note.bytes > 0 && note.bytes <= size).collect();
        candidates.sort_by_key(|note| note.bytes);
        let most = candidates.last().map_or(0, |note| note.bytes);
        let (mut digest, mut read, mut known) = (Sha256::new(), 0, None);
        for note in candidates {
            while read < note.bytes {
                let buffer = self.input.fill_buf().map_err(|error| failed(self.file, &error))?;
                let length = buffer.len().min(usize::try_from(note.bytes - read).unwrap_or(usize::MAX));
                if length == 0 {
                    break;
                }
                digest.update(&buffer[..length]);
                self.input.consume(length);
                read += length as u64;
                task.report("comparing", read, Some(most), "bytes")?;
            }
            if data_encoding::HEXLOWER.encode(&digest.clone().finalize()) == note.sha256 && read == note.bytes {
                known = Some((note, digest.clone()));
            }
        }
        let to = known.as_ref().map_or(0, |(note, _)| note.bytes);
        self.input.seek(SeekFrom::Start(to)).map_err(|error| failed(self.file, &error))?;
        let Some((note, digest)) = known else { return Ok(None) };
        (self.bytes, self.count, self.digest) = (note.bytes, note.lines, digest);
        Ok(Some(note))
    }

    /// The next lines.
    fn next_part(&mut self, bad_lines: BadLines) -> Result<Part, Error> {
        let mut part = Part::default();
        while part.lines.len() < LINES && part.bytes.len() < BYTES {
            let from = part.bytes.len();
            let read = self.input.by_ref().take(LONGEST + 1).read_until(b'\n', &mut part.bytes);
            let number = self.count + part.count + 1;
            let read = match read {
                Ok(read) if read as u64 <= LONGEST => read,
                Ok(_) => {
                    part.bytes.truncate(from);
                    part.bad = Some(self.error(format!("line {number} is longer than {} MiB", LONGEST >> 20)));
                    break;
                }
                Err(error) => return Err(failed(self.file, &error)),
            };
            if read == 0 {
                part.is_last = true;
                break;
            }
            let text = part.bytes[from..].trim_ascii();
            let is_empty = text.strip_prefix(event_line::BOM).unwrap_or(text).is_empty();
            let line = if is_empty {
                None
            } else {
                match (event_line::read_stored(text), bad_lines) {
                    (Ok(event), _) => Some(ImportedLine::Event(event)),
                    (Err(reason), BadLines::DeadLetter) => {
                        let reason = format!("line {number} of {}: {reason}", self.file.display());
                        Some(ImportedLine::Bad { text: text.to_owned(), reason })
                    }
                    (Err(reason), BadLines::Stop) => {
                        part.bytes.truncate(from);
                        part.bad = Some(self.error(format!(
                            "line {number} {reason}; mend it and import again, or let bad lines become dead letters \
                             (--bad-lines dead-letter)"
                        )));
                        break;
                    }
                }
            };
            part.count += 1;
            if let Some(line) = line {
                part.lines.push(line);
                part.ends.push((part.bytes.len(), part.count));
            }
        }
        Ok(part)
    }

    fn passed(&mut self, part: &Part) {
        self.digest.update(&part.bytes);
        self.bytes += part.bytes.len() as u64;
        self.count += part.count;
    }

    fn error(&self, detail: String) -> Error {
        Error::File { path: self.file.to_owned(), detail, source: None }
    }
}

/// A name for the note of a file.
fn new_name() -> String {
    let mut random = [0; 8];
    // Without randomness the time is unique enough: one import at a time has the lock.
    if getrandom::fill(&mut random).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        random = u64::try_from(now.as_nanos()).unwrap_or_default().to_be_bytes();
    }
    data_encoding::HEXLOWER.encode(&random)
}
