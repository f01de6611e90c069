//! Writes the rows of a table or of a query into a file.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{RecvTimeoutError, Sender};

use super::export_format::{EVENT_COLUMNS, ExportFormat, RowFormat};
use super::table_filters::TableFilters;
use crate::config::Config;
use crate::error::{DatabaseFault, Error};
use crate::new_file::{NewFile, failed};
use crate::store::{Reader, StatementOutput, must_be_no_file_of};
use crate::subject::Filter;
use crate::task::{Progress, REPORT_EVERY, Task};

/// Bytes of rows that are written at a time, and how many such chunks are read ahead.
const CHUNK: usize = 64 << 10;
const AHEAD: usize = 4;

/// The thread that reads.
const THREAD: &str = "catchment-export";

/// What is exported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExportSource {
    /// Rows of a table.
    Table(ExportTable),
    /// The rows of one statement that reads.
    Query(String),
}

impl ExportSource {
    /// All rows of a table.
    #[must_use]
    pub fn table(name: impl Into<String>) -> Self {
        Self::Table(ExportTable::new(name))
    }
}

/// A table, and which of its rows are exported, in the order of their numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportTable {
    /// The table.
    pub name: String,
    /// Only rows of events on this subject: by the column that a route fills with `:subject`, else by column `subject`.
    pub subject: Option<Filter>,
    /// Only rows of events published at this time or later, in microseconds since 1970: by the column that a route fills with
    /// `:published_us` or `:published_s`, else by column `published_us`.
    pub since_us: Option<i64>,
    /// Only rows for which this SQL expression is true.
    pub condition: Option<String>,
}

impl ExportTable {
    /// All rows of this table.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), subject: None, since_us: None, condition: None }
    }
}

/// Where an export goes.
pub enum ExportTarget<'a> {
    /// A new file, which gets its name when it is complete and on the disk. Only its owner may read it.
    File(&'a Path),
    /// Anything else. After an error it may have a part of the rows.
    Writer(&'a mut dyn Write),
}

impl std::fmt::Debug for ExportTarget<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// How rows are exported.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The format. Default: JSON lines.
    pub format: ExportFormat,
    /// Whether a file that is there already is replaced. Default false: then it is an error.
    pub replace: bool,
}

/// An export that is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// How many rows there are.
    pub rows: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many values are text that is not UTF-8, and were written as blobs.
    pub bad_texts: u64,
    /// How many rows of table `events` an [`import`](super::import()) does not store as they are: with a payload that is a number or
    /// NULL, which becomes text, or with a subject or headers that no event has. A collector stores no such rows. Only of JSON lines.
    pub inexact: u64,
}

/// Exports rows. A collector may run meanwhile: the rows are those of one moment. A long export holds back the WAL, which grows with every
/// commit until the export ends.
///
/// `config` names the database; of its routes it is read which columns have subjects and times. Blocks until all rows are written, and on
/// the disk if they go to a file.
///
/// # Errors
///
/// [`Error::Database`]: the database cannot be read; with [`DatabaseFault::Statement`] there is no such table, a filter does not fit it, or
/// the query is wrong or writes. [`Error::File`]: the file exists or cannot be written. [`Error::Thread`]. [`Error::Cancelled`]. After any error there is no new
/// file.
pub fn export(
    config: &Config,
    source: &ExportSource,
    to: ExportTarget<'_>,
    options: &ExportOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<ExportReport, Error> {
    let task = Task::new("the export", progress);
    let database = &config.database.path;
    let mut reader = Reader::open(database)?;
    reader.keep_bad_text();
    let selected = select(config, source, &reader)?;
    match to {
        ExportTarget::File(path) => {
            must_be_no_file_of(database, path)?;
            must_be_no_database(path)?;
            let new = NewFile::create(path, options.replace)?;
            let report = write(reader, selected, options.format, &mut new.file(), path, &task)?;
            new.finish()?;
            Ok(report)
        }
        ExportTarget::Writer(to) => write(reader, selected, options.format, to, Path::new("the export"), &task),
    }
}

/// Refuses to replace a database: an export is never one.
fn must_be_no_database(path: &Path) -> Result<(), Error> {
    const HEADER: &[u8] = b"SQLite format 3\0";
    let mut found = [0; HEADER.len()];
    let is_file = std::fs::metadata(path).is_ok_and(|there| there.is_file());
    let mut begins = || std::fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut found));
    if is_file && begins().is_ok() && found == HEADER {
        let detail = "it is a database; name another file".into();
        return Err(Error::File { path: path.to_owned(), detail, source: None });
    }
    Ok(())
}

/// The statement whose rows are exported.
struct Selected {
    sql: String,
    are_events: bool,
    database: PathBuf,
}

fn select(config: &Config, source: &ExportSource, reader: &Reader) -> Result<Selected, Error> {
    let database = config.database.path.clone();
    let refused = |detail: String| Error::database(DatabaseFault::Statement, &config.database.path, detail);
    let (name, subject, since_us, condition) = match source {
        ExportSource::Query(sql) => return Ok(Selected { sql: sql.clone(), are_events: false, database }),
        ExportSource::Table(ExportTable { name, subject, since_us, condition }) => (name, subject, since_us, condition),
    };
    let table = match reader.row_table(name) {
        Ok(Some(table)) => table,
        Ok(None) => {
            let all = reader.table_names()?;
            let others =
                if all.is_empty() { "and no other".into() } else { format!("; the tables are {}", all.join(", ")) };
            return Err(refused(format!("there is no table {name}{others}")));
        }
        Err(error @ Error::Database { fault: DatabaseFault::Statement, .. }) => {
            return Err(error.with_remedy(format!("export a query of it: SELECT * FROM {name}")));
        }
        Err(error) => return Err(error),
    };
    let filters = TableFilters::new(subject.clone(), *since_us, condition.clone(), config);
    let filter = filters.of(reader, &table)?.map_err(refused)?;
    let are_events = table.name == "events" && table.columns == EVENT_COLUMNS;
    Ok(Selected { sql: Reader::statement(&table, &filter), are_events, database })
}

/// Rows to write, and how many they are.
type Chunk = (Vec<u8>, u64);

fn write(
    reader: Reader,
    selected: Selected,
    format: ExportFormat,
    to: &mut dyn Write,
    path: &Path,
    task: &Task<'_>,
) -> Result<ExportReport, Error> {
    let is_over = Arc::new(AtomicBool::new(false));
    reader.interrupt_when(Arc::clone(&is_over))?;
    let (send, chunks) = crossbeam_channel::bounded::<Chunk>(AHEAD);
    let mut report = ExportReport::default();
    let (written, read) = std::thread::scope(|scope| {
        let read = move || read(&reader, &selected, format, &send);
        let reading = std::thread::Builder::new().name(THREAD.into()).spawn_scoped(scope, read);
        let reading = reading.map_err(|source| Error::Thread { name: THREAD.into(), source })?;
        let mut write_all = || {
            let mut reported = Instant::now();
            task.report("exporting", 0, None, "rows")?;
            loop {
                match chunks.recv_timeout(REPORT_EVERY) {
                    Ok((bytes, rows)) => {
                        to.write_all(&bytes).map_err(|e| write_error(path, e))?;
                        report.rows += rows;
                        report.bytes += bytes.len() as u64;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if reported.elapsed() >= REPORT_EVERY {
                    reported = Instant::now();
                    task.report("exporting", report.rows, None, "rows")?;
                }
            }
            to.flush().map_err(|e| write_error(path, e))
        };
        let written = write_all();
        is_over.store(written.is_err(), Ordering::Relaxed);
        // So that the thread does not wait for room.
        drop(chunks);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, Error>((written, read))
    })?;
    written?;
    (report.bad_texts, report.inexact) = read?;
    Ok(report)
}

/// Reads all rows; how many texts are not UTF-8, and how many rows an import would change. Ends early, without an error, if nobody
/// receives them.
fn read(reader: &Reader, selected: &Selected, format: ExportFormat, to: &Sender<Chunk>) -> Result<(u64, u64), Error> {
    let refused = |detail: &str, remedy: &str| {
        let (fault, path, detail) = (DatabaseFault::Statement, selected.database.clone(), detail.to_owned());
        Error::database(fault, path, detail).with_remedy(remedy)
    };
    let mut rows_format: Option<RowFormat> = None;
    let (mut buffer, mut rows, mut inexact) = (Vec::with_capacity(CHUNK), 0, 0);
    let ended = reader.run::<Option<Error>>(&selected.sql, |output| {
        match output {
            StatementOutput::Columns([]) => {
                return ControlFlow::Break(Some(refused("the statement has no rows", "give one SELECT")));
            }
            StatementOutput::Columns(_) if rows_format.is_some() => {
                return ControlFlow::Break(Some(refused("there are several statements", "export one at a time")));
            }
            StatementOutput::Columns(columns) => {
                let format = rows_format.insert(RowFormat::new(format, columns, selected.are_events));
                format.header(columns, &mut buffer);
            }
            StatementOutput::Row(values) => {
                // Columns come before rows, and writing into memory cannot fail.
                let is_exact =
                    rows_format.as_ref().is_none_or(|format| format.row(&values, &mut buffer).unwrap_or(true));
                inexact += u64::from(!is_exact);
                rows += 1;
                if buffer.len() >= CHUNK {
                    let chunk = std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK));
                    if to.send((chunk, std::mem::take(&mut rows))).is_err() {
                        return ControlFlow::Break(None);
                    }
                }
            }
            StatementOutput::End => {}
        }
        ControlFlow::Continue(())
    })?;
    match ended {
        Some(Some(error)) => Err(error),
        None if rows_format.is_none() => Err(refused("the SQL has no statement", "give one SELECT")),
        _ => {
            let _ = to.send((buffer, rows));
            Ok((reader.bad_texts(), inexact))
        }
    }
}

/// Keeps the error itself, so that a caller recognises a reader that has left.
fn write_error(path: &Path, error: io::Error) -> Error {
    match failed(path, &error) {
        Error::File { path, detail, .. } => Error::File { path, detail, source: Some(error.into()) },
        other => other,
    }
}
