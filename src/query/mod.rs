//! The service: answers named queries over NATS, confirms events that ask for it, and tells of itself.
//!
//! Between `broker/`, which takes requests and sends replies, and `store/`, which runs queries. What goes wrong here shows in a
//! condition and keeps no event from being collected.

mod confirmer;
mod discovery;
mod dispatcher;
mod endpoint;
mod reply_policy;
mod request_queue;
mod responder;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::broker::{Cluster, Listener, Subjects};
use crate::config::Config;
use crate::error::Error;
use crate::pipeline::{Condition, Confirmation, Counters, Signal, ThreadGroup};
use crate::store::{Database, Queries};
use confirmer::Confirmer;
use discovery::{Discovery, GROUP};
use dispatcher::Front;
use endpoint::Endpoint;
use reply_policy::Inboxes;
use request_queue::Work;
use responder::Responder;

/// A running service.
pub struct Service {
    thread_group: ThreadGroup,
    stop: Signal,
    quit: Signal,
    endpoints: Arc<[Endpoint]>,
    condition: Condition,
    work: Arc<Work>,
    /// The deadline of [`Service::finish`] is over: nobody is waited for.
    is_over: bool,
}

/// Where confirmations come from: hand the sender to whoever commits.
#[must_use]
pub fn confirmations() -> (Sender<Confirmation>, Receiver<Confirmation>) {
    crossbeam_channel::bounded(confirmer::WAITING)
}

/// Counts from a service's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests that were answered with rows.
    pub answered: u64,
    /// Requests that were answered with an error.
    pub failed: u64,
}

impl Service {
    /// Starts answering the queries of a configuration, which were checked, from `database`, and sending the confirmations of
    /// its routes; `None` where it has neither: then there is no connection and no thread. What cannot be confirmed is counted
    /// in `counters`. `condition` hears what is wrong. Blocks at most a few times `broker.timeout`; a broker that cannot be
    /// reached is waited for in the background.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the setting that cannot be used; [`Error::Thread`].
    pub fn start(
        config: &Config,
        database: &Database,
        queries: &Queries,
        confirmations: Option<Receiver<Confirmation>>,
        counters: &Arc<Counters>,
        condition: &Condition,
    ) -> Result<Option<Self>, Error> {
        if config.queries.is_empty() && confirmations.is_none() {
            return Ok(None);
        }
        let named = config.queries.iter().enumerate().map(|(at, query)| (query, queries.parameters(at)));
        let endpoints: Arc<[Endpoint]> = Endpoint::of(named)?.into();
        let discovery = Discovery::new(&config.service, &endpoints);
        let subjects = subjects(config, &discovery);
        let inboxes = Inboxes::of(&config.broker);
        let work = Work::new(&endpoints, config.service.waiting);
        let front = Front::new(&endpoints, discovery, inboxes.clone(), &work);
        let (stop, quit) = (Signal::default(), Signal::default());
        let cluster = Cluster::new(&config.broker)?;
        let (listener, reply_queue) = Listener::open(cluster, subjects, condition, [&stop, &quit]);
        if condition.trouble().is_none() && !config.queries.is_empty() {
            let queries: Vec<&str> = config.queries.iter().map(|query| query.subject.as_str()).collect();
            log::info!("service: {} answers on {}", config.service.name, queries.join(", "));
        }
        let (thread_group, condition) = (ThreadGroup::new(stop.clone()), condition.clone());
        let mut service =
            Self { thread_group, stop, quit, endpoints, condition, work: Arc::clone(&work), is_over: false };
        let threads = if config.queries.is_empty() { 0 } else { config.service.threads };
        for number in 0..threads {
            let (database, quit, reply_queue) = (database.clone(), service.quit.clone(), reply_queue.clone());
            let (endpoints, answerer) = (Arc::clone(&service.endpoints), queries.answerer(&quit));
            let place = work.join(answerer.breaker());
            service.spawn(format!("catchment-query-{number}"), move || {
                Responder { place, endpoints, answerer, reply_queue }.run();
                // The last connection to close brings the log (`-wal`) into the file, which one that only reads cannot.
                drop(database);
            })?;
        }
        if threads > 0 {
            let (reply_queue, quit) = (reply_queue.clone(), service.quit.clone());
            service.spawn("catchment-timeouts".into(), move || work.watch(&reply_queue, &quit))?;
        }
        service.spawn("catchment-requests".into(), move || listener.run(front))?;
        if let Some(confirmations) = confirmations {
            let confirmer = Confirmer::new(confirmations, reply_queue, &inboxes, counters, &service.quit);
            service.spawn("catchment-replies".into(), move || confirmer.run())?;
        }
        Ok(Some(service))
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let alarm = Alarm(self.condition.clone());
        self.thread_group.spawn(name, move || {
            let _alarm = alarm;
            work();
            Ok(())
        })
    }

    /// Counts, now.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let add = |sum: Asked, endpoint: &Endpoint| {
            let counted = endpoint.counts.now();
            Asked {
                answered: sum.answered + counted.requests.saturating_sub(counted.errors),
                failed: sum.failed + counted.errors,
            }
        };
        self.endpoints.iter().fold(Asked::default(), add)
    }

    /// Takes no more requests. What waits is answered in the background. Does not block.
    pub fn close(&self) {
        self.stop.raise();
    }

    /// Waits until all that was taken is answered, at most until the deadline; then statements are broken off. Names the
    /// threads that had to be left behind, if any.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`].
    pub fn finish(&mut self, until: Instant) -> Result<Option<String>, Error> {
        /// Kept back for threads to notice that they are to leave their work.
        const LEAVE: Duration = Duration::from_millis(250);
        self.stop.raise();
        let answered = self.thread_group.join_until(until.checked_sub(LEAVE).unwrap_or(until));
        self.quit.raise();
        self.work.quit();
        let left = until.max(Instant::now() + LEAVE);
        let all = answered? || self.thread_group.join_until(left)?;
        self.is_over = true;
        Ok((!all).then(|| self.thread_group.running()))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.raise();
        self.quit.raise();
        self.work.quit();
        while !self.is_over && self.thread_group.join_until(Instant::now() + Duration::from_secs(1)).is_err() {}
    }
}

fn subjects(config: &Config, discovery: &Discovery) -> Subjects {
    if config.queries.is_empty() {
        return Subjects::default();
    }
    Subjects {
        shared: config.queries.iter().map(|query| query.subject.clone()).collect(),
        group: GROUP.into(),
        everybody: discovery.subjects(),
    }
}

/// Says that a thread of the service has panicked, which ends the service.
struct Alarm(Condition);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.degrade("a thread of it has panicked: no more requests are answered; start again");
        }
    }
}
