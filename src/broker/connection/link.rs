//! One connection, used on a thread of its own that can be left behind.
//!
//! Only this thread calls the client. So a call that never returns costs this thread and nothing else: everything that waits for it
//! has a deadline. The client's own reconnecting is not used: it drops outstanding requests without an error, receives a message that
//! it cannot read again and again, and gives up for good after a number of attempts. A new link replaces an old one as a whole.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nats::{Connection, Message, Options, Subscription};

use super::cluster::Cluster;
use super::flush::{FlushKicker, Flusher};
use super::link_count::{self, Counted};
use super::remarks::{ErrorListener, ServerRemark, one_line};
use super::{access, greeting};
use crate::broker::broker_error;
use crate::config::{BrokerConfig, without_secrets};
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Signal, room_for_threads};

/// Our two and the client's two. The client panics where it gets none.
const THREADS_A_LINK: usize = 4;

/// A flush on a connection that has just been lost fails within this time, if it fails.
const FAILS_WITHIN: Duration = Duration::from_millis(200);

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A live connection with an inbox. Dropping it closes the connection, in the background.
pub(in crate::broker) struct Link {
    cluster: Arc<Cluster>,
    jobs: Sender<Job>,
    signals: LinkSignals,
    opened: Opened,
    requests: AtomicUsize,
    /// Any message: the client attaches to each the server's latest `INFO`, which names the servers of the cluster.
    sample: OnceLock<Message>,
    _counted: Counted,
}

/// The server at the other end.
#[derive(Clone)]
pub(in crate::broker) struct ServerInfo {
    /// The address that was connected to, with the secrets in it: never shown.
    url: String,
    /// Its address, without secrets.
    pub(in crate::broker) address: String,
    /// Its version.
    pub(in crate::broker) version: String,
    /// The largest event it takes, headers included.
    pub(in crate::broker) max_payload: usize,
    /// Whether the connection uses TLS.
    pub(in crate::broker) tls: bool,
}

impl ServerInfo {
    /// Whether it is of this version or a later one: major and minor number.
    pub(in crate::broker) fn is_at_least(&self, version: (u32, u32)) -> bool {
        let mut numbers = self.version.split(['.', '-']).map_while(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
    }
}

/// The connection was lost, or there was no answer in time: the link cannot be used any more.
#[derive(Debug)]
pub(in crate::broker) struct LinkError(pub(in crate::broker) String);

/// The state of a connection, for all threads.
#[derive(Clone, Debug, Default)]
struct LinkSignals {
    /// It was made.
    made: Signal,
    /// It has ended.
    lost: Signal,
    /// The server shuts down soon.
    leaving: Signal,
    /// The server did not answer.
    silent: Signal,
    /// The link was dropped.
    released: Signal,
    /// How many errors the client has reported.
    remarks: Arc<AtomicUsize>,
}

/// A connection that has just been made.
struct Opened {
    server: ServerInfo,
    inbox: String,
    messages: Receiver<Message>,
    kicker: FlushKicker,
}

impl Link {
    /// Connects to the first server that answers. Blocks at most for the configured time-out.
    pub(in crate::broker) fn open(cluster: &Arc<Cluster>, stop: &Signal) -> Result<Self, Error> {
        Self::open_with(
            cluster,
            stop,
            Arc::new(|remark: &ServerRemark| {
                log::warn!(event = "server.remark", remark:% = remark; "broker: the server reports: {remark}");
            }),
        )
    }

    /// As [`Link::open`], with an error listener instead of the log.
    pub(in crate::broker) fn open_with(
        cluster: &Arc<Cluster>,
        stop: &Signal,
        listener: Arc<dyn ErrorListener>,
    ) -> Result<Self, Error> {
        let timeout = cluster.config().timeout;
        let all = || cluster.shown();
        if let Some(left_behind) = link_count::too_many_left_behind() {
            let detail = format!("{left_behind} connections hang in calls that do not return");
            return Err(
                broker_error(all(), BrokerFault::Silent, detail).with_remedy("the program tries again when one ends")
            );
        }
        let no_thread = |e: Error| broker_error(all(), BrokerFault::Unreachable, e.to_string());
        room_for_threads(THREADS_A_LINK, "for a connection").map_err(no_thread)?;
        let counted = Counted::thread();
        let (ready_in, ready_out) = crossbeam_channel::bounded(1);
        let (jobs_in, jobs_out) = crossbeam_channel::unbounded();
        let signals = LinkSignals::default();
        let (thread_cluster, thread_signals) = (Arc::clone(cluster), signals.clone());
        thread::Builder::new()
            .name("catchment-link".into())
            .spawn(move || {
                let _counted = counted;
                run(&thread_cluster, &thread_signals, &listener, &ready_in, &jobs_out);
            })
            .map_err(|e| broker_error(all(), BrokerFault::Unreachable, format!("no thread for a connection: {e}")))?;
        // The thread keeps to the time-out wherever it can. The grace is for calls where it cannot.
        let grace = Duration::from_millis(250);
        let silent = |what: &str| broker_error(all(), BrokerFault::Silent, what);
        crossbeam_channel::select! {
            recv(ready_out) -> opened => match opened {
                Ok(opened) => Ok(Self {
                    cluster: Arc::clone(cluster),
                    jobs: jobs_in,
                    signals,
                    opened: opened?,
                    requests: AtomicUsize::new(0),
                    sample: OnceLock::new(),
                    _counted: Counted::in_use(),
                }),
                Err(_) => Err(silent("connecting failed without a reason")),
            },
            recv(stop.channel()) -> _ => Err(silent("a stop ended the attempt to connect")),
            default(timeout + grace) => Err(silent(&format!("no answer to the connection within {timeout:?}"))),
        }
    }

    /// Queues a call of the client; calls run in the order of their queueing.
    pub(in crate::broker) fn post(&self, job: impl FnOnce(&Connection) + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }

    /// Queues a call of the client and waits for its result, at most for `within` and until the stop.
    pub(in crate::broker) fn call<T: Send + 'static>(
        &self,
        within: Duration,
        stop: &Signal,
        job: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, LinkError> {
        let (done_in, done_out) = crossbeam_channel::bounded(1);
        self.post(move |connection| {
            let _ = done_in.send(job(connection));
        });
        crossbeam_channel::select! {
            recv(done_out) -> done => done.map_err(|_| self.lost_error()),
            recv(stop.channel()) -> _ => Err(LinkError("ended by a stop".into())),
            default(within) => {
                self.mark_silent();
                Err(LinkError(format!("no result within {within:?}")))
            }
        }
    }

    /// Publishes without waiting; where that fails, the connection is about to be lost. The answer comes among the messages, on the
    /// subject [`Link::inbox`]`.reply`.
    pub(in crate::broker) fn publish(&self, subject: String, reply: &str, body: impl AsRef<[u8]> + Send + 'static) {
        let reply = format!("{}.{reply}", self.opened.inbox);
        self.post(move |connection| {
            if let Err(e) = connection.publish_request(&subject, &reply, body) {
                log::debug!("broker: {subject}: {}", one_line(&e));
            }
        });
    }

    /// Writes what was published before. The client itself writes up to 5 ms later.
    pub(in crate::broker) fn write_now(&self) {
        let kicker = self.opened.kicker.clone();
        self.post(move |_| kicker.kick());
    }

    /// Sends a request and waits for the answer, at most until `stop`. Other messages are dropped.
    pub(in crate::broker) fn request(
        &self,
        subject: String,
        body: impl AsRef<[u8]> + Send + 'static,
        within: Duration,
        stop: Option<&Signal>,
    ) -> Result<Message, LinkError> {
        let until = Instant::now() + within;
        let reply = format!("request-{}", self.requests.fetch_add(1, Ordering::Relaxed));
        let subject_of_answer = format!("{}.{reply}", self.opened.inbox);
        self.publish(subject, &reply, body);
        self.write_now();
        let never = Signal::default();
        loop {
            crossbeam_channel::select! {
                recv(stop.unwrap_or(&never).channel()) -> _ => return Err(LinkError("ended by a stop".into())),
                recv(self.opened.messages) -> message => match message {
                    Ok(message) if message.subject == subject_of_answer => {
                        self.keep_sample(&message);
                        return Ok(message);
                    }
                    Ok(_) => {}
                    Err(_) => return Err(self.lost_error()),
                },
                recv(self.signals.lost.channel()) -> _ => return Err(self.lost_error()),
                default(until.saturating_duration_since(Instant::now())) => {
                    self.mark_silent();
                    return Err(LinkError(format!("no answer within {within:?}")));
                }
            }
        }
    }

    /// Keeps the first message of this connection: it gives access to the server's latest `INFO`, which lists the servers of the cluster.
    pub(in crate::broker) fn keep_sample(&self, message: &Message) {
        if self.sample.get().is_none() {
            let _ = self.sample.set(message.clone());
        }
    }

    /// Updates the list of the cluster's servers: the server announces when one joins or leaves.
    fn learn(&self) {
        if let Some(client) = self.sample.get().and_then(|message| message.client.as_ref()) {
            let announced = client.server_info().connect_urls;
            // A server that is alone lists none: then the known ones are kept, though they may be outdated.
            if !announced.is_empty() {
                self.cluster.learn(&self.opened.server.url, &announced);
            }
        }
    }

    /// The prefix of the subjects for answers; one more token follows.
    pub(in crate::broker) fn inbox(&self) -> &str {
        &self.opened.inbox
    }

    /// The messages that come to the inbox.
    pub(in crate::broker) fn messages(&self) -> &Receiver<Message> {
        &self.opened.messages
    }

    /// The server does not answer: closing must not wait for it either.
    pub(in crate::broker) fn mark_silent(&self) {
        self.signals.silent.raise();
    }

    /// Raised when the connection has ended.
    pub(in crate::broker) fn lost(&self) -> &Signal {
        &self.signals.lost
    }

    /// Whether the server is about to shut down and another one is known: then it is time to move there. See
    /// <https://docs.nats.io/running-a-nats-service/nats_admin/lame_duck_mode>.
    pub(in crate::broker) fn should_move(&self) -> bool {
        if !self.signals.leaving.is_raised() {
            return false;
        }
        self.learn();
        self.cluster.has_others(&self.opened.server.url)
    }

    /// The server at the other end.
    pub(in crate::broker) fn server(&self) -> &ServerInfo {
        &self.opened.server
    }

    fn lost_error(&self) -> LinkError {
        LinkError(format!("the connection to {} was lost", self.opened.server.address))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.learn();
        let LinkSignals { lost, leaving, silent, .. } = &self.signals;
        if [lost, leaving, silent].iter().any(|signal| signal.is_raised()) {
            self.cluster.put_last(&self.opened.server.url);
        }
    }
}

fn run(
    cluster: &Cluster,
    signals: &LinkSignals,
    listener: &Arc<dyn ErrorListener>,
    ready: &Sender<Result<Opened, Error>>,
    jobs: &Receiver<Job>,
) {
    match connect(cluster, signals, listener) {
        Ok(Connected { connection, server, inbox, echo }) => {
            let messages = inbox.subscription.receiver().clone();
            let tls = server.tls;
            let flusher = Flusher::start(&connection, tls, &signals.lost);
            let opened = Opened { server, inbox: inbox.name.clone(), messages, kicker: flusher.kicker() };
            if ready.send(Ok(opened)).is_ok() {
                for job in jobs {
                    job(&connection);
                    // Over TLS every write needs a flush after it.
                    if tls {
                        flusher.kick();
                    }
                }
            }
            drop(flusher);
            close(connection, signals, &inbox.name, &echo);
        }
        Err(error) => {
            // A client may be left that was made and then lost.
            signals.released.raise();
            let _ = ready.send(Err(error));
        }
    }
}

/// Ends the connection and with it the client's threads. That needs something from the server: the reading thread sees the end only
/// between two messages of the server. And a flush that was under way when the connection was lost is answered on the client's next
/// connection, which it may make now, or never.
fn close(connection: Connection, signals: &LinkSignals, inbox: &str, echo: &Subscription) {
    if signals.silent.is_raised() && !signals.lost.is_raised() {
        await_any_sign(&connection, signals, inbox, echo);
    }
    signals.released.raise();
    connection.close();
}

/// Waits until a silent server sends anything, or the connection is lost. In the end the client's own pings detect the loss, some six
/// minutes after the server last sent something. Closing earlier would end the pings, and nothing would wake the reading thread.
fn await_any_sign(connection: &Connection, signals: &LinkSignals, inbox: &str, echo: &Subscription) {
    /// How often to try whether the client has given the connection up.
    const TRY: Duration = Duration::from_secs(10);
    let remarks = signals.remarks.load(Ordering::Relaxed);
    loop {
        // This comes back on the echo subscription, or the server reports that we may not publish it.
        if connection.publish(inbox, "").is_err() {
            signals.lost.raise();
        }
        let until = Instant::now() + TRY;
        while Instant::now() < until {
            let answered = !echo.receiver().is_empty() || signals.remarks.load(Ordering::Relaxed) != remarks;
            if answered || signals.lost.wait(Duration::from_millis(100)) {
                return;
            }
        }
    }
}

struct Connected {
    connection: Connection,
    server: ServerInfo,
    inbox: Inbox,
    /// Only this connection itself publishes here.
    echo: Subscription,
}

struct Inbox {
    name: String,
    subscription: Subscription,
}

fn connect(cluster: &Cluster, signals: &LinkSignals, listener: &Arc<dyn ErrorListener>) -> Result<Connected, Error> {
    let config = cluster.config();
    let deadline = Instant::now() + config.timeout;
    let urls = cluster.urls();
    let mut trouble = broker_error(cluster.shown(), BrokerFault::Unreachable, "there is no server to connect to");
    for (at, url) in urls.iter().enumerate() {
        let shown = without_secrets(url);
        let address = access::parse(url)?;
        // Servers that come first leave time for those behind them.
        let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(urls.len() - at).unwrap_or(1);
        let greeting = match greeting::receive(address.host(), address.port(), share) {
            Ok(greeting) => greeting,
            Err(problem) => {
                trouble = problem.at(&shown);
                continue;
            }
        };
        let (options, attempt) = match access::prepare(config, &address, &greeting) {
            Ok(prepared) => prepared,
            Err(problem) => {
                trouble = problem.at(&shown);
                continue;
            }
        };
        let failed = Signal::default();
        match complete(options, config, signals, &failed, listener).connect(address.server()) {
            Ok(connection) => {
                signals.made.raise();
                cluster.learn(url, &greeting.connect_urls);
                let max_payload = connection.max_payload();
                let (address, tls) = (shown.clone(), attempt.is_tls());
                let server = ServerInfo { url: url.clone(), address, version: greeting.version, max_payload, tls };
                let name = match &config.inbox_prefix {
                    Some(prefix) => connection.new_inbox().replacen("_INBOX", prefix, 1),
                    None => connection.new_inbox(),
                };
                let subscribed = connection
                    .subscribe(&name)
                    .and_then(|echo| connection.subscribe(&format!("{name}.>")).map(|inbox| (echo, inbox)));
                let (echo, subscription) =
                    subscribed.map_err(|e| broker_error(&shown, BrokerFault::Request, one_line(&e)))?;
                return Ok(Connected { connection, server, inbox: Inbox { name, subscription }, echo });
            }
            Err(e) => {
                failed.raise();
                trouble = attempt.explain(&e).at(&shown);
            }
        }
    }
    Err(trouble)
}

/// Completes the client's options. When the connection is lost, the client connects again only once the link was dropped, in order to
/// be closed: see [`close`]. A connection that is lost while it is being made may connect again: making it ends with a flush,
/// which waits for an answer, and it cannot be closed before. But if that flush fails, the client does not end its threads: they
/// would connect again and stay connected, and nothing can close them. So its connecting thread is ended here. Its other one sleeps
/// from then on.
fn complete(
    options: Options,
    config: &BrokerConfig,
    signals: &LinkSignals,
    failed: &Signal,
    listener: &Arc<dyn ErrorListener>,
) -> Options {
    let LinkSignals { made, lost, leaving, released, remarks, .. } = signals.clone();
    let (listener, failed, has_failed) = (Arc::clone(listener), failed.clone(), failed.clone());
    options
        .with_name(&config.connection_name)
        // What is published while disconnected fails at once instead of being queued.
        .reconnect_buffer_size(0)
        .max_reconnects(None)
        // The default waits up to a second before even the first connect.
        .reconnect_delay_callback(move |tries| {
            if has_failed.is_raised() {
                log::debug!(
                    "broker: a connection was lost while it was made; a thread of the client sleeps from now on"
                );
                end_thread();
            }
            if tries == 0 { Duration::ZERO } else { Duration::from_millis(500) }
        })
        .disconnect_callback(move || {
            lost.raise();
            if !made.is_raised() {
                let _ = failed.wait(FAILS_WITHIN);
            }
            while made.is_raised() && !released.wait(Duration::from_secs(3600)) {}
        })
        .lame_duck_callback(move || leaving.raise())
        .error_callback(move |error| {
            remarks.fetch_add(1, Ordering::Relaxed);
            listener.remarked(&ServerRemark::parse(one_line(&error)));
        })
}

/// Ends this thread of the client without a message. Where panics abort the process, the thread sleeps instead.
fn end_thread() -> ! {
    if cfg!(panic = "unwind") {
        std::panic::resume_unwind(Box::new("the connection was not made"));
    }
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests;
