//! Waits for a collector that is starting, so that commands can follow `catchment run … &` at once.
//!
//! A collector holds the database's lock from its start, and its lock file says how far it is. A command waits only while that file says
//! that a start is under way. A process that was started a moment before may not have the lock yet, so a command that would fail tries
//! again for [`GRACE`]. It does not wait for a collector that has started, or that is not there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::Config;
use crate::broker::{address_in, has_streams};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::hint;
use crate::store::{Lock, StartPhase, file_beside};

/// How long a process that was started just before may need until it holds the lock.
const GRACE: Duration = Duration::from_secs(1);

/// The longest wait for a database that is being made, where no time-out of the command applies.
const DATABASE_WAIT: Duration = Duration::from_secs(5);

/// A wait is logged if it is longer.
const UNNOTICED: Duration = Duration::from_secs(1);

/// How often to look.
const PAUSE: Duration = Duration::from_millis(50);

/// A failure that a starting collector may end.
#[derive(Debug)]
pub struct Failure {
    /// The failure. It ends the command if no collector is starting.
    pub error: anyhow::Error,
    /// Whether to try again.
    pub may_pass: bool,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), may_pass: false }
    }
}

impl Failure {
    /// A failure that may pass.
    pub fn passing(error: anyhow::Error) -> Self {
        Self { error, may_pass: true }
    }
}

/// Uses the broker of this database's collector. While that collector is starting, tries again if the broker cannot be reached or
/// `attempt` says that its failure may pass, at most for `at_most` and while `keep_going` returns `true`. `is_named`: the settings name the
/// servers. A named server that cannot be reached is waited for only while a collector is starting too.
pub fn connect<T>(
    database: &Path,
    at_most: Duration,
    is_named: bool,
    keep_going: &dyn Fn() -> bool,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> anyhow::Result<T> {
    Wait::new(database, at_most).retry(keep_going, |phase, has_time| {
        let is_starting = phase.is_some_and(|phase| phase != StartPhase::Running);
        if is_starting && !is_named && has_time {
            // The broker's address may not be known yet, and another server may listen at the default address. Nor is there a stream.
            return Err(Failure::passing(anyhow!("the collector of {} is still starting", database.display())));
        }
        attempt().map_err(|mut failure| {
            let cause = failure.error.downcast_ref();
            let is_unreachable = matches!(cause, Some(Error::Broker { fault: BrokerFault::Unreachable, .. }));
            failure.may_pass |= is_unreachable && (phase.is_some() || !is_named);
            failure
        })
    })
}

/// The error, with the way to start a broker on this machine if none can be reached there. `config` is what was used last.
pub fn with_way_out(error: anyhow::Error, config: &Config) -> anyhow::Error {
    /// Hosts that are this machine.
    const LOOPBACK: [&str; 3] = ["//127.0.0.1", "//localhost", "//[::1]"];
    let error = match error.downcast::<Error>() {
        Ok(error @ Error::Broker { fault: BrokerFault::Unreachable, .. }) => error,
        Ok(other) => return other.into(),
        Err(other) => return other,
    };
    let (servers, path) = (&config.broker.servers, &config.database.path);
    if let Some(remedy) = own_server_elsewhere(config) {
        return error.with_remedy(remedy).into();
    }
    if !servers.iter().any(|server| LOOPBACK.iter().any(|host| server.contains(host))) {
        return error.into();
    }
    let had_own_server = has_streams(&file_beside(path, ".nats")) && Lock::phase(path).is_none();
    if had_own_server && *servers == BrokerConfig::default().servers {
        return anyhow!(
            "the collector of {}, which has a nats-server of its own, is not running; start it ({}), or name another server with \
             --server",
            path.display(),
            hint::start(true)
        );
    }
    let remedy = error.remedy().map_or(String::new(), |remedy| format!("{remedy}; "));
    error.with_remedy(format!("{remedy}{} starts one", hint::start(true))).into()
}

/// What to do if the settings name other servers than the one that the running collector of this database has started for itself.
pub fn own_server_elsewhere(config: &Config) -> Option<String> {
    let path = &config.database.path;
    let address =
        address_in(&file_beside(path, ".server")).filter(|address| !config.broker.servers.contains(address))?;
    Lock::phase(path)?;
    let path = path.display();
    Some(format!("the collector of {path} has a nats-server of its own at {address}: use --server {address}"))
}

/// Whether the collector of this database is starting, or was at an earlier call: it may be about to make the stream. Logs that once.
pub fn expecting_stream(database: &Path, at_most: Duration) -> impl Fn() -> bool + Send + 'static {
    let (database, is_expected) = (database.to_owned(), AtomicBool::new(false));
    move || {
        let is_starting = Lock::phase(&database).is_some_and(|phase| phase != StartPhase::Running);
        if is_starting && !is_expected.swap(true, Ordering::Relaxed) {
            let database = database.display();
            log::info!(
                "database {database}: its collector is starting; waiting for a stream that takes the events, at most {at_most:?}"
            );
        }
        is_expected.load(Ordering::Relaxed)
    }
}

/// Waits for the start of a database's collector.
#[derive(Debug)]
struct Wait {
    database: PathBuf,
    began: Instant,
    at_most: Duration,
    /// The collector had started at the last look.
    was_running: bool,
    is_logged: bool,
}

impl Wait {
    /// For this database.
    fn new(database: &Path, at_most: Duration) -> Self {
        Self { database: database.to_owned(), began: Instant::now(), at_most, was_running: false, is_logged: false }
    }

    /// How far the collector's start is.
    fn phase(&self) -> Option<StartPhase> {
        Lock::phase(&self.database)
    }

    /// Waits a moment if a start is under way, or may be. `phase` is how far it was before the attempt that failed. Returns `false`
    /// where there is nothing to wait for, or no time left.
    fn pause(&mut self, phase: Option<StartPhase>) -> bool {
        let is_running = phase == Some(StartPhase::Running);
        // One more attempt: a process that has just taken the lock may not have written yet how far it is.
        if is_running && std::mem::replace(&mut self.was_running, true) {
            return false;
        }
        let limit = match phase {
            Some(_) => self.at_most,
            None => GRACE.min(self.at_most),
        };
        if self.began.elapsed() >= limit {
            return false;
        }
        let is_long = self.began.elapsed() >= UNNOTICED;
        if phase.is_some() && !is_running && is_long && !std::mem::replace(&mut self.is_logged, true) {
            let (database, at_most) = (self.database.display(), self.at_most);
            log::info!("database {database}: its collector is starting; waiting for it, at most {at_most:?}");
        }
        thread::sleep(PAUSE);
        true
    }

    /// Tries until it succeeds or fails for good, while a collector is starting and `keep_going` returns `true`. The attempt gets how far the
    /// start was before it, and whether there is time for another.
    fn retry<T>(
        mut self,
        keep_going: &dyn Fn() -> bool,
        mut attempt: impl FnMut(Option<StartPhase>, bool) -> Result<T, Failure>,
    ) -> anyhow::Result<T> {
        loop {
            // Read before the attempt: if the collector had started then, trying again would change nothing.
            let phase = self.phase();
            match attempt(phase, self.began.elapsed() < self.at_most) {
                Ok(done) => return Ok(done),
                Err(Failure { error, may_pass }) if !may_pass || !keep_going() || !self.pause(phase) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }
}

/// Waits until the database is there, at most 5 seconds, while a collector that makes it or applies migrations is starting. Opening it
/// says what is wrong where it is not.
pub fn wait_for_database(database: &Path) {
    let mut wait = Wait::new(database, DATABASE_WAIT);
    loop {
        let phase = wait.phase();
        let is_there = std::fs::metadata(database).is_ok_and(|file| !file.is_file() || file.len() > 0);
        if is_there && phase != Some(StartPhase::Opening) || !wait.pause(phase) {
            return;
        }
    }
}

/// Waits until a collector of this database has started, at most for `at_most`. `is_named`: the settings name the servers. Where they do
/// not, waits a moment for a process that was started just before, too.
pub fn wait_for_start(database: &Path, at_most: Duration, is_named: bool) {
    let mut wait = Wait::new(database, at_most);
    loop {
        let phase = wait.phase();
        let is_over = phase == Some(StartPhase::Running) || (phase.is_none() && is_named);
        if is_over || !wait.pause(phase) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn passing(text: &str) -> Failure {
        Failure::passing(anyhow!("{text}"))
    }

    #[test]
    fn only_a_start_that_is_under_way_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let attempts = Cell::new(0);
        let tried = |at_most| {
            attempts.set(0);
            let tried = Wait::new(&database, at_most).retry(&|| true, |_, _| {
                attempts.set(attempts.get() + 1);
                if attempts.get() < 3 { Err(passing("refused")) } else { Ok(()) }
            });
            (tried.is_ok(), attempts.get())
        };
        let lock = Lock::take(&database).expect("is free");
        assert_eq!(tried(Duration::from_secs(60)), (false, 2), "it has started");
        for phase in [StartPhase::StartingBroker, StartPhase::Opening, StartPhase::Connecting] {
            lock.note(phase);
            assert_eq!(tried(Duration::from_secs(60)), (true, 3), "{phase:?}");
            assert_eq!(tried(Duration::ZERO), (false, 1), "{phase:?}");
        }
        let unwanted =
            Wait::new(&database, Duration::from_secs(60)).retry(&|| false, |_, _| Err::<(), _>(passing("refused")));
        assert_eq!(unwanted.expect_err("fails").to_string(), "refused");
        let fatal =
            Wait::new(&database, Duration::from_secs(60)).retry(&|| true, |_, _| Err::<(), _>(anyhow!("wrong").into()));
        assert_eq!(fatal.expect_err("fails").to_string(), "wrong");
        // The start fails, and no other one is under way.
        drop(lock);
        let lost = Wait::new(&database, Duration::from_secs(60)).retry(&|| true, |phase, _| {
            assert_eq!(phase, None);
            Err::<(), _>(passing("refused"))
        });
        assert!(lost.is_err());
    }

    #[test]
    fn a_database_that_is_being_made_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let lock = Lock::take(&database).expect("is free");
        lock.note(StartPhase::Opening);
        let file = database.clone();
        let maker = thread::spawn(move || {
            thread::sleep(PAUSE * 3);
            std::fs::write(file, "SQLite").expect("writes");
            lock.note(StartPhase::Connecting);
            lock
        });
        wait_for_database(&database);
        assert!(database.exists() && Lock::phase(&database) == Some(StartPhase::Connecting));
        drop(maker.join());
    }

    #[test]
    fn a_start_is_waited_for_until_it_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        let long = Duration::from_secs(60);
        wait_for_start(&database, long, true);
        let lock = Lock::take_at(&database, StartPhase::StartingBroker).expect("is free");
        let starter = thread::spawn(move || {
            for phase in [StartPhase::Opening, StartPhase::Connecting, StartPhase::Running] {
                thread::sleep(PAUSE);
                lock.note(phase);
            }
            lock
        });
        wait_for_start(&database, long, false);
        assert_eq!(Lock::phase(&database), Some(StartPhase::Running));
        drop(starter.join());
    }

    #[test]
    fn an_own_server_that_the_settings_do_not_name_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.database.path = folder.path().join("a.db");
        config.broker.servers = vec!["nats://127.0.0.1:17".into()];
        std::fs::write(folder.path().join("a.db.server"), "nats://127.0.0.1:4711\n").expect("writes");
        assert_eq!(own_server_elsewhere(&config), None, "no collector runs");
        let _lock = Lock::take(&config.database.path).expect("is free");
        let remedy = own_server_elsewhere(&config).expect("a remedy");
        let said = "a.db has a nats-server of its own at nats://127.0.0.1:4711: use --server nats://127.0.0.1:4711";
        assert!(remedy.ends_with(said), "{remedy}");
        let (fault, server, detail) = (BrokerFault::Unreachable, config.broker.shown_servers(), "refused".into());
        let error = Error::Broker { fault, server, detail, remedy: None };
        let shown = with_way_out(error.into(), &config).to_string();
        assert!(shown.contains("refused; the collector of ") && !shown.contains("starts one"), "{shown}");
        config.broker.servers = vec!["nats://127.0.0.1:4711".into()];
        assert_eq!(own_server_elsewhere(&config), None, "it is named");
    }

    #[test]
    fn an_error_says_how_to_start_a_broker_here() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.database.path = folder.path().join("a.db");
        let said = |config: &Config, fault| {
            let (server, detail) = (config.broker.shown_servers(), "refused".into());
            let remedy = Some("look there".into());
            let error = Error::Broker { fault, server, detail, remedy };
            with_way_out(error.into(), config).to_string()
        };
        let starts_one = "refused; look there; catchment run --with-server starts one";
        assert!(said(&config, BrokerFault::Unreachable).ends_with(starts_one));
        assert!(said(&config, BrokerFault::Refused).ends_with("refused; look there"));
        std::fs::create_dir_all(folder.path().join("a.db.nats/jetstream")).expect("a folder");
        let own = said(&config, BrokerFault::Unreachable);
        assert!(
            own.starts_with("the collector of ") && own.contains("a.db, which has a nats-server of its own"),
            "{own}"
        );
        assert!(own.contains("start it (catchment run --with-server), or name") && !own.contains("4222"), "{own}");
        config.broker.servers = vec!["nats://127.0.0.1:17".into()];
        assert!(said(&config, BrokerFault::Unreachable).ends_with(starts_one), "it is named");
        config.broker.servers = vec!["nats://broker.example.org".into()];
        assert!(said(&config, BrokerFault::Unreachable).ends_with("refused; look there"), "it is elsewhere");
    }
}
