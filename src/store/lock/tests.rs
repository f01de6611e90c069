use super::*;

#[test]
fn a_start_waits_for_a_process_that_holds_the_lock_for_a_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let brief = Lock::take_briefly(&database).expect("is free");
    assert_eq!(Lock::phase(&database), Some(StartPhase::Running), "nobody waits for a start");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| Lock::take_at(&database, StartPhase::Opening));
        std::thread::sleep(BRIEF_PAUSE * 3);
        assert!(!starting.is_finished(), "it waits");
        drop(brief);
        let lock = starting.join().expect("no panic").expect("the lock");
        assert_eq!(Lock::phase(&database), Some(StartPhase::Opening));
        let refused = Lock::take_briefly(&database).expect_err("is held").to_string();
        assert!(refused.contains("this process uses it already"), "{refused}");
        drop(lock);
    });
}

#[test]
fn a_second_holder_is_refused_until_the_first_releases_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let first = Lock::take(&database).expect("is free");
    let refused = Lock::take(&database).expect_err("is held").to_string();
    assert!(refused.contains("this process uses it already; share the recorder or collector"), "{refused}");
    let holder = Lock::holder(&database).expect("looks");
    assert_eq!(holder, Some(format!("process {}", std::process::id())));
    // Another process of the same name, as in another container.
    HELD.lock().retain(|id| *id != first.id);
    let refused = Lock::take(&database).expect_err("is held").to_string();
    assert!(refused.contains(&format!("process {} uses it already; stop that one", std::process::id())), "{refused}");
    drop(first);
    assert_eq!(Lock::holder(&database).expect("looks"), None);
    assert!(Lock::take(&database).is_ok());
}

#[test]
fn a_process_that_is_being_started_keeps_no_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let lock = Lock::take(&database).expect("is free");
    let inherited = lock.file.try_clone().expect("as a fork has it");
    drop(lock);
    assert_eq!(Lock::holder(&database).expect("looks"), None);
    assert!(Lock::take(&database).is_ok());
    drop(inherited);
}

#[test]
fn others_read_how_far_the_start_of_the_holder_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    assert_eq!(Lock::phase(&database), None, "there is no lock file");
    let lock = Lock::take(&database).expect("is free");
    assert_eq!(Lock::phase(&database), Some(StartPhase::Running));
    for phase in StartPhase::ALL {
        lock.note(phase);
        assert_eq!(Lock::phase(&database), Some(phase));
        assert_eq!(phase.name().len(), StartPhase::Running.name().len());
        assert_eq!(Lock::holder(&database).expect("looks"), Some(format!("process {}", std::process::id())));
    }
    assert_eq!(Lock::reloads(&database), None);
    let mut note = ReloadNote::default();
    note.end(true, "a text that is longer than the next");
    lock.note_reloads(&note);
    note.end(true, "");
    lock.note_reloads(&note);
    assert_eq!(Lock::reloads(&database), Some(note));
    assert!(!Lock::is_of_core(&database));
    lock.note_core();
    lock.note(StartPhase::Running);
    assert!(Lock::is_of_core(&database));
    assert_eq!(Lock::phase(&database), Some(StartPhase::Running));
    drop(lock);
    assert_eq!(Lock::phase(&database), None, "the lock is free");
    assert!(!Lock::is_of_core(&database));
}

#[test]
fn a_start_that_failed_leaves_what_was_there_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    let files = || std::fs::read_dir(folder.path()).expect("reads").count();
    let lock = Lock::take(&database).expect("is free");
    rusqlite::Connection::open(&database).and_then(|c| c.execute_batch("CREATE TABLE t(a)")).expect("SQL");
    assert_eq!(files(), 2);
    lock.withdraw();
    assert_eq!(files(), 0);
    std::fs::write(&database, "").expect("writes");
    Lock::take(&database).expect("is free").withdraw();
    assert_eq!(files(), 1, "the empty file is the user's");
    drop(Lock::take(&database).expect("is free"));
    Lock::take(&database).expect("is free").withdraw();
    assert_eq!(files(), 2, "an earlier process has made the lock file");
}

#[test]
fn a_lock_file_that_was_removed_locks_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("a.db");
    for _ in 0..50 {
        let first = Lock::take(&database).expect("is free");
        let other = database.clone();
        let waiter = std::thread::spawn(move || {
            loop {
                if let Ok(lock) = Lock::take(&other) {
                    return lock;
                }
            }
        });
        first.withdraw();
        let lock = waiter.join().expect("takes it");
        assert!(Lock::take(&database).is_err(), "it has a name");
        lock.withdraw();
    }
}
