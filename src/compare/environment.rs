//! Where a run takes place: a fresh database and, for the NATS arms, a broker with a fresh stream and a collector.
//!
//! All of it is removed when the environment is dropped.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::application::{ApplicationMessage, Job};
use super::context::RunContext;
use super::meter::Meters;
use super::options::Setup;
use super::process::ChildProcess;
use super::scratch_directory::ScratchDirectory;
use super::workload::Workload;
use super::{Arm, CompareError, Work, arms, instructions};
use crate::broker::{self, Server, ServerPort};
use crate::config::{BrokerConfig, DatabaseConfig, Mode};
use crate::store::{Database, Editor, Routes};

/// How long a process may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of the user's shell must not affect a run, nor hide the log line that a collector is ready.
const NOT_INHERITED: [&str; 3] = ["CATCHMENT_", "NATS_", "RUST_LOG"];

/// A running test environment.
pub(super) struct TestEnvironment<'a> {
    context: &'a RunContext<'a>,
    pub(super) setup: Setup,
    pub(super) workload: Workload,
    pub(super) database: PathBuf,
    pub(super) collector: Option<ChildProcess>,
    broker: Option<Broker>,
    // Dropped last: the processes above have files in it.
    directory: ScratchDirectory,
}

/// The broker, and the stream on it.
struct Broker {
    url: String,
    stream: String,
    subject: String,
    /// A server that was started for this environment and ends with it. `None` while it is away.
    own: Option<Server>,
    /// Whether somebody else's server is used.
    is_foreign: bool,
    /// Whether a collector has collected the stream, which it creates.
    has_stream: bool,
}

impl<'a> TestEnvironment<'a> {
    /// Creates the database and starts broker and collector.
    pub(super) fn start(context: &'a RunContext<'a>, setup: Setup) -> Result<Self, CompareError> {
        context.check_stop()?;
        let options = context.options;
        let number = context.next_number();
        let directory = ScratchDirectory::below(&context.directory, &number.to_string())?;
        let database = directory.path().join("events.db");
        let config = DatabaseConfig {
            path: database.clone(),
            synchronous: options.synchronous,
            writers: setup.writers,
            ..DatabaseConfig::default()
        };
        drop(Database::open(&config, &Routes::default())?);
        Editor::open(&database)?.run(statements(options.work))?;
        let broker = if arms::is_direct(setup.arm) {
            None
        } else {
            Some(Broker::start(context, setup.arm, &directory, number)?)
        };
        let subject = broker.as_ref().map_or("events.chat", |broker| &broker.subject);
        let workload = options.workload(&setup, subject);
        let mut environment = Self { context, setup, workload, database, collector: None, broker, directory };
        environment.start_collector()?;
        Ok(environment)
    }

    /// Starts the collector, if the arm has one.
    pub(super) fn start_collector(&mut self) -> Result<(), CompareError> {
        if let Some(broker) = &self.broker {
            let mode = arms::mode(self.setup.arm);
            self.collector = Some(self.collector("collector", broker, mode, &self.database)?);
        }
        if let Some(broker) = &mut self.broker {
            broker.has_stream = true;
        }
        Ok(())
    }

    /// Kills the collector, if there is one.
    pub(super) fn kill_collector(&mut self) {
        if let Some(mut collector) = self.collector.take() {
            collector.kill();
        }
    }

    /// Kills the broker. Its streams stay.
    pub(super) fn kill_broker(&mut self) {
        if let Some(server) = self.broker.as_mut().and_then(|broker| broker.own.take()) {
            if let Ok(pid) = i32::try_from(server.pid()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            drop(server);
        }
    }

    /// Starts the broker again, at the same address and with the same streams. Blocks until it takes connections.
    pub(super) fn restart_broker(&mut self) -> Result<(), CompareError> {
        let (context, arm, directory) = (self.context, self.setup.arm, &self.directory);
        let Some(broker) = self.broker.as_mut().filter(|broker| !broker.is_foreign) else { return Ok(()) };
        let port = broker.url.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse().ok());
        broker.own = Some(start_server(context, arm, directory, port.map_or(ServerPort::Any, ServerPort::Fixed))?);
        Ok(())
    }

    /// Starts another subscriber to the same events; returns it and its database, or `None` where the arm has no broker.
    pub(super) fn start_subscriber(&self) -> Result<Option<(ChildProcess, PathBuf)>, CompareError> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let database = self.directory.path().join("subscriber.db");
        Ok(Some((self.collector("subscriber", broker, Mode::Core, &database)?, database)))
    }

    fn collector(
        &self,
        role: &'static str,
        broker: &Broker,
        mode: Mode,
        database: &Path,
    ) -> Result<ChildProcess, CompareError> {
        let file = self.directory.path().join(format!("{role}.toml"));
        let settings = self.settings(broker, mode, database);
        std::fs::write(&file, settings).map_err(CompareError::system(format!("file {}", file.display())))?;
        let mut command = self.program(role);
        if self.setup.profiled {
            command.env("CATCHMENT_PROFILE", self.path(role));
        }
        command.arg("--config").arg(&file).args(["run", "--end-with-input", "--stop-timeout", "3s"]);
        let mut collector =
            ChildProcess::start(role, &mut command, &self.directory.path().join(format!("{role}.log")))?;
        collector.wait_for_log("collecting ", READY_TIMEOUT, self.context.callbacks.stop)?;
        Ok(collector)
    }

    fn settings(&self, broker: &Broker, mode: Mode, database: &Path) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let Setup { writers, batch, .. } = self.setup;
        let mut settings = String::new();
        let _ = writeln!(settings, "[broker]\nservers = [{}]", text(&broker.url));
        let _ = writeln!(settings, "subjects = [{}]", text(&format!("{}.>", broker.subject)));
        let _ = match mode {
            Mode::Core => writeln!(settings, "mode = \"core\""),
            Mode::Jetstream => writeln!(settings, "stream = {}", text(&broker.stream)),
        };
        let _ = writeln!(settings, "[database]\npath = {}", text(&database.to_string_lossy()));
        let _ = writeln!(settings, "synchronous = {}", text(self.context.options.synchronous_name()));
        let _ = writeln!(settings, "writers = {writers}\n[batch]\nmax_events = {batch}");
        settings
    }

    /// Starts an application that is connected and waits for the line to begin.
    pub(super) fn start_application(&self, first: u64) -> Result<(ChildProcess, Job), CompareError> {
        let options = self.context.options;
        let broker = self.broker.as_ref();
        let job = Job {
            arm: self.setup.arm,
            workload: self.workload.clone(),
            first,
            producers: self.setup.producers,
            rate: self.setup.rate,
            database: self.database.clone(),
            full: options.synchronous_name() == "full",
            writers: self.setup.writers,
            batch: self.setup.batch,
            server: broker.map(|broker| broker.url.clone()).unwrap_or_default(),
            stream: broker.map(|broker| broker.stream.clone()).unwrap_or_default(),
            connections: self.setup.connections,
            keeps_receipts: self.setup.keeps_receipts,
            profile: self.setup.profiled.then(|| self.path("application")),
        };
        let mut command = self.program("application");
        command.arg("compare-application");
        let log = self.directory.path().join("application.log");
        let mut application = ChildProcess::start("application", &mut command, &log)?;
        let line = serde_json::to_string(&job).map_err(|error| application.error(&error.to_string()))?;
        application.send_line(&line)?;
        let line = application.next_line(READY_TIMEOUT, self.context.callbacks.stop)?;
        match serde_json::from_str(&line) {
            Ok(ApplicationMessage::Ready) => Ok((application, job)),
            _ => Err(application.error("is not ready")),
        }
    }

    fn program(&self, role: &str) -> Command {
        let program = &self.context.options.program;
        let mut command = if self.setup.under_callgrind {
            instructions::under_callgrind(program, &self.path(&format!("{role}.callgrind")))
        } else {
            Command::new(program)
        };
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy();
            if NOT_INHERITED.iter().any(|prefix| shown.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command
    }

    /// The path of a file of this environment.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Meters of the processes that take part in the run.
    pub(super) fn meters(&self, application: &ChildProcess) -> Meters {
        let collector = self.collector.as_ref().map(|collector| ("collector", collector.pid()));
        let broker = self.broker.as_ref().and_then(|broker| Some(("broker", broker.own.as_ref()?.pid())));
        Meters([Some(("application", application.pid())), collector, broker].into_iter().flatten().collect())
    }

    /// Fails if collector or broker has exited.
    pub(super) fn check_processes(&mut self) -> Result<(), CompareError> {
        if let Some(collector) = &mut self.collector
            && collector.has_exited()
        {
            return Err(collector.exit_error());
        }
        if let Some(server) = self.broker.as_mut().and_then(|broker| broker.own.as_mut())
            && let Some(status) = server.ended()
        {
            let detail = format!("exited too early ({status})");
            return Err(CompareError::Process { role: "broker".into(), detail, log: String::new() });
        }
        Ok(())
    }
}

impl Broker {
    fn start(
        context: &RunContext<'_>,
        arm: Arm,
        directory: &ScratchDirectory,
        number: u64,
    ) -> Result<Self, CompareError> {
        let name = format!("compare-{}-{number}", std::process::id());
        let (stream, subject) = (name.replace('-', "_"), name.replace('-', "."));
        let (url, own) = if let Some(url) = &context.options.server {
            (url.clone(), None)
        } else {
            let server = start_server(context, arm, directory, ServerPort::Any)?;
            (server.url().to_owned(), Some(server))
        };
        Ok(Self { url, stream, subject, is_foreign: own.is_none(), own, has_stream: false })
    }
}

/// Starts the server of an environment.
fn start_server(
    context: &RunContext<'_>,
    arm: Arm,
    directory: &ScratchDirectory,
    port: ServerPort,
) -> Result<Server, CompareError> {
    let streams = directory.path().join("nats");
    let mut arguments = Vec::new();
    if arm == Arm::JetstreamSyncAlways {
        let file = directory.path().join("nats.conf");
        std::fs::write(&file, "jetstream { sync_interval: always }\n")
            .map_err(CompareError::system(format!("file {}", file.display())))?;
        arguments = vec!["--config".into(), file.into()];
    }
    let address = directory.path().join("nats.address");
    Ok(Server::start_on_port(&context.options.nats_server, &streams, &address, &arguments, port)?)
}

impl Drop for TestEnvironment<'_> {
    fn drop(&mut self) {
        // The collector first: without its broker it cannot drain.
        drop(self.collector.take());
        if let Some(Broker { url, stream, is_foreign: true, has_stream, .. }) = &self.broker
            && arms::mode(self.setup.arm) == Mode::Jetstream
        {
            let config = BrokerConfig { servers: vec![url.clone()], stream: stream.clone(), ..BrokerConfig::default() };
            match broker::remove_stream(&config) {
                Err(error) if *has_stream => {
                    log::warn!("stream {stream} could not be removed and stays on the server: {error}");
                }
                // A collector that did not start has created no stream, or ended just after it had.
                Err(error) => log::debug!("stream {stream} was not removed: {error}"),
                Ok(()) => {}
            }
        }
    }
}

/// The tables and triggers that the work adds. Triggers, so that every arm does the same work for a row.
fn statements(work: Work) -> &'static str {
    match work {
        Work::Insert => "",
        Work::Stats => STATS,
        Work::Prune => PRUNE,
    }
}

const STATS: &str = "
CREATE TABLE chat_stats(subject TEXT PRIMARY KEY, events INTEGER NOT NULL, last_us INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER chat_stats_count AFTER INSERT ON events BEGIN
    INSERT INTO chat_stats(subject, events, last_us) VALUES (new.subject, 1, new.published_us)
    ON CONFLICT(subject) DO UPDATE SET events = events + 1, last_us = excluded.last_us;
END;
";

const PRUNE: &str = "
CREATE TABLE chat_stats(subject TEXT PRIMARY KEY, events INTEGER NOT NULL, last_us INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE chat_recent(id INTEGER PRIMARY KEY, subject TEXT NOT NULL, payload ANY NOT NULL) STRICT;
CREATE TRIGGER chat_stats_count AFTER INSERT ON events BEGIN
    INSERT INTO chat_stats(subject, events, last_us) VALUES (new.subject, 1, new.published_us)
    ON CONFLICT(subject) DO UPDATE SET events = events + 1, last_us = excluded.last_us;
    INSERT INTO chat_recent(id, subject, payload) VALUES (new.id, new.subject, new.payload);
    DELETE FROM chat_recent WHERE id <= new.id - 1000;
END;
";
