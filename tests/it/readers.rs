//! Reading a database that one may not write.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::collector::{catchment, output, stderr};
use crate::support::fixture::Fixture;
use crate::support::oracle;

/// What reads a database and changes nothing.
fn readers(database: &Path) -> [Vec<String>; 5] {
    let reader = |arguments: &str| {
        let arguments = arguments.split(' ').map(|word| word.replace('_', " "));
        arguments.chain(["--database".into(), database.display().to_string()]).collect()
    };
    [
        reader("sql --csv SELECT_count(*)_FROM_events"),
        reader("tail --no-follow -n 1000 --json"),
        reader("dead-letters list --json"),
        reader("dead-letters export"),
        reader("check --offline"),
    ]
}

/// A user who may not write: another one, or for a test that is not run by root, the same one without permission.
struct Stranger {
    is_root: bool,
}

impl Stranger {
    fn command(&self, arguments: &[String]) -> Command {
        let ours = catchment();
        if !self.is_root {
            let mut command = ours;
            command.args(arguments);
            return command;
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(ours.get_program()).args(arguments);
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command
    }

    /// `None` where the program of the tests cannot be run by another user.
    fn new(folder: &Path) -> Option<Self> {
        // A folder of root that root cannot write does not exist.
        let probe = folder.join("probe");
        std::fs::create_dir(&probe).expect("a folder");
        std::fs::set_permissions(&probe, PermissionsExt::from_mode(0o555)).expect("sets");
        let is_root = std::fs::write(probe.join("x"), "").is_ok();
        let stranger = Self { is_root };
        let runs = stranger.command(&["--version".into()]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        runs.is_ok_and(|status| status.success()).then_some(stranger)
    }
}

/// A database in a folder of its own.
struct Kept {
    fixture: Fixture,
    folder: PathBuf,
    database: PathBuf,
}

impl Kept {
    fn new() -> Self {
        let fixture = Fixture::new();
        std::fs::set_permissions(fixture.folder.path(), PermissionsExt::from_mode(0o755)).expect("sets");
        let folder = fixture.folder.path().join("kept");
        std::fs::create_dir(&folder).expect("a folder");
        let database = folder.join("a.db");
        Self { fixture, folder, database }
    }

    fn run(&self) -> Command {
        let mut command = crate::support::collector::run(&self.fixture.server.url(), &self.database);
        // By default the database is its owner's alone.
        command.env("CATCHMENT_DATABASE__PERMISSIONS", "0644");
        command
    }

    fn drain(&self) {
        let done = output(self.run().arg("--drain"));
        assert!(done.status.success(), "{}", stderr(&done));
    }

    fn mode(&self, mode: u32) {
        std::fs::set_permissions(&self.folder, PermissionsExt::from_mode(mode)).expect("sets");
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).expect("reads");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort_unstable();
        names
    }
}

/// Each reader reads all events.
#[track_caller]
fn all_read(database: &Path, events: usize, run: impl Fn(&[String]) -> Output) {
    for arguments in readers(database) {
        let done = run(&arguments);
        assert!(done.status.success(), "{arguments:?}: {}{}", String::from_utf8_lossy(&done.stdout), stderr(&done));
        let said = String::from_utf8(done.stdout).expect("UTF-8");
        match arguments[0].as_str() {
            "sql" => assert_eq!(said, format!("count(*)\n{events}\n")),
            "tail" => assert_eq!(said.lines().count(), events),
            "check" => assert!(said.contains("is not damaged"), "{said}"),
            _ => assert_eq!(said, "", "no dead letters"),
        }
    }
}

#[test]
fn a_user_who_may_only_read_reads_a_database() {
    let kept = Kept::new();
    let Some(stranger) = Stranger::new(&kept.folder) else {
        eprintln!("skipped: a_user_who_may_only_read_reads_a_database: no other user");
        return;
    };
    std::fs::remove_dir_all(kept.folder.join("probe")).expect("removes");
    let reads = |events| all_read(&kept.database, events, |arguments| output(&mut stranger.command(arguments)));
    kept.fixture.publish("first", 5);
    kept.drain();
    // Nobody uses it: there are no files of SQLite beside it, and none are made.
    assert_eq!(kept.files(), ["a.db", "a.db.lock"]);
    kept.mode(0o555);
    reads(5);
    assert_eq!(kept.files(), ["a.db", "a.db.lock"]);

    // A collector runs, before and after its first commit.
    kept.mode(0o755);
    let log = kept.fixture.folder.path().join("log");
    let collector = crate::support::collector::Collector::start(kept.run(), &log);
    collector.said("collecting stream");
    kept.mode(0o555);
    reads(5);
    kept.mode(0o755);
    kept.fixture.publish("second", 5);
    crate::support::eventually("10 rows", || (oracle::count(&kept.database) == 10).then_some(()));
    kept.mode(0o555);
    reads(10);

    // It was killed: the last commits are in the log.
    kept.mode(0o755);
    collector.kill();
    assert!(kept.files().contains(&"a.db-wal".to_owned()), "{:?}", kept.files());
    kept.mode(0o555);
    reads(10);
    kept.mode(0o755);

    // The log is there and its index is not: the reason is said.
    if std::fs::metadata(kept.folder.join("a.db-wal")).is_ok_and(|wal| wal.len() > 0) {
        std::fs::remove_file(kept.folder.join("a.db-shm")).expect("removes");
        kept.mode(0o555);
        let refused = output(&mut stranger.command(&readers(&kept.database)[0]));
        assert_eq!(refused.status.code(), Some(1));
        let said = stderr(&refused);
        assert!(said.contains("its last commits are in") && said.contains("copy the database and its -wal"), "{said}");
        kept.mode(0o755);
    }
}

#[test]
fn a_database_on_a_disk_that_is_mounted_to_be_read_is_read() {
    let kept = Kept::new();
    kept.fixture.publish("first", 5);
    kept.drain();
    let mounted = |arguments: &[String]| {
        let quoted: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
        let (folder, program) = (kept.folder.display(), env!("CARGO_BIN_EXE_catchment"));
        let script = format!(
            "mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 77; exec {program} {}",
            quoted.join(" ")
        );
        let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
        ways.into_iter().find_map(|way| {
            let done = output(Command::new("unshare").args(way).args(["sh", "-c", &script]).stdin(Stdio::null()));
            let is_mounted = !stderr(&done).contains("unshare") && done.status.code() != Some(77);
            is_mounted.then_some(done)
        })
    };
    if mounted(&["--version".to_owned()]).is_none() {
        eprintln!("skipped: a_database_on_a_disk_that_is_mounted_to_be_read_is_read: no mount of its own");
        return;
    }
    all_read(&kept.database, 5, |arguments| mounted(arguments).expect("it was possible before"));
    assert_eq!(kept.files(), ["a.db", "a.db.lock"]);
}

#[test]
fn a_reader_that_may_write_leaves_the_folder_as_it_was() {
    let kept = Kept::new();
    kept.fixture.publish("first", 5);
    kept.drain();
    let before = kept.files();
    assert_eq!(before, ["a.db", "a.db.lock"]);
    let run = |arguments: &[String]| {
        let done = output(catchment().args(arguments));
        assert_eq!(kept.files(), before, "{arguments:?}");
        done
    };
    all_read(&kept.database, 5, run);
    let other = kept.fixture.folder.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::copy(&kept.database, other.join("b.db")).expect("copies");
    let attach = format!(
        "ATTACH '{}' AS b; SELECT count(*) FROM events JOIN b.events AS e USING (id)",
        other.join("b.db").display()
    );
    let done = output(catchment().args(["sql", "--csv", &attach, "--database"]).arg(&kept.database));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "count(*)\n5\n", "{}", stderr(&done));
    assert_eq!((kept.files(), std::fs::read_dir(&other).expect("reads").count()), (before.clone(), 1));

    // A signal ends the command, and it closes the database first.
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    for (arguments, name, status) in [
        (&["tail"][..], "INT", 130),
        (&["tail"], "TERM", 143),
        (&["sql", endless], "INT", 130),
        (&["sql", endless], "TERM", 143),
    ] {
        let mut command = catchment();
        command.args(arguments).arg("--database").arg(&kept.database);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts");
        // From here on it catches signals: they are caught before the database is read, or just after it was opened.
        crate::support::eventually("it to read", || kept.files().contains(&"a.db-shm".into()).then_some(()));
        crate::support::eventually("it to catch signals", || catches_signals(child.id()).then_some(()));
        crate::support::collector::signal(child.id(), name);
        let done = child.wait_with_output().expect("ends");
        assert_eq!(done.status.code(), Some(status), "{arguments:?}: {}", stderr(&done));
        assert_eq!(kept.files(), before, "{arguments:?}");
        if arguments[0] == "sql" {
            assert_eq!((&done.stdout[..], stderr(&done)), (&b""[..], "catchment: interrupted\n".into()));
        }
    }
}

/// Whether a process has a handler for SIGTERM, the 15th signal.
pub fn catches_signals(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux has it");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a line");
    u64::from_str_radix(caught.trim(), 16).expect("a mask") >> 14 & 1 == 1
}

#[test]
fn readers_do_not_disturb_a_collector_that_starts_or_stops() {
    let kept = Kept::new();
    kept.drain();
    let is_over = AtomicBool::new(false);
    let counted = std::thread::scope(|scope| {
        let read = || {
            let (mut runs, mut last) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                let mut command = catchment();
                let done = output(
                    command.args(["sql", "--csv", "SELECT count(*) FROM events", "--database"]).arg(&kept.database),
                );
                assert!(done.status.success(), "{}", stderr(&done));
                let said = String::from_utf8(done.stdout).expect("UTF-8");
                let count: u64 = said.lines().nth(1).expect("a row").parse().expect("a count");
                assert!(count >= last, "{count} after {last}");
                (runs, last) = (runs + 1, count);
            }
            runs
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for round in 1..=6 {
            kept.fixture.publish("more", 50);
            if round % 2 == 0 {
                kept.drain();
            } else {
                let log = kept.fixture.folder.path().join("log");
                let collector = crate::support::collector::Collector::start(kept.run(), &log);
                crate::support::eventually("the rows", || (oracle::count(&kept.database) == round * 50).then_some(()));
                collector.kill();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().expect("reads")).iter().sum::<u32>()
    });
    assert!(counted > 2, "{counted} runs");
    kept.drain();
    assert_eq!(kept.files(), ["a.db", "a.db.lock"]);
    assert_eq!(oracle::count(&kept.database), 300);
}

#[test]
fn what_may_not_be_read_is_said_and_not_counted() {
    let kept = Kept::new();
    let Some(stranger) = Stranger::new(&kept.folder) else {
        eprintln!("skipped: what_may_not_be_read_is_said_and_not_counted: no other user");
        return;
    };
    kept.fixture.publish("first", 5);
    kept.drain();
    std::fs::set_permissions(&kept.database, PermissionsExt::from_mode(0o000)).expect("sets");
    for arguments in readers(&kept.database) {
        let refused = output(&mut stranger.command(&arguments));
        assert!(!refused.status.success(), "{arguments:?}");
        let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), stderr(&refused));
        assert!(said.contains("a.db: this user may not read it; change its permissions"), "{said}");
    }
    let check = |more: &str| {
        let arguments =
            ["check", "--database", &kept.database.display().to_string(), "--server", &kept.fixture.server.url(), more];
        let done = output(&mut stranger.command(&arguments.map(str::to_owned)));
        assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
        String::from_utf8(done.stdout).expect("UTF-8")
    };
    let said: serde_json::Value = serde_json::from_str(&check("--json")).expect("JSON");
    let measures = said["measures"].as_object().expect("an object");
    assert_eq!(measures.keys().collect::<Vec<_>>(), ["disk_free_bytes"]);
    let findings = said["findings"].as_array().expect("a list");
    assert!(findings.iter().all(|finding| finding["object"] != "progress"), "{said}");
    assert!(findings.iter().any(|finding| finding["object"] == "stream"), "{said}");
    for format in ["--format=nagios", "--format=prometheus"] {
        let said = check(format);
        assert!(!said.contains("lag_events"), "{said}");
    }
}
