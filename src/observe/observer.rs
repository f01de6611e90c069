//! Samples a collector once a second, and makes snapshots of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::dead_letters::Watch;
use super::history::{History, Sample};
use super::process::disk_free;
use super::readiness::{Facts, Finding, Readiness};
use super::snapshot::{
    Figures, IncidentLine, JobFigures, Lag, Position, ProcessFigures, Program, QueryFigures, Queue, Rates,
    RetentionFigures, RouteFigures, Snapshot, Source, State, StorageFigures, Totals, Trouble,
};
use super::summary;
use super::time::{shown, unix_seconds};
use crate::config::{Config, Mode};
use crate::error::Error;
use crate::pipeline::Signal;
use crate::store::{FileSizes, sqlite_version};
use crate::{Collector, Status, printable};

/// How often the collector is sampled.
const EVERY: Duration = Duration::from_secs(1);

/// A sample that is older than this shows that the observer itself hangs.
const STALE: Duration = Duration::from_secs(10);

const THREAD: &str = "catchment-observer";

/// Observes a collector. Clones share what they see.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Shared>);

/// How far a collector is.
#[derive(Clone, Debug, Default)]
pub enum Phase {
    /// It has not started.
    #[default]
    Starting,
    /// It collects.
    Running(Arc<Collector>),
    /// It was asked to stop.
    Stopping(Arc<Collector>),
}

#[derive(Debug)]
struct Shared {
    source: Source,
    path: PathBuf,
    started: (SystemTime, Instant),
    phase: Mutex<Phase>,
    seen: Mutex<Seen>,
}

/// What the samples have shown.
#[derive(Debug)]
struct Seen {
    history: History,
    readiness: Readiness,
    letters: Watch,
    sizes: FileSizes,
    disk_free: Option<u64>,
    process: ProcessFigures,
    last: Instant,
}

/// The thread that samples. Dropping this ends it.
#[derive(Debug)]
pub struct Sampling {
    stop: Signal,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Sampling {
    fn drop(&mut self) {
        self.stop.raise();
        // A panic is on standard error already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Observer {
    /// Observes the collector of these settings, which has not started yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let now = Instant::now();
        let seen = Seen {
            history: History::default(),
            readiness: Readiness::new(&config.observe, now),
            letters: Watch::default(),
            sizes: FileSizes::default(),
            disk_free: None,
            process: ProcessFigures::default(),
            last: now,
        };
        let is_stream = config.broker.mode == Mode::Jetstream;
        let source = Source {
            mode: if is_stream { "jetstream" } else { "core" }.into(),
            stream: is_stream.then(|| config.broker.stream.clone()),
            partition: config.broker.partition,
            partitions: config.broker.partitions,
            servers: config.broker.shown_servers(),
            ..Source::default()
        };
        Self(Arc::new(Shared {
            source,
            path: config.database.path.clone(),
            started: (SystemTime::now(), now),
            phase: Mutex::default(),
            seen: Mutex::new(seen),
        }))
    }

    /// Notes how far the collector is.
    pub fn set_phase(&self, phase: Phase) {
        *self.0.phase.lock() = phase;
        self.sample();
    }

    /// Samples on a thread until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub fn start(&self) -> Result<Sampling, Error> {
        let (stop, observer) = (Signal::default(), self.clone());
        let stopped = stop.clone();
        let work = move || {
            while !stopped.wait(EVERY) {
                observer.sample();
            }
        };
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(work);
        let thread = thread.map_err(|source| Error::Thread { name: THREAD.into(), source })?;
        Ok(Sampling { stop, thread: Some(thread) })
    }

    /// Takes a sample now. Blocks for reads of files.
    fn sample(&self) {
        let phase = self.0.phase.lock().clone();
        let process = ProcessFigures::read();
        let (sizes, disk_free) = (FileSizes::of(&self.0.path), disk_free(&self.0.path));
        let now = Instant::now();
        let Phase::Running(collector) = &phase else {
            let mut seen = self.0.seen.lock();
            (seen.process, seen.sizes, seen.disk_free, seen.last) = (process, sizes, disk_free, now);
            return;
        };
        let status = collector.status();
        let facts = Facts { was_replaced: collector.database_was_replaced(), has_ended: collector.has_ended() };
        // Taken out meanwhile, because the read may block, and a snapshot must not.
        let mut letters = std::mem::take(&mut self.0.seen.lock().letters);
        if !facts.was_replaced {
            letters.look(now, &self.0.path, status.dead_letters);
        }
        let mut seen = self.0.seen.lock();
        seen.letters = letters;
        seen.history.add(now, &status, sizes.wal);
        seen.readiness.note(now, &status, facts);
        (seen.process, seen.sizes, seen.disk_free, seen.last) = (process, sizes, disk_free, now);
    }

    /// The samples of the last minutes, the latest last.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.0.seen.lock().history.samples().copied().collect()
    }

    /// The figures now. Does not block.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let phase = self.0.phase.lock().clone();
        let (status, subjects, is_stopping) = match &phase {
            Phase::Starting => (Status::default(), Vec::new(), false),
            Phase::Running(collector) => (collector.status(), collector.subjects().to_vec(), false),
            Phase::Stopping(collector) => (collector.status(), collector.subjects().to_vec(), true),
        };
        let (at, now) = (SystemTime::now(), Instant::now());
        let seen = self.0.seen.lock();
        let is_starting = matches!(phase, Phase::Starting);
        let findings = self.findings(&seen, now, &status, is_starting, is_stopping);
        let reasons: Vec<Trouble> = findings.iter().filter(|f| f.is_unready).map(|f| f.trouble.clone()).collect();
        let state = match (&phase, findings.is_empty(), reasons.is_empty()) {
            (Phase::Starting, ..) => State::Starting,
            (Phase::Stopping(_), ..) => State::Stopping,
            (Phase::Running(_), true, _) => State::Well,
            (Phase::Running(_), false, true) => State::Degraded,
            (Phase::Running(_), false, false) => State::Failed,
        };
        let earlier = seen.history.a_minute_before(now);
        let connected = status.connected.as_ref();
        let source = Source {
            subjects,
            connected: connected.map(|connected| connected.server.clone()),
            connected_since: connected.map(|connected| shown(connected.since)),
            reconnects: status.reconnects,
            ..self.0.source.clone()
        };
        let mut snapshot = Snapshot {
            format: 1,
            at: shown(at),
            state,
            summary: String::new(),
            ready: reasons.is_empty(),
            reasons,
            troubles: findings.into_iter().map(|finding| finding.trouble).collect(),
            program: self.program(now),
            source,
            position: status.position.map(|position| Position {
                epoch: position.epoch,
                sequence: position.sequence,
                published: position.published.map(shown),
            }),
            lag: Lag::of(&status),
            last_commit: status.last_commit.map(shown),
            last_commit_unix_seconds: status.last_commit.map(unix_seconds),
            last_commit_seconds: status
                .last_commit
                .map(|last| at.duration_since(last).unwrap_or_default().as_secs_f64()),
            totals: Totals::of(&status),
            rates: if is_starting { Rates::default() } else { seen.history.rates(now, &status) },
            queue: Queue { events: status.queue_events, bytes: status.queue_bytes },
            commit_seconds: Figures::of(&status.commit_duration, &earlier.commit),
            batch_events: Figures::of(&status.batch_events, &earlier.batch),
            publish_to_commit_seconds: Figures::of(&status.publish_to_commit, &earlier.delay),
            database: self.storage(&seen, &status),
            dead_letters: seen.letters.letters(),
            routes: status.routes.iter().map(RouteFigures::of).collect(),
            queries: status.queries.iter().map(QueryFigures::of).collect(),
            upkeep: status.upkeep.iter().map(JobFigures::of).collect(),
            retention: RetentionFigures::of(&status.retention),
            process: seen.process,
            incidents: status.incidents.iter().rev().map(IncidentLine::of).collect(),
        };
        snapshot.summary = summary::of(&snapshot);
        snapshot
    }

    fn findings(
        &self,
        seen: &Seen,
        now: Instant,
        status: &Status,
        is_starting: bool,
        is_stopping: bool,
    ) -> Vec<Finding> {
        let since_start = now.saturating_duration_since(self.0.started.1);
        let finding = |part: &str, reason: &str, lasted: Duration| {
            let trouble = Trouble { part: part.into(), reason: reason.into(), for_seconds: lasted.as_secs_f64() };
            Finding { trouble, is_unready: true }
        };
        if is_starting {
            return vec![finding("collector", "it has not started yet", since_start)];
        }
        let mut findings = seen.readiness.findings(now, status);
        let age = now.saturating_duration_since(seen.last);
        if age >= STALE {
            let reason = "its figures are old: reading the database's files takes too long";
            findings.push(finding("observer", reason, age));
        }
        if is_stopping {
            findings.insert(0, finding("collector", "it was asked to stop", Duration::ZERO));
        }
        findings
    }

    fn program(&self, now: Instant) -> Program {
        let (started, began) = self.0.started;
        Program {
            version: env!("CARGO_PKG_VERSION").into(),
            sqlite: sqlite_version().into(),
            pid: std::process::id(),
            started: shown(started),
            up_seconds: now.saturating_duration_since(began).as_secs_f64(),
        }
    }

    fn storage(&self, seen: &Seen, status: &Status) -> StorageFigures {
        let found = seen.letters.found.as_ref();
        StorageFigures {
            path: printable(&self.0.path.to_string_lossy()).into_owned(),
            file_bytes: seen.sizes.database,
            wal_bytes: seen.sizes.wal,
            wal_pages: status.wal_pages,
            wal_pages_copied: status.wal_pages_copied,
            page_bytes: found.map_or(0, |found| found.page_size),
            pages: found.map_or(0, |found| found.pages),
            free_pages: found.map_or(0, |found| found.free_pages),
            disk_free_bytes: seen.disk_free,
        }
    }
}
