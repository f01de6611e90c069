//! Where a run takes place: a fresh database and, for the NATS arms, a broker with a fresh stream and a collector.
//!
//! All of it is gone when the stage is dropped.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::application::{Order, Said};
use super::driver::Session;
use super::meter::Meters;
use super::options::Setup;
use super::process::Process;
use super::scratch_directory::Folder;
use super::workload::Workload;
use super::{Arm, Failure, Work, arms, instructions};
use crate::broker::{self, Server};
use crate::config::{BrokerConfig, DatabaseConfig, Mode};
use crate::store::{Database, Editor, Routes};

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// Settings of a user's shell must not reach into a run; nor may it hide the line of the log that says a collector is ready.
const NOT_INHERITED: [&str; 3] = ["CATCHMENT_", "NATS_", "RUST_LOG"];

/// A stage that is set.
pub(super) struct Stage<'a> {
    session: &'a Session<'a>,
    pub(super) setup: Setup,
    pub(super) workload: Workload,
    pub(super) database: PathBuf,
    pub(super) collector: Option<Process>,
    broker: Option<Broker>,
    // The last to go: the processes above have files in it.
    folder: Folder,
}

/// The broker of a stage, and the stream on it.
struct Broker {
    url: String,
    stream: String,
    subject: String,
    /// One of our own, which goes with the stage.
    own: Option<Server>,
}

impl<'a> Stage<'a> {
    /// Makes it ready for an application.
    pub(super) fn set(session: &'a Session<'a>, setup: Setup) -> Result<Self, Failure> {
        session.go_on()?;
        let options = session.options;
        let number = session.number();
        let folder = Folder::below(&session.folder, &number.to_string())?;
        let database = folder.path().join("events.db");
        let config = DatabaseConfig {
            path: database.clone(),
            synchronous: options.synchronous,
            writers: setup.writers,
            ..DatabaseConfig::default()
        };
        drop(Database::open(&config, &Routes::default())?);
        Editor::open(&database)?.run(statements(options.work))?;
        let broker =
            if arms::is_direct(setup.arm) { None } else { Some(Broker::start(session, setup.arm, &folder, number)?) };
        let subject = broker.as_ref().map_or("events.chat", |broker| &broker.subject);
        let workload = options.workload(&setup, subject);
        let mut stage = Self { session, setup, workload, database, collector: None, broker, folder };
        stage.collect()?;
        Ok(stage)
    }

    /// Starts the collector, where the arm has one.
    pub(super) fn collect(&mut self) -> Result<(), Failure> {
        if let Some(broker) = &self.broker {
            let mode = arms::mode(self.setup.arm);
            self.collector = Some(self.collector("collector", broker, mode, &self.database)?);
        }
        Ok(())
    }

    /// Another program that listens to the same events, and what it keeps them in; `None` where nobody can.
    pub(super) fn subscribe(&self) -> Result<Option<(Process, PathBuf)>, Failure> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let database = self.folder.path().join("subscriber.db");
        Ok(Some((self.collector("subscriber", broker, Mode::Core, &database)?, database)))
    }

    fn collector(&self, role: &'static str, broker: &Broker, mode: Mode, database: &Path) -> Result<Process, Failure> {
        let file = self.folder.path().join(format!("{role}.toml"));
        let settings = self.settings(broker, mode, database);
        std::fs::write(&file, settings).map_err(Failure::system(format!("file {}", file.display())))?;
        let mut command = self.program(role);
        if self.setup.profiled {
            command.env("CATCHMENT_PROFILE", self.path(role));
        }
        command.arg("--config").arg(&file).args(["run", "--end-with-input", "--stop-timeout", "3s"]);
        let mut collector = Process::start(role, &mut command, &self.folder.path().join(format!("{role}.log")))?;
        collector.logged("collecting ", READY, self.session.surroundings.stop)?;
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
        let _ = writeln!(settings, "synchronous = {}", text(self.session.options.synchronous_name()));
        let _ = writeln!(settings, "writers = {writers}\n[batch]\nmax_events = {batch}");
        settings
    }

    /// An application, connected and waiting for the word to go.
    pub(super) fn application(&self, first: u64) -> Result<(Process, Order), Failure> {
        let options = self.session.options;
        let broker = self.broker.as_ref();
        let order = Order {
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
            profile: self.setup.profiled.then(|| self.path("application")),
        };
        let mut command = self.program("application");
        command.arg("compare-application");
        let log = self.folder.path().join("application.log");
        let mut application = Process::start("application", &mut command, &log)?;
        let line = serde_json::to_string(&order).map_err(|error| application.failure(&error.to_string()))?;
        application.tell(&line)?;
        let said = application.hear(READY, self.session.surroundings.stop)?;
        match serde_json::from_str(&said) {
            Ok(Said::Ready) => Ok((application, order)),
            _ => Err(application.failure("is not ready")),
        }
    }

    fn program(&self, role: &str) -> Command {
        let program = &self.session.options.program;
        let mut command = if self.setup.under_callgrind {
            instructions::wrapped(program, &self.path(&format!("{role}.callgrind")))
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

    /// A file of the stage.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The processes whose use counts.
    pub(super) fn meters(&self, application: &Process) -> Meters {
        let collector = self.collector.as_ref().map(|collector| ("collector", collector.pid()));
        let broker = self.broker.as_ref().and_then(|broker| Some(("broker", broker.own.as_ref()?.pid())));
        Meters([Some(("application", application.pid())), collector, broker].into_iter().flatten().collect())
    }

    /// That nothing of the stage has broken down.
    pub(super) fn stands(&mut self) -> Result<(), Failure> {
        if let Some(collector) = &mut self.collector
            && collector.is_over()
        {
            return Err(collector.has_ended());
        }
        if let Some(server) = self.broker.as_mut().and_then(|broker| broker.own.as_mut())
            && let Some(status) = server.ended()
        {
            let what = format!("ended before its time ({status})");
            return Err(Failure::Process { role: "broker".into(), what, log: String::new() });
        }
        Ok(())
    }
}

impl Broker {
    fn start(session: &Session<'_>, arm: Arm, folder: &Folder, number: u64) -> Result<Self, Failure> {
        let name = format!("compare-{}-{number}", std::process::id());
        let (stream, subject) = (name.replace('-', "_"), name.replace('-', "."));
        let Some(url) = &session.options.server else {
            let streams = folder.path().join("nats");
            let mut arguments = Vec::new();
            if arm == Arm::JetstreamSyncAlways {
                let file = folder.path().join("nats.conf");
                std::fs::write(&file, "jetstream { sync_interval: always }\n")
                    .map_err(Failure::system(format!("file {}", file.display())))?;
                arguments = vec!["--config".into(), file.into()];
            }
            let address = folder.path().join("nats.address");
            let server = Server::start_with(&session.options.nats_server, &streams, &address, &arguments)?;
            return Ok(Self { url: server.url().to_owned(), stream, subject, own: Some(server) });
        };
        Ok(Self { url: url.clone(), stream, subject, own: None })
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // The collector first: without its broker it would not end in good order.
        drop(self.collector.take());
        if let Some(Broker { url, stream, own: None, .. }) = &self.broker
            && arms::mode(self.setup.arm) == Mode::Jetstream
        {
            let config = BrokerConfig { servers: vec![url.clone()], stream: stream.clone(), ..BrokerConfig::default() };
            if let Err(error) = broker::remove_stream(&config) {
                log::warn!("stream {stream} is left on the server: {error}");
            }
        }
    }
}

/// What the work adds to a fresh database. Triggers, so that it is the same whoever inserts the row.
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
