//! The files under packaging/: unit, settings, package, container.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use catchment::Config;

use crate::support::collector::{Collector, catchment, output, printed, stderr};
use crate::support::eventually;
use crate::support::fixture::Fixture;

const UNIT: &str = include_str!("../../packaging/systemd/catchment.service");
const PROGRAM: &str = "/usr/bin/catchment";
const SETTINGS: &str = "/etc/catchment/catchment.toml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program that may be missing here: then the test says so and ends well.
fn run_if_there(command: &mut Command) -> Option<Output> {
    let done = command.output().ok();
    if done.is_none() {
        eprintln!("skipped: {} is not installed", command.get_program().to_string_lossy());
    }
    done
}

/// The values of a key of the unit.
fn values(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The unit with our program in the place of the installed one.
fn unit_in(folder: &Path) -> PathBuf {
    let program = catchment().get_program().to_str().expect("UTF-8").to_owned();
    let lines: Vec<&str> = UNIT.lines().filter(|line| !line.starts_with("Documentation=")).collect();
    let file = folder.join("catchment.service");
    std::fs::write(&file, lines.join("\n").replace(PROGRAM, &program)).expect("writes");
    file
}

#[test]
fn systemd_accepts_the_unit_and_finds_little_exposed() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = unit_in(folder.path());
    let Some(done) = run_if_there(Command::new("systemd-analyze").arg("verify").arg(&unit)) else { return };
    assert!(done.status.success() && !stderr(&done).contains("catchment.service"), "{}", stderr(&done));
    let security = ["security", "--offline=true", "--threshold=15"];
    let Some(done) = run_if_there(Command::new("systemd-analyze").args(security).arg(&unit)) else { return };
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &stderr(&done);
    // Before version 250 a unit cannot be analysed outside of the manager.
    if said.contains("unrecognized option") {
        return eprintln!("skipped: this systemd-analyze knows no --offline");
    }
    assert!(done.status.success(), "{said}");
}

/// The command of a key of the unit, with these settings.
fn command_of(key: &str, settings: &Path) -> Command {
    let [line] = values(key)[..] else { panic!("{key} is there once") };
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some(PROGRAM));
    let mut command = catchment();
    command.args(words.map(|word| if word == SETTINGS { settings.to_str().expect("UTF-8") } else { word }));
    command
}

#[test]
fn the_commands_of_the_unit_work_with_the_settings_of_the_package() {
    let fixture = Fixture::new();
    let settings = include_str!("../../packaging/catchment.toml");
    let server = settings.replace("nats://127.0.0.1:4222", &fixture.server.url());
    let database = fixture.database();
    let settings = server.replace("/var/lib/catchment/catchment.db", database.to_str().expect("UTF-8"));
    let file = PathBuf::from(fixture.file("catchment.toml", &settings));
    let collector = Collector::start(command_of("ExecStart", &file), &fixture.path("log"));
    fixture.publish("x", 1);
    fixture.has(1);
    eventually("reloads to be taken", || catchment::unversioned::store::Lock::reloads(&database));
    assert_eq!(printed(&mut command_of("ExecReload", &file)), "reloaded: nothing differs\n");
    std::fs::write(&file, settings.replace("[database]", "[databse]")).expect("writes");
    assert_eq!(output(&mut command_of("ExecReload", &file)).status.code(), Some(1));
    assert!(collector.stop().success());
}

#[test]
fn the_variables_of_the_package_are_settings() {
    let text = include_str!("../../packaging/catchment.default");
    let variables: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#C")?.split_once('=')).collect();
    assert!(variables.len() > 3, "{variables:?}");
    let mut command = catchment();
    command.args(["sql", "--database", "no-such.db", "SELECT 1"]);
    command.envs(variables.iter().map(|(name, value)| (format!("C{name}"), value)));
    let said = stderr(&output(&mut command));
    let message = said.lines().next_back().unwrap_or_default();
    assert!(said.lines().count() == 1 && message.contains("no-such.db: there is no such file"), "{said}");
    assert!(Config::from_toml_file(root().join("packaging/catchment.toml")).expect("settings").validate().is_ok());
    assert_eq!(values("EnvironmentFile"), ["-/etc/default/catchment"]);
}

#[test]
fn the_debian_package_has_files_that_exist() {
    let manifest = include_str!("../../Cargo.toml");
    let (_, section) = manifest.split_once("[package.metadata.deb]").expect("a section");
    let (section, _) = section.split_once("\n[features]").expect("an end");
    let sources = section.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
    let sources: Vec<&str> = sources.collect();
    assert!(sources.len() > 9 && sources.contains(&"target/release/catchment"), "{sources:?}");
    for source in sources.iter().filter(|source| !source.starts_with("target/")) {
        let fixed = source.split('*').next().expect("a path");
        assert!(root().join(fixed.trim_end_matches('/')).exists(), "{source}");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let file = root().join("packaging/debian").join(script);
        let done = output(Command::new("sh").arg("-n").arg(&file));
        assert!(done.status.success(), "{}", stderr(&done));
        assert!(std::fs::read_to_string(&file).expect("reads").contains("\n#DEBHELPER#\n"), "{script}");
    }
    // The user that the package makes is the one of the service.
    assert_eq!(values("User"), ["catchment"]);
    assert!(include_str!("../../packaging/debian/postinst").contains("adduser --system --group"));
    let changelog = include_str!("../../packaging/debian/changelog");
    assert!(changelog.starts_with(&format!("catchment ({}-1) ", env!("CARGO_PKG_VERSION"))), "{changelog}");
}

#[test]
fn the_container_runs_as_a_user_without_rights() {
    let text = include_str!("../../packaging/docker/Dockerfile");
    let users: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
    assert_eq!(users, ["65532:65532"]);
    let entry = text.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).expect("an entry");
    assert_eq!(entry, format!("[{PROGRAM:?}]"));
    let oldest = include_str!("../../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = "));
    let image = format!("FROM rust:{}-slim-bookworm AS build", oldest.expect("a version").trim_matches('"'));
    assert!(text.contains(&image), "{image}");
    if let Some(done) = run_if_there(Command::new("hadolint").arg(root().join("packaging/docker/Dockerfile"))) {
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
    let compose = root().join("packaging/docker/compose.yaml");
    let parse = "import sys, yaml; print(*yaml.safe_load(open(sys.argv[1]))['services'])";
    let Some(done) = run_if_there(Command::new("python3").args(["-c", parse]).arg(compose)) else { return };
    if !done.status.success() && stderr(&done).contains("No module named 'yaml'") {
        return eprintln!("skipped: python3 has no yaml");
    }
    assert_eq!(String::from_utf8_lossy(&done.stdout), "broker collector\n", "{}", stderr(&done));
}
