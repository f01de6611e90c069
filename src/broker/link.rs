//! One connection, used on a thread of its own that can be left behind.
//!
//! Nothing outside this thread calls the client, so a call of it that never returns costs this thread and nothing else:
//! whoever asked has a deadline. The client's own reconnecting is not used. It forgets outstanding requests without a word,
//! meets a message it cannot read again and again, and gives up for good after a number of attempts; a new link is made
//! instead.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nats::{Connection, Options, Subscription};

use super::{access, broker_error, greeting};
use crate::config::{BrokerConfig, without_secrets};
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

/// Threads of links, and links in use: the difference are threads being opened, being closed, or left behind in a call that
/// does not return. A server that makes calls hang for days must not fill the process.
static THREADS: AtomicUsize = AtomicUsize::new(0);
static IN_USE: AtomicUsize = AtomicUsize::new(0);
const MOST_LEFT_BEHIND: usize = 64;

/// For links on which nothing ever flushes: a lost connection ends with one more attempt.
pub(super) const AFTERLIFE: usize = 1;

/// For links with a flusher. A flush that was under way when the connection was lost waits for its answer without end, and
/// only the client's next connection releases it; without one, the client's own time-out does after some six minutes.
pub(super) const AFTERLIFE_OF_FLUSHES: usize = 600;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A live connection. Dropping it closes the connection, in the background.
pub(super) struct Link {
    jobs: Sender<Job>,
    lost: Signal,
    server: Server,
    _counted: Counted,
}

/// The server at the other end.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Its address, without secrets.
    pub(super) address: String,
    /// Its version.
    pub(super) version: String,
    /// The largest event it takes, headers included.
    pub(super) max_payload: usize,
}

/// The link gave no answer in time, or went away: it is of no further use.
#[derive(Debug)]
pub(super) struct Gone(pub(super) String);

impl Link {
    /// Connects to the first server that answers. Blocks at most for the configured time-out. `afterlife` is how many times
    /// the client may try to connect once more, a second apart, when the connection was lost: see [`AFTERLIFE_OF_FLUSHES`].
    pub(super) fn open(config: &BrokerConfig, afterlife: usize, stop: &Signal) -> Result<Self, Error> {
        let all = config.shown_servers();
        let left_behind = THREADS.load(Ordering::Relaxed).saturating_sub(IN_USE.load(Ordering::Relaxed));
        if left_behind >= MOST_LEFT_BEHIND {
            let detail = format!("{left_behind} connections hang in calls that do not return; waiting for one to end");
            return Err(broker_error(all, BrokerFault::Silent, detail));
        }
        let counted = Counted::among(&THREADS);
        let (ready_in, ready_out) = crossbeam_channel::bounded(1);
        let (jobs_in, jobs_out) = crossbeam_channel::unbounded();
        let lost = Signal::default();
        let (thread_config, thread_lost) = (config.clone(), lost.clone());
        thread::Builder::new()
            .name("catchment-link".into())
            .spawn(move || {
                let _counted = counted;
                run(&thread_config, afterlife, &thread_lost, &ready_in, &jobs_out);
            })
            .map_err(|e| broker_error(&all, BrokerFault::Unreachable, format!("no thread for a connection: {e}")))?;
        // The thread keeps to the time-out wherever it can; the grace is for calls where it cannot.
        let grace = Duration::from_millis(250);
        let silent = |what: &str| broker_error(&all, BrokerFault::Silent, what);
        crossbeam_channel::select! {
            recv(ready_out) -> opened => match opened {
                Ok(opened) => {
                    let server = opened?;
                    Ok(Self { jobs: jobs_in, lost, server, _counted: Counted::among(&IN_USE) })
                }
                Err(_) => Err(silent("connecting failed without a reason")),
            },
            recv(stop.channel()) -> _ => Err(silent("connecting was broken off by a stop")),
            default(config.timeout + grace) => {
                Err(silent(&format!("no answer to the connection within {:?}", config.timeout)))
            }
        }
    }

    /// Runs a call of the client and waits for its result, at most until `stop`.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        within: Duration,
        stop: Option<&Signal>,
        job: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (reply_in, reply_out) = crossbeam_channel::bounded(1);
        self.post(move |connection| {
            let _ = reply_in.send(job(connection));
        });
        let never = Signal::default();
        crossbeam_channel::select! {
            recv(stop.unwrap_or(&never).channel()) -> _ => Err(Gone("broken off by a stop".into())),
            recv(reply_out) -> reply => reply.map_err(|_| self.gone()),
            recv(self.lost.channel()) -> _ => Err(self.gone()),
            default(within) => Err(Gone(format!("no answer within {within:?}"))),
        }
    }

    /// Subscribes to an inbox of its own, for answers whose last token says what they answer. Drop the subscription in a
    /// [`Link::post`]: that can block.
    pub(super) fn subscribe_inbox(&self, within: Duration, stop: &Signal) -> Result<(String, Subscription), Error> {
        let subscribed = self.ask(within, Some(stop), |connection| {
            let inbox = connection.new_inbox();
            connection.subscribe(&format!("{inbox}.*")).map(|subscription| (inbox, subscription))
        });
        let failed = |detail: String| broker_error(&self.server.address, BrokerFault::Request, detail);
        subscribed.map_err(|gone| failed(gone.0))?.map_err(|e| failed(one_line(&e)))
    }

    /// Has a call of the client run, behind those before it.
    pub(super) fn post(&self, job: impl FnOnce(&Connection) + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }

    /// Switched on when the connection has ended.
    pub(super) fn lost(&self) -> &Signal {
        &self.lost
    }

    /// The server at the other end.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    fn gone(&self) -> Gone {
        Gone(format!("the connection to {} was lost", self.server.address))
    }
}

/// Counts for as long as it lives.
struct Counted(&'static AtomicUsize);

impl Counted {
    fn among(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn run(
    config: &BrokerConfig,
    afterlife: usize,
    lost: &Signal,
    ready: &Sender<Result<Server, Error>>,
    jobs: &Receiver<Job>,
) {
    let released = Signal::default();
    match connect(config, afterlife, lost, &released) {
        Ok((connection, server)) => {
            if ready.send(Ok(server)).is_ok() {
                for job in jobs {
                    job(&connection);
                }
            }
            if lost.is_raised() {
                // `close` would wait for an answer that cannot come.
                drop(connection);
                released.raise();
            } else {
                // If it is lost while it is being closed, the client may connect once more: only that ends a `close` that
                // waits for an answer.
                released.raise();
                connection.close();
            }
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

fn connect(
    config: &BrokerConfig,
    afterlife: usize,
    lost: &Signal,
    released: &Signal,
) -> Result<(Connection, Server), Error> {
    let deadline = Instant::now() + config.timeout;
    let mut trouble =
        broker_error(config.shown_servers(), BrokerFault::Unreachable, "there is no server to connect to");
    for (at, server) in config.servers.iter().enumerate() {
        let shown = without_secrets(server);
        let fail = |fault, detail: String| broker_error(&shown, fault, detail);
        let address = access::parse(server)?;
        // Servers that come first leave time for those behind them.
        let share =
            deadline.saturating_duration_since(Instant::now()) / u32::try_from(config.servers.len() - at).unwrap_or(1);
        let greeting = match greeting::ask(address.host(), address.port(), share) {
            Ok(greeting) => greeting,
            Err((fault, detail)) => {
                trouble = fail(fault, detail);
                continue;
            }
        };
        let options = match options(config, afterlife, lost, released) {
            Ok(options) => options,
            Err((fault, detail)) => return Err(fail(fault, detail)),
        };
        match options.connect(address) {
            Ok(connection) => {
                let max_payload = connection.max_payload();
                return Ok((connection, Server { address: shown, version: greeting.version, max_payload }));
            }
            Err(e) => {
                let (fault, detail) = access::explain(config, &e);
                trouble = fail(fault, detail);
            }
        }
    }
    Err(trouble)
}

fn options(
    config: &BrokerConfig,
    afterlife: usize,
    lost: &Signal,
    released: &Signal,
) -> Result<Options, (BrokerFault, String)> {
    let (lost, released) = (lost.clone(), released.clone());
    let connected_before = AtomicBool::new(false);
    let options = access::options(config)?
        .with_name(&config.connection_name)
        .max_reconnects(afterlife)
        // What is published while disconnected is an error at once, not a promise.
        .reconnect_buffer_size(0)
        .reconnect_delay_callback(move |_| {
            // Called before the first connect, and again when the connection has ended. Then it waits until nobody uses
            // the connection any more, so that the client's thread finds itself shut down instead of reconnecting.
            if connected_before.swap(true, Ordering::Relaxed) {
                let _ = released.wait(Duration::from_secs(600));
                return Duration::from_secs(1);
            }
            Duration::ZERO
        })
        .disconnect_callback(move || lost.raise())
        .error_callback(|error| log::warn!("broker: the server says: {}", one_line(&error)));
    Ok(options)
}

/// An error's text on one line.
pub(super) fn one_line(error: &std::io::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
