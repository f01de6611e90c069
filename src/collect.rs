//! The collector: a stream in, a database out, watched and stopped as one.

use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::broker::{Beginning, Cluster, CoreIntake, JetStreamIntake, Origin, Owner, Reports};
use crate::config::{BrokerConfig, Config, Mode};
use crate::deadline;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{self, Condition, Health, Pipeline, Settings, Shared, Trouble};
use crate::query::{self, RequestCounts, Service};
use crate::store::{Database, FileIdentity, Lock, PreviousFile, Routes};

/// A running collector. It works on threads of its own until it is stopped or dropped.
///
/// ```no_run
/// use catchment::{Collector, Config};
/// use std::time::{Duration, Instant};
///
/// let collector = Collector::start(&Config::default())?;
/// std::thread::sleep(Duration::from_secs(60));
/// collector.stop(Duration::from_secs(10))?;
/// # Ok::<(), catchment::Error>(())
/// ```
#[derive(Debug)]
pub struct Collector {
    pipeline: Pipeline,
    service: Option<Service>,
    parts: Parts,
    mode: Mode,
    _lock: Lock,
}

/// What all parts of a collector report to.
#[derive(Clone, Debug)]
struct Parts {
    shared: Shared,
    broker: Condition,
    intake: Condition,
    service: Condition,
}

/// What a collector is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Collect until stopped.
    Stopped,
    /// Collect what is in the stream now, then end. Not in mode `core`, where there is no stream.
    Drained,
}

/// Counts from a collector's start, and how its two sides are doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Deliveries taken in.
    pub received: u64,
    /// Deliveries committed, dead letters included.
    pub committed: u64,
    /// Deliveries passed over because an earlier life of the stream had brought them.
    pub duplicates: u64,
    /// Deliveries committed as dead letters.
    pub dead_letters: u64,
    /// Deliveries dropped because no route takes them and `unmatched` is `drop`. They count as committed.
    pub unmatched_dropped: u64,
    /// Deliveries committed without the confirmation that their publisher asked for: too many asked at a time, the connection
    /// was away, or what they named is no inbox.
    pub unconfirmed: u64,
    /// Events of core NATS dropped, for there was no room for them.
    pub dropped: u64,
    /// Transactions that committed them.
    pub batches: u64,
    /// Events that the stream dropped before they were collected, at most: the log says which.
    pub gone: u64,
    /// Connections or consumers made anew.
    pub rebuilds: u64,
    /// What the broker last said is still to be delivered.
    pub pending: u64,
    /// What is wrong with the broker, if anything.
    pub broker: Option<Trouble>,
    /// Whether events are being dropped, if so since when.
    pub intake: Option<Trouble>,
    /// What is wrong with the database, if anything.
    pub database: Option<Trouble>,
    /// Requests of queries that were answered with rows, and with an error.
    pub asked: RequestCounts,
    /// What keeps queries from being answered, if anything.
    pub service: Option<Trouble>,
}

impl Collector {
    /// Starts collecting. Blocks until the database is open, the stream found or made, and the first consumer set up: at most
    /// a few times `broker.timeout` and `database.busy_timeout`, for `broker.wait` where the broker is not there, and 12 seconds
    /// more where somebody else seems to use the database's consumer: a process that died without the server noticing looks like
    /// that for 10 seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Locked`], [`Error::Database`], [`Error::Thread`] or [`Error::Broker`]: whatever would keep the
    /// first event from being stored, wrong SQL of a route or query included. A copy of a database is refused while its original is
    /// there ([`DatabaseFault::Copy`](crate::error::DatabaseFault::Copy)) or in use
    /// ([`BrokerFault::Contested`]). Trouble that comes later is waited out and shows in
    /// [`Collector::status`]; so is all that keeps queries from being answered.
    pub fn start(config: &Config) -> Result<Self, Error> {
        Self::start_until(config, Until::Stopped)
    }

    /// Like [`Collector::start`], for a collector that may end by itself.
    ///
    /// # Errors
    ///
    /// As [`Collector::start`].
    pub fn start_until(config: &Config, until: Until) -> Result<Self, Error> {
        Self::start_while(config, until, &|| true)
    }

    /// Like [`Collector::start_until`], but where `broker.wait` has it wait for the broker, only while `wanted` says so.
    ///
    /// # Errors
    ///
    /// As [`Collector::start`].
    pub fn start_while(config: &Config, until: Until, wanted: &dyn Fn() -> bool) -> Result<Self, Error> {
        let config = &config.resolved()?;
        config.validate()?;
        Cluster::new(&config.broker)?;
        if config.broker.mode == Mode::Core && until == Until::Drained {
            let reason =
                "is core: there is no stream whose end could be reached; collect until stopped, or use jetstream";
            return Err(Error::config("broker.mode", reason));
        }
        let routes = Routes::new(&config.routes, config.unmatched)?;
        let lock = Lock::take(&config.database.path)?;
        let (database, queries) = Database::open_with_queries(&config.database, &routes, &config.queries)?;
        let parts = Parts {
            shared: Shared::new("database"),
            broker: Condition::new("broker"),
            intake: Condition::new("intake"),
            service: Condition::new("service"),
        };
        let Parts { shared, broker, intake, .. } = &parts;
        let reports = Reports { counters: shared.counters.clone(), condition: broker.clone() };
        let settings = Settings::from(&config.batch);
        let (confirmed, confirmations) = routes.confirms().then(query::confirmations).unzip();
        let sinks = database.writers().into_iter().map(|writer| match &confirmed {
            Some(confirmed) => writer.confirming(Sender::clone(confirmed)),
            None => writer,
        });
        let (sinks, stop) = (sinks.collect::<Vec<_>>(), shared.stop.clone());
        let pipeline = match config.broker.mode {
            Mode::Jetstream => {
                let file = database.file_identity()?;
                file.refuse_copy(&config.database.path)?;
                let history = database.history(&config.broker.stream)?;
                let beginning = || Beginning {
                    owner: owner(database.identity(), &file),
                    history: history.clone(),
                    drain: until == Until::Drained,
                    pipeline_holds: pipeline::holds(&config.batch, config.database.writers),
                };
                let stream = patiently(&config.broker, wanted, || {
                    JetStreamIntake::open(Cluster::new(&config.broker)?, beginning(), wanted, &stop, &reports)
                })?;
                database.record_file(&file)?;
                Pipeline::start(stream, sinks, settings, shared.clone())?
            }
            Mode::Core => {
                let epoch = database.begin_local()?;
                let subjects = patiently(&config.broker, wanted, || {
                    let routes = routes.clone();
                    let confirms = move |subject: &str| routes.confirms_on(subject);
                    let cluster = Cluster::new(&config.broker)?;
                    CoreIntake::open(cluster, confirms, epoch.clone(), &stop, &reports, intake)
                })?;
                Pipeline::start(subjects, sinks, settings, shared.clone())?
            }
        };
        // The service hears by it that nothing more will be committed.
        drop(confirmed);
        let service =
            Service::start(config, &database, &queries, confirmations, &parts.shared.counters, &parts.service)?;
        Ok(Self { pipeline, service, parts, mode: config.broker.mode, _lock: lock })
    }

    /// Blocks until the collector has ended by itself, at most for `wait`. `true` when it has: all that
    /// [`Until::Drained`] asked for is committed.
    ///
    /// # Errors
    ///
    /// What made it fail: the ledger moved by another program, a table gone, another collector with a clone of the database, a
    /// panic of ours.
    pub fn wait(&mut self, wait: Duration) -> Result<bool, Error> {
        self.pipeline.wait(wait)
    }

    /// Counts and conditions, now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.parts.status(self.service.as_ref().map(Service::counts))
    }

    /// What is wrong, if anything, and since when: the broker away or silent, the database locked or full, nobody there to
    /// answer queries. Does not block.
    #[must_use]
    pub fn health(&self) -> Health {
        let Parts { shared, broker, intake, service } = &self.parts;
        Health::of([broker, intake, &shared.sink, service])
    }

    /// Takes in no more, commits what has been taken in, answers the requests that wait, and ends all threads. Blocks at most
    /// for `patience`; then what is not committed is left in the stream (core NATS has none: there it is lost), what is not
    /// answered gets an error, and a thread that hangs is left behind.
    ///
    /// # Errors
    ///
    /// [`Error::StopDeadline`] naming what had not ended, or what made the collector fail.
    pub fn stop(self, patience: Duration) -> Result<Status, Error> {
        let Self { pipeline, mut service, parts, mode, _lock } = self;
        let until = deadline::after(patience);
        service.iter().for_each(Service::close);
        let stopped = pipeline.stop(patience);
        let answered = service.as_mut().map_or(Ok(None), |service| service.finish(until));
        let asked = service.as_ref().map(Service::counts);
        let unfinished = |unfinished, waited| Error::StopDeadline { waited, unfinished, kept: mode == Mode::Jetstream };
        match stopped {
            Ok(()) => match answered? {
                None => Ok(parts.status(asked)),
                Some(threads) => Err(unfinished(threads, patience)),
            },
            Err(Error::StopDeadline { waited, unfinished: threads, .. }) => Err(unfinished(threads, waited)),
            Err(error) => Err(error),
        }
    }
}

/// A database as the owner of consumers.
pub(crate) fn owner(identity: &str, file: &FileIdentity) -> Owner {
    let origin = match &file.previous {
        PreviousFile::Same | PreviousFile::StillExists { .. } | PreviousFile::Gone { .. } => None,
        PreviousFile::OtherMachine { tag, place } => Some(Origin { tag: tag.clone(), place: place.clone() }),
    };
    let inherits = file.inherits.clone();
    Owner { identity: identity.to_owned(), tag: file.tag.clone(), inherits, origin, place: file.place.clone() }
}

/// Tries again while there is no broker, for `broker.wait` at most.
fn patiently<T>(
    config: &BrokerConfig,
    wanted: &dyn Fn() -> bool,
    mut open: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    /// How often to look whether it is still wanted.
    const LOOK: Duration = Duration::from_millis(50);
    let until = deadline::after(config.wait);
    let mut pause = LOOK;
    let mut said = false;
    loop {
        let error = match open() {
            Err(error @ Error::Broker { fault: BrokerFault::Unreachable | BrokerFault::Silent, .. }) => error,
            opened => return opened,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(error);
        }
        if !std::mem::replace(&mut said, true) {
            log::warn!("{error}; waiting for it, at most {:?} (broker.wait)", config.wait);
        }
        let next = Instant::now() + pause.min(left);
        while Instant::now() < next {
            if !wanted() {
                return Err(error);
            }
            std::thread::sleep(LOOK);
        }
        pause = (pause * 2).min(config.retry.max(LOOK));
    }
}

impl Parts {
    fn status(&self, asked: Option<RequestCounts>) -> Status {
        let counters = &self.shared.counters;
        Status {
            received: counters.received.get(),
            committed: counters.committed.get(),
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
            unmatched_dropped: counters.unmatched_dropped.get(),
            unconfirmed: counters.unconfirmed.get(),
            dropped: counters.dropped.get(),
            batches: counters.batches.get(),
            gone: counters.gone.get(),
            rebuilds: counters.rebuilds.get(),
            pending: counters.pending.get(),
            broker: self.broker.trouble(),
            intake: self.intake.trouble(),
            database: self.shared.sink.trouble(),
            asked: asked.unwrap_or_default(),
            service: self.service.trouble(),
        }
    }
}
