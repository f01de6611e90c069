//! `catchment run`: collect a stream into a database.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::broker::Server;
use crate::config::Mode;
use crate::error::Error;
use crate::query::RequestCounts;
use crate::{Collector, Config, Status, Until, store};
use clap::Args;
use indicatif::HumanCount;

use super::profiling::Profiling;
use super::progress::Progress;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::values::counted;

/// How often the counts are read.
const POLL: Duration = Duration::from_millis(100);

/// Collect events from a JetStream stream, or from core NATS, into a SQLite database, until stopped
///
/// With broker.mode = "core" in the settings (CATCHMENT_BROKER__MODE=core) there is no stream: the collector subscribes to
/// broker.subjects. Events are lost while it does not run, and while it has no room for them.
///
/// SIGINT (Ctrl-C) and SIGTERM stop it: events that it has received are committed first. A second signal ends it at once. Events
/// that were not committed are read again at the next start if they are in a stream.
///
/// With CATCHMENT_PROFILE=PREFIX in the environment it samples its own stacks and writes a profile at its end: PREFIX.json, and
/// PREFIX.svg with a flamegraph. This needs a build with the feature compare, which is a default.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// Also run a nats-server with JetStream on a free loopback port
    ///
    /// The server ends with the collector. Its program is $NATS_SERVER_BIN, else nats-server on the PATH. It keeps its streams in
    /// DATABASE.nats. Its address is in DATABASE.server, where the other commands find it.
    #[arg(long, conflicts_with = "context")]
    with_server: bool,

    /// Wait at most this long for the broker to come up [default: broker.wait of the settings, 0s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "with_server")]
    wait: Option<Duration>,

    /// Stop when all events that are in the stream now are committed
    #[arg(long)]
    drain: bool,

    /// Stop in an orderly way when standard input ends, and so with the process that writes it
    #[arg(long, hide = true)]
    end_with_input: bool,

    /// Longest time for an orderly stop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    stop_timeout: Duration,
}

impl Run {
    /// Collects until stopped, or drained.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let signals = Signals::catch()?;
        if self.end_with_input {
            signals.end_with_input()?;
        }
        let (config, mut server) = self.prepare(settings)?;
        let profile = Profiling::of_environment();
        let until = if self.drain { Until::Drained } else { Until::Stopped };
        let began = Instant::now();
        let collector = match Collector::start_while(&config, until, &|| !signals.end_asked()) {
            Err(Error::Broker { .. }) if signals.end_asked() => {
                log::info!("stopped before the broker came up: no events were received");
                return Ok(());
            }
            started => started?,
        };
        let (servers, path) = (config.broker.shown_servers(), config.database.path.display());
        match config.broker.mode {
            Mode::Jetstream => log::info!("collecting stream {} from {servers} into {path}", config.broker.stream),
            Mode::Core => {
                let subjects = config.broker.subjects.join(", ");
                log::info!("collecting subjects {subjects} from {servers} into {path} (core NATS: at most once)");
            }
        }
        if self.with_server {
            print_next_steps(&config, settings, &self.database);
        }
        let total = self.drain.then(|| collector.status().pending);
        let progress = Progress::new(total, "events committed");
        let mut ended = false;
        while !ended && !signals.end_asked() {
            ended = collector.wait(POLL).inspect_err(|_| progress.clear())?;
            let status = collector.status();
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
        if !ended {
            log::info!("stopping: committing the events received so far; a second signal ends at once");
        }
        let status = collector.stop(self.stop_timeout)?;
        log::info!("{}", summary(&status, began.elapsed()));
        profile.finish();
        Ok(())
    }

    fn prepare(&self, settings: &Settings) -> anyhow::Result<(Config, Option<Server>)> {
        if !self.with_server {
            let mut config = settings.for_broker(&self.database, &self.broker)?;
            config.broker.wait = self.wait.unwrap_or(config.broker.wait);
            return Ok((config, None));
        }
        let mut config = settings.for_own_broker(&self.database, &self.broker)?;
        let server = start_server(&config.database.path)?;
        config.broker = config.broker.on_own_server(server.url());
        Ok((config, Some(server)))
    }
}

/// Starts a nats-server for this collector.
fn start_server(database: &Path) -> anyhow::Result<Server> {
    // Checked before the server starts, because a second server on the same store would damage it.
    drop(store::Lock::take(database)?);
    let program = std::env::var_os("NATS_SERVER_BIN").filter(|program| !program.is_empty());
    let program = program.map_or_else(|| PathBuf::from("nats-server"), PathBuf::from);
    Ok(Server::start(&program, &store::beside(database, "nats"), &store::beside(database, "server"))?)
}

/// Prints the commands to try next, with the same program name and options.
fn print_next_steps(config: &Config, settings: &Settings, database: &DatabaseArgs) {
    let program = std::env::args().next().unwrap_or_else(|| "catchment".into());
    let path = &config.database.path;
    let mut options = settings.file().map_or_else(String::new, |file| format!(" --config {}", file.display()));
    let is_known = settings.file().is_some() || *path == Config::default().database.path;
    if database.is_given() || !is_known {
        let _ = write!(options, " --database {}", path.display());
    }
    let subject = config.broker.subjects[0].replace('*', "any").replace('>', "hello");
    eprintln!("\nThe database is {}. In another terminal, in this directory:\n", path.display());
    if config.routes.is_empty() {
        eprintln!("  send an event     {program} publish{options} {subject} '{{\"from\": \"me\"}}'");
        eprintln!("  read it back      {program} sql{options} \"SELECT id, subject, payload FROM events\"");
    } else {
        // Which payload fits depends on the routes.
        eprintln!("  send an event     {program} publish{options} {subject} '{{…}}'");
        eprintln!("  see the tables    {program} sql{options} \"SELECT name FROM sqlite_schema WHERE type = 'table'\"");
        eprintln!("  see what failed   {program} dead-letters list{options}");
    }
    if let Some(query) = config.queries.first() {
        eprintln!("  run a query       {program} query{options} {}", query.subject);
    }
    eprintln!("\nCtrl-C stops collector and server; their files stay.\n");
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
    if status.dropped > 0 {
        let _ = write!(words, ", dropped {} because there was no room", HumanCount(status.dropped));
    }
    if status.duplicates > 0 {
        let _ = write!(words, ", skipped {} duplicates", HumanCount(status.duplicates));
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
