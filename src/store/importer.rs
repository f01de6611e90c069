//! Commits the lines of a file: many lines in one transaction, with a note of how far the file is imported.
//!
//! The note has the position in the file and the SHA-256 digest of everything before it. So a file is recognised by its content, and an
//! import that was killed continues after the last transaction.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::dead_letters::{self, DeadLetterReason};
use super::event_line::StoredEvent;
use super::meta;
use super::pool::WriteConnection;
use super::routes::decoded_batch::{DecodedBatch, Disposition};
use super::routes::plan::Plan;
use super::routes::statements::{StatementError, Statements};
use super::sqlite_error::{database_error, fault, is_constraint, one_line};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Defect, Delivery, Epoch, Mark, SingleEvent};
use crate::unix_time::now_us;

/// How the keys of notes begin in `catchment_meta`.
const KEY: &str = "import:";

/// How the keys of the marks of lines begin there. The name of the note and the number of the first line follow.
const MARKS: &str = "import-lines:";

/// The subject of dead letters for lines that are no events.
const BAD_LINE: &str = "import";

/// How long to wait while another process writes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A line of the file.
#[derive(Debug)]
pub enum ImportedLine {
    /// It is an event.
    Event(StoredEvent),
    /// It is none, and becomes a dead letter.
    Bad {
        /// The line.
        text: Vec<u8>,
        /// What is wrong with it, with its number and its file.
        reason: String,
    },
}

/// How far a file is imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportNote {
    /// Names the note in the database: hexadecimal digits.
    #[serde(skip)]
    pub name: String,
    /// The path of the file, for people.
    pub file: PathBuf,
    /// Bytes that are imported.
    pub bytes: u64,
    /// Lines that are imported, those included that hold no event.
    pub lines: u64,
    /// The digest of these bytes.
    pub sha256: String,
    /// The digest of these lines, one after the other. An earlier version noted none.
    #[serde(default)]
    pub chain: Option<String>,
    /// Marks by which the beginning of the file is recognised, of the lines since the note before.
    #[serde(skip)]
    pub marks: Option<LineMarks>,
}

/// Marks of lines of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineMarks {
    /// The number of the first line.
    pub first: u64,
    /// The marks, one after the other.
    pub marks: Vec<u8>,
}

/// What was done with lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Events whose statements ran.
    pub stored: u64,
    /// Dead letters: events that were refused, and bad lines.
    pub dead_letters: u64,
    /// Events that no route matches, by the settings.
    pub dropped: u64,
}

/// Commits lines on a connection of its own.
pub struct Importer {
    path: PathBuf,
    connection: WriteConnection,
    decoded: DecodedBatch,
    event: SingleEvent,
}

/// Why a span was not committed.
enum AttemptError {
    /// The error of this line ended the transaction.
    Line(usize, DeadLetterReason),
    /// A line of the span breaks a constraint that SQLite checks at COMMIT.
    AtCommit(String),
    /// No line is the cause.
    Failed(Error),
}

impl std::fmt::Debug for Importer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Importer {
    pub(super) fn new(path: &Path, connection: WriteConnection, plan: &Arc<Plan>) -> Self {
        let (decoded, event) = (DecodedBatch::new(Arc::clone(plan)), SingleEvent::default());
        Self { path: path.to_owned(), connection, decoded, event }
    }

    /// What is noted of earlier imports, the largest first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn notes(&self) -> Result<Vec<ImportNote>, Error> {
        let read = |sqlite: &Connection| -> rusqlite::Result<Vec<ImportNote>> {
            let sql = "SELECT substr(key, ?2), value FROM catchment_meta WHERE substr(key, 1, ?2 - 1) = ?1";
            let mut statement = sqlite.prepare(sql)?;
            let rows = statement.query_map(params![KEY, KEY.len() + 1], |row| {
                let (name, value): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(serde_json::from_str::<ImportNote>(&value).ok().map(|note| ImportNote { name, ..note }))
            })?;
            // A note that cannot be read is of a later version.
            rows.filter_map(Result::transpose).collect()
        };
        let mut notes = read(&self.connection.sqlite).map_err(|e| database_error(&self.path, e))?;
        notes.sort_by_key(|note| std::cmp::Reverse(note.bytes));
        Ok(notes)
    }

    /// The marks of lines from this one on, as many as one transaction has noted; `None` if it noted none.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn line_marks(&self, name: &str, first: u64) -> Result<Option<Vec<u8>>, Error> {
        meta::get(&self.connection.sqlite, &marks_key(name, first)).map_err(|e| database_error(&self.path, e))
    }

    /// Commits these lines in order, in as few transactions as possible: one, unless a line breaks a constraint at COMMIT.
    /// `note` is the note after so many of the lines; each transaction stores it. An event that fails becomes a dead letter.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]. The lines of transactions before the error stay committed, with their note.
    pub fn commit(
        &mut self,
        lines: &[ImportedLine],
        note: &dyn Fn(usize) -> Option<ImportNote>,
    ) -> Result<ImportCounts, Error> {
        let mut counts = ImportCounts::default();
        let mut failures: BTreeMap<usize, DeadLetterReason> = BTreeMap::new();
        let until = Instant::now() + TIMEOUT;
        let mut spans: Vec<Range<usize>> = (!lines.is_empty()).then_some(0..lines.len()).into_iter().collect();
        while let Some(span) = spans.pop() {
            match self.attempt(lines, span.clone(), note(span.end), &failures) {
                Ok(done) => counts.add(done),
                Err(AttemptError::Line(index, reason)) => {
                    failures.insert(index, reason);
                    spans.push(span);
                }
                Err(AttemptError::AtCommit(error)) if span.len() == 1 => {
                    let reason = self.decoded.at_commit(0, error.clone());
                    if failures.insert(span.start, reason).is_some() {
                        return Err(self.error(error));
                    }
                    spans.push(span);
                }
                Err(AttemptError::AtCommit(_)) => {
                    let middle = span.start + span.len() / 2;
                    spans.extend([middle..span.end, span.start..middle]);
                }
                Err(AttemptError::Failed(Error::Database { fault: DatabaseFault::Busy, .. }))
                    if Instant::now() < until =>
                {
                    spans.push(span);
                }
                Err(AttemptError::Failed(error)) => return Err(error),
            }
        }
        Ok(counts)
    }

    fn attempt(
        &mut self,
        lines: &[ImportedLine],
        span: Range<usize>,
        note: Option<ImportNote>,
        failures: &BTreeMap<usize, DeadLetterReason>,
    ) -> Result<ImportCounts, AttemptError> {
        let Self { path, connection, decoded, event } = self;
        let fail = |e| AttemptError::Failed(database_error(path, e));
        let sqlite = &connection.sqlite;
        let transaction = Transaction::new_unchecked(sqlite, TransactionBehavior::Immediate).map_err(fail)?;
        let plan = Arc::clone(decoded.plan());
        let mut statements = Statements::new(&plan, connection);
        let mut counts = ImportCounts::default();
        for index in span {
            let (stored, epoch) = match &lines[index] {
                ImportedLine::Bad { text, reason } => {
                    dead_line(sqlite, text, reason).map_err(fail)?;
                    counts.dead_letters += 1;
                    continue;
                }
                ImportedLine::Event(stored) => {
                    (stored, stored.position.as_ref().map(|(stream, _)| Epoch::new(stream, 1, "")))
                }
            };
            let published_ns = stored.published_us.unwrap_or_else(now_us).saturating_mul(1_000);
            let sequence = stored.position.as_ref().map_or(0, |(_, sequence)| *sequence);
            let headers = stored.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            event.replace(Mark { sequence, published_ns }, &stored.subject, headers, &stored.payload);
            let delivery = event.delivery();
            decoded.read_one(&delivery, epoch.as_ref());
            let ran = match failures.get(&index) {
                Some(reason) => Err(StatementError::Event(reason.clone())),
                None => statements.run_in_savepoint(decoded, 0, &delivery, epoch.as_ref()),
            };
            match ran {
                Ok(()) if matches!(decoded.disposition(0), Disposition::Dropped | Disposition::SkippedMarker) => {
                    counts.dropped += 1;
                }
                Ok(()) => counts.stored += 1,
                Err(StatementError::Event(reason)) => {
                    dead_letters::insert(sqlite, epoch.as_ref(), &delivery, &reason).map_err(fail)?;
                    counts.dead_letters += 1;
                }
                Err(StatementError::EndedTransaction(reason)) => return Err(AttemptError::Line(index, reason)),
                Err(StatementError::Invalid(error)) => return Err(AttemptError::Failed(error)),
                Err(StatementError::Database(error)) => return Err(fail(error)),
            }
        }
        if let Some(note) = note {
            keep(sqlite, &note).map_err(fail)?;
        }
        match transaction.commit() {
            Ok(()) => Ok(counts),
            Err(error) if is_constraint(&error) => Err(AttemptError::AtCommit(one_line(&error))),
            Err(error) => {
                log::debug!("database {}: a commit failed: {:?}", path.display(), fault(&error));
                Err(fail(error))
            }
        }
    }

    fn error(&self, detail: String) -> Error {
        Error::database(DatabaseFault::Other, &self.path, detail)
    }
}

impl ImportCounts {
    /// Adds what was done with further lines.
    pub fn add(&mut self, Self { stored, dead_letters, dropped }: Self) {
        self.stored += stored;
        self.dead_letters += dead_letters;
        self.dropped += dropped;
    }
}

/// Keeps a line that is no event. It counts as one whose headers could not be read, so that `dead-letters retry` leaves it as it is.
fn dead_line(connection: &Connection, text: &[u8], reason: &str) -> rusqlite::Result<()> {
    let event = SingleEvent::new(
        Mark { sequence: 0, published_ns: now_us().saturating_mul(1_000) },
        BAD_LINE,
        std::iter::empty(),
        text,
    );
    let delivery = Delivery { defect: Some(Defect { reason, raw_headers: b"" }), ..event.delivery() };
    let reason = DeadLetterReason { route: None, statement: None, error: reason.to_owned() };
    dead_letters::insert(connection, None, &delivery, &reason)
}

fn keep(connection: &Connection, note: &ImportNote) -> rusqlite::Result<()> {
    // Only a path that is not UTF-8 cannot be written.
    let value = serde_json::to_string(note)
        .or_else(|_| {
            serde_json::to_string(&ImportNote { file: note.file.to_string_lossy().as_ref().into(), ..note.clone() })
        })
        .unwrap_or_default();
    if let Some(LineMarks { first, marks }) = &note.marks {
        meta::set(connection, &marks_key(&note.name, *first), marks)?;
    }
    meta::set(connection, &format!("{KEY}{}", note.name), value)
}

fn marks_key(name: &str, first: u64) -> String {
    format!("{MARKS}{name}:{first}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unmatched;
    use crate::store::event_line::read_stored;
    use crate::store::fixture::{Fixture, route};

    fn event(subject: &str, payload: &str) -> ImportedLine {
        let line = serde_json::json!({ "subject": subject, "payload": payload, "published_us": 7 }).to_string();
        ImportedLine::Event(read_stored(line.as_bytes()).expect("an event"))
    }

    fn note(lines: usize) -> ImportNote {
        let lines = lines as u64;
        ImportNote {
            name: "x".into(),
            file: "a.ndjson".into(),
            bytes: lines * 10,
            lines,
            sha256: lines.to_string(),
            chain: None,
            marks: None,
        }
    }

    #[test]
    fn lines_and_note_are_one_transaction() {
        let fixture = Fixture::with_routes("", &[], Unmatched::Store).expect("opens");
        let database = fixture.open();
        let mut importer = database.importer().expect("opens");
        assert_eq!(importer.notes().expect("reads"), []);
        let line = br#"{"stream": "S", "sequence": 4, "subject": "b", "headers": {"K": "v"}, "payload": "two", "published_us": 8}"#;
        let from_stream = ImportedLine::Event(read_stored(line).expect("an event"));
        let bad = ImportedLine::Bad { text: b"oh \xff".to_vec(), reason: "line 3 of a.ndjson: is bad".into() };
        let lines = [event("a", "one"), from_stream, bad];
        let done = importer.commit(&lines, &|after| Some(note(after))).expect("commits");
        assert_eq!(done, ImportCounts { stored: 2, dead_letters: 1, dropped: 0 });
        let rows = fixture.texts(
            "SELECT concat_ws('|', subject, stream, sequence, published_us, headers, payload) FROM events ORDER BY id",
        );
        assert_eq!(rows, ["a|7|one", r#"b|S|4|8|{"K":"v"}|two"#]);
        let dead = fixture.texts("SELECT subject || ' ' || hex(payload) || ' ' || error FROM catchment_dead_letters");
        assert_eq!(dead, ["import 6F6820FF line 3 of a.ndjson: is bad"]);
        assert_eq!(importer.notes().expect("reads"), [note(3)]);
        let retried = database
            .retry(&crate::store::Selection::default(), crate::store::UnreadableHeaders::Keep, |_| {
                std::ops::ControlFlow::Continue(())
            })
            .expect("retries");
        assert_eq!((retried.stored, retried.skipped), (0, 1), "a bad line is no event");
    }

    #[test]
    fn events_that_fail_are_dead_letters_and_the_others_are_stored() {
        let schema = "
            CREATE TABLE known(name TEXT PRIMARY KEY);
            INSERT INTO known VALUES ('ann'), ('bob');
            CREATE TABLE lines(name TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED);
            CREATE TABLE users(name TEXT UNIQUE ON CONFLICT ROLLBACK);";
        let routes = [
            route("lines", &["INSERT INTO lines VALUES (:name)"]),
            route("users", &["INSERT INTO users VALUES (:name)"]),
        ];
        let fixture = Fixture::with_routes(schema, &routes, Unmatched::Drop).expect("opens");
        let database = fixture.open();
        let mut importer = database.importer().expect("opens");
        let of = |subject: &str, name: &str| event(subject, &format!(r#"{{"name": "{name}"}}"#));
        let lines = [
            of("lines", "ann"),
            of("lines", "nobody"),
            of("users", "ann"),
            of("users", "ann"),
            event("lines", "{"),
            of("other", "x"),
            of("lines", "bob"),
            of("lines", "no one"),
        ];
        let notes = std::cell::RefCell::new(Vec::new());
        let done = importer
            .commit(&lines, &|after| {
                notes.borrow_mut().push(after);
                Some(note(after))
            })
            .expect("commits");
        assert_eq!(done, ImportCounts { stored: 3, dead_letters: 4, dropped: 1 });
        assert_eq!(fixture.texts("SELECT name FROM lines ORDER BY rowid"), ["ann", "bob"]);
        assert_eq!(fixture.texts("SELECT name FROM users"), ["ann"]);
        assert_eq!(importer.notes().expect("reads"), [note(8)]);
        assert!(notes.borrow().contains(&8), "{notes:?}");
        let errors = fixture.texts("SELECT error FROM catchment_dead_letters ORDER BY id");
        assert_eq!(errors.iter().filter(|error| error.contains("FOREIGN KEY")).count(), 2, "{errors:?}");
    }
}
