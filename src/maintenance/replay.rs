//! Fills a new database from a stream, beside the one that is collected into, and puts it in its place.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::broker::{
    BrokerUse, ReplayIntake, ReplayOptions as IntakeOptions, Reports, StreamBounds, StreamReader, Verdict, permissions,
    probe,
};
use crate::collect::owner;
use crate::config::{Config, DatabaseConfig, Mode};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{self, Batch, Committed, Condition, Mark, Peer, Pipeline, Refusal, Settings, Shared, Sink};
use crate::store::{
    Database, Inspection, Lock, ReplayNote, Routes, StartPhase, Writer, file_beside, followed_path, lost_by_swap,
    prepare_swap, routes_checksum, swap, undo_interrupted_swap, undo_interrupted_transaction,
};
use crate::task::{Progress, REPORT_EVERY, Task};
use crate::unix_time::{nanoseconds, now_ns};

/// How long a replay that is cancelled may take to commit what was received.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What [`replay()`] reads, and what it does with the new database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayOptions {
    /// The new database. If an earlier replay has begun it, this one continues.
    pub into: PathBuf,
    /// The first event. Default: the first that the stream has.
    pub from: ReplayStart,
    /// The last event. Default: the last that the stream has when the replay begins.
    pub until: ReplayEnd,
    /// Put the new database in the place of `database.path` once it has all of the stream. No collector may run meanwhile. Default false.
    pub swap: bool,
    /// Swap without the broker: the new database must have been filled before. What came since is collected at the next start. Only with
    /// `swap`. Default false.
    pub offline: bool,
    /// Swap even if the old database has events or tables that the new one lacks. The old one is kept beside it in any case. Default
    /// false.
    pub accept_loss: bool,
}

/// The first event of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayStart {
    /// The first that the stream has.
    #[default]
    All,
    /// The first with at least this sequence.
    Sequence(u64),
    /// The first that the stream stored at this time or later.
    Time(SystemTime),
}

/// The last event of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayEnd {
    /// The last that the stream has when the replay begins.
    #[default]
    Last,
    /// The last with at most this sequence.
    Sequence(u64),
    /// The last that the stream stored before this time.
    Time(SystemTime),
}

/// What [`replay()`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayReport {
    /// The stream.
    pub stream: String,
    /// The first sequence that the new database begins with.
    pub first: u64,
    /// The sequence up to which the new database has the stream now.
    pub position: u64,
    /// Events that this call has committed, dead letters included.
    pub events: u64,
    /// How many of them are dead letters.
    pub dead_letters: u64,
    /// How many of them were dropped, because no route takes them.
    pub dropped: u64,
    /// How many of them a recorder had sent twice; the second copy changes nothing.
    pub repeated: u64,
    /// How many events of the stream the old database has that the new one has not come to yet: the next start collects them.
    pub behind: u64,
    /// Where the old database is now, if the new one is in its place.
    pub replaced: Option<PathBuf>,
    /// What the old database has and the new one lacks, in words. Only with `swap`.
    pub lost: Vec<String>,
}

/// Fills a new database from the stream of `config`, through its routes and with its migrations. `config.database.path` is the database
/// that is collected into: it is not read, and a collector may go on. The new one gets the other settings of `config.database`.
///
/// The stream is read through a consumer of the new database in the server's memory, which acknowledges nothing. Where the stream does
/// not keep acknowledged messages, or allows no further consumer, it is read message by message, which is slower.
///
/// The ledger of the new database is moved in the transactions of the rows. So a replay that ends at any moment can be called again with
/// the same options, and continues. It may then have another end.
///
/// With `swap` it takes the lock of the old database for the whole time, so no collector starts meanwhile. When the new one has all of
/// the stream, the old one is renamed to `<path>.replaced`, and the new one takes its place and its identity. The next collector
/// continues where the replay has ended.
///
/// Blocks until that is done.
///
/// # Errors
///
/// - [`Error::Config`]: the settings or the options cannot be used; the new database was begun with other routes or another start.
/// - [`Error::Broker`], unless `offline`: the stream cannot be read. A connection that is lost later is opened again.
/// - [`Error::Database`] or [`Error::Migration`]: the new database cannot be written; with `swap`, the old one has something that the
///   new one lacks, or another program has it open.
/// - [`Error::Locked`]: another replay fills the new database; with `swap`, a collector uses the old one.
/// - [`Error::Cancelled`]: `progress` returned [`ControlFlow::Break`]. What was received is committed.
pub fn replay(
    config: &Config,
    options: &ReplayOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<ReplayReport, Error> {
    replay_reporting(config, options, progress, &mut None)
}

/// The same, with a report of how far a replay came that was cancelled while it read the stream.
pub(crate) fn replay_reporting(
    config: &Config,
    options: &ReplayOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
    cancelled: &mut Option<ReplayReport>,
) -> Result<ReplayReport, Error> {
    let task = Task::new("the replay", progress);
    let mut config = config.resolved()?;
    config.validate()?;
    config.broker.create_stream = false;
    let live = config.database.path.clone();
    examine(&config, options)?;
    let _live_lock = if options.swap {
        prepare_swap(&live, &options.into)?;
        let lock = Lock::take(&live)?;
        undo_interrupted_transaction(&live)?;
        Inspection::open(&live)?.must_have_partition(&config.broker)?;
        Some(lock)
    } else {
        None
    };
    let new = DatabaseConfig { path: options.into.clone(), ..config.database.clone() };
    let routes = Routes::of(&config)?;
    let lock = Lock::take_at(&new.path, StartPhase::Opening)?;
    let mut fill = || {
        undo_interrupted_transaction(&new.path)?;
        let note = ReplayNote::of(&new.path)?;
        undo_interrupted_swap(&live, &new.path)?;
        Filling { config: &config, new: &new, routes: &routes, options, task }.run(note, cancelled)
    };
    let filled = fill().map_err(|error| match &error {
        Error::Database { fault: DatabaseFault::Corrupt, path, .. } if *path == new.path => {
            error.with_remedy("set ReplayOptions::into to another file")
        }
        _ => error,
    });
    let (_lock, mut report) = lock.keep_if_ok(filled)?;
    if options.swap {
        task.report("swapping", 0, None, "files")?;
        (report.lost, report.behind) = lost_by_swap(&live, &new.path, &report.stream)?;
        if !report.lost.is_empty() && !options.accept_loss {
            let detail = format!("it has what {} lacks: {}", new.path.display(), report.lost.join("; "));
            let fault = DatabaseFault::Conflict;
            let error = Error::database(fault, live, detail);
            return Err(error.with_remedy(ACCEPT));
        }
        report.replaced = Some(swap(&live, &new.path)?);
        // Its database is gone from there.
        let lock_file = file_beside(&new.path, ".lock");
        if let Err(error) = std::fs::remove_file(&lock_file) {
            log::debug!("{} cannot be removed: {error}", lock_file.display());
        }
    }
    Ok(report)
}

/// The remedy for a swap that loses something.
const ACCEPT: &str = "set ReplayOptions::accept_loss to swap all the same; the old database is kept beside the new one";

/// Refuses options that contradict each other.
fn examine(config: &Config, options: &ReplayOptions) -> Result<(), Error> {
    let refused = |key: &str, detail: &str| Err(Error::config(key, detail));
    if config.broker.mode == Mode::Core {
        return refused("broker.mode", "is core: there is no stream to replay");
    }
    if options.into.as_os_str().is_empty() {
        return refused("ReplayOptions::into", "is empty: name the new database");
    }
    if followed_path(&options.into) == followed_path(&config.database.path) {
        return refused("ReplayOptions::into", "is the database that is collected into; name a new file beside it");
    }
    let first = if let ReplayStart::Sequence(first) = options.from { first } else { 1 };
    if matches!(options.until, ReplayEnd::Sequence(until) if until < first.max(1)) {
        return refused("ReplayOptions::until", "is before the first event: there is nothing to replay");
    }
    if matches!(options.from, ReplayStart::Time(from) if from > SystemTime::now()) {
        return refused("ReplayOptions::from", "is in the future: there is nothing to replay");
    }
    if let (ReplayStart::Time(from), ReplayEnd::Time(until)) = (options.from, options.until)
        && until <= from
    {
        return refused("ReplayOptions::until", "is not after the first event's time: there is nothing to replay");
    }
    if options.offline && !options.swap {
        return refused("ReplayOptions::offline", "needs swap: without the broker there is nothing to replay");
    }
    if options.swap && options.until != ReplayEnd::Last {
        return refused(
            "ReplayOptions::until",
            "cannot be combined with swap: the new database must have all of the stream",
        );
    }
    Ok(())
}

/// One run of a replay.
struct Filling<'a> {
    config: &'a Config,
    new: &'a DatabaseConfig,
    routes: &'a Routes,
    options: &'a ReplayOptions,
    task: Task<'a>,
}

impl Filling<'_> {
    fn run(&self, note: Option<ReplayNote>, cut: &mut Option<ReplayReport>) -> Result<ReplayReport, Error> {
        let Self { config, new, routes, task, .. } = *self;
        let broker = &config.broker;
        if self.options.offline {
            return self.without_broker(note);
        }
        task.report("connecting", 0, None, "events")?;
        let filters: Vec<_> = broker.filters().iter().filter_map(|filter| filter.parse().ok()).collect();
        let reader = StreamReader::open(broker, &filters)?;
        let bounds = reader.bounds()?;
        let checksum = routes_checksum(&config.routes, config.unmatched, config.delete_markers);
        let begins = match &note {
            Some(note) => self.must_be_the_same(note, &checksum).map(|()| None)?,
            None => Some(self.beginning(&reader, &bounds, checksum)?),
        };
        let until = self.end(&reader, &bounds)?;
        let first = begins.as_ref().map(|(note, _)| note).or(note.as_ref()).map_or(1, |note| note.first);
        if self.options.until != ReplayEnd::Last && until < first {
            let detail = format!("is before the first event, which has sequence {first}: there is nothing to replay");
            return Err(Error::config("ReplayOptions::until", detail));
        }
        // A collector that starts later has queries too, and a migration must not break them.
        let cancelled = Cell::new(None);
        let keep_going = || match task.report("opening", 0, None, "events") {
            Ok(()) => true,
            Err(error) => {
                cancelled.set(Some(error));
                false
            }
        };
        let opened = Database::open_while(new, routes, &config.queries, &keep_going);
        let (database, _) = match cancelled.take() {
            Some(error) => return Err(error),
            None => opened?,
        };
        database.must_have_partition(broker)?;
        database.note_partition(broker, 0)?;
        if let Some((note, before)) = &begins {
            database.begin_replay(note, *before)?;
        }
        let mut report = ReplayReport { stream: broker.stream.clone(), first, ..ReplayReport::default() };
        let history = database.history(&broker.stream)?;
        let at = history.last().map_or(0, |progress| progress.mark.sequence);
        let is_same_stream = history.last().is_none_or(|progress| progress.epoch.created == bounds.created);
        report.position = at;
        if is_same_stream && at >= until.min(bounds.last) && at > 0 {
            database.close_log();
            return Ok(report);
        }
        drop(reader);
        let filled = self.fill(database, (at, until.min(bounds.last)), &bounds, &mut report);
        if let Err(Error::Cancelled { .. }) = filled {
            *cut = Some(report.clone());
        }
        filled.map(|()| report)
    }

    /// What an earlier replay has filled.
    fn without_broker(&self, note: Option<ReplayNote>) -> Result<ReplayReport, Error> {
        let Self { config, new, .. } = *self;
        let Some(note) = note else {
            let detail = format!("there is no {} that a replay has filled", new.path.display());
            return Err(
                Error::config("ReplayOptions::offline", detail).with_remedy("replay into it first, with the broker")
            );
        };
        let checksum = routes_checksum(&config.routes, config.unmatched, config.delete_markers);
        self.must_be_the_same(&note, &checksum)?;
        let history = Inspection::open(&new.path)?.history(&note.stream)?;
        let position = history.last().map_or(0, |progress| progress.mark.sequence);
        Ok(ReplayReport { stream: note.stream, first: note.first, position, ..ReplayReport::default() })
    }

    /// Runs the pipeline from the stream into the new database.
    fn fill(
        &self,
        database: Database,
        (start, end): (u64, u64),
        bounds: &StreamBounds,
        report: &mut ReplayReport,
    ) -> Result<(), Error> {
        let Self { config, task, .. } = *self;
        let file = database.file_identity()?;
        let shared = Shared::new("database");
        let reports = Reports {
            counters: shared.counters.clone(),
            condition: Condition::new("broker"),
            progress: shared.progress.clone(),
            peer: Peer::default(),
        };
        let options = IntakeOptions {
            owner: owner(database.identity(), &file),
            history: database.history(&config.broker.stream)?,
            until: end,
            keeps_acknowledged: bounds.keeps_acknowledged,
            no_consumer: no_consumer(config, bounds)?,
            pipeline_holds: pipeline::holds(&config.batch, config.database.writers),
        };
        let keep_going = || task.report("connecting", 0, None, "events").is_ok();
        let intake = ReplayIntake::open(&config.broker, options, &keep_going, &shared.stop, &reports)?;
        database.record_file(&file)?;
        let database = Arc::new(database);
        let path = &self.new.path;
        let sink = |writer| ReplaySink { writer, path: path.clone(), _database: Arc::clone(&database) };
        let sinks = database.writers().into_iter().map(sink);
        let pipeline =
            Pipeline::start(intake, sinks.collect::<Vec<_>>(), Settings::from(&config.batch), shared.clone())?;
        let total = end.saturating_sub(start);
        let mut cancelled = None;
        while !pipeline.wait(REPORT_EVERY)? {
            let position = shared.progress.position().map_or(start, |position| position.sequence);
            let done = position.saturating_sub(start).min(total);
            if let Err(error) = task.report("replaying", done, Some(total), "events") {
                pipeline.stop(TIMEOUT)?;
                cancelled = Some(error);
                break;
            }
        }
        let counters = &shared.counters;
        report.events = counters.committed.get();
        report.dead_letters = counters.dead_letters.get();
        report.dropped = counters.unmatched_dropped.get();
        report.repeated = counters.duplicates.get();
        drop(pipeline);
        report.position = database.history(&config.broker.stream)?.last().map_or(0, |progress| progress.mark.sequence);
        database.close_log();
        match cancelled {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Refuses to continue with other routes or from elsewhere.
    fn must_be_the_same(&self, note: &ReplayNote, checksum: &str) -> Result<(), Error> {
        let (stream, path) = (&self.config.broker.stream, self.new.path.display());
        let begun = |what: &str, remedy: &str| {
            let error = Error::config("ReplayOptions::into", format!("{path} was begun with {what}"));
            Err(error.with_remedy(format!("{remedy}, or name a new file")))
        };
        if note.stream != *stream {
            return begun(&format!("stream {}", note.stream), "name that stream");
        }
        if note.routes != checksum {
            return begun("other routes", "give those");
        }
        let start = start_in_words(self.options.from);
        if note.start != start {
            return begun(&format!("another start ({}) than this ({start})", note.start), "give that one");
        }
        Ok(())
    }

    /// What the new database notes, and the mark before its first event.
    fn beginning(
        &self,
        reader: &StreamReader,
        bounds: &StreamBounds,
        checksum: String,
    ) -> Result<(ReplayNote, Mark), Error> {
        let first = match self.options.from {
            ReplayStart::All => 1,
            ReplayStart::Sequence(sequence) => sequence.max(1),
            ReplayStart::Time(time) => reader.first_since(bounds, nanoseconds(time))?,
        };
        let is_next = self.options.from == ReplayStart::Sequence(bounds.last + 1);
        // Also where the last events were deleted. The next event may be waited for.
        if self.options.from != ReplayStart::All && !is_next && reader.mark_from(first)?.is_none() {
            let (stream, last) = (reader.stream(), bounds.last);
            let what = format!("stream {stream} has no event there or later, and ends at sequence {last}");
            return Err(Error::config("ReplayOptions::from", format!("{what}: there is nothing to replay")));
        }
        let first = if first > 1 { first.max(bounds.first) } else { 1 };
        let note = ReplayNote {
            stream: reader.stream().to_owned(),
            created: bounds.created.clone(),
            start: start_in_words(self.options.from),
            first,
            routes: checksum,
        };
        Ok((note, if first > 1 { mark_before(reader, first)? } else { Mark::START }))
    }

    /// The last sequence to read.
    fn end(&self, reader: &StreamReader, bounds: &StreamBounds) -> Result<u64, Error> {
        Ok(match self.options.until {
            ReplayEnd::Last => u64::MAX,
            ReplayEnd::Sequence(sequence) => sequence,
            ReplayEnd::Time(time) => reader.first_since(bounds, nanoseconds(time))?.saturating_sub(1),
        })
    }
}

/// Why not to read through a consumer, if anything speaks against it. To a request without permission the server would never answer.
fn no_consumer(config: &Config, bounds: &StreamBounds) -> Result<Option<String>, Error> {
    if bounds.limits_consumers {
        return Ok(Some("it may have only so many consumers (max_consumers)".into()));
    }
    let needed = permissions(config, BrokerUse::Replay);
    let verdicts = probe(&config.broker, &needed)?;
    let denied = needed.iter().zip(verdicts).find(|(_, verdict)| *verdict == Verdict::Denied);
    Ok(denied.map(|(permission, _)| format!("this user may not publish to {}", permission.subject)))
}

/// A mark for the ledger directly before this sequence. If the stream has no message there, its time is not later than that of the next.
fn mark_before(reader: &StreamReader, first: u64) -> Result<Mark, Error> {
    if let Some(mark) = reader.mark_at(first - 1)? {
        return Ok(mark);
    }
    let published_ns = match reader.mark_from(first)? {
        Some(next) => next.published_ns,
        None => now_ns(),
    };
    Ok(Mark { sequence: first - 1, published_ns })
}

fn start_in_words(start: ReplayStart) -> String {
    match start {
        ReplayStart::All => "all".into(),
        ReplayStart::Sequence(sequence) => format!("sequence {sequence}"),
        // An age gives another time at each call: the first call decides.
        ReplayStart::Time(_) => "a time".into(),
    }
}

/// A writer, which keeps its database open.
struct ReplaySink {
    writer: Writer,
    path: PathBuf,
    _database: Arc<Database>,
}

impl Sink for ReplaySink {
    fn prepare(&mut self, batch: &Batch) {
        self.writer.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        match self.writer.commit(batch) {
            // A collector waits until there is room again. Who has called for a replay is there, and calls again.
            Err(Refusal::Retry(problem)) if problem.fault != DatabaseFault::Busy => {
                Err(Refusal::Fatal(problem.at(&self.path)))
            }
            done => done,
        }
    }
}
