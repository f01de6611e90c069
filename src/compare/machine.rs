//! The machine and the programs that a comparison runs on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::options::Options;
use super::{Arm, CompareError, Environment, arms, scratch_directory};
use crate::broker::{BrokerStatus, DatabasePosition};
use crate::config::{BrokerConfig, DatabaseConfig, Mode};
use crate::store::{self, Database, Routes};

/// A version of nats-server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerVersion {
    pub(super) text: String,
    numbers: (u32, u32),
}

impl ServerVersion {
    /// Runs `nats-server --version`.
    pub(super) fn ask(program: &Path) -> Result<Self, CompareError> {
        let failed = |source| {
            let remedy = "install nats-server, or set NATS_SERVER_BIN to the program".to_owned();
            CompareError::System { object: program.display().to_string(), remedy: Some(remedy), source }
        };
        let output = Command::new(program).arg("--version").output().map_err(failed)?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        Self::read(&output).ok_or_else(|| {
            failed(std::io::Error::other(format!("this is no nats-server; its --version prints {:?}", output.trim())))
        })
    }

    /// `nats-server: v2.10.25`
    fn read(output: &str) -> Option<Self> {
        let text = output.trim().strip_prefix("nats-server: v")?;
        let mut numbers = text.split(['.', '-']).map_while(|number| number.parse().ok());
        Some(Self { text: text.to_owned(), numbers: (numbers.next()?, numbers.next()?) })
    }

    /// The version that a running server reports.
    fn of_running(version: &str) -> Self {
        let text = version.trim_start_matches('v').to_owned();
        Self::read(&format!("nats-server: v{text}")).unwrap_or(Self { text, numbers: (0, 0) })
    }

    /// Whether its streams can transform subjects, as partitions need.
    pub(super) fn transforms_subjects(&self) -> bool {
        self.numbers >= (2, 10)
    }

    /// Whether it has `sync_interval: always`: it syncs each event before it acknowledges it.
    pub(super) fn syncs_always(&self) -> bool {
        self.numbers >= (2, 10)
    }
}

/// The server that the arms through NATS will use: started for each run, or already running. It is looked at before anything is
/// measured. None if no arm needs a server.
pub(super) fn server(options: &Options) -> Result<Option<ServerVersion>, CompareError> {
    if options.arms.iter().all(|arm| arms::is_direct(*arm)) {
        return Ok(None);
    }
    let Some(url) = &options.server else { return ServerVersion::ask(&options.nats_server).map(Some) };
    let needs_jetstream = options.arms.contains(&Arm::Jetstream);
    let config = BrokerConfig {
        servers: vec![url.clone()],
        mode: if needs_jetstream { Mode::Jetstream } else { Mode::Core },
        ..BrokerConfig::default()
    };
    let nowhere = DatabasePosition { owner: None, history: &[], pipeline_holds: 0 };
    let status = BrokerStatus::ask(&config, nowhere)?;
    Ok(Some(ServerVersion::of_running(&status.version)))
}

/// Describes the machine. `directory` is where the databases will be.
pub(super) fn inspect(
    options: &Options,
    directory: &Path,
    server: Option<&ServerVersion>,
) -> Result<Environment, CompareError> {
    let file_system = scratch_directory::file_system(directory)
        .map_or_else(|| "unknown".into(), |(kind, mount)| format!("{kind}, mounted on {}", mount.display()));
    Ok(Environment {
        processor: processor(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory: memory().unwrap_or(0),
        kernel: format!("{} {}", kernel("ostype"), kernel("osrelease")),
        file_system,
        sqlite: store::sqlite_version().to_owned(),
        nats_server: server.map(|version| version.text.clone()),
        pragmas: pragmas(options, directory)?,
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

/// The PRAGMAs of a database like those of the runs.
fn pragmas(options: &Options, directory: &Path) -> Result<BTreeMap<String, String>, CompareError> {
    let config = DatabaseConfig { path: directory.join("pragmas.db"), ..DatabaseConfig::default() };
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
        return BTreeMap::from([setting("server", "already running, with its own settings")]);
    }
    BTreeMap::from([
        setting("storage", "file"),
        setting(
            "sync interval",
            &format!("2 min, the server's default; always in {}", arms::title(Arm::JetstreamSyncAlways)),
        ),
        setting("listens on", "127.0.0.1"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_what_a_server_can() {
        let syncs = |output: &str| ServerVersion::read(output).expect("a version").syncs_always();
        assert!(syncs("nats-server: v2.10.25\n") && syncs("nats-server: v3.0.0-RC.1"));
        assert!(!syncs("nats-server: v2.9.10"));
        assert_eq!(ServerVersion::read("bash: nats-server: not found"), None);
    }
}
