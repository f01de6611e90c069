//! `catchment run`: collect a stream into a database.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::broker::Server;
use crate::compare::Profile;
use crate::config::Mode;
use crate::error::Error;
use crate::query::RequestCounts;
use crate::{Collector, Config, Status, Until, store};
use clap::Args;
use indicatif::HumanCount;

use super::progress::Progress;
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::signals::Signals;
use super::values::counted;

/// How often the counts are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Collect a JetStream stream, or what is published to core NATS, into a SQLite database, until stopped
///
/// With broker.mode = "core" in the settings (CATCHMENT_BROKER__MODE=core) no stream is used: broker.subjects are listened
/// to, and what nobody listens to, or has no room for, is lost.
///
/// SIGINT (Ctrl-C) and SIGTERM drain: what has been taken in is committed first. A second one ends at once; what was not
/// committed then is read again at the next start, if it is in a stream.
///
/// With CATCHMENT_PROFILE=PREFIX in the environment it samples its own stacks and says at its end where the time went:
/// PREFIX.json, and PREFIX.svg with a flamegraph.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// Also start a nats-server with JetStream on a free loopback port, and end it at the end
    ///
    /// The program is $NATS_SERVER_BIN, else nats-server on the PATH. Its streams are kept in DATABASE.nats, its address
    /// is written to DATABASE.server, where the other commands find it.
    #[arg(long, conflicts_with = "context")]
    with_server: bool,

    /// Wait for a broker that is not there yet, at most so long [default: broker.wait of the settings, 0s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "with_server")]
    wait: Option<Duration>,

    /// End when everything that is in the stream now is committed
    #[arg(long)]
    drain: bool,

    /// End in good order when standard input does: with the process at its other end, however that ends
    #[arg(long, hide = true)]
    end_with_input: bool,

    /// The longest that an orderly stop may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    stop_timeout: Duration,
}

impl Run {
    /// Collects until the end.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let signals = Signals::catch()?;
        if self.end_with_input {
            signals.end_with_input()?;
        }
        let (config, mut server) = self.prepare(settings)?;
        let profile = Profiling::of_environment();
        let until = if self.drain { Until::Drained } else { Until::Stopped };
        let began = Instant::now();
        let mut collector = match Collector::start_while(&config, until, &|| !signals.end_asked()) {
            Err(Error::Broker { .. }) if signals.end_asked() => {
                log::info!("stopped before the broker was there: nothing was taken in");
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
            greet(&config, settings, &self.database);
        }
        let total = self.drain.then(|| collector.status().pending);
        let progress = Progress::new(total, "events committed");
        let mut ended = false;
        while !ended && !signals.end_asked() {
            ended = collector.wait(LOOK).inspect_err(|_| progress.clear())?;
            let status = collector.status();
            progress.show(status.committed, note(&status, config.broker.mode));
            if let Some(own) = server.as_mut()
                && let Some(status) = own.ended()
            {
                progress.clear();
                let log = own.folder().join("server.log");
                anyhow::bail!("the nats-server beside the collector ended ({status}); its log is {}", log.display());
            }
        }
        progress.clear();
        if !ended {
            log::info!("stopping: what has been taken in is committed first; a second signal ends at once");
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
        config.broker = config.broker.on_open_server(server.url());
        Ok((config, Some(server)))
    }
}

/// The collector's profile, where `CATCHMENT_PROFILE` says which files to write it to. Collecting matters more: what keeps
/// the profile from being taken is a line in the log.
struct Profiling(Option<(Profile, PathBuf)>);

impl Profiling {
    fn of_environment() -> Self {
        let prefix = std::env::var_os("CATCHMENT_PROFILE").filter(|prefix| !prefix.is_empty());
        Self(prefix.and_then(|prefix| match Profile::start() {
            Ok(profile) => Some((profile, prefix.into())),
            Err(error) => {
                log::warn!("{error}");
                None
            }
        }))
    }

    fn finish(self) {
        let Some((profile, prefix)) = self.0 else { return };
        match profile.finish(&prefix) {
            Ok(found) => log::info!("profile of {} samples in {}.json and .svg", found.samples, prefix.display()),
            Err(error) => log::warn!("{error}"),
        }
    }
}

/// Starts the nats-server beside the collector.
fn start_server(database: &Path) -> anyhow::Result<Server> {
    // Asked before the server is: two servers on one store would be worse than two collectors on one database.
    drop(store::Lock::take(database)?);
    let program = std::env::var_os("NATS_SERVER_BIN").filter(|program| !program.is_empty());
    let program = program.map_or_else(|| PathBuf::from("nats-server"), PathBuf::from);
    Ok(Server::start(&program, &store::beside(database, "nats"), &store::beside(database, "server"))?)
}

/// Says what to type next, in the words of whoever started this.
fn greet(config: &Config, settings: &Settings, database: &DatabaseArgs) {
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
        // What its routes want of an event is theirs.
        eprintln!("  send an event     {program} publish{options} {subject} '{{…}}'");
        eprintln!("  see the tables    {program} sql{options} \"SELECT name FROM sqlite_schema WHERE type = 'table'\"");
        eprintln!("  and what failed   {program} dead-letters list{options}");
    }
    if let Some(query) = config.queries.first() {
        eprintln!("  ask a query       {program} query{options} {}", query.subject);
    }
    eprintln!("\nCtrl-C ends collector and server; what they keep stays.\n");
}

/// A few words on how it goes.
fn note(status: &Status, mode: Mode) -> String {
    let mut words = match mode {
        Mode::Jetstream => format!("· {} to come", HumanCount(status.pending)),
        Mode::Core => format!("· {} dropped", HumanCount(status.dropped)),
    };
    if status.dead_letters > 0 {
        let _ = write!(words, " · {}", counted(status.dead_letters, "dead letter"));
    }
    for (side, trouble) in [("broker", &status.broker), ("database", &status.database), ("service", &status.service)] {
        if let Some(trouble) = trouble {
            let _ = write!(words, " · {side} unwell for {} s", trouble.since.elapsed().as_secs());
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
        let _ = write!(words, ", dropped {} for want of room", HumanCount(status.dropped));
    }
    if status.duplicates > 0 {
        let _ = write!(words, ", passed over {} known ones", HumanCount(status.duplicates));
    }
    let RequestCounts { answered, failed } = status.asked;
    if answered + failed > 0 {
        let _ = write!(words, ", answered {}", counted(answered + failed, "request"));
    }
    if failed > 0 {
        let _ = write!(words, " ({} with an error)", HumanCount(failed));
    }
    words
}
