//! One connection, used on a thread of its own that can be left behind.
//!
//! Nothing outside this thread calls the client, so a call of it that never returns costs this thread and nothing else:
//! whoever waits has a deadline. The client's own reconnecting is not used. It forgets outstanding requests without a word,
//! meets a message it cannot read again and again, and gives up for good after a number of attempts; a new link is made
//! instead, and of the old one nothing stays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nats::{Connection, Message, Options, Subscription};

use super::cluster::Cluster;
use super::flush::Flusher;
use super::{access, greeting};
use crate::broker::broker_error;
use crate::config::{BrokerConfig, without_secrets};
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Signal, room_for_threads};
use crate::printable;

/// Threads of links, and links in use: the difference are threads being opened, being closed, or left behind in a call that
/// does not return. A server that makes calls hang for days must not fill the process.
static THREADS: AtomicUsize = AtomicUsize::new(0);
static IN_USE: AtomicUsize = AtomicUsize::new(0);
const MOST_LEFT_BEHIND: usize = 64;

/// Ours and the client's two, which panics where it gets none.
const THREADS_A_LINK: usize = 3;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// Hears what the client says beside messages: the server's errors, and that a subscription is over its limit. Called on the
/// thread that reads the connection, with the client's locks held: it must not call the client.
pub(in crate::broker) type Ear = Arc<dyn Fn(&str) + Send + Sync>;

/// A live connection with an inbox. Dropping it closes the connection, in the background.
pub(in crate::broker) struct Link {
    cluster: Arc<Cluster>,
    jobs: Sender<Job>,
    signs: Signs,
    opened: Opened,
    requests: AtomicUsize,
    /// A message, for it knows what the server has said last of its cluster.
    witness: OnceLock<Message>,
    _counted: Counted,
}

/// The server at the other end.
#[derive(Clone)]
pub(in crate::broker) struct Server {
    /// As it was connected to, with the secrets that may stand in it: never shown.
    url: String,
    /// Its address, without secrets.
    pub(in crate::broker) address: String,
    /// Its version.
    pub(in crate::broker) version: String,
    /// The largest event it takes, headers included.
    pub(in crate::broker) max_payload: usize,
    /// Whether it is spoken to over TLS.
    pub(in crate::broker) tls: bool,
}

/// The link gave no answer in time, or went away: it is of no further use.
#[derive(Debug)]
pub(in crate::broker) struct Gone(pub(in crate::broker) String);

/// What is known of a connection from outside its thread.
#[derive(Clone, Debug, Default)]
struct Signs {
    /// It was made.
    made: Signal,
    /// It has ended.
    lost: Signal,
    /// The server goes out of service soon.
    leaving: Signal,
    /// The server did not answer.
    silent: Signal,
    /// Nobody uses the connection any more.
    released: Signal,
    /// Counts what the server said outside of messages.
    remarks: Arc<AtomicUsize>,
}

/// A connection that has just been made.
struct Opened {
    server: Server,
    inbox: String,
    messages: Receiver<Message>,
}

impl Link {
    /// Connects to the first server that answers. Blocks at most for the configured time-out.
    pub(in crate::broker) fn open(cluster: &Arc<Cluster>, stop: &Signal) -> Result<Self, Error> {
        Self::open_with(cluster, stop, Arc::new(|remark| log::warn!("broker: the server says: {remark}")))
    }

    /// As [`Link::open`], with an ear of its own.
    pub(in crate::broker) fn open_with(cluster: &Arc<Cluster>, stop: &Signal, ear: Ear) -> Result<Self, Error> {
        let timeout = cluster.config().timeout;
        let all = || cluster.config().shown_servers();
        let left_behind = THREADS.load(Ordering::Relaxed).saturating_sub(IN_USE.load(Ordering::Relaxed));
        if left_behind >= MOST_LEFT_BEHIND {
            let detail = format!("{left_behind} connections hang in calls that do not return; waiting for one to end");
            return Err(broker_error(all(), BrokerFault::Silent, detail));
        }
        let no_thread = |e: Error| broker_error(all(), BrokerFault::Unreachable, e.to_string());
        room_for_threads(THREADS_A_LINK, "for a connection").map_err(no_thread)?;
        let counted = Counted::among(&THREADS);
        let (ready_in, ready_out) = crossbeam_channel::bounded(1);
        let (jobs_in, jobs_out) = crossbeam_channel::unbounded();
        let signs = Signs::default();
        let (thread_cluster, thread_signs) = (Arc::clone(cluster), signs.clone());
        thread::Builder::new()
            .name("catchment-link".into())
            .spawn(move || {
                let _counted = counted;
                run(&thread_cluster, &thread_signs, &ear, &ready_in, &jobs_out);
            })
            .map_err(|e| broker_error(all(), BrokerFault::Unreachable, format!("no thread for a connection: {e}")))?;
        // The thread keeps to the time-out wherever it can; the grace is for calls where it cannot.
        let grace = Duration::from_millis(250);
        let silent = |what: &str| broker_error(all(), BrokerFault::Silent, what);
        crossbeam_channel::select! {
            recv(ready_out) -> opened => match opened {
                Ok(opened) => Ok(Self {
                    cluster: Arc::clone(cluster),
                    jobs: jobs_in,
                    signs,
                    opened: opened?,
                    requests: AtomicUsize::new(0),
                    witness: OnceLock::new(),
                    _counted: Counted::among(&IN_USE),
                }),
                Err(_) => Err(silent("connecting failed without a reason")),
            },
            recv(stop.channel()) -> _ => Err(silent("connecting was broken off by a stop")),
            default(timeout + grace) => Err(silent(&format!("no answer to the connection within {timeout:?}"))),
        }
    }

    /// Has a call of the client run, behind those before it.
    pub(in crate::broker) fn post(&self, job: impl FnOnce(&Connection) + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }

    /// Has a call of the client run and waits for what it gives, at most for `within` and until the stop.
    pub(in crate::broker) fn call<T: Send + 'static>(
        &self,
        within: Duration,
        stop: &Signal,
        job: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (done_in, done_out) = crossbeam_channel::bounded(1);
        self.post(move |connection| {
            let _ = done_in.send(job(connection));
        });
        crossbeam_channel::select! {
            recv(done_out) -> done => done.map_err(|_| self.gone()),
            recv(stop.channel()) -> _ => Err(Gone("broken off by a stop".into())),
            default(within) => {
                self.fell_silent();
                Err(Gone(format!("no end within {within:?}")))
            }
        }
    }

    /// Publishes without waiting; where that fails, the connection is about to be lost. `reply` names the answer, which
    /// comes among the messages.
    pub(in crate::broker) fn publish(&self, subject: String, reply: &str, body: impl AsRef<[u8]> + Send + 'static) {
        let reply = format!("{}.{reply}", self.opened.inbox);
        self.post(move |connection| {
            if let Err(e) = connection.publish_request(&subject, &reply, body) {
                log::debug!("broker: {subject}: {}", one_line(&e));
            }
        });
    }

    /// Asks and waits for the answer, at most until `stop`. Messages that are none are passed over.
    pub(in crate::broker) fn request(
        &self,
        subject: String,
        body: impl AsRef<[u8]> + Send + 'static,
        within: Duration,
        stop: Option<&Signal>,
    ) -> Result<Message, Gone> {
        let until = Instant::now() + within;
        let reply = format!("request-{}", self.requests.fetch_add(1, Ordering::Relaxed));
        let subject_of_answer = format!("{}.{reply}", self.opened.inbox);
        self.publish(subject, &reply, body);
        let never = Signal::default();
        loop {
            crossbeam_channel::select! {
                recv(stop.unwrap_or(&never).channel()) -> _ => return Err(Gone("broken off by a stop".into())),
                recv(self.opened.messages) -> message => match message {
                    Ok(message) if message.subject == subject_of_answer => {
                        self.saw(&message);
                        return Ok(message);
                    }
                    Ok(_) => {}
                    Err(_) => return Err(self.gone()),
                },
                recv(self.signs.lost.channel()) -> _ => return Err(self.gone()),
                default(until.saturating_duration_since(Instant::now())) => {
                    self.fell_silent();
                    return Err(Gone(format!("no answer within {within:?}")));
                }
            }
        }
    }

    /// Is shown a message that came on this connection.
    pub(in crate::broker) fn saw(&self, message: &Message) {
        if self.witness.get().is_none() {
            let _ = self.witness.set(message.clone());
        }
    }

    /// Takes in which servers the cluster has by now: the server tells when one joins or leaves.
    fn learn(&self) {
        if let Some(client) = self.witness.get().and_then(|message| message.client.as_ref()) {
            let told = client.server_info().connect_urls;
            // Of a server that is alone nothing is told, and what was known may be outdated all the same.
            if !told.is_empty() {
                self.cluster.learn(&self.opened.server.url, &told);
            }
        }
    }

    /// Where answers come to: this and another token.
    pub(in crate::broker) fn inbox(&self) -> &str {
        &self.opened.inbox
    }

    /// What comes to the inbox.
    pub(in crate::broker) fn messages(&self) -> &Receiver<Message> {
        &self.opened.messages
    }

    /// Hears that the server does not answer, so that closing does not wait for it either.
    pub(in crate::broker) fn fell_silent(&self) {
        self.signs.silent.raise();
    }

    /// Switched on when the connection has ended.
    pub(in crate::broker) fn lost(&self) -> &Signal {
        &self.signs.lost
    }

    /// Whether the server is about to go out of service while another one is known: time to go there. See
    /// <https://docs.nats.io/running-a-nats-service/nats_admin/lame_duck_mode>.
    pub(in crate::broker) fn should_move(&self) -> bool {
        if !self.signs.leaving.is_raised() {
            return false;
        }
        self.learn();
        self.cluster.has_others(&self.opened.server.url)
    }

    /// The server at the other end.
    pub(in crate::broker) fn server(&self) -> &Server {
        &self.opened.server
    }

    fn gone(&self) -> Gone {
        Gone(format!("the connection to {} was lost", self.opened.server.address))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.learn();
        let Signs { lost, leaving, silent, .. } = &self.signs;
        if [lost, leaving, silent].iter().any(|sign| sign.is_raised()) {
            self.cluster.put_last(&self.opened.server.url);
        }
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

fn run(cluster: &Cluster, signs: &Signs, ear: &Ear, ready: &Sender<Result<Opened, Error>>, jobs: &Receiver<Job>) {
    match connect(cluster, signs, ear) {
        Ok(Connected { connection, server, inbox, door }) => {
            let messages = inbox.subscription.receiver().clone();
            let flusher = server.tls.then(|| Flusher::start(&connection, true, &signs.lost));
            if ready.send(Ok(Opened { server, inbox: inbox.name.clone(), messages })).is_ok() {
                for job in jobs {
                    job(&connection);
                    // Over TLS every write needs one behind it.
                    flusher.iter().for_each(Flusher::kick);
                }
            }
            drop(flusher);
            close(connection, signs, &inbox.name, &door);
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// Ends the connection and with it the client's threads. That takes a word of the server: the reading thread hears of the
/// end only between two of them, and a flush that was under way when the connection was lost is answered on the client's
/// next connection, which it may make now, or never.
fn close(connection: Connection, signs: &Signs, inbox: &str, door: &Subscription) {
    if signs.silent.is_raised() && !signs.lost.is_raised() {
        await_a_word(&connection, signs, inbox, door);
    }
    signs.released.raise();
    connection.close();
}

/// Waits until a silent server says anything, or the connection is lost: in the end the client's own pings see to that,
/// some six minutes after the last word. Closing earlier would end the pings and leave the reading thread with nothing to
/// wake it.
fn await_a_word(connection: &Connection, signs: &Signs, inbox: &str, door: &Subscription) {
    /// How often to try whether the client has given the connection up.
    const TRY: Duration = Duration::from_secs(10);
    let remarks = signs.remarks.load(Ordering::Relaxed);
    loop {
        // This comes back to the door, or the server remarks that we may not.
        if connection.publish(inbox, "").is_err() {
            signs.lost.raise();
        }
        let until = Instant::now() + TRY;
        while Instant::now() < until {
            let answered = !door.receiver().is_empty() || signs.remarks.load(Ordering::Relaxed) != remarks;
            if answered || signs.lost.wait(Duration::from_millis(100)) {
                return;
            }
        }
    }
}

struct Connected {
    connection: Connection,
    server: Server,
    inbox: Inbox,
    /// Nobody but ourselves sends anything here.
    door: Subscription,
}

struct Inbox {
    name: String,
    subscription: Subscription,
}

fn connect(cluster: &Cluster, signs: &Signs, ear: &Ear) -> Result<Connected, Error> {
    let config = cluster.config();
    let deadline = Instant::now() + config.timeout;
    let mut trouble =
        broker_error(config.shown_servers(), BrokerFault::Unreachable, "there is no server to connect to");
    let urls = cluster.urls();
    for (at, url) in urls.iter().enumerate() {
        let shown = without_secrets(url);
        let fail = |fault, detail: String| broker_error(&shown, fault, detail);
        let address = access::parse(url)?;
        // Servers that come first leave time for those behind them.
        let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(urls.len() - at).unwrap_or(1);
        let greeting = match greeting::ask(address.host(), address.port(), share) {
            Ok(greeting) => greeting,
            Err((fault, detail)) => {
                trouble = fail(fault, detail);
                continue;
            }
        };
        let (options, attempt) = match access::prepare(config, &address, &greeting) {
            Ok(prepared) => prepared,
            Err((fault, detail)) => {
                trouble = fail(fault, detail);
                continue;
            }
        };
        match complete(options, config, signs, ear).connect(address.server()) {
            Ok(connection) => {
                signs.made.raise();
                cluster.learn(url, &greeting.connect_urls);
                let max_payload = connection.max_payload();
                let (address, tls) = (shown.clone(), attempt.is_tls());
                let server = Server { url: url.clone(), address, version: greeting.version, max_payload, tls };
                let name = match &config.inbox_prefix {
                    Some(prefix) => connection.new_inbox().replacen("_INBOX", prefix, 1),
                    None => connection.new_inbox(),
                };
                let subscribed = connection
                    .subscribe(&name)
                    .and_then(|door| connection.subscribe(&format!("{name}.*")).map(|inbox| (door, inbox)));
                let (door, subscription) = subscribed.map_err(|e| fail(BrokerFault::Request, one_line(&e)))?;
                return Ok(Connected { connection, server, inbox: Inbox { name, subscription }, door });
            }
            Err(e) => {
                let (fault, detail) = attempt.explain(&e);
                trouble = fail(fault, detail);
            }
        }
    }
    Err(trouble)
}

/// Completes the client's options. When the connection is lost, the client connects anew only once nobody uses it any more,
/// in order to be closed: see [`close`]. One that is lost while it is being made may connect anew at once: making it ends with
/// a flush, which waits for an answer, and nobody could close it before.
fn complete(options: Options, config: &BrokerConfig, signs: &Signs, ear: &Ear) -> Options {
    let Signs { made, lost, leaving, released, remarks, .. } = signs.clone();
    let ear = Arc::clone(ear);
    options
        .with_name(&config.connection_name)
        // What is published while disconnected is an error at once, not a promise.
        .reconnect_buffer_size(0)
        .max_reconnects(None)
        // The default waits up to a second before even the first connect.
        .reconnect_delay_callback(|tries| if tries == 0 { Duration::ZERO } else { Duration::from_millis(500) })
        .disconnect_callback(move || {
            lost.raise();
            while made.is_raised() && !released.wait(Duration::from_secs(3600)) {}
        })
        .lame_duck_callback(move || leaving.raise())
        .error_callback(move |error| {
            remarks.fetch_add(1, Ordering::Relaxed);
            ear(&one_line(&error));
        })
}

/// An error's text on one line. It may be the server's, and name a subject of anybody's choice.
pub(in crate::broker) fn one_line(error: &std::io::Error) -> String {
    printable(&error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}
