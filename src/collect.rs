//! The collector: reads a stream and writes a database.

mod broker_wait;
mod partition;
mod parts;
#[cfg(feature = "cli")]
mod pulse;
mod reload;
mod services;
mod sink;
mod status;
mod upkeep;

pub use status::Status;

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::broker::{Cluster, CoreIntake, IntakeOptions, JetStreamIntake, OriginalDatabase, Owner, Reports};
use crate::config::{Config, Mode, validate_queries_of_stream};
use crate::deadline;
use crate::error::Error;
use crate::pipeline::{self, Condition, Health, Peer, Pipeline, Settings, Shared, Signal};
use crate::query::{self, Service, ServiceState};
#[cfg(feature = "cli")]
use crate::store::ReloadNote;
use crate::store::{Database, FileIdentity, Lock, PreviousFile, RouteSwitch, Routes, StartPhase};
use crate::upkeep::Upkeep;
use broker_wait::retry_until_broker;
use parts::Parts;
#[cfg(feature = "cli")]
pub(crate) use pulse::Pulse;
use services::Services;
use sink::CollectorSink;

/// A running collector. It works on its own threads until it is stopped or dropped. [`Collector::stop`] commits what was received.
/// Dropping the collector does not: what is not committed stays in the stream, and in mode `core` it is lost.
///
/// Threads can share a collector, by reference or in an `Arc`. One may wait in [`Collector::wait`] while another stops it.
///
/// ```no_run
/// use catchment::{Collector, Config};
/// use std::time::Duration;
///
/// let collector = Collector::start(&Config::default())?;
/// std::thread::sleep(Duration::from_secs(60));
/// collector.stop(Duration::from_secs(10))?;
/// # Ok::<(), catchment::Error>(())
/// ```
#[derive(Debug)]
pub struct Collector {
    pipeline: Pipeline,
    services: Services,
    service_state: ServiceState,
    upkeep: Upkeep,
    /// Gone once all writers have ended.
    database: Weak<Database>,
    switch: RouteSwitch,
    /// Locked during a reload.
    running: Mutex<Running>,
    parts: Parts,
    mode: Mode,
    subjects: Vec<String>,
    /// `None` once all threads have ended.
    lock: Mutex<Option<Lock>>,
}

/// The settings in use, resolved.
#[derive(Debug)]
struct Running {
    /// As they were given.
    given: Config,
    /// With the subjects of the stream.
    completed: Config,
}

/// What [`Collector::reload`] has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// The settings that have other values now: `batch.linger`, `route message`, `query chat.recent (removed)`. Empty if nothing
    /// differs.
    pub changed: Vec<String>,
    /// Migrations that the next start will apply. A reload applies none.
    pub pending_migrations: Vec<String>,
}

/// How long a collector collects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// Until it is stopped.
    Stopped,
    /// Until everything that is in the stream at the start is committed. Not in mode `core`, where there is no stream.
    Drained,
}

impl Collector {
    /// Starts collecting. Blocks until the database is open, the stream is found or made, and the first consumer is made. That takes
    /// at most a few times `broker.timeout` and `database.busy_timeout`, and longer if
    ///
    /// - migrations are applied;
    /// - the broker is not available: up to `broker.wait`;
    /// - another process seems to use the database's consumer: up to 12 seconds. After a process has died, the server may need
    ///   10 seconds to notice it, and until then the consumer seems to be in use.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Locked`], [`Error::Database`], [`Error::Migration`], [`Error::Thread`] or [`Error::Broker`]:
    /// everything that would prevent the first event from being stored, wrong SQL of a route or query included. A copy of a
    /// database is refused while its original exists ([`DatabaseFault::Copy`](crate::error::DatabaseFault::Copy)) or is in use
    /// ([`BrokerFault::Contested`](crate::error::BrokerFault::Contested)). Files that a failed start has made are removed, unless something is stored in them.
    ///
    /// A database that has tables of the program's own, and none of catchment's, is accepted: catchment adds its tables.
    ///
    /// After the start, a problem that waiting can solve does not end the collector: it tries again and reports the problem in
    /// [`Collector::status`]. Neither does a problem that prevents queries from being answered, at the start or later.
    pub fn start(config: &Config) -> Result<Self, Error> {
        Self::start_until(config, Until::Stopped)
    }

    /// Like [`Collector::start`]. With [`Until::Drained`] the collector ends by itself; [`Collector::wait`] waits for that.
    ///
    /// # Errors
    ///
    /// As [`Collector::start`].
    pub fn start_until(config: &Config, until: Until) -> Result<Self, Error> {
        Self::start_while(config, until, &|| true)
    }

    /// Like [`Collector::start_until`]. While it opens the database and while it waits for the broker (`broker.wait`), it calls
    /// `keep_going` several times a second and gives up as soon as that returns `false`. Migrations that are not complete by then are
    /// rolled back. A single step of SQLite, such as the commit, is not interrupted.
    ///
    /// # Errors
    ///
    /// As [`Collector::start`]. With [`DatabaseFault::Interrupted`](crate::error::DatabaseFault::Interrupted) where `keep_going` returned
    /// `false` while the database was opened.
    pub fn start_while(config: &Config, until: Until, keep_going: &dyn Fn() -> bool) -> Result<Self, Error> {
        Self::start_locked(config, until, keep_going, None)
    }

    /// Like [`Collector::start_while`], where the process may have taken the database's lock before.
    pub(crate) fn start_locked(
        config: &Config,
        until: Until,
        keep_going: &dyn Fn() -> bool,
        held: Option<Lock>,
    ) -> Result<Self, Error> {
        let (config, routes) = match prepare(config, until) {
            Ok(prepared) => prepared,
            Err(error) => {
                held.into_iter().for_each(Lock::withdraw);
                return Err(error);
            }
        };
        let lock = match held {
            Some(lock) => lock,
            None => Lock::take_at(&config.database.path, StartPhase::Opening)?,
        };
        let started = Self::start_holding(&lock, config, &routes, until, keep_going);
        let (lock, collector) = lock.keep_if_ok(started)?;
        *collector.lock.lock() = Some(lock);
        Ok(collector)
    }

    /// Starts with valid settings. The caller keeps the database's lock.
    fn start_holding(
        lock: &Lock,
        mut config: Config,
        routes: &Routes,
        until: Until,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        if config.broker.mode == Mode::Core {
            lock.note_core();
        }
        lock.note(StartPhase::Opening);
        let (database, queries) = Database::open_while(&config.database, routes, &config.queries, keep_going)?;
        database.check_retention(&config.retention)?;
        lock.note(StartPhase::Connecting);
        let parts = Parts {
            shared: Shared::new("database"),
            broker: Condition::new("broker"),
            intake: Condition::new("intake"),
            service: Condition::new("service"),
            peer: Peer::default(),
            routes: database.route_counters().clone(),
            file: database.file().clone(),
            wal: Arc::clone(database.wal()),
            retention: Arc::default(),
        };
        let Parts { shared, broker, intake, peer, .. } = &parts;
        let reports = Reports {
            counters: shared.counters.clone(),
            condition: broker.clone(),
            progress: shared.progress.clone(),
            peer: peer.clone(),
        };
        let settings = Settings::from(&config.batch);
        let given = config.clone();
        let (confirmed, confirmations) = routes.confirms().then(query::confirmations).unzip();
        let (writers, switch) = database.writers_with(confirmed);
        let database = Arc::new(database);
        let sink = |writer| CollectorSink::new(writer, &database);
        let (sinks, stop) = (writers.into_iter().map(sink).collect::<Vec<_>>(), shared.stop.clone());
        let pipeline = match config.broker.mode {
            Mode::Jetstream => {
                let stream = open_stream(&mut config, &database, until, &stop, &reports, keep_going)?;
                Pipeline::start(stream, sinks, settings, shared.clone())?
            }
            Mode::Core => {
                let epoch = database.begin_local()?;
                let subjects = retry_until_broker(&config.broker, keep_going, || {
                    let switch = switch.clone();
                    let confirms = move |subject: &str| switch.confirms_on(subject);
                    let cluster = Cluster::new(&config.broker)?;
                    CoreIntake::open(cluster, confirms, epoch.clone(), &stop, &reports, intake)
                })?;
                Pipeline::start(subjects, sinks, settings, shared.clone())?
            }
        };
        // Only the writers have a sender: when they end, the service sees that nothing more will be committed.
        let (state, counters, condition) = (ServiceState::default(), &parts.shared.counters, &parts.service);
        let service = Service::start(&config, &database, &queries, confirmations, counters, condition, &state)?;
        let upkeep = Upkeep::new();
        upkeep.use_jobs(upkeep.prepare(upkeep::jobs(&config, &database, &parts.retention))?);
        lock.note(StartPhase::Running);
        Ok(Self {
            pipeline,
            services: Services::new(service),
            service_state: state,
            upkeep,
            database: Arc::downgrade(&database),
            switch,
            parts,
            mode: config.broker.mode,
            subjects: config.broker.filters(),
            running: Mutex::new(Running { given, completed: config }),
            lock: Mutex::new(None),
        })
    }

    /// Filters for the events that it collects: `broker.subjects`, each once. If that is not set, the subjects that the stream stored
    /// when the collector started; `>` if they are not known, as with a mirror of a whole stream. Does not block.
    #[must_use]
    pub fn subjects(&self) -> &[String] {
        &self.subjects
    }

    /// Blocks until the collector has ended, at most for `timeout`. Returns whether it has ended: with [`Until::Drained`] everything is
    /// committed then. A collector ends by itself when it has failed, or with [`Until::Drained`]; and it ends when another thread
    /// calls [`Collector::stop`].
    ///
    /// # Errors
    ///
    /// What made the collector fail: another program advanced the ledger, a table is missing, another collector uses a clone of the
    /// database, or a thread of the library panicked. Each call returns it; only the first one has the error's source.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        self.pipeline.wait(timeout)
    }

    /// Blocks until the event with this sequence of the stream is committed, and all events before it, at most for `timeout`. Returns
    /// whether it is: `false` where `timeout` is over, or the collector has ended before. A program that has recorded an event can read
    /// it from the database then. The receipt of a [`NatsRecorder`](crate::NatsRecorder) has the sequence:
    ///
    /// ```no_run
    /// use catchment::{Collector, Config, Event, NatsRecorder, Recorder};
    /// use std::time::Duration;
    ///
    /// let collector = Collector::start(&Config::default())?;
    /// let recorder = NatsRecorder::connect("nats://127.0.0.1:4222")?;
    /// let receipt = recorder.record(Event::new("events.door", "open"))?;
    /// if let Some(sequence) = receipt.wait(Duration::from_secs(5))?.sequence() {
    ///     assert!(collector.wait_for(sequence, Duration::from_secs(5))?);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Committed includes dead letters and events that are dropped because no route takes them. An event that is not to be collected
    /// counts as committed too: one that the stream has deleted, one on other subjects than `broker.subjects`, one that an earlier
    /// epoch of the stream has stored. Where such events are the stream's last, this is noticed within half of `broker.silence`.
    ///
    /// A sequence is one of the stream that is collected, as it is now. After the stream is created again, sequences begin again.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] in mode `core`, where events have no sequences. Otherwise as [`Collector::wait`].
    pub fn wait_for(&self, sequence: u64, timeout: Duration) -> Result<bool, Error> {
        /// How long the threads of an ended pipeline may take until their error is known.
        const LEAVE: Duration = Duration::from_secs(1);
        if self.mode == Mode::Core {
            let reason = "is core: events have no sequence, so none can be waited for; use jetstream";
            return Err(Error::config("broker.mode", reason));
        }
        let progress = &self.parts.shared.progress;
        if progress.wait_for(sequence, deadline::after(timeout)) {
            return Ok(true);
        }
        if progress.has_ended() {
            self.pipeline.wait(LEAVE)?;
        }
        Ok(false)
    }

    /// The counters and conditions at this moment. Does not block.
    #[must_use]
    pub fn status(&self) -> Status {
        self.parts.status(self.services.queries(), self.service_state.counts(), &self.upkeep)
    }

    /// Notes in the lock file what was done about reloads: `catchment reload` reads it.
    #[cfg(feature = "cli")]
    pub(crate) fn note_reloads(&self, note: &ReloadNote) {
        self.lock.lock().iter().for_each(|lock| lock.note_reloads(note));
    }

    /// What is wrong at this moment, and since when: the broker is unreachable or silent, the database is locked or full, queries are
    /// not answered. Does not block.
    #[must_use]
    pub fn health(&self) -> Health {
        let Parts { shared, broker, intake, service, .. } = &self.parts;
        let mut health = Health::of([broker, intake, &shared.sink, service]);
        health.troubles.extend(self.upkeep.troubles());
        health
    }

    /// Whether the database's path leads to another file than at the start, or to none. Nothing more can be committed then.
    #[cfg(feature = "cli")]
    pub(crate) fn database_was_replaced(&self) -> bool {
        self.parts.file.was_replaced()
    }

    /// Whether the threads that collect have ended.
    #[cfg(feature = "cli")]
    pub(crate) fn has_ended(&self) -> bool {
        self.pipeline.has_ended()
    }

    /// Receives no more, commits what was received, answers the pending requests, and ends all threads. Blocks at most for
    /// `timeout`. Events that are not committed by then stay in the stream; in mode `core` they are lost. Requests that are
    /// not answered by then get an error. A thread that hangs is left running.
    ///
    /// When all threads have ended, the lock on the database is released, so that another collector can start. After an
    /// [`Error::StopDeadline`], a later call releases it if they have ended by then; dropping the collector releases it in any case.
    /// Stopping a stopped collector returns its status again. Where several threads stop it at a time, the shortest `timeout` counts.
    ///
    /// # Errors
    ///
    /// [`Error::StopDeadline`] with the names of the threads that had not ended, or what made the collector fail.
    pub fn stop(&self, timeout: Duration) -> Result<Status, Error> {
        let Self { pipeline, services, upkeep, parts, mode, lock, .. } = self;
        let until = deadline::after(timeout);
        services.close();
        upkeep.close();
        let stopped = pipeline.stop(timeout);
        let answered = services.finish(until).map(|threads| joined([threads, upkeep.finish(until)]));
        let (queries, requests) = (services.queries(), self.service_state.counts());
        if pipeline.has_ended() && matches!(answered, Ok(None)) {
            lock.lock().take();
        }
        let unfinished =
            |unfinished, waited| Error::StopDeadline { waited, unfinished, kept: *mode == Mode::Jetstream };
        match stopped {
            Ok(()) => match answered? {
                None => Ok(parts.status(queries, requests, upkeep)),
                Some(threads) => Err(unfinished(threads, timeout)),
            },
            Err(Error::StopDeadline { waited, unfinished: threads, .. }) => Err(unfinished(threads, waited)),
            Err(error) => Err(error),
        }
    }
}

/// Finds or makes the stream, and its first consumer. Without `broker.subjects`, those of the stream become those of the settings.
fn open_stream(
    config: &mut Config,
    database: &Database,
    until: Until,
    stop: &Signal,
    reports: &Reports,
    keep_going: &dyn Fn() -> bool,
) -> Result<JetStreamIntake, Error> {
    let file = database.file_identity()?;
    file.refuse_copy(&config.database.path)?;
    let is_noted = database.must_have_partition(&config.broker)?;
    let history = database.history(&config.broker.stream)?;
    let options = || IntakeOptions {
        owner: owner(database.identity(), &file),
        history: history.clone(),
        drain_to: (until == Until::Drained).then_some(u64::MAX),
        pipeline_holds: pipeline::holds(&config.batch, config.database.writers),
    };
    let stream = retry_until_broker(&config.broker, keep_going, || {
        JetStreamIntake::open(Cluster::new(&config.broker)?, options(), keep_going, stop, reports)
    })?;
    if !is_noted {
        partition::begin(&config.broker, database, &history)?;
    }
    database.record_file(&file)?;
    if config.broker.takes_all_of_stream() {
        config.unreachable_from(stream.subjects()).iter().for_each(warn_unreachable);
        config.broker.subjects = stream.subjects().to_vec();
        validate_queries_of_stream(&config.queries, stream.subjects())?;
    }
    Ok(stream)
}

/// The names of threads that have not ended, if any.
fn joined(threads: [Option<String>; 2]) -> Option<String> {
    let names: Vec<String> = threads.into_iter().flatten().collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Checks the settings, and that the file can be the database. Makes nothing.
fn prepare(config: &Config, until: Until) -> Result<(Config, Routes), Error> {
    let config = config.resolved()?;
    config.validate()?;
    for redundant in config.broker.redundant_subjects() {
        log::info!(event = "settings.redundant", notice:% = redundant; "{redundant}");
    }
    report_unreachable(&config);
    Cluster::new(&config.broker)?;
    if config.broker.mode == Mode::Core && until == Until::Drained {
        let reason = "is core: there is no stream whose end could be reached; collect until stopped, or use jetstream";
        return Err(Error::config("broker.mode", reason));
    }
    let routes = Routes::of(&config)?;
    Database::must_be_usable(&config.database, &routes)?;
    Ok((config, routes))
}

/// Logs the routes and queries that no event or request reaches.
fn report_unreachable(config: &Config) {
    config.unreachable().iter().for_each(warn_unreachable);
}

fn warn_unreachable(entry: &impl Display) {
    log::warn!(event = "settings.unreachable", notice:% = entry; "{entry}");
}

/// The database as the owner of consumers.
pub(crate) fn owner(identity: &str, file: &FileIdentity) -> Owner {
    let original = match &file.previous {
        PreviousFile::Same | PreviousFile::StillExists { .. } | PreviousFile::Gone { .. } => None,
        PreviousFile::OtherMachine { tag, location } => {
            Some(OriginalDatabase { tag: tag.clone(), location: location.clone() })
        }
    };
    let replaced_tag = file.replaced_tag.clone();
    Owner {
        identity: identity.to_owned(),
        tag: file.tag.clone(),
        replaced_tag,
        original,
        location: file.location.clone(),
    }
}
