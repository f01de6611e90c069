use super::*;
use crate::store::Database;

fn config(path: &Path) -> DatabaseConfig {
    DatabaseConfig { path: path.to_owned(), ..DatabaseConfig::default() }
}

fn open(path: &Path) -> Database {
    Database::open(&config(path), &Routes::default()).expect("opens")
}

/// A database that a collector has used, closed.
fn collected(path: &Path) -> FileIdentity {
    let database = open(path);
    let file = database.file_identity().expect("reads");
    assert_eq!(file.previous, PreviousFile::Same, "a new one");
    database.record_file(&file).expect("writes");
    file
}

/// Replaces a part of the record.
fn rewrite(path: &Path, what: &str, by: &str) {
    let connection = Connection::open(path).expect("opens");
    let sql = "UPDATE catchment_meta SET value = replace(value, ?1, ?2) WHERE key = 'home'";
    assert_eq!(connection.execute(sql, [what, by]).expect("SQL"), 1);
}

#[test]
fn a_renamed_database_is_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, other) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let before = collected(&path);
    assert_eq!(open(&path).file_identity().expect("reads").previous, PreviousFile::Same);
    fs::rename(&path, &other).expect("moves");
    let after = open(&other).file_identity().expect("reads");
    assert_eq!((after.previous, after.tag), (PreviousFile::Same, before.tag));
}

#[test]
fn a_copy_is_refused_while_its_original_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("copy.db"));
    let original = collected(&path);
    fs::copy(&path, &copy).expect("copies");
    let file = open(&copy).file_identity().expect("reads");
    assert_eq!(file.previous, PreviousFile::StillExists { path: original.path.clone() });
    assert_ne!(file.tag, original.tag);
    let error = file.refuse_copy(&copy).expect_err("a copy").to_string();
    for part in ["copy of", "a.db", "catchment adopt --database", "copy.db", "move the other one away"] {
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
    // A backup that replaced the original counts as the original.
    let backup = folder.path().join("backup.db");
    fs::copy(&path, &backup).expect("copies");
    fs::rename(&backup, &path).expect("moves");
    assert!(matches!(open(&copy).file_identity().expect("reads").previous, PreviousFile::StillExists { .. }));
    // The copy replaces the original once that is gone.
    fs::remove_file(&path).expect("removes");
    let file = open(&copy).file_identity().expect("reads");
    assert_eq!(file.previous, PreviousFile::Gone { tag: original.tag });
    file.refuse_copy(&copy).expect("the original is gone");
}

#[test]
fn a_backup_that_replaces_the_file_inherits_its_consumers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, backup) = (folder.path().join("a.db"), folder.path().join("backup.db"));
    let original = collected(&path);
    fs::copy(&path, &backup).expect("copies");
    fs::rename(&backup, &path).expect("moves");
    let database = open(&path);
    let file = database.file_identity().expect("reads");
    assert_eq!(file.previous, PreviousFile::Gone { tag: original.tag });
    database.record_file(&file).expect("writes");
    assert_eq!(database.file_identity().expect("reads").previous, PreviousFile::Same);
}

#[test]
fn a_file_of_another_machine_is_reported_with_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    let file = collected(&path);
    rewrite(&path, &file.tag, "0badcafe");
    rewrite(&path, &machine(), "another machine");
    let PreviousFile::OtherMachine { tag, location } = open(&path).file_identity().expect("reads").previous else {
        panic!("elsewhere")
    };
    assert_eq!((tag.as_str(), &location), ("0badcafe", &file.location));
}

#[test]
fn an_adopted_copy_changes_only_its_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("copy.db"));
    collected(&path);
    let sql =
        "INSERT INTO catchment_ledger(stream, epoch, created, sequence, published_ns) VALUES ('S', 1, 'then', 9, 10)";
    Connection::open(&path).expect("opens").execute_batch(sql).expect("SQL");
    fs::copy(&path, &copy).expect("copies");
    let IdentityChange { before, after } = adopt(&config(&copy), &Routes::default(), &|| true).expect("adopts");
    let (original, adopted) = (open(&path), open(&copy));
    assert_eq!((original.identity(), adopted.identity()), (before.as_deref().expect("a copy"), after.as_str()));
    assert_ne!(before, Some(after));
    assert_eq!(adopted.file_identity().expect("reads").previous, PreviousFile::Same);
    assert_eq!(adopted.history("S").expect("reads"), original.history("S").expect("reads"));
    let _lock = Lock::take(&copy).expect("is free");
    assert!(matches!(adopt(&config(&copy), &Routes::default(), &|| true), Err(Error::Locked { .. })));
}

#[test]
fn adopting_ends_when_it_is_not_wanted_while_another_process_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    collected(&path);
    let before = open(&path).identity().to_owned();
    let writer = Connection::open(&path).expect("opens");
    writer.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    let refused = adopt(&config(&path), &Routes::default(), &|| false).expect_err("is interrupted");
    assert!(matches!(refused, Error::Database { fault: DatabaseFault::Interrupted, .. }), "{refused}");
    writer.execute_batch("ROLLBACK").expect("ends");
    drop(writer);
    assert_eq!(open(&path).identity(), before);
}
