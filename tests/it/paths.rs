//! Paths to a database: one file is one database, whichever path leads to it.

use std::os::unix::fs::symlink;
use std::process::Command;

use catchment::record::CommitMode;
use catchment::{DirectRecorder, DirectRecorderConfig};

use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::fixture::Fixture;
use crate::support::refusal::refused;

#[test]
fn a_second_collector_is_refused_by_whatever_path_it_comes() {
    let fixture = Fixture::new();
    let at = |name: &str| fixture.folder.path().join(name);
    std::fs::create_dir(at("real")).expect("a folder");
    symlink("real", at("linked")).expect("a link");
    symlink("real/a.db", at("file.db")).expect("a link");
    let collector = Collector::start(run(&fixture.server.url(), &at("real/a.db")), &at("collector.log"));
    collector.said("collecting stream");
    for path in ["linked/a.db", "file.db", "real/../linked/a.db"] {
        refused(&mut run(&fixture.server.url(), &at(path)), 1, &["uses it already"]);
        let mut relative = catchment();
        relative.current_dir(fixture.folder.path()).args([
            "run",
            "--server",
            &fixture.server.url(),
            "--database",
            path,
        ]);
        refused(&mut relative, 1, &["uses it already"]);
        let found = output(catchment().args(["check", "--offline", "--database"]).arg(at(path)));
        assert!(String::from_utf8_lossy(&found.stdout).contains("collects into"), "{}", stderr(&found));
    }
    assert!(collector.stop().success());
    // A link to a file that is not there yet makes one file, too.
    symlink("real/new.db", at("new.db")).expect("a link");
    let collector = Collector::start(run(&fixture.server.url(), &at("new.db")), &at("new.log"));
    collector.said("collecting stream");
    refused(&mut run(&fixture.server.url(), &at("real/new.db")), 1, &["uses it already"]);
    assert!(collector.stop().success());
}

#[test]
fn a_database_with_a_second_hard_link_is_not_written() {
    let fixture = Fixture::new();
    let second = fixture.folder.path().join("b.db");
    let collector = fixture.collector();
    collector.said("collecting stream");
    std::fs::hard_link(fixture.database(), &second).expect("a link");
    let said = &["the file has 2 names (hard links)", "remove the others"];
    refused(&mut run(&fixture.server.url(), &second), 1, said);
    let payloads = fixture.publish("one", 10);
    fixture.has(10);
    assert!(collector.stop().success());
    refused(&mut fixture.run(), 1, said);
    for commit in [CommitMode::Grouped, CommitMode::PerEvent] {
        let mut config = DirectRecorderConfig::default();
        config.commit = commit;
        config.database.path.clone_from(&second);
        let refused = DirectRecorder::open(config).expect_err("two names").to_string();
        assert!(refused.contains(said[0]), "{refused}");
    }
    let found = output(catchment().args(["check", "--offline", "--database"]).arg(fixture.database()));
    assert_eq!(found.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&found.stdout).contains(said[0]), "{}", stderr(&found));
    std::fs::remove_file(second).expect("removes");
    fixture.drain();
    fixture.holds_exactly(&payloads);
}

#[test]
fn what_sqlite_would_take_for_something_else_is_no_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let commands: [&[&str]; 5] =
        [&["run"], &["sql", "SELECT 1"], &["tail"], &["dead-letters", "list"], &["publish", "events.a", "x"]];
    for path in ["file:a.db", "file:a.db?mode=memory", ":memory:"] {
        for arguments in commands {
            let mut command: Command = catchment();
            command.current_dir(folder.path()).args(arguments).args(["--database", path]);
            refused(&mut command, 2, &["configuration: --database: "]);
        }
        let mut check = catchment();
        check.current_dir(folder.path()).args(["check", "--offline", "--database", path]);
        assert_eq!(output(&mut check).status.code(), Some(3), "{path}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0, "nothing is made");
    // Nor beside a file that is something else.
    std::fs::write(folder.path().join("notes.txt"), "not a database\n").expect("writes");
    let other = rusqlite::Connection::open(folder.path().join("other.db")).expect("opens");
    other.execute_batch("CREATE TABLE events(day TEXT)").expect("SQL");
    drop(other);
    for (path, words) in [
        ("notes.txt", "file is not a database; set --database to another file"),
        ("other.db", "route events: table events has no column named subject"),
        (".", "it is a directory; give the path of a file in it"),
    ] {
        let mut run: Command = catchment();
        run.current_dir(folder.path()).args(["run", "--server", "nats://127.0.0.1:1", "--database", path]);
        refused(&mut run, 1, &[words]);
        for commit in [CommitMode::Grouped, CommitMode::PerEvent] {
            let mut config = DirectRecorderConfig::default();
            config.commit = commit;
            config.database.path = folder.path().join(path);
            let said = DirectRecorder::open(config).expect_err(path).to_string();
            assert!(said.contains(&words.replace("--database", "database.path")), "{said}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 2, "nothing is made");
    let mut named_so = catchment();
    named_so.current_dir(folder.path()).args(["sql", "--database", "./file:a.db", "SELECT 1"]);
    refused(&mut named_so, 1, &["there is no such file"]);
}
