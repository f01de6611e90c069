use super::*;
use crate::config::DatabaseConfig;
use crate::store::{Database, Routes};

fn open(path: &Path) -> Database {
    let config = DatabaseConfig { path: path.to_owned(), ..DatabaseConfig::default() };
    Database::open(&config, &Routes::default()).expect("opens")
}

/// A database that was collected into, closed.
fn collected(path: &Path) -> Home {
    let database = open(path);
    let home = database.home().expect("reads");
    assert_eq!(home.before, Before::This, "a new one");
    database.settle(&home).expect("writes");
    home
}

/// Has the record say this in place of what is there.
fn rewrite(path: &Path, what: &str, by: &str) {
    let connection = Connection::open(path).expect("opens");
    let sql = "UPDATE catchment_meta SET value = replace(value, ?1, ?2) WHERE key = 'home'";
    assert_eq!(connection.execute(sql, [what, by]).expect("SQL"), 1);
}

#[test]
fn a_database_that_is_renamed_is_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, other) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let before = collected(&path);
    assert_eq!(open(&path).home().expect("reads").before, Before::This);
    fs::rename(&path, &other).expect("moves");
    let after = open(&other).home().expect("reads");
    assert_eq!((after.before, after.tag), (Before::This, before.tag));
}

#[test]
fn a_copy_is_refused_while_its_original_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("copy.db"));
    let original = collected(&path);
    fs::copy(&path, &copy).expect("copies");
    let home = open(&copy).home().expect("reads");
    assert_eq!(home.before, Before::There { path: original.path.clone() });
    assert_ne!(home.tag, original.tag);
    let said = home.must_be_its_own(&copy).expect_err("a copy").to_string();
    for part in ["copy of", "a.db", "catchment adopt --database", "copy.db", "move the other one away"] {
        assert!(said.contains(part) && !said.contains('\n'), "{said}");
    }
    // A backup that took the original's place is as good as the original.
    let backup = folder.path().join("backup.db");
    fs::copy(&path, &backup).expect("copies");
    fs::rename(&backup, &path).expect("moves");
    assert!(matches!(open(&copy).home().expect("reads").before, Before::There { .. }));
    // It takes the other's place once that is gone.
    fs::remove_file(&path).expect("removes");
    let home = open(&copy).home().expect("reads");
    assert_eq!(home.before, Before::Gone { tag: original.tag });
    home.must_be_its_own(&copy).expect("nobody else is there");
}

#[test]
fn a_backup_in_its_place_is_the_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, backup) = (folder.path().join("a.db"), folder.path().join("backup.db"));
    let original = collected(&path);
    fs::copy(&path, &backup).expect("copies");
    fs::rename(&backup, &path).expect("moves");
    let database = open(&path);
    let home = database.home().expect("reads");
    assert_eq!(home.before, Before::Gone { tag: original.tag });
    database.settle(&home).expect("writes");
    assert_eq!(database.home().expect("reads").before, Before::This);
}

#[test]
fn one_that_comes_from_another_machine_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    let home = collected(&path);
    rewrite(&path, &home.tag, "0badcafe");
    rewrite(&path, &machine(), "another machine");
    let Before::Elsewhere { tag, place } = open(&path).home().expect("reads").before else { panic!("elsewhere") };
    assert_eq!((tag.as_str(), &place), ("0badcafe", &home.place));
}

#[test]
fn a_copy_that_is_adopted_has_another_identity_and_all_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("copy.db"));
    collected(&path);
    let sql =
        "INSERT INTO catchment_ledger(stream, epoch, created, sequence, published_ns) VALUES ('S', 1, 'then', 9, 10)";
    Connection::open(&path).expect("opens").execute_batch(sql).expect("SQL");
    fs::copy(&path, &copy).expect("copies");
    let Adopted { before, now } = adopt(&copy).expect("adopts");
    let (original, adopted) = (open(&path), open(&copy));
    assert_eq!((original.identity(), adopted.identity()), (before.as_str(), now.as_str()));
    assert_ne!(before, now);
    assert_eq!(adopted.home().expect("reads").before, Before::This);
    assert_eq!(adopted.history("S").expect("reads"), original.history("S").expect("reads"));
    let _lock = Lock::take(&copy).expect("nobody has it");
    assert!(matches!(adopt(&copy), Err(Error::Locked { .. })));
}
