//! A database has one collector or grouped recorder at a time. A second one in the same program is refused, and the error says to
//! share the first.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use catchment::record::CommitMode;
use catchment::{Collector, Config, DirectRecorder, DirectRecorderConfig, Error, Event, Recorder};

use crate::support::oracle;
use crate::support::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

fn recorder(database: &Path, commit: CommitMode) -> Result<DirectRecorder, Error> {
    let mut config = DirectRecorderConfig::new(database);
    config.commit = commit;
    DirectRecorder::open(config)
}

fn collector(server: &Server, database: &Path) -> Result<Collector, Error> {
    let mut config = Config::default();
    config.broker = server.config();
    config.database.path = database.into();
    Collector::start(&config)
}

/// It is refused because this process uses the database, which it names by the path that was given.
#[track_caller]
fn is_refused<T: std::fmt::Debug>(second: Result<T, Error>, path: &Path) {
    let error = second.expect_err("the database is in use");
    assert!(matches!(&error, Error::Locked { is_own: true, path: named, .. } if named == path), "{error:?}");
    let way_out = "share the recorder or collector that you have, or give this one another database.path";
    assert_eq!(error.remedy(), Some(way_out));
    assert_eq!(error.to_string(), format!("database {}: this process uses it already; {way_out}", path.display()));
}

/// A folder with other paths to a database that is made later.
fn folder_with_links() -> (tempfile::TempDir, PathBuf, Vec<PathBuf>) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("real")).expect("a folder");
    symlink("real", at("linked")).expect("a link");
    symlink("real/a.db", at("file.db")).expect("a link");
    let (database, others) = (at("real/a.db"), vec![at("real/a.db"), at("linked/a.db"), at("file.db")]);
    (folder, database, others)
}

#[test]
fn beside_a_recorder_a_second_one_and_a_collector_are_refused() {
    let (_folder, database, paths) = folder_with_links();
    let (_of_server, server) = Server::in_new_folder();
    let first = recorder(&database, CommitMode::Grouped).expect("opens");
    first.record(Event::new("events.a", "1")).expect("taken");
    for path in &paths {
        is_refused(recorder(path, CommitMode::Grouped), path);
        is_refused(collector(&server, path), path);
    }
    first.record(Event::new("events.a", "2")).expect("taken: a refused one changes nothing for the first");
    first.close(PATIENCE).expect("committed");
    let second = recorder(&paths[1], CommitMode::Grouped).expect("a closed recorder releases the database");
    is_refused(recorder(&database, CommitMode::Grouped), &database);
    drop(second);
    collector(&server, &paths[2]).expect("so does a dropped one").stop(PATIENCE).expect("stops");
    assert_eq!(oracle::payloads(&database), ["1", "2"]);
}

#[test]
fn beside_a_collector_a_second_one_and_a_recorder_are_refused() {
    let (_folder, database, paths) = folder_with_links();
    let (_of_server, server) = Server::in_new_folder();
    let first = collector(&server, &database).expect("starts");
    for path in &paths {
        is_refused(collector(&server, path), path);
        is_refused(recorder(path, CommitMode::Grouped), path);
    }
    server.raw().publish_all("events.a", &["1".into()]);
    assert!(first.wait_for(1, PATIENCE).expect("no failure"), "a refused one changes nothing for the first");
    first.stop(PATIENCE).expect("stops");
    let second = collector(&server, &paths[1]).expect("a stopped collector releases the database");
    is_refused(recorder(&database, CommitMode::Grouped), &database);
    drop(second);
    drop(recorder(&paths[2], CommitMode::Grouped).expect("so does a dropped one"));
    assert_eq!(oracle::payloads(&database), ["1"]);
}

#[test]
fn recorders_that_commit_each_event_are_many_beside_one_of_the_others() {
    let (_folder, database, paths) = folder_with_links();
    let (_of_server, server) = Server::in_new_folder();
    let record_beside = |payload: &str| {
        let recorders = paths.iter().map(|path| recorder(path, CommitMode::PerEvent).expect("opens"));
        for one in &recorders.collect::<Vec<_>>() {
            one.record(Event::new("events.a", payload)).expect("committed");
        }
    };
    let grouped = recorder(&database, CommitMode::Grouped).expect("opens");
    record_beside("beside a recorder");
    is_refused(recorder(&database, CommitMode::Grouped), &database);
    grouped.close(PATIENCE).expect("nothing is left");
    let running = collector(&server, &database).expect("starts");
    record_beside("beside a collector");
    is_refused(collector(&server, &database), &database);
    running.stop(PATIENCE).expect("stops");
    let expected = [["beside a recorder"; 3], ["beside a collector"; 3]].concat();
    assert_eq!(oracle::payloads(&database), expected);
}

#[test]
fn of_threads_that_open_one_database_at_a_time_one_succeeds() {
    const THREADS: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    for round in 0..20 {
        let all = Barrier::new(THREADS);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                all.wait();
                recorder(&database, CommitMode::Grouped)
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let (first, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
        assert_eq!((first.len(), refused.len()), (1, THREADS - 1), "round {round}");
        for second in refused {
            is_refused(second, &database);
        }
    }
}

#[test]
fn a_recorder_that_is_shared_has_the_events_of_all_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let shared: Arc<dyn Recorder> = Arc::new(recorder(&database, CommitMode::Grouped).expect("opens"));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let recorder = Arc::clone(&shared);
            std::thread::spawn(move || {
                for n in 0..100 {
                    recorder.record(Event::new("events.a", format!("{thread}-{n}"))).expect("taken");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    shared.close(PATIENCE).expect("all are committed");
    let mut expected: Vec<String> = (0..4).flat_map(|thread| (0..100).map(move |n| format!("{thread}-{n}"))).collect();
    let mut found = oracle::payloads(&database);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
