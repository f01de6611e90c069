//! Compares a database with its stream, message by message, and stores what is missing.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::broker::{StreamPart, StreamReader};
use crate::config::{Config, Mode};
use crate::error::Error;
use crate::pipeline::{Batch, Epoch, EpochProgress, Limits, Mark};
use crate::store::{Compared, Database, Inspection, Lock, Routes, StartPhase, Verification, VerifyCounts};
use crate::subject::Filter;
use crate::task::{Progress, Task};

/// The most findings of each kind that a report names.
const MAX_NAMED: usize = 100;

/// How many second copies are deleted in one transaction.
const ROWS: usize = 1_000;

/// How [`verify()`] compares, and what it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Columns that have the sequences of routed events: `messages.seq`. A column that a route's statement fills with `:sequence`
    /// (`INSERT INTO messages(seq, …) VALUES (:sequence, …)`) is found without this. Default none.
    pub keys: Vec<String>,
    /// Tables whose oldest rows were deleted on purpose: `events`, or the table of a route. Messages before the first row that is there
    /// are not missing. Those of `[retention]` count without this; if a rule of it has a condition or a column, no message of its table
    /// is missing. Default none.
    pub pruned: Vec<String>,
    /// Store the messages that the database lacks, through the routes. No collector may run meanwhile. Default false.
    pub repair: bool,
    /// Give rows of table `events` that differ the content of their messages, and delete second copies. Only with `repair`. Default
    /// false.
    pub rewrite: bool,
}

/// Something that [`verify()`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The sequence of the message.
    pub sequence: u64,
    /// The number of the row in table `events`, if the finding is about one.
    pub row: Option<i64>,
    /// What is wrong: the subject of a missing message; the columns that differ.
    pub detail: String,
}

/// How many things of one kind were found, and the first hundred of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// How many there are.
    pub count: u64,
    /// How many of them were repaired.
    pub repaired: u64,
    /// The first hundred.
    pub first: Vec<Finding>,
}

/// A table whose rows were counted, because no column has the sequences of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableCount {
    /// The table.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many messages of the stream its routes take. With fewer rows than that, some are missing.
    pub messages: u64,
}

/// What [`verify()`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The stream.
    pub stream: String,
    /// Whether anything of the stream, as it is now, was collected. If not, nothing was compared.
    pub is_collected: bool,
    /// The sequences that were compared: from the first that the stream has to the last that the database had at the start. 0 to 0 if
    /// there are none.
    pub range: (u64, u64),
    /// How many messages and rows there are of each kind.
    pub counts: VerifyCounts,
    /// Messages that the database lacks.
    pub missing: Findings,
    /// Rows of table `events` whose subject, headers, payload or time is not that of their message.
    pub differing: Findings,
    /// Rows of table `events` beyond the first of a message, and messages that are stored and a dead letter too.
    pub doubled: Findings,
    /// Rows of table `events` behind the ledger's position that no epoch explains.
    pub unexplained: u64,
    /// Messages that the stream lacked when they were due, by the ledger: see [`gaps()`](super::gaps()).
    pub lost_before: u64,
    /// The columns by which routed events were found.
    pub keys: Vec<String>,
    /// The tables that were compared by counts.
    pub tables: Vec<TableCount>,
    /// The routes whose events cannot be found: their statements do not add one row for each event.
    pub unknown_routes: Vec<String>,
    /// Messages that a repair has stored as dead letters, because the routes refuse them.
    pub repaired_as_dead_letters: u64,
}

impl VerifyReport {
    /// Whether the database has what it should, after repairs.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let left = |findings: &Findings| findings.count - findings.repaired;
        let is_short = |table: &TableCount| table.rows < table.messages;
        left(&self.missing) == 0
            && left(&self.differing) == 0
            && left(&self.doubled) == 0
            && self.unexplained == 0
            && self.counts.unaccounted == 0
            && !self.tables.iter().any(is_short)
    }
}

/// Compares the database of `config` with its stream: each message that the stream has and the ledger is past is in the database once,
/// with the same content. Table `events` is compared exactly. Events of a route are looked for by a column that has their sequence, or,
/// without one, by the number of rows. The routes of `config` must be those that the events were collected with.
///
/// The comparison is of the moment at which it begins; a collector may go on. It loads neither the database nor the stream: it sorts the
/// sequences in a temporary file, and reads the stream in parts. If there are a thousand messages or more to read, it uses a consumer in
/// the server's memory, which acknowledges nothing. Otherwise, and where no consumer can be made, it reads message by message, which takes
/// several times as long.
///
/// With `repair`, the lock of the database is taken, and missing messages are stored through the routes, some thousand in a transaction.
/// What the routes refuse becomes a dead letter. New migrations are applied, as at a start.
///
/// Blocks until that is done.
///
/// # Errors
///
/// [`Error::Config`], [`Error::Broker`], [`Error::Database`]; with `repair` also [`Error::Migration`], and [`Error::Locked`] while a
/// collector runs. [`Error::Cancelled`] if `progress` returned [`ControlFlow::Break`]. What was repaired before an error stays repaired.
pub fn verify(
    config: &Config,
    options: &VerifyOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<VerifyReport, Error> {
    let task = Task::new("the verification", progress);
    let config = config.resolved()?;
    config.validate()?;
    if config.broker.mode == Mode::Core {
        return Err(Error::config("broker.mode", "is core: there is no stream to compare with"));
    }
    if options.rewrite && !options.repair {
        return Err(Error::config("VerifyOptions::rewrite", "needs repair"));
    }
    let routes = Routes::of(&config)?;
    let filters: Vec<Filter> = config.broker.filters().iter().filter_map(|filter| filter.parse().ok()).collect();
    task.report("connecting", 0, None, "messages")?;
    let reader = StreamReader::open(&config.broker, &filters)?;
    let path = &config.database.path;
    let pruned = pruned(&config, options);
    let (mut _lock, mut database) = (None, None);
    if options.repair {
        Database::must_be_usable(&config.database, &routes)?;
        if !path.exists() {
            // The error says that there is none.
            Verification::open(path, &config.broker.stream, &routes, (&options.keys, &pruned), task)?;
        }
        let lock = Lock::take_at(path, StartPhase::Opening)?;
        let keep_going = || task.report("opening", 0, None, "messages").is_ok();
        let opened = Database::open_while(&config.database, &routes, &config.queries, &keep_going);
        let (lock, (opened, _)) = lock.keep_if_ok(opened)?;
        (_lock, database) = (Some(lock), Some(opened));
    }
    let verification = Verification::open(path, &config.broker.stream, &routes, (&options.keys, &pruned), task)?;
    Inspection::open(path)?.must_have_partition(&config.broker)?;
    let mut comparison = Comparison { reader, filters, verification, options, database, task };
    comparison.run(&config.broker.stream)
}

/// The tables from which rows are deleted on purpose, and whether these are always the oldest.
fn pruned(config: &Config, options: &VerifyOptions) -> Vec<(String, bool)> {
    let named = options.pruned.iter().map(|table| (table.clone(), true));
    let retained = config.retention.tables.iter().map(|(table, rules)| {
        let only_oldest = rules.0.iter().all(|rule| rule.condition.is_none() && rule.column.is_none());
        (table.clone(), only_oldest)
    });
    retained.chain(named).collect()
}

/// One run of a verification.
struct Comparison<'a> {
    reader: StreamReader,
    filters: Vec<Filter>,
    verification: Verification,
    options: &'a VerifyOptions,
    /// For repairs.
    database: Option<Database>,
    task: Task<'a>,
}

impl Comparison<'_> {
    fn run(&mut self, stream: &str) -> Result<VerifyReport, Error> {
        let mut report = VerifyReport {
            stream: stream.to_owned(),
            keys: self.verification.keys(),
            unknown_routes: self.verification.unknown_routes(),
            ..VerifyReport::default()
        };
        let holes = self.reader.holes()?;
        let bounds = &holes.bounds;
        let (epochs, others) = self.epochs(&bounds.created)?;
        let Some(newest) = epochs.last() else { return Ok(report) };
        report.is_collected = true;
        report.lost_before = lost_before(&epochs, self.verification.first());
        let position = epochs.iter().map(|progress| progress.mark.sequence).max().unwrap_or(0);
        let (first, last) = (bounds.first.max(self.verification.first()), position.min(bounds.last));
        let epoch = Arc::new(newest.epoch.clone());
        if first <= last {
            report.range = (first, last);
            self.compare_all(&epoch, (first, last), &epochs, &others, &mut report)?;
        }
        self.add_doubled(&mut report)?;
        let (below, above, lacking) = self.verification.outside(first, last, &epochs)?;
        let older = others.iter().map(|progress| progress.mark.sequence).max().unwrap_or(0);
        report.counts.only_stored += below;
        match above {
            0 => {}
            _ if older > last || position > last => report.counts.only_stored += above,
            _ => report.unexplained = above,
        }
        let accounts = self.verification.accounts_for_all() && holes.is_whole && bounds.keeps_acknowledged;
        if accounts && others.is_empty() {
            report.counts.unaccounted += lacking.min(first.saturating_sub(1));
        } else {
            report.counts.unaccounted = 0;
        }
        let count = |table: &crate::store::CountedTable| TableCount {
            table: table.table.clone(),
            rows: table.rows,
            messages: table.messages,
        };
        let tables = self.verification.tables().iter().filter(|table| table.messages > 0);
        report.tables = tables.map(count).collect();
        Ok(report)
    }

    /// The epochs of the stream as it is now, and those of others of the same name.
    fn epochs(&self, created: &str) -> Result<(Vec<EpochProgress>, Vec<EpochProgress>), Error> {
        let history = self.verification.history();
        let is_same = |progress: &&EpochProgress| progress.epoch.created == created;
        let (same, others): (Vec<_>, Vec<_>) = history.iter().partition(is_same);
        if same.is_empty()
            && let Some((newest, before)) = history.split_last()
            && newest.mark != Mark::START
            && self.reader.mark_at(newest.mark.sequence)? == Some(newest.mark)
        {
            // An old server may change the creation time when it restarts.
            return Ok((vec![newest.clone()], before.to_vec()));
        }
        Ok((same.into_iter().cloned().collect(), others.into_iter().cloned().collect()))
    }

    fn compare_all(
        &mut self,
        epoch: &Arc<Epoch>,
        (first, last): (u64, u64),
        epochs: &[EpochProgress],
        others: &[EpochProgress],
        report: &mut VerifyReport,
    ) -> Result<(), Error> {
        let total = last - first + 1;
        let mut batch = Batch::new(Limits { events: usize::MAX, bytes: 1 << 30 });
        let (task, mut done) = (self.task, 0);
        let mut parts = self.reader.parts(&self.filters, first..=last)?;
        loop {
            task.report("comparing", done, Some(total), "messages")?;
            let keep_going = || task.report("comparing", done, Some(total), "messages").is_ok();
            let part = parts.next_part(&keep_going)?;
            // A part that was interrupted is not all of its sequences.
            task.report("comparing", done, Some(total), "messages")?;
            let Some(StreamPart { range, messages }) = part else { return Ok(()) };
            batch.clear();
            batch.begin(Arc::clone(epoch), Mark::START);
            for message in &messages {
                message.push_to(&mut batch);
            }
            let compared = self.verification.compare(&batch, (*range.start(), *range.end()), epochs, others)?;
            self.add(&batch, &compared, report)?;
            done = range.end() + 1 - first;
        }
    }

    /// Adds what was found of some messages, and repairs it if it is to be repaired.
    fn add(&self, batch: &Batch, compared: &Compared, report: &mut VerifyReport) -> Result<(), Error> {
        report.counts += compared.counts;
        for index in &compared.missing {
            let delivery = batch.delivery(*index);
            report.missing.add(delivery.mark.sequence, None, delivery.subject.to_owned());
        }
        for (index, row, what) in &compared.differing {
            report.differing.add(batch.delivery(*index).mark.sequence, Some(*row), what.clone());
        }
        for sequence in &compared.stored_and_dead {
            report.doubled.add(*sequence, None, "it is stored, and a dead letter too".into());
        }
        let Some(database) = &self.database else { return Ok(()) };
        if !compared.missing.is_empty() {
            let repaired = database.repair(batch, &compared.missing)?;
            report.missing.repaired += repaired.stored + repaired.dead_letters;
            report.repaired_as_dead_letters += repaired.dead_letters;
        }
        if self.options.rewrite && !compared.differing.is_empty() {
            let rows: Vec<(usize, i64)> = compared.differing.iter().map(|(index, row, _)| (*index, *row)).collect();
            database.rewrite_events(batch, &rows, &[])?;
            report.differing.repaired += rows.len() as u64;
        }
        Ok(())
    }

    /// Adds the second copies of events, and deletes them if they are to be deleted.
    fn add_doubled(&self, report: &mut VerifyReport) -> Result<(), Error> {
        let doubled = self.verification.doubled_events()?;
        for (sequence, row) in &doubled {
            report.doubled.add(*sequence, Some(*row), "another row has the same message".into());
        }
        let Some(database) = self.database.as_ref().filter(|_| self.options.rewrite) else { return Ok(()) };
        let none = Batch::new(Limits { events: 0, bytes: 0 });
        for part in doubled.chunks(ROWS) {
            let rows: Vec<i64> = part.iter().map(|(_, row)| *row).collect();
            database.rewrite_events(&none, &[], &rows)?;
            report.doubled.repaired += rows.len() as u64;
            self.task.report("repairing", report.doubled.repaired, Some(doubled.len() as u64), "rows")?;
        }
        Ok(())
    }
}

impl Findings {
    fn add(&mut self, sequence: u64, row: Option<i64>, detail: String) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push(Finding { sequence, row, detail });
        }
    }
}

/// How many messages the stream lacked when they were due, but for those before the first that was collected.
fn lost_before(epochs: &[EpochProgress], first: u64) -> u64 {
    let gaps = epochs.last().into_iter().flat_map(|progress| progress.gaps.iter());
    gaps.filter(|gap| gap.first > first).map(|gap| gap.missing).sum()
}
