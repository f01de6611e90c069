//! The machine and the programs that a comparison was made with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::options::Options;
use super::{Environment, Failure, scratch_directory};
use crate::config::DatabaseConfig;
use crate::store::{self, Database, Routes};

/// A version of nats-server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerVersion {
    pub(super) text: String,
    numbers: (u32, u32),
}

impl ServerVersion {
    /// Asks the program.
    pub(super) fn ask(program: &Path) -> Result<Self, Failure> {
        let what = format!("{}: install nats-server, or name the program with NATS_SERVER_BIN", program.display());
        let said = Command::new(program).arg("--version").output().map_err(Failure::system(what.clone()))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        Self::read(&said).ok_or_else(|| {
            let source = std::io::Error::other(format!("does not call itself a nats-server: {}", said.trim()));
            Failure::System { what, source }
        })
    }

    /// `nats-server: v2.10.25`
    fn read(said: &str) -> Option<Self> {
        let text = said.trim().strip_prefix("nats-server: v")?;
        let mut numbers = text.split(['.', '-']).map_while(|number| number.parse().ok());
        Some(Self { text: text.to_owned(), numbers: (numbers.next()?, numbers.next()?) })
    }

    /// Whether it can sync every event before it acknowledges it.
    pub(super) fn syncs_always(&self) -> bool {
        self.numbers >= (2, 10)
    }
}

/// Looks around. `folder` is where the databases will be.
pub(super) fn look(options: &Options, place: &Path, server: Option<&ServerVersion>) -> Result<Environment, Failure> {
    let file_system = scratch_directory::file_system(place)
        .map_or_else(|| "unknown".into(), |(kind, mount)| format!("{kind}, mounted on {}", mount.display()));
    Ok(Environment {
        processor: processor(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory: memory().unwrap_or(0),
        kernel: format!("{} {}", kernel("ostype"), kernel("osrelease")),
        file_system,
        sqlite: store::sqlite_version().to_owned(),
        nats_server: server.map(|version| version.text.clone()),
        pragmas: pragmas(options, place)?,
        broker: broker(options),
    })
}

fn processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}

fn memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn kernel(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default().trim().to_owned()
}

/// The PRAGMAs of a database such as the runs', as its writers have them.
fn pragmas(options: &Options, place: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let config = DatabaseConfig { path: place.join("pragmas.db"), ..DatabaseConfig::default() };
    let database = Database::open(&config, &Routes::default())?;
    let mut found = BTreeMap::from([("synchronous".to_owned(), options.synchronous_name().to_owned())]);
    for name in ["journal_mode", "page_size", "wal_autocheckpoint"] {
        found.insert(name.to_owned(), database.pragma(name)?);
    }
    Ok(found)
}

fn broker(options: &Options) -> BTreeMap<String, String> {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    if options.server.is_some() {
        return BTreeMap::from([setting("server", "one that ran already, with settings of its own")]);
    }
    BTreeMap::from([
        setting("storage", "file"),
        setting("sync_interval", "the server's default, 2m; always in jetstream-sync-always"),
        setting("listens on", "127.0.0.1"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_what_it_can() {
        let syncs = |said: &str| ServerVersion::read(said).expect("a version").syncs_always();
        assert!(syncs("nats-server: v2.10.25\n") && syncs("nats-server: v3.0.0-RC.1"));
        assert!(!syncs("nats-server: v2.9.10"));
        assert_eq!(ServerVersion::read("bash: nats-server: not found"), None);
    }
}
