//! `catchment run`: collect a stream into a database.

use std::fmt::Write;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{Server, ServerPort};
use crate::config::{BrokerConfig, DatabaseConfig, Mode, RouteConfig};
use crate::error::{DatabaseFault, Error};
use crate::observe::{Observer, Phase, Server as HttpServer};
use crate::query::RequestCounts;
use crate::store::{self, Database, Lock, StartPhase};
use crate::{Collector, Config, Status, Until};
use anyhow::Context;
use clap::Args;
use indicatif::HumanCount;

use super::failure;
use super::profiling::Profiling;
use super::progress::{Progress, is_watched};
use super::quantities::{duration, whole};
use super::reloading::Reloads;
use super::server_program;
use super::service_manager::ServiceManager;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::shell;
use super::signals::Signals;
use super::starting;
use super::values::counted;

/// How often the counts are read.
const POLL: Duration = Duration::from_millis(100);

/// Collect events from a JetStream stream, or from core NATS, into a SQLite database, until stopped
///
/// With broker.mode = "core" in the settings (CATCHMENT_BROKER__MODE=core) there is no stream: the collector subscribes to
/// broker.subjects. Events are lost while it does not run, and while it has no room for them.
///
/// SIGHUP makes it read the settings file again: everything may change while it runs, except [broker], [database] and [observe]. A file
/// that cannot be used changes nothing, and the log says what is wrong with it. catchment reload does the same, and reports the outcome.
///
/// SIGINT (Ctrl-C) and SIGTERM stop it: events that it has received are committed first. A second signal ends it at once. Events
/// that were not committed are read again at the next start if they are in a stream.
///
/// Exit status: 0 if it was stopped, or if --drain is done; 130 (SIGINT) or 143 (SIGTERM) if a signal ended --drain before that, or if it
/// was a second signal; 129 if its terminal was closed during --drain.
///
/// With CATCHMENT_PROFILE=PREFIX in the environment it samples its own stacks and writes a profile at its end: PREFIX.json, and
/// PREFIX.svg with a flamegraph. This needs a build with the feature compare, which is a default.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// Also run a nats-server with JetStream on a loopback port
    ///
    /// The server ends with the collector. Its program is $NATS_SERVER_BIN, else nats-server on the PATH, else the one beside this program
    /// or the one that make has installed. It keeps its streams in DATABASE.nats, and its port where that is free. Its address is in
    /// DATABASE.server, where the other commands find it.
    #[arg(long, conflicts_with_all = ["context", "servers", "user", "password", "password_file", "token", "token_file", "creds", "nkey",
        "jwt", "tlscert", "tlskey", "tlsca", "js_domain", "js_api_prefix", "inbox_prefix"])]
    with_server: bool,

    /// The port of that server [default: its last port if it is free, else any free port]
    #[arg(long, value_name = "PORT", requires = "with_server", value_parser = whole::<u16>(1..=65_535, 4222))]
    server_port: Option<u16>,

    /// Wait at most this long for the broker to come up [default: broker.wait of the settings, 0s]
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "with_server")]
    wait: Option<Duration>,

    /// Stop when all events that are in the stream now are committed
    #[arg(long)]
    drain: bool,

    /// Stop in an orderly way when standard input ends, and so with the process that writes it
    #[arg(long, hide = true)]
    end_with_input: bool,

    /// Longest time for an orderly stop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    stop_timeout: Duration,
}

impl Run {
    /// Collects until stopped, or drained.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let signals = Signals::catch_with_reload()?;
        if self.end_with_input {
            signals.end_with_input()?;
        }
        let mut manager = ServiceManager::of_environment();
        manager.starting();
        let prepared = self.prepare(settings, &signals);
        if prepared.is_err() && signals.end_asked() {
            return self.stopped_early(&signals);
        }
        let Prepared { config, http, mut server, lock } = prepared?;
        let profile = Profiling::of_environment();
        let until = if self.drain { Until::Drained } else { Until::Stopped };
        let began = Instant::now();
        let observer = Observer::new(&config);
        let http = http.start(&observer)?;
        let _sampling = observer.start()?;
        if let Some(address) = http.shown() {
            log::info!(event = "observe.listening", address = address; "observe: metrics, health and a page are at {address}");
        }
        let keep_going = || {
            manager.starting();
            !signals.end_asked()
        };
        let started = Collector::start_locked(&config, until, &keep_going, lock);
        if started.is_err() {
            server.take().into_iter().for_each(Server::withdraw);
        }
        let collector = match started {
            Err(Error::Broker { .. }) if signals.end_asked() => return self.stopped_early(&signals),
            Err(Error::Database { fault: DatabaseFault::Interrupted, path, .. }) if signals.end_asked() => {
                let path = path.display();
                log::info!(
                    event = "collector.stopped_early", before = "the database was open";
                    "stopped before database {path} was open: unfinished migrations were rolled back, no events were received"
                );
                return self.interrupted(&signals);
            }
            started => started.map_err(|error| {
                starting::with_way_out(failure::of_start(settings.with_line(error, &config)), &config)
            })?,
        };
        let collector = Arc::new(collector);
        observer.set_phase(Phase::Running(Arc::clone(&collector)));
        http.add_socket(&config.database.path);
        log_start(&config, collector.subjects());
        manager.ready();
        if self.with_server && !self.drain && is_watched() && log::log_enabled!(log::Level::Info) {
            // If standard error is closed, there is nobody to read this.
            let _ = std::io::stderr().write_all(self.next_steps(&config, collector.subjects(), settings)?.as_bytes());
        }
        let total = self.drain.then(|| collector.status().pending);
        let progress = Progress::new(total, "event", "committed");
        let mut ended = false;
        let mut reloads = Reloads::new(&collector, settings);
        while !ended && !signals.end_asked() {
            ended = collector.wait(POLL).inspect_err(|_| progress.clear())?;
            if reloads.report() {
                manager.ready();
            }
            if !reloads.is_busy() && signals.reload_asked() {
                manager.reloading();
                if !reloads.begin(|| self.config(settings, server.as_ref().map(Server::url))) {
                    manager.ready();
                }
            }
            let status = collector.status();
            manager.update(collector.pulse(), || status_line(&status, &config));
            progress.show(status.committed, progress_note(&status, config.broker.mode));
            if let Some(own) = server.as_mut()
                && let Some(status) = own.ended()
            {
                progress.clear();
                let log = own.folder().join("server.log");
                anyhow::bail!("the nats-server that run started has ended ({status}); see its log: {}", log.display());
            }
        }
        progress.clear();
        manager.stopping();
        if !ended {
            log::info!(
                event = "collector.stopping";
                "stopping: committing the events received so far; a second signal ends at once"
            );
        }
        observer.set_phase(Phase::Stopping(Arc::clone(&collector)));
        let stopped = collector.stop(self.stop_timeout);
        // Removed while the lock may still be held: the next collector makes its own.
        drop(http);
        let (status, took) = (stopped?, began.elapsed());
        log::info!(
            event = "collector.stopped", committed = status.committed, dead_letters = status.dead_letters, dropped = status.dropped,
            lost = status.lost_events, seconds = took.as_secs_f64();
            "{}", summary(&status, took)
        );
        profile.finish();
        if ended { Ok(()) } else { self.interrupted(&signals) }
    }

    fn stopped_early(&self, signals: &Signals) -> anyhow::Result<()> {
        log::info!(
            event = "collector.stopped_early", before = "the broker came up";
            "stopped before the broker came up: no events were received"
        );
        self.interrupted(signals)
    }

    /// The end after a signal: of a run until a signal as planned, of any other one before it was done.
    fn interrupted(&self, signals: &Signals) -> anyhow::Result<()> {
        match signals.interrupted() {
            Some(status) if self.drain => Err(status.into()),
            _ => Ok(()),
        }
    }

    /// The settings as they are now, with the server that this command runs, if it runs one.
    fn config(&self, settings: &Settings, own_server: Option<&str>) -> Result<Config, Error> {
        let mut config;
        if let Some(url) = own_server {
            config = settings.for_own_broker(&self.database, &self.broker)?;
            config.broker = config.broker.on_own_server(url);
        } else {
            config = settings.for_broker(&self.database, &self.broker)?;
            config.broker.wait = self.wait.unwrap_or(config.broker.wait);
        }
        Ok(config)
    }

    fn prepare(&self, settings: &Settings, signals: &Signals) -> anyhow::Result<Prepared> {
        if !self.with_server {
            let config = self.config(settings, None)?;
            Database::must_not_be_of_others(&config.database, &config.routes, config.unmatched)?;
            let http = open_http(settings, &config)?;
            return Ok(Prepared { config, http, server: None, lock: None });
        }
        let config = settings.for_own_broker(&self.database, &self.broker)?;
        if settings.names_servers(&self.broker)? {
            let servers = config.broker.shown_servers();
            log::info!(
                event = "settings.unused", servers = servers;
                "broker.servers ({servers}) and its credentials are not used: --with-server starts a server"
            );
        }
        let http = open_http(settings, &config)?;
        // Taken before anything is started or made, and kept: a second server on the same streams would damage them.
        let lock = Lock::take_at(&config.database.path, StartPhase::StartingBroker)?;
        let port = self.server_port.map_or(ServerPort::Kept, ServerPort::Fixed);
        let server = Database::must_not_be_of_others(&config.database, &config.routes, config.unmatched)
            .map_err(Into::into)
            .and_then(|()| start_server(&server_program::find()?, &config.database, port, signals));
        let (lock, server) = lock.keep_if_ok(server)?;
        let config = self.config(settings, Some(server.url()))?;
        Ok(Prepared { config, http, server: Some(server), lock: Some(lock) })
    }

    /// The commands to try next, with the same program name and options.
    fn next_steps(&self, config: &Config, subjects: &[String], settings: &Settings) -> anyhow::Result<String> {
        let program = shell::program();
        let path = &config.database.path;
        let mut database = settings.file_flag();
        let is_known = settings.file().is_some() || *path == Config::default().database.path;
        if self.database.is_given() || !is_known {
            let _ = write!(database, " --database {}", shell::word(&path.to_string_lossy()));
        }
        let mut broker = database.clone();
        if settings.names_servers(&self.broker)? {
            // The other commands would use those servers.
            let _ = write!(broker, " --server {}", config.broker.servers.join(","));
        }
        let mut text = format!("\nThe database is {}. In another terminal, in this directory:\n\n", path.display());
        let (subject, payload) = example(&config.routes, subjects);
        let _ = writeln!(text, "  send an event     {program} publish{broker} {subject} {payload}");
        if config.routes.is_empty() {
            let _ = writeln!(
                text,
                "  read it back      {program} sql{database} \"SELECT id, subject, payload FROM events\""
            );
        } else {
            let _ = writeln!(text, "  see the tables    {program} sql{database} --tables");
            let _ = writeln!(text, "  see what failed   {program} dead-letters list{database}");
        }
        if let Some(query) = config.queries.first() {
            let _ = writeln!(text, "  run a query       {program} query{broker} {}", query.subject);
        }
        text += "\nCtrl-C stops collector and server; their files stay.\n\n";
        Ok(text)
    }
}

/// An event to try, as words of a command line: an example of the routes. Which payload fits routes without an example is not known, so
/// there are placeholders then, which no stream takes.
fn example(routes: &[RouteConfig], subjects: &[String]) -> (String, String) {
    let words = |subject: &str, payload: &str| (shell::word(subject).into_owned(), shell::word(payload).into_owned());
    match routes.iter().find_map(|route| route.example.as_ref()) {
        Some(example) => words(&example.subject, &example.payload),
        None if routes.is_empty() => {
            let subject = subjects.first().map_or("events.hello", String::as_str);
            words(&subject.replace('*', "any").replace('>', "hello"), "{\"from\": \"me\"}")
        }
        None => ("SUBJECT".into(), "PAYLOAD".into()),
    }
}

/// What a run needs before it collects.
struct Prepared {
    config: Config,
    http: HttpServer,
    server: Option<Server>,
    /// The database's lock, if it was taken before the server was started.
    lock: Option<Lock>,
}

/// Listens where the settings say, before anything is started.
fn open_http(settings: &Settings, config: &Config) -> anyhow::Result<HttpServer> {
    Ok(HttpServer::open(config).map_err(|error| settings.with_line(error, config))?)
}

/// Starts a nats-server for this collector.
fn start_server(
    program: &Path,
    database: &DatabaseConfig,
    port: ServerPort,
    signals: &Signals,
) -> anyhow::Result<Server> {
    let (folder, address) =
        (store::file_beside(&database.path, ".nats"), store::file_beside(&database.path, ".server"));
    let flags =
        |error: Error| anyhow::anyhow!("{}", error.to_string().replace("another port", "another --server-port"));
    let server = Server::start(program, &folder, &address, port, &|| !signals.end_asked()).map_err(flags)?;
    // Whoever may use the database may use the server.
    std::fs::set_permissions(&address, Permissions::from_mode(database.permissions))
        .with_context(|| format!("cannot set the permissions of {}", address.display()))?;
    Ok(server)
}

/// The first line of a collector that runs.
fn log_start(config: &Config, subjects: &[String]) {
    let (servers, path) = (config.broker.shown_servers(), config.database.path.display());
    let (version, sqlite) = (env!("CARGO_PKG_VERSION"), store::sqlite_version());
    let (routes, queries) = (config.routes.len(), config.queries.len());
    let subjects = subjects.join(", ");
    let (stream, what, manner) = match config.broker.mode {
        Mode::Jetstream => (Some(&config.broker.stream), shown_stream(&config.broker), ""),
        Mode::Core => (None, format!("subjects {subjects}"), " (core NATS: at most once)"),
    };
    let mut with = format!("catchment {version}, SQLite {sqlite}");
    for (number, noun) in [(routes, ["route", "routes"]), (queries, ["query", "queries"])] {
        if number > 0 {
            let _ = write!(with, ", {number} {}", noun[usize::from(number > 1)]);
        }
    }
    log::info!(
        event = "collector.started", version = version, sqlite = sqlite, database:% = path, servers = servers, stream = stream,
        subjects = subjects, routes = routes, queries = queries;
        "collecting {what} from {servers} into {path}{manner}: {with}"
    );
}

/// What is collected: `stream CHAT`, `partition 1 of 4 of stream CHAT`.
fn shown_stream(broker: &BrokerConfig) -> String {
    let partition = broker.shown_partition().map_or_else(String::new, |partition| format!("{partition} of "));
    format!("{partition}stream {}", broker.stream)
}

/// What `systemctl status` shows.
fn status_line(status: &Status, config: &Config) -> String {
    let from = match config.broker.mode {
        Mode::Jetstream => shown_stream(&config.broker),
        Mode::Core => "core NATS".into(),
    };
    let committed = counted(status.committed, "event");
    let mut line = format!("collecting {from}: {committed} committed {}", progress_note(status, config.broker.mode));
    for trouble in [&status.broker, &status.intake, &status.database, &status.service].into_iter().flatten() {
        let _ = write!(line, " · {}: {}", trouble.part, trouble.reason);
    }
    line
}

/// The text beside the progress.
fn progress_note(status: &Status, mode: Mode) -> String {
    let mut words = match mode {
        Mode::Jetstream => format!("· {} to come", HumanCount(status.pending)),
        Mode::Core => format!("· {} dropped", HumanCount(status.dropped)),
    };
    if status.dead_letters > 0 {
        let _ = write!(words, " · {}", counted(status.dead_letters, "dead letter"));
    }
    for (side, trouble) in [("broker", &status.broker), ("database", &status.database), ("service", &status.service)] {
        if let Some(trouble) = trouble {
            let _ = write!(words, " · {side} in trouble for {} s", trouble.since.elapsed().as_secs());
        }
    }
    words
}

fn summary(status: &Status, took: Duration) -> String {
    let mut words = format!("committed {} in {took:.2?}", counted(status.committed, "event"));
    if status.dead_letters > 0 {
        let _ = write!(words, ", {} of them as dead letters", HumanCount(status.dead_letters));
    }
    if status.unmatched_dropped > 0 {
        let _ = write!(words, ", {} of them dropped because no route takes them", HumanCount(status.unmatched_dropped));
    }
    if status.markers_skipped > 0 {
        let _ = write!(words, ", {} of them skipped as delete markers", HumanCount(status.markers_skipped));
    }
    if status.dropped > 0 {
        let _ = write!(words, ", dropped {} because there was no room", HumanCount(status.dropped));
    }
    if status.duplicates > 0 {
        let _ = write!(words, ", skipped {}", counted(status.duplicates, "duplicate"));
    }
    let RequestCounts { answered, failed } = status.requests;
    if answered + failed > 0 {
        let _ = write!(words, ", answered {}", counted(answered + failed, "request"));
    }
    if failed > 0 {
        let _ = write!(words, " ({} with an error)", HumanCount(failed));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouteExample;

    #[test]
    fn the_event_to_try_fits_what_is_collected() {
        let collected = ["chat.>".to_owned()];
        let words = |subject: &str, payload: &str| (subject.to_owned(), payload.to_owned());
        assert_eq!(example(&[], &collected), words("chat.hello", "'{\"from\": \"me\"}'"));
        let mut route = RouteConfig::new("chat.log", ["-"]);
        assert_eq!(example(std::slice::from_ref(&route), &collected), words("SUBJECT", "PAYLOAD"));
        let mut shown = RouteExample::default();
        (shown.subject, shown.payload) = ("chat.log".into(), "{\"a\": \"it's\"}".into());
        route.example = Some(shown);
        assert_eq!(example(&[route], &collected), words("chat.log", r#"'{"a": "it'\''s"}'"#));
    }
}
