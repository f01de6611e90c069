//! The collector's side of the model: the writers and the file of a database, and beside it an obvious memory of what is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::world::Stream;
use crate::config::DatabaseConfig;
use crate::event_id::{EventNumber, width};
use crate::pipeline::{Batch, Committed, Epoch, Limits, Mark, Refusal, Sink};
use crate::store::{Database, Editor, Reader, Routes, StatementOutput, Value, Writer};

/// After so long without an event a recorder is forgotten.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(30 * 86_400);

const WRITERS: usize = 2;

/// Events are refused by it in all ways that are different for the writer: a statement fails, the transaction ends, the commit fails.
const SCHEMA: &str = "
    CREATE TABLE known(kind TEXT PRIMARY KEY);
    CREATE TABLE seen(kind TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN
        SELECT raise(ABORT, 'aborted') WHERE NEW.payload LIKE 'abort%';
        SELECT raise(ROLLBACK, 'rolled back') WHERE NEW.payload LIKE 'rollback%';
        INSERT INTO seen SELECT NEW.payload WHERE NEW.payload LIKE 'deferred%';
    END;";

/// What is stored, by the names of the recorders.
#[derive(Clone, Debug, Default)]
struct Memory {
    recorders: BTreeMap<String, Numbers>,
    /// The names that were forgotten. Their events may be in the database twice.
    forgotten: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
struct Numbers {
    stored: BTreeSet<u64>,
    seen_us: i64,
}

/// How the collector is disturbed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    None,
    /// Another program has the database locked at first.
    Locked,
    /// The collector ends when it has committed.
    Crash,
}

pub(super) struct Collector {
    path: PathBuf,
    writers: Vec<Writer>,
    /// Whether a writer has looked for recorders to forget.
    has_forgotten: [bool; WRITERS],
    reader: Reader,
    memory: Memory,
    /// The last rows in `events` and in the dead letters.
    last: [i64; 2],
}

/// A copy of the database.
pub(super) struct Backup {
    path: PathBuf,
    memory: Memory,
}

impl Collector {
    pub(super) fn new(path: PathBuf) -> Self {
        drop(Database::open(&Self::config(&path), &Routes::default()).expect("a new database"));
        Editor::open(&path).and_then(|editor| editor.run(SCHEMA)).expect("SQL");
        Self::open(path, Memory::default())
    }

    fn config(path: &Path) -> DatabaseConfig {
        DatabaseConfig {
            path: path.to_owned(),
            writers: WRITERS,
            forget_recorders: FORGET_AFTER,
            busy_timeout: Duration::from_millis(1),
            ..DatabaseConfig::default()
        }
    }

    fn open(path: PathBuf, memory: Memory) -> Self {
        let writers = Database::open(&Self::config(&path), &Routes::default()).expect("opens").writers();
        let reader = Reader::open(&path).expect("opens");
        let mut collector = Self { path, writers, has_forgotten: [false; WRITERS], reader, memory, last: [0, 0] };
        let highest = "SELECT coalesce(max(id), 0) FROM";
        collector.last = ["events", "catchment_dead_letters"].map(|table| {
            let row = collector.rows(&format!("{highest} {table}")).remove(0);
            let [Value::Integer(last)] = row[..] else { panic!("{row:?}") };
            last
        });
        collector
    }

    /// It ends, and starts again.
    pub(super) fn restart(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.writers.clear();
        *self = Self::open(self.path.clone(), memory);
    }

    pub(super) fn back_up(&self, path: PathBuf) -> Backup {
        let sql = format!("VACUUM INTO '{}'", path.display());
        Editor::open(&self.path).and_then(|editor| editor.run(&sql)).expect("copies");
        Backup { path, memory: self.memory.clone() }
    }

    /// It goes on with this copy, at another path.
    pub(super) fn restore(&mut self, backup: &Backup, path: PathBuf) {
        std::fs::copy(&backup.path, &path).expect("copies");
        *self = Self::open(path, backup.memory.clone());
    }

    fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        let visit = |output: StatementOutput<'_>| {
            if let StatementOutput::Row(row) = output {
                rows.push(row);
            }
            ControlFlow::<()>::Continue(())
        };
        self.reader.run(sql, visit).expect("SQL");
        rows
    }

    fn texts(&self, sql: &str) -> Vec<String> {
        let text = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        self.rows(sql).into_iter().map(text).collect()
    }

    /// Everything that is stored, the dead letters included.
    pub(super) fn stored(&self) -> Vec<String> {
        self.texts("SELECT payload FROM events UNION ALL SELECT CAST(payload AS TEXT) FROM catchment_dead_letters")
    }

    pub(super) fn has_forgotten(&self, recorder: &str) -> bool {
        self.memory.forgotten.contains(recorder)
    }

    /// How many messages of the stream it has.
    pub(super) fn position(&self, epoch: u32) -> usize {
        let sql = format!("SELECT sequence FROM catchment_ledger WHERE stream = 'S' AND epoch = {epoch}");
        match self.rows(&sql).first().map(|row| &row[0]) {
            None => 0,
            Some(Value::Integer(sequence)) => usize::try_from(*sequence).expect("positive"),
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Collects so many further messages in one batch, and holds what is stored against the memory. An event that `is_excused` may count as
    /// stored, if it is as far behind as no recorder lets an event be that it still sends.
    pub(super) fn collect(
        &mut self,
        stream: &Stream,
        messages: usize,
        writer: usize,
        trouble: Trouble,
        is_excused: impl Fn(&str) -> bool,
    ) {
        let position = self.position(stream.epoch);
        let mut end = (position + messages).min(stream.messages.len());
        let old_us = |seen_us: i64| seen_us - i64::try_from(FORGET_AFTER.as_micros()).expect("short");
        if position == end {
            return;
        }
        // If an event is refused, parts of the batch may be committed by themselves, and one of them may forget what the next one needs. It
        // may do so; the memory is simpler.
        let oldest = self.memory.recorders.values().map(|numbers| numbers.seen_us).min();
        if oldest.is_some_and(|seen| seen < old_us(stream.messages[end - 1].published_us)) {
            let is_refused = |at: &usize| !stream.messages[*at].payload.starts_with("good");
            end = if is_refused(&position) { position + 1 } else { (position..end).find(is_refused).unwrap_or(end) };
        }
        let batch = batch(stream, position, end);
        let committed = self.commit(&batch, writer, trouble);
        let stored = self.new_rows();
        let mut next = stored.iter();
        let mut waiting = next.next();
        let (mut repeated, mut has_new, mut touched) = (0, false, BTreeSet::new());
        for at in position..end {
            let message = &stream.messages[at];
            let headers = message.headers.iter().map(|(name, value)| (*name, value.as_str()));
            let EventNumber { recorder, number } = EventNumber::of(headers).expect("has a number");
            let sequence = i64::try_from(at + 1).expect("small");
            let is_stored = waiting.is_some_and(|(of, _)| *of == sequence);
            if let Some((_, payload)) = waiting.filter(|_| is_stored) {
                assert_eq!(payload, &message.payload);
                waiting = next.next();
            }
            repeated += usize::from(!is_stored);
            let known = self.memory.recorders.get_mut(recorder);
            has_new |= known.is_none();
            let known = match known {
                Some(known) => known,
                None => self.memory.recorders.entry(recorder.to_owned()).or_default(),
            };
            let highest = known.stored.last().copied().unwrap_or(0);
            let is_new = known.stored.insert(number);
            if is_new && !is_stored {
                assert!(
                    is_excused(&message.payload) && highest >= number + width(),
                    "{recorder}-{number} is new and was passed over; the highest is {highest}"
                );
            }
            assert!(is_new || !is_stored, "{recorder}-{number} is stored twice");
            known.seen_us = known.seen_us.max(message.published_us);
            touched.insert(recorder.to_owned());
        }
        assert_eq!(waiting, None, "stored, and not in the batch");
        assert_eq!(committed.repeated, repeated);
        let must_forget = has_new && !self.has_forgotten[writer] && !Self::has_refused(stream, position..end);
        self.has_forgotten[writer] |= has_new;
        let (first_us, last_us) = (stream.messages[position].published_us, stream.messages[end - 1].published_us);
        self.see(&touched, last_us);
        self.forget(must_forget.then(|| old_us(first_us)), old_us(last_us));
        if matches!(trouble, Trouble::Crash) {
            self.restart();
        }
    }

    fn has_refused(stream: &Stream, span: std::ops::Range<usize>) -> bool {
        !stream.messages[span].iter().all(|message| message.payload.starts_with("good"))
    }

    fn commit(&mut self, batch: &Batch, writer: usize, trouble: Trouble) -> Committed {
        let used = &mut self.writers[writer];
        used.prepare(batch);
        if matches!(trouble, Trouble::Locked) {
            let other = Editor::open(&self.path).expect("opens");
            other.run("BEGIN IMMEDIATE").expect("locks");
            assert!(matches!(used.commit(batch), Err(Refusal::Retry(_))), "it is locked");
            other.run("ROLLBACK").expect("unlocks");
        }
        used.commit(batch).expect("commits")
    }

    /// The sequences and payloads that were stored since the last call, in order.
    fn new_rows(&mut self) -> Vec<(i64, String)> {
        let [events, letters] = self.last;
        let sql = format!(
            "SELECT sequence, payload, id, 0 FROM events WHERE id > {events}
             UNION ALL SELECT sequence, CAST(payload AS TEXT), id, 1 FROM catchment_dead_letters WHERE id > {letters}
             ORDER BY sequence"
        );
        let mut found = Vec::new();
        for row in self.rows(&sql) {
            let [Value::Integer(sequence), Value::Text(payload), Value::Integer(id), Value::Integer(table)] = &row[..]
            else {
                panic!("{row:?}")
            };
            found.push((*sequence, payload.clone()));
            let last = &mut self.last[usize::from(*table == 1)];
            *last = (*last).max(*id);
        }
        found
    }

    /// Takes over when the database has last seen each recorder. Those of the last batch were seen when their transaction ended, which may
    /// have stored a part of the batch.
    fn see(&mut self, touched: &BTreeSet<String>, last_us: i64) {
        for row in self.rows("SELECT recorder, seen_us FROM catchment_recorders WHERE stream = 'S'") {
            let [Value::Text(name), Value::Integer(seen_us)] = &row[..] else { panic!("{row:?}") };
            let known = self.memory.recorders.get_mut(&**name).expect("is known");
            let latest = if touched.contains(&**name) { known.seen_us.max(last_us) } else { known.seen_us };
            assert!((known.seen_us..=latest).contains(seen_us), "{name}: {seen_us}, not {known:?}");
            known.seen_us = *seen_us;
        }
    }

    /// Forgets the recorders that the database has forgotten. All that were last seen before `must` have to be, and only those that were
    /// last seen before `may` can be.
    fn forget(&mut self, must: Option<i64>, may: i64) {
        let rows = self.rows("SELECT recorder, length(stored), seen_us FROM catchment_recorders WHERE stream = 'S'");
        let mut names = BTreeSet::new();
        for row in &rows {
            let [Value::Text(name), Value::Integer(bytes), Value::Integer(seen_us)] = &row[..] else {
                panic!("{row:?}")
            };
            assert!(*bytes <= i64::try_from(width() / 8 + 8).expect("small"), "{name} has {bytes} bytes");
            assert!(must.is_none_or(|must| *seen_us >= must), "{name} is not forgotten");
            names.insert(name.clone());
        }
        let forgotten = &mut self.memory.forgotten;
        self.memory.recorders.retain(|name, numbers| {
            let is_known = names.contains(name);
            assert!(is_known || numbers.seen_us < may, "{name} is forgotten too early");
            if !is_known {
                forgotten.insert(name.clone());
            }
            is_known
        });
    }
}

/// These messages of the stream, counted from 0.
fn batch(stream: &Stream, start: usize, end: usize) -> Batch {
    let mark = |messages: usize| match messages {
        0 => Mark::START,
        _ => Mark { sequence: messages as u64, published_ns: stream.messages[messages - 1].published_us * 1_000 },
    };
    let mut batch = Batch::new(Limits { events: 10_000, bytes: 1 << 20 });
    let epoch = Epoch::new("S", stream.epoch, format!("day {}", stream.epoch));
    batch.begin(Arc::new(epoch), mark(start));
    for at in start..end {
        let message = &stream.messages[at];
        let headers = message.headers.iter().map(|(name, value)| (*name, value.as_str()));
        batch.push(mark(at + 1), "a", headers, message.payload.as_bytes());
    }
    batch
}
