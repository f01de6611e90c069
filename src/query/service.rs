//! The running service: its threads, from start to stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::confirmer::{self, Confirmer};
use super::discovery::{Discovery, group};
use super::dispatcher::Dispatcher;
use super::endpoint::{Endpoint, QueryStatus};
use super::reply_policy::ReplyPolicy;
use super::request_queue::RequestQueue;
use super::responder::Responder;
use super::service_state::ServiceState;
use crate::broker::{Cluster, Listener, Subjects};
use crate::config::Config;
use crate::error::Error;
use crate::pipeline::{Condition, Confirmation, Counters, Signal, ThreadGroup};
use crate::store::{Database, Queries, QueryRunner};

/// A running service.
pub struct Service {
    thread_group: ThreadGroup,
    stop: Signal,
    quit: Signal,
    endpoints: Arc<[Endpoint]>,
    condition: Condition,
    requests: Arc<RequestQueue>,
    /// [`Service::finish`] has returned: dropping this does not wait for threads.
    is_over: AtomicBool,
}

/// The channel of confirmations, from the writers to the service.
#[must_use]
pub fn confirmations() -> (Sender<Confirmation>, Receiver<Confirmation>) {
    crossbeam_channel::bounded(confirmer::CAPACITY)
}

impl Service {
    /// Starts answering the checked queries of a configuration from `database`, and sending the confirmations of its routes. `state` is
    /// continued from an earlier service, which may still answer its last requests.
    /// Returns `None`, without a connection or a thread, if the configuration has neither. Confirmations that cannot be sent are
    /// counted in `counters`. `condition` shows problems. Blocks at most a few times `broker.timeout`; while the broker cannot be
    /// reached, the service connects in the background.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the unusable setting; [`Error::Thread`].
    pub fn start(
        config: &Config,
        database: &Database,
        queries: &Queries,
        confirmations: Option<Receiver<Confirmation>>,
        counters: &Arc<Counters>,
        condition: &Condition,
        state: &ServiceState,
    ) -> Result<Option<Self>, Error> {
        if config.queries.is_empty() && confirmations.is_none() {
            return Ok(None);
        }
        let named = config.queries.iter().enumerate().map(|(at, query)| (query, queries.parameters(at)));
        let endpoints: Arc<[Endpoint]> = Endpoint::of(named, state)?.into();
        let discovery = Discovery::new(&config.service, &config.broker, &endpoints, state);
        let subjects = subjects(config, &discovery);
        let reply_policy = ReplyPolicy::of(&config.broker);
        let requests = RequestQueue::new(&endpoints, config.service.waiting);
        let dispatcher = Dispatcher::new(&endpoints, discovery, reply_policy.clone(), &requests);
        let (stop, quit) = (Signal::default(), Signal::default());
        let cluster = Cluster::new(&config.broker)?;
        let (listener, reply_queue) = Listener::open(cluster, subjects, condition, [&stop, &quit]);
        if condition.trouble().is_none() && !config.queries.is_empty() {
            let queries: Vec<&str> = config.queries.iter().map(|query| query.subject.as_str()).collect();
            let (service, subjects) = (&config.service.name, queries.join(", "));
            log::info!(
                event = "service.started", service = service, subjects = subjects;
                "service: {service} answers on {subjects}"
            );
        }
        let (thread_group, condition) = (ThreadGroup::new(stop.clone()), condition.clone());
        let (is_over, own_requests) = (AtomicBool::new(false), Arc::clone(&requests));
        let mut service = Self { thread_group, stop, quit, endpoints, condition, requests: own_requests, is_over };
        let threads = if config.queries.is_empty() { 0 } else { config.service.threads };
        for number in 0..threads {
            let (database, quit, reply_queue) = (database.clone(), service.quit.clone(), reply_queue.clone());
            let (endpoints, runner) = (Arc::clone(&service.endpoints), QueryRunner::new(queries, &quit));
            let worker = requests.add_worker(runner.interrupter());
            service.spawn(format!("catchment-query-{number}"), move || {
                Responder { worker, endpoints, runner, reply_queue }.run();
                // The last connection to close writes the log (`-wal`) into the file. A read-only connection cannot do that.
                database.close_log();
            })?;
        }
        if threads > 0 {
            let (reply_queue, quit) = (reply_queue.clone(), service.quit.clone());
            service.spawn("catchment-timeouts".into(), move || requests.run_watchdog(&reply_queue, &quit))?;
        }
        service.spawn("catchment-requests".into(), move || listener.run(dispatcher))?;
        if let Some(confirmations) = confirmations {
            let confirmer = Confirmer::new(confirmations, reply_queue, &reply_policy, counters, &service.quit);
            service.spawn("catchment-replies".into(), move || confirmer.run())?;
        }
        Ok(Some(service))
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let alarm = PanicAlarm(self.condition.clone());
        self.thread_group.spawn(name, move || {
            let _alarm = alarm;
            work();
            Ok(())
        })
    }

    /// Whether all its threads have ended. Does not block.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread_group.running().is_empty()
    }

    /// The counts of each query now.
    #[must_use]
    pub fn queries(&self) -> Vec<QueryStatus> {
        self.endpoints.iter().map(Endpoint::status).collect()
    }

    /// Accepts no more requests. Those that wait are answered in the background. Does not block.
    pub fn close(&self) {
        self.stop.raise();
    }

    /// Waits until all accepted requests are answered, at most until the deadline; then statements are interrupted. Returns the
    /// names of the threads that did not end, if any. Can be called again.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`].
    pub fn finish(&self, until: Instant) -> Result<Option<String>, Error> {
        /// The part of the time that is reserved for interrupted threads to end.
        const LEAVE: Duration = Duration::from_millis(250);
        self.stop.raise();
        let answered = self.thread_group.join_until(until.checked_sub(LEAVE).unwrap_or(until));
        self.quit.raise();
        self.requests.quit();
        let left = until.max(Instant::now() + LEAVE);
        let all = answered? || self.thread_group.join_until(left)?;
        self.is_over.store(true, Ordering::Relaxed);
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
        self.requests.quit();
        if !*self.is_over.get_mut() {
            self.thread_group.join_all_until(Instant::now() + Duration::from_secs(1));
        }
    }
}

fn subjects(config: &Config, discovery: &Discovery) -> Subjects {
    if config.queries.is_empty() {
        return Subjects::default();
    }
    Subjects {
        shared: config.queries.iter().map(|query| query.subject.clone()).collect(),
        group: group(&config.broker),
        everybody: discovery.subjects(),
    }
}

/// Degrades the condition if a thread of the service panics, which ends the service.
struct PanicAlarm(Condition);

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.degrade("one of its threads panicked: no more requests are answered; start again");
        }
    }
}
