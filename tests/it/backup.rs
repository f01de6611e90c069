//! Backups made beside collectors, restored, and cut short.

mod missing;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::database::own_mounts;
use crate::support::chance::Chance;
use crate::support::collector::{Collector, catchment, output, printed, run, stderr};
use crate::support::fixture::Fixture;
use crate::support::load::Load;
use crate::support::{eventually, oracle};

fn backup(database: &Path, file: &Path) -> Command {
    let mut command = catchment();
    command.arg("backup").arg(file).arg("--database").arg(database);
    command
}

fn restore(database: &Path, file: &Path) -> Command {
    let mut command = catchment();
    command.args(["restore", "--offline"]).arg(file).arg("--database").arg(database);
    command
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The one line with which it fails.
#[track_caller]
fn refused(command: &mut Command, words: &[&str]) -> String {
    let done = output(command);
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    assert!(done.stdout.is_empty(), "{}", String::from_utf8_lossy(&done.stdout));
    said
}

/// The names in a folder that begin with this. Without the files that SQLite makes for whoever looks into a database.
fn names(folder: &Path, beginning: &str) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.retain(|name| name.starts_with(beginning) && !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort_unstable();
    names
}

fn is_sound(database: &Path) -> bool {
    let check = |database: Connection| database.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    check(oracle::open(database)).is_ok_and(|found| found == "ok")
}

/// A database with this many events of 500 bytes, that nobody uses.
fn filled(database: &Path, events: u32) {
    let made = output(catchment().args(["import", "/dev/null", "--database"]).arg(database));
    assert!(made.status.success(), "{}", stderr(&made));
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
               INSERT INTO events(subject, published_us, payload) SELECT 'events.a', i, printf('%0500d', i) FROM n";
    assert_eq!(Connection::open(database).expect("opens").execute(sql, [events]).expect("SQL"), events as usize);
}

#[test]
fn a_restored_backup_catches_up_from_the_stream() {
    let fixture = Fixture::new();
    let database = fixture.database();
    let file = fixture.path("saved.db");
    let collector = fixture.collector();
    let mut all = fixture.publish("first", 300);
    fixture.has(300);
    let made = json_of(&printed(backup(&database, &file).arg("--json")));
    assert_eq!((&made["positions"][0]["stream"], &made["positions"][0]["sequence"]), (&json!("EVENTS"), &json!(300)));
    assert_eq!(made["identity"], oracle::identity(&database));
    all.extend(fixture.publish("second", 300));
    fixture.has(600);
    refused(&mut restore(&database, &file), &["process", "uses it already"]);
    collector.kill();
    // Once more after the collector has run with a restored database: it owns the consumers of the one before.
    for round in 1..=2 {
        let mut command = catchment();
        command.args(["restore", "--json", "--server", &fixture.server.url(), "--database"]).arg(&database).arg(&file);
        let restored = json_of(&printed(&mut command));
        assert_eq!(restored["positions"][0]["sequence"], 300);
        assert_eq!(restored["positions_before"][0]["sequence"], 600);
        assert_eq!((&restored["missing"], &restored["broker"]), (&Value::Null, &Value::Null), "{restored}");
        assert_eq!(oracle::count(&database), 300);
        let kept = PathBuf::from(restored["kept"].as_str().expect("a path"));
        oracle::holds(&kept, &all);
        let collector = fixture.collector();
        fixture.has(600);
        let log = collector.log();
        assert!(!log.contains("WARN"), "round {round}: {log}");
        assert_eq!(fixture.server.consumers("EVENTS").len(), 1, "no consumer is left of the one before");
        assert!(collector.stop().success());
        fixture.holds_exactly(&all);
        let other = output(run(&fixture.server.url(), &kept).arg("--drain"));
        assert!(stderr(&other).contains("it is a copy of "), "{}", stderr(&other));
    }
}

#[test]
fn a_backup_under_load_is_of_one_moment() {
    const EVENTS: u64 = 10_000;
    let mut chance = Chance::new();
    let fixture = Fixture::new();
    let database = fixture.database();
    let mut command = fixture.run();
    command.env("CATCHMENT_BATCH__MAX_EVENTS", "50");
    let collector = Collector::start(command, &fixture.path("collector.log"));
    collector.said("collecting stream EVENTS");
    let load = Load::start(&fixture.server, EVENTS, 1_000);
    let mut last = 0;
    for number in 0..5 {
        let rows = last + chance.up_to(EVENTS / 8);
        eventually(&format!("{rows} rows"), || {
            let now = oracle::position(&database);
            load.committed(now);
            (now >= rows).then_some(())
        });
        let file = fixture.path(&format!("{number}.db"));
        let made = json_of(&printed(backup(&database, &file).args(["--json", "--rate", "20MiB"])));
        let sequence = made["positions"][0]["sequence"].as_u64().expect("a sequence");
        assert!(sequence >= rows, "{sequence} of {rows}");
        let rows = oracle::sequences(&file);
        assert_eq!(rows, (1..=sequence).collect::<Vec<_>>(), "the ledger of the copy is at its last row");
        assert!(is_sound(&file));
        last = sequence;
    }
    let kept = load.finish();
    eventually("all rows", || (oracle::position(&database) == EVENTS).then_some(()));
    assert!(collector.stop().success());
    oracle::is_exactly(&database, &kept);
}

#[test]
fn a_backup_killed_at_any_moment_leaves_no_half_file() {
    let mut chance = Chance::new();
    let folder = tempfile::tempdir().expect("a folder");
    let [database, file] = ["a.db", "saved.db"].map(|name| folder.path().join(name));
    filled(&database, 10_000);
    // About a second of copying.
    let throttled = || {
        let mut command = backup(&database, &file);
        command.args(["--rate", "6MiB", "--force"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let began = Instant::now();
    assert!(throttled().status().expect("runs").success());
    let takes = began.elapsed();
    for round in 0..20 {
        // Every second one replaces a good backup.
        if round % 2 == 0 {
            let _ = std::fs::remove_file(&file);
        } else {
            printed(backup(&database, &file).arg("--force"));
        }
        let mut child = throttled().spawn().expect("starts");
        std::thread::sleep(chance.time(takes));
        child.kill().expect("kills");
        child.wait().expect("ends");
        assert!(!file.exists() || (is_sound(&file) && oracle::count(&file) == 10_000));
        assert!(file.exists() || round % 2 == 0, "the last good one is there");
        assert!(names(folder.path(), ".saved.db.").len() <= 1, "what the one before left is removed");
    }
    printed(backup(&database, &file).arg("--force"));
    assert_eq!(names(folder.path(), ""), ["a.db", "a.db.lock", "saved.db"]);
    assert_eq!(oracle::payloads(&file), oracle::payloads(&database));
}

#[test]
fn a_restore_killed_at_any_moment_leaves_the_old_or_the_new_database() {
    let mut chance = Chance::new();
    let folder = tempfile::tempdir().expect("a folder");
    let [database, file, old] = ["a.db", "saved.db", "old.db"].map(|name| folder.path().join(name));
    filled(&database, 8_000);
    printed(&mut backup(&database, &file));
    Connection::open(&database).and_then(|open| open.execute("DELETE FROM events WHERE id > 7999", [])).expect("SQL");
    printed(&mut backup(&database, &old));
    let throttled = || {
        let mut command = restore(&database, &file);
        command.args(["--rate", "10MiB"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let began = Instant::now();
    assert!(throttled().status().expect("runs").success());
    let takes = began.elapsed();
    for _ in 0..20 {
        // As a killed collector leaves it: with a row in the log.
        std::fs::copy(&old, &database).expect("copies");
        let sql = "INSERT INTO events(subject, published_us, payload) VALUES ('a', 1, 'in the log')";
        let writer = Connection::open(&database).expect("opens");
        writer
            .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .and_then(|_| writer.execute(sql, []))
            .expect("SQL");
        drop(writer);
        let mut child = throttled().spawn().expect("starts");
        std::thread::sleep(chance.time(takes));
        child.kill().expect("kills");
        child.wait().expect("ends");
        // A connection that may write undoes the transaction that was under way, as the next start does.
        let writer = Connection::open(&database).expect("opens");
        writer.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).expect("SQL");
        drop(writer);
        assert!(is_sound(&database));
        let last = oracle::texts(&database, "SELECT payload FROM events WHERE id = 8000");
        assert!(last == ["in the log"] || last == [format!("{:0>500}", 8_000)], "{last:?}");
    }
    let restored = json_of(&printed(restore(&database, &file).arg("--json")));
    assert_eq!(oracle::payloads(&database), oracle::payloads(&file));
    assert!(is_sound(Path::new(restored["kept"].as_str().expect("a path"))));
    assert!(names(folder.path(), ".").is_empty(), "{:?}", names(folder.path(), "."));
}

#[test]
fn a_file_that_is_no_backup_of_this_database_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    filled(&at("a.db"), 10);
    filled(&at("other.db"), 20);
    std::fs::write(at("text"), "no database").expect("writes");
    Connection::open(at("shop.db")).and_then(|open| open.execute_batch("CREATE TABLE t(a)")).expect("SQL");
    printed(&mut backup(&at("a.db"), &at("later.db")));
    let later = "UPDATE catchment_meta SET value = 99 WHERE key = 'version'";
    Connection::open(at("later.db")).and_then(|open| open.execute_batch(later)).expect("SQL");
    printed(&mut backup(&at("a.db"), &at("damaged.db")));
    let mut bytes = std::fs::read(at("damaged.db")).expect("reads");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..].fill(0xa5);
    std::fs::write(at("damaged.db"), bytes).expect("writes");
    printed(&mut backup(&at("a.db"), &at("short.db")));
    let bytes = std::fs::read(at("short.db")).expect("reads");
    std::fs::write(at("short.db"), &bytes[..bytes.len() / 2]).expect("writes");
    for (name, words) in [
        ("short.db", &["short.db: "][..]),
        ("none.db", &["none.db: there is no such file"]),
        ("text", &["text: file is not a database"]),
        ("shop.db", &["shop.db: it has no tables of catchment"]),
        ("later.db", &["later.db: its tables have version 99, made by a later catchment"]),
        ("damaged.db", &["damaged.db: "]),
        ("a.db", &["a.db: it is the database itself"]),
        (".", &["it is a folder"]),
        ("other.db", &["other.db: it is a backup of another database: its identity is ", "--other-database"]),
    ] {
        refused(&mut restore(&at("a.db"), &at(name)), words);
        assert_eq!(oracle::count(&at("a.db")), 10, "{name}");
    }
    assert_eq!(names(folder.path(), "a.db"), ["a.db", "a.db.lock"], "nothing was kept");
    assert_eq!(names(folder.path(), "short.db"), ["short.db"], "nothing is left beside it");
    printed(restore(&at("a.db"), &at("other.db")).arg("--other-database"));
    assert_eq!(oracle::count(&at("a.db")), 20);
    refused(&mut restore(&at("shop.db"), &at("other.db")), &["shop.db: it is a database of another program"]);
    // A place where nothing is yet, by a link.
    std::os::unix::fs::symlink("new.db", at("link.db")).expect("links");
    printed(&mut restore(&at("link.db"), &at("other.db")));
    assert_eq!(oracle::count(&at("new.db")), 20);
    // What was there is kept beside the file, not beside the link, which may be on another disk.
    std::fs::create_dir(at("links")).expect("a folder");
    std::os::unix::fs::symlink("../new.db", at("links/a.db")).expect("links");
    let restored = json_of(&printed(restore(&at("links/a.db"), &at("other.db")).arg("--json")));
    let kept = Path::new(restored["kept"].as_str().expect("a path"));
    assert_eq!(kept.parent(), at("new.db").canonicalize().expect("is there").parent());
    assert_eq!((oracle::count(kept), oracle::count(&at("new.db"))), (20, 20));
    assert_eq!(std::fs::read_dir(at("links")).expect("reads").count(), 1, "only the link");
    refused(&mut restore(&at("new.db"), &at("shop.db")), &["shop.db: it has no tables of catchment"]);
    // And where no backup can be.
    for (name, words) in [
        ("other.db", "there is a file already"),
        ("a.db", "it is the database itself"),
        ("a.db-wal", "it is a file of the database"),
        ("a.db.lock", "it is a file of the database"),
        (".", "it is a folder"),
        ("no/b.db", "does not exist; make it"),
    ] {
        refused(&mut backup(&at("a.db"), &at(name)), &[words]);
    }
    assert!(Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo runs").success());
    for mut command in [backup(&at("a.db"), Path::new("-")), restore(&at("a.db"), Path::new("-"))] {
        let done = output(&mut command);
        let said = stderr(&done);
        assert!(said.contains("standard input and output cannot be used here; name a file, or ./-"), "{said}");
        assert_eq!(done.status.code(), Some(2), "{said}");
    }
    refused(backup(&at("a.db"), &at("pipe")).arg("--force"), &["pipe: it is a named pipe; name a regular file"]);
    std::fs::hard_link(at("a.db"), at("link")).expect("links");
    refused(backup(&at("a.db"), &at("link")).arg("--force"), &["link: it is the database itself"]);
}

#[test]
fn a_full_disk_ends_it_with_one_line_and_no_file() {
    let Some(unshare) = own_mounts() else {
        eprintln!("skipped: a_full_disk_ends_it_with_one_line_and_no_file: no mount of its own");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let [disk, database] = ["disk", "a.db"].map(|name| folder.path().join(name));
    std::fs::create_dir(&disk).expect("a folder");
    filled(&database, 4_000);
    let backup_file = folder.path().join("saved.db");
    printed(&mut backup(&database, &backup_file));
    let program = env!("CARGO_BIN_EXE_catchment");
    let (disk, database, saved) = (disk.display(), database.display(), backup_file.display());
    for (command, words) in [
        (format!("backup {disk}/b.db --database {database}"), "b.db: the disk is full; make room"),
        (format!("export -o {disk}/b.ndjson --database {database}"), "b.ndjson: the disk is full; make room"),
        (format!("restore {saved} --offline --database {disk}/b.db"), "b.db: the disk is full; make room"),
    ] {
        let script = format!("mount -t tmpfs -o size=1m tmpfs {disk} && {program} {command}; echo $?; ls -A {disk}");
        let done = output(Command::new("unshare").args(unshare).args(["sh", "-c", &script]).stdin(Stdio::null()));
        let said = stderr(&done);
        assert!(said.lines().count() == 1 && said.contains(words), "{command}: {said}");
        assert_eq!(String::from_utf8_lossy(&done.stdout), "1\n", "{command}: nothing is left");
    }
    // What is there stays as it is: a database that is compacted, one that is restored over, an export that is replaced.
    let at = |size: &str, prepared: &str, command: &str| {
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs {disk} && {prepared} && {program} {command} >&2; echo $?; ls -A {disk}
             {program} sql -d {disk}/b.db --csv 'PRAGMA integrity_check; SELECT count(*) FROM events'"
        );
        let mut unshared = Command::new("unshare");
        let unshared = unshared.args(unshare).args(["sh", "-c", &script]).env("TMPDIR", folder.path());
        let done = output(unshared.stdin(Stdio::null()));
        let said = stderr(&done);
        assert!(said.lines().count() == 1 && said.contains("b.db: "), "{command}: {said}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let whole = "integrity_check\nok\ncount(*)\n4000\n";
    let kept =
        at("4m", &format!("cp {saved} {disk}/b.db"), &format!("restore {saved} --offline --database {disk}/b.db"));
    assert_eq!(kept, format!("1\nb.db\n{whole}"));
    let kept = at("4m", &format!("cp {saved} {disk}/b.db"), &format!("compact --database {disk}/b.db"));
    assert!(kept.starts_with("1\nb.db\n") && kept.ends_with(whole), "{kept}");
}

#[test]
fn a_collector_makes_the_backups_of_its_settings() {
    let fixture = Fixture::new();
    let settings = fixture.file("a.toml", "[backup]\nfolder = \"backups\"\nevery = \"1h\"\nkeep = 2\n");
    fixture.publish("first", 100);
    fixture.drain();
    let mut starts = 0;
    let mut start = || {
        starts += 1;
        let mut command = fixture.command(&["run", "-c", &settings, "--server", &fixture.server.url(), "--database"]);
        command.arg(fixture.database());
        Collector::start(command, &fixture.path(&format!("{starts}.log")))
    };
    let folder = fixture.path("backups");
    let collector = start();
    collector.said("stream EVENTS up to 100");
    let made = names(&folder, "");
    assert_eq!(made.len(), 1, "{made:?}");
    let file = folder.join(&made[0]);
    assert!(made[0].starts_with("a-20") && made[0].ends_with("Z.db") && is_sound(&file), "{made:?}");
    let other = output(run(&fixture.server.url(), &file).arg("--drain"));
    assert!(stderr(&other).contains("it is a copy of "), "{}", stderr(&other));
    assert!(collector.stop().success());
    // The next one is due in an hour, also after a restart.
    let collector = start();
    collector.said("collecting stream EVENTS");
    assert!(collector.stop().success());
    assert_eq!(names(&folder, "a-"), made);
    let older = ["a-20200101T000000Z.db", "a-20200102T000000Z.db"].map(|name| folder.join(name));
    for older in &older {
        std::fs::copy(&file, older).expect("copies");
    }
    std::fs::write(folder.join("a-20190101T000000Z.db"), "somebody else's").expect("writes");
    std::fs::remove_file(&file).expect("removes");
    let collector = start();
    collector.said("stream EVENTS up to 100");
    eventually("the oldest to be removed", || (!older[0].exists()).then_some(()));
    assert!(collector.stop().success());
    assert!(older[1].exists());
    assert_eq!(names(&folder, "a-").len(), 3);
    let check = |database: &str| {
        let mut command = fixture.command(&["check", "-c", &settings, "--offline", "--database", database]);
        String::from_utf8(output(&mut command).stdout).expect("UTF-8")
    };
    let found = check("a.db");
    assert!(found.contains("the last one in backups is ") && found.contains(" minutes old"), "{found}");
    filled(&fixture.path("b.db"), 1);
    let found = check("b.db");
    assert!(found.contains("there is none in backups"), "{found}");
    // A folder that cannot be made is reported, and collecting goes on.
    fixture.file("a.toml", "[backup]\nfolder = \"no/backups\"\n");
    let collector = start();
    collector.said("no/backups");
    fixture.publish("second", 50);
    fixture.has(150);
    assert!(collector.stop().success());
}

/// What it costs a busy collector: `cargo test --release --test it -- --ignored --nocapture what_a_backup_costs`.
#[test]
#[ignore = "measures, on a quiet machine"]
fn what_a_backup_costs_a_busy_collector() {
    let fixture = Fixture::new();
    let database = fixture.database();
    filled(&database, 1_000_000);
    let mut command = fixture.run();
    command.env("CATCHMENT_OBSERVE__LISTEN", "unix:http.sock").current_dir(fixture.folder.path());
    let collector = Collector::start(command, &fixture.path("collector.log"));
    collector.said("collecting stream EVENTS");
    let count = |what: &str, backing_up: Option<&str>| {
        let mut publisher =
            fixture.command(&["publish", "events.load", "--rate", "10000", "--count", "200000", "--server"]);
        publisher.arg(fixture.server.url()).stdout(Stdio::null()).stderr(Stdio::null());
        let before = oracle::position(&database);
        let began = Instant::now();
        let mut publisher = publisher.spawn().expect("starts");
        let (mut backups, mut longest, mut wal) = (0, Duration::ZERO, 0);
        let (mut position, mut since) = (before, Instant::now());
        let mut running: Option<std::process::Child> = None;
        while position < before + 200_000 {
            let now = oracle::position(&database);
            if now > position {
                longest = longest.max(since.elapsed());
                (position, since) = (now, Instant::now());
            }
            wal = wal.max(std::fs::metadata(fixture.path("a.db-wal")).map_or(0, |file| file.len()));
            if let Some(rate) = backing_up
                && running.as_mut().is_none_or(|child| child.try_wait().expect("can be asked").is_some())
            {
                let mut command = backup(&database, &fixture.path("saved.db"));
                command.args(["--force", "--rate", rate]).stdout(Stdio::null());
                running = Some(command.spawn().expect("starts"));
                backups += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        println!(
            "{what}: 200,000 events in {:.1?}, the longest pause between two commits {longest:.0?}, -wal up to {} MiB, {backups} backups begun",
            began.elapsed(),
            wal >> 20
        );
        publisher.wait().expect("ends");
        if let Some(mut child) = running {
            child.wait().expect("ends");
        }
    };
    count("without a backup", None);
    count("copying 32 MiB/s", Some("32MiB"));
    count("copying without a limit", Some("100GiB"));
    count("without a backup", None);
    assert!(collector.stop().success());
}
