use super::*;
use crate::store::Editor;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(sql: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Editor::open(&folder.path().join("app.db")).expect("opens").run(sql).expect("SQL");
        Self(folder)
    }

    fn run(&self, sql: &str) {
        Editor::open(&self.options().path).expect("opens").run(sql).expect("SQL");
    }

    fn options(&self) -> OutboxOptions {
        OutboxOptions { path: self.0.path().join("app.db"), table: "outbox".into(), state: None, deletes: false }
    }

    fn open(&self) -> Outbox {
        Outbox::open(&self.options()).expect("opens")
    }

    fn status(&self) -> (u64, u64, u64, u64) {
        let status = Outbox::status(&self.options()).expect("reads");
        (status.position, status.waiting, status.forwarded, status.given_up)
    }
}

const TABLE: &str = "CREATE TABLE outbox(id INTEGER PRIMARY KEY, subject TEXT, payload)";

fn ids(read: &[StoredEvent]) -> Vec<u64> {
    read.iter().map(|event| event.position).collect()
}

/// The name and the number of a row.
fn number(outbox: &Outbox, id: u64) -> (String, u64) {
    let names = outbox.names();
    let range = names.iter().rev().find(|range| range.first <= id).expect("has a name");
    (range.name.clone(), id - range.first)
}

#[test]
fn a_row_that_is_sent_again_has_the_same_name_and_number() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', x'00')");
    let mut first = folder.open();
    assert_eq!(ids(&first.after(0, 2, 999).expect("reads")), [1, 2]);
    first.done_through(1).expect("writes");
    let sent = number(&first, 2);
    assert_eq!((folder.status(), sent.1), ((1, 2, 1, 0), 1));
    drop(first);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 4)");
    let mut second = folder.open();
    assert_eq!((number(&second, 2), second.position()), (sent.clone(), 1));
    let (name, at) = number(&second, 3);
    assert!(name != sent.0 && at == 0, "row 3 was not read before");
    let read = second.after(1, 9, 999).expect("reads");
    assert_eq!(ids(&read), [2, 3, 4]);
    assert_eq!(read[1].event.as_ref().expect("an event").payload(), [0]);
    second.done_through(4).expect("writes");
    drop(second);
    let third = folder.open();
    assert_eq!((third.names().len(), third.names()[0].first, folder.status()), (1, 5, (4, 0, 4, 0)));
}

#[test]
fn a_row_added_after_a_restore_has_a_name_that_no_other_had() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2)");
    let mut outbox = folder.open();
    outbox.after(0, 9, 999).expect("reads");
    let backup = folder.0.path().join("backup");
    std::fs::copy(folder.options().path, &backup).expect("copies");
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 3)");
    outbox.after(2, 9, 999).expect("reads");
    let (before, third) = (number(&outbox, 2), number(&outbox, 3));
    outbox.done_through(3).expect("writes");
    drop(outbox);
    std::fs::copy(&backup, folder.options().path).expect("copies");
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 'another')");
    let restored = folder.open();
    assert_eq!((number(&restored, 2), restored.position()), (before, 0));
    assert_ne!(number(&restored, 3).0, third.0);
}

#[test]
fn deleted_rows_leave_the_last_and_those_that_were_given_up() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a b', 2), ('a', 3), ('a', 4)");
    let mut outbox = Outbox::open(&OutboxOptions { deletes: true, ..folder.options() }).expect("opens");
    let read = outbox.after(0, 9, 999).expect("reads");
    let why = read[1].event.clone().expect_err("is no subject");
    outbox.give_up(&[GivenUp { position: 2, reason: why, may_be_stored: false }]).expect("writes");
    outbox.done_through(4).expect("writes");
    drop(outbox);
    assert_eq!(folder.status(), (4, 0, 3, 1));
    let mut outbox = folder.open();
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 5)");
    assert_eq!(ids(&outbox.after(4, 9, 999).expect("reads")), [5]);
    let left = Rows::of(&folder.options().path, &outbox.source, "outbox").expect("rows");
    assert_eq!(ids(&left.read(&outbox.source, 0, 9, 999).expect("reads").events), [2, 4, 5]);
}

/// Publishes all rows.
fn forward(outbox: &mut Outbox) -> Vec<u64> {
    let read = ids(&outbox.after(outbox.position(), 999, 1 << 20).expect("reads"));
    if let Some(last) = read.last() {
        outbox.done_through(*last).expect("writes");
    }
    read
}

fn refused(outbox: &mut Outbox) -> String {
    let ended = outbox.after(outbox.position(), 999, 1 << 20).expect_err("is refused");
    assert_eq!(ended.fault, DatabaseFault::Conflict, "{ended}");
    ended.to_string()
}

#[test]
fn a_row_that_was_changed_is_not_forwarded_again() {
    for (columns, deletes) in [("", false), ("", true), (" AUTOINCREMENT", false), (" AUTOINCREMENT", true)] {
        let folder =
            Folder::new(&format!("CREATE TABLE outbox(id INTEGER PRIMARY KEY{columns}, subject TEXT, payload)"));
        let options = OutboxOptions { deletes, ..folder.options() };
        folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', 3)");
        let mut outbox = Outbox::open(&options).expect("opens");
        assert_eq!(forward(&mut outbox), [1, 2, 3]);
        folder.run("UPDATE outbox SET payload = 'while it runs' WHERE id = 3");
        assert!(forward(&mut outbox).is_empty());
        drop(outbox);
        folder.run("UPDATE outbox SET payload = 'while it does not' WHERE id = 3");
        let mut outbox = Outbox::open(&options).expect("opens");
        assert!(forward(&mut outbox).is_empty());
        folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 4)");
        assert_eq!(forward(&mut outbox), [4]);
        let left = outbox.source.query_row("SELECT min(id) FROM outbox", [], |row| row.get::<_, u64>(0));
        assert_eq!(left, Ok(if deletes { 3 } else { 1 }), "what was changed is not deleted");
    }
}

#[test]
fn all_rows_may_be_changed_where_no_id_is_used_again() {
    let folder = Folder::new("CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT, payload)");
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', 3)");
    assert_eq!(forward(&mut folder.open()), [1, 2, 3]);
    folder.run("UPDATE outbox SET payload = 'changed'");
    assert!(forward(&mut folder.open()).is_empty());
    folder.run(
        "DROP TABLE outbox; CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT, payload);
                INSERT INTO outbox(subject, payload) VALUES ('b', 1), ('b', 2), ('b', 3), ('b', 4)",
    );
    assert_eq!(forward(&mut folder.open()), [1, 2, 3, 4], "it is another table");
}

#[test]
fn rows_after_the_end_of_a_shorter_table_are_new_and_no_other() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', 3), ('a', 4)");
    let mut outbox = folder.open();
    assert_eq!(forward(&mut outbox), [1, 2, 3, 4]);
    let before = number(&outbox, 2);
    folder.run("DELETE FROM outbox WHERE id > 2");
    assert!(refused(&mut outbox).contains("was cut after row 2"), "{}", refused(&mut outbox));
    drop(outbox);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 'another 3')");
    let mut outbox = folder.open();
    assert_eq!(forward(&mut outbox), [3]);
    assert_ne!(number(&outbox, 3).0, before.0);
}

#[test]
fn a_restored_database_with_a_state_file_doubles_no_row() {
    let folder = Folder::new(TABLE);
    let options = OutboxOptions { state: Some(folder.0.path().join("state.db")), ..folder.options() };
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2)");
    let mut outbox = Outbox::open(&options).expect("opens");
    assert_eq!(forward(&mut outbox), [1, 2]);
    let backup = folder.0.path().join("backup");
    std::fs::copy(folder.options().path, &backup).expect("copies");
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 3), ('a', 4)");
    assert_eq!(forward(&mut outbox), [3, 4]);
    drop(outbox);
    std::fs::copy(&backup, folder.options().path).expect("copies");
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 'another 3')");
    let mut outbox = Outbox::open(&options).expect("opens");
    assert_eq!(forward(&mut outbox), [3]);
}

#[test]
fn a_database_that_was_restored_from_long_ago_loses_no_new_row() {
    let folder = Folder::new(TABLE);
    let options = OutboxOptions { state: Some(folder.0.path().join("state.db")), ..folder.options() };
    let add = |rows: u64| {
        folder.run(&format!(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO outbox(subject, payload) SELECT 'a', hex(randomblob(8)) FROM n"
        ));
    };
    add(200);
    let mut outbox = Outbox::open(&options).expect("opens");
    assert_eq!(forward(&mut outbox).len(), 200);
    let backup = folder.0.path().join("backup");
    std::fs::copy(folder.options().path, &backup).expect("copies");
    add(300);
    assert_eq!(forward(&mut outbox).len(), 300);
    drop(outbox);
    std::fs::copy(&backup, folder.options().path).expect("copies");
    add(20);
    let sent = forward(&mut Outbox::open(&options).expect("opens"));
    assert!(sent.ends_with(&(201..=220).collect::<Vec<_>>()) && sent.len() < 120, "{sent:?}");
}

#[test]
fn a_position_that_was_restored_is_not_overwritten() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', 3)");
    let mut outbox = folder.open();
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(2).expect("writes");
    folder.run("UPDATE catchment_forward SET position = 1");
    let ended = outbox.done_through(3).expect_err("is not ours").to_string();
    assert!(ended.contains("the position in it was changed while rows were forwarded"), "{ended}");
    assert!(refused(&mut outbox).contains("was restored"));
    drop(outbox);
    assert_eq!(folder.open().position(), 1);
}

#[test]
fn columns_that_are_added_are_used_at_once() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1)");
    let mut outbox = folder.open();
    assert_eq!(forward(&mut outbox), [1]);
    folder.run(
        "ALTER TABLE outbox ADD COLUMN headers TEXT DEFAULT '{}'; ALTER TABLE outbox ADD COLUMN stream TEXT;
         ALTER TABLE outbox ADD COLUMN published_us INTEGER DEFAULT 5;
         INSERT INTO outbox(subject, payload, headers, stream) VALUES ('a', 2, '{\"A\":\"1\"}', NULL), ('a', 3, NULL, 'S')",
    );
    let read = outbox.after(1, 9, 999).expect("reads");
    assert_eq!((ids(&read), read[0].recorded_us), (vec![2], 5));
    assert_eq!(read[0].event.as_ref().expect("an event").headers(), [("A".to_owned(), "1".to_owned())]);
    outbox.done_through(2).expect("writes");
    drop(outbox);
    assert!(forward(&mut folder.open()).is_empty(), "the earlier rows have other columns, and are the same");
    folder.run("ALTER TABLE outbox RENAME COLUMN payload TO body");
    let mut outbox = Outbox::open(&folder.options());
    assert!(outbox.as_mut().expect_err("lacks a column").to_string().contains("no column payload"));
}

#[test]
fn a_refusal_is_noted_until_the_row_is_done_and_a_changed_row_is_read_again() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', 3)");
    let mut outbox = folder.open();
    outbox.after(0, 9, 999).expect("reads");
    outbox.note_refused(&[1, 2], true).expect("notes");
    let asked: BTreeSet<u64> = [1, 2].into();
    assert!(outbox.changed(&asked).expect("reads").is_empty(), "nothing has changed");
    folder.run("UPDATE outbox SET subject = 'b' WHERE id = 2; DELETE FROM outbox WHERE id = 1");
    let found = outbox.changed(&asked).expect("reads");
    let subject =
        found[1].1.as_ref().and_then(|stored| stored.event.clone().ok()).expect("an event").subject().to_owned();
    assert_eq!((found[0].1.is_none(), &*subject), (true, "b"));
    drop(outbox);
    let mut outbox = folder.open();
    let refused = outbox.refused();
    assert!(refused.len() == 2 && refused[&2].others_stored, "{refused:?}");
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(2).expect("writes");
    drop(outbox);
    assert!(folder.open().refused().is_empty());
    assert_eq!(folder.status(), (2, 1, 1, 0));
}

#[test]
fn rows_that_are_numbered_from_the_start_again_are_all_forwarded() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', 3)");
    let mut outbox = folder.open();
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(3).expect("writes");
    folder.run("DELETE FROM outbox; INSERT INTO outbox(subject, payload) VALUES ('a', 'new')");
    let ended = outbox.after(3, 9, 999).expect_err("went back");
    assert!(ended.fault == DatabaseFault::Conflict && ended.to_string().contains("from the start again"), "{ended}");
    let before = number(&outbox, 1);
    drop(outbox);
    let mut outbox = folder.open();
    assert_eq!(ids(&outbox.after(outbox.position(), 9, 999).expect("reads")), [1]);
    assert_ne!(number(&outbox, 1).0, before.0);
}

#[test]
fn all_rows_may_be_deleted_where_no_id_is_used_again() {
    let folder = Folder::new("CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT, payload)");
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2)");
    let mut outbox = folder.open();
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(2).expect("writes");
    folder.run("DELETE FROM outbox");
    assert!(outbox.after(2, 9, 999).expect("reads").is_empty());
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 3)");
    assert_eq!(ids(&outbox.after(2, 9, 999).expect("reads")), [3]);
}

#[test]
fn what_a_collector_has_stored_is_not_sent_back() {
    let folder =
        Folder::new("CREATE TABLE outbox(id INTEGER PRIMARY KEY, subject, payload, headers, stream, published_us)");
    folder.run(
        "INSERT INTO outbox(subject, payload, headers, stream, published_us)
         VALUES ('a', 1, NULL, 'EVENTS', 10), ('b', 2, '{\"A\":\"1\"}', NULL, 20), ('c', 3, NULL, 'EVENTS', 30)",
    );
    let mut outbox = folder.open();
    let read = outbox.after(0, 9, 999).expect("reads");
    assert_eq!((ids(&read), read[0].recorded_us, outbox.scanned), (vec![2], 20, 3));
    assert_eq!(read[0].event.as_ref().expect("an event").headers(), [("A".to_owned(), "1".to_owned())]);
    assert_eq!(Outbox::status(&folder.options()).expect("reads").oldest_us, Some(20));
    outbox.done_through(2).expect("writes");
    assert_eq!(folder.status(), (2, 0, 1, 0));
}

#[test]
fn a_position_is_kept_in_another_file_where_the_database_is_only_read() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1)");
    let before = std::fs::read(folder.options().path).expect("reads");
    let options = OutboxOptions { state: Some(folder.0.path().join("state.db")), ..folder.options() };
    assert_eq!(Outbox::status(&options).expect("reads").waiting, 1);
    let mut outbox = Outbox::open(&options).expect("opens");
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(1).expect("writes");
    assert_eq!(Outbox::status(&options).expect("reads").position, 1);
    assert_eq!(std::fs::read(folder.options().path).expect("reads"), before);
}

#[test]
fn a_table_that_cannot_be_forwarded_is_refused_by_what_it_lacks() {
    let folder = Folder::new(
        "CREATE TABLE a(id TEXT PRIMARY KEY, subject, payload); CREATE TABLE b(id INTEGER PRIMARY KEY, subject);",
    );
    let refused = |table: &str| {
        let options = OutboxOptions { table: table.into(), ..folder.options() };
        Outbox::open(&options).map(drop).expect_err("is refused").to_string()
    };
    assert!(refused("outbox").contains("it has no table outbox; name the table with --table"));
    assert!(refused("a").contains("table a has no column id INTEGER PRIMARY KEY"));
    assert!(refused("b").contains("table b has no column payload"));
    assert!(refused("a\"b").contains("other characters"));
    let folder = Folder::new(TABLE);
    let _held = folder.open();
    let refused = Outbox::open(&folder.options()).map(drop).expect_err("is in use").to_string();
    assert!(refused.contains("app.db: this process uses it already"), "{refused}");
}

#[test]
fn a_row_that_appears_below_the_position_stays_and_is_counted() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox VALUES (1, 'a', 1), (5, 'a', 5)");
    let options = OutboxOptions { deletes: true, ..folder.options() };
    let mut outbox = Outbox::open(&options).expect("opens");
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(5).expect("writes");
    folder.run("INSERT INTO outbox VALUES (-3, 'a', 0), (2, 'a', 'late'), (6, 'a', 6)");
    assert_eq!(ids(&outbox.after(5, 9, 999).expect("reads")), [6]);
    outbox.done_through(6).expect("writes");
    drop(outbox);
    let outbox = Outbox::open(&options).expect("opens");
    let status = Outbox::status(&options).expect("reads");
    assert_eq!((status.missed, status.forwarded, status.waiting), (2, 3, 0));
    assert!(outbox.look_below.is_none(), "it was said at the start");
    let sql = "SELECT group_concat(id) FROM (SELECT id FROM outbox ORDER BY id)";
    let left: String = outbox.source.query_row(sql, [], |row| row.get(0)).expect("a text");
    assert_eq!(left, "-3,2,6");
}

#[test]
fn ids_that_are_used_again_are_noticed_by_the_row_at_the_position() {
    let folder = Folder::new(TABLE);
    let options = OutboxOptions { deletes: true, ..folder.options() };
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1), ('a', 2), ('a', 3)");
    let mut outbox = Outbox::open(&options).expect("opens");
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(3).expect("writes");
    let again = "DELETE FROM outbox; INSERT INTO outbox(subject, payload) VALUES ('a', 'n1'), ('a', 'n2'), ('a', 'n3'), ('a', 'n4')";
    folder.run(again);
    let ended = outbox.after(3, 9, 999).expect_err("is another row");
    assert!(ended.fault == DatabaseFault::Conflict && ended.to_string().contains("row 3 is not"), "{ended}");
    drop(outbox);
    let mut outbox = Outbox::open(&options).expect("opens");
    assert_eq!(ids(&outbox.after(outbox.position(), 9, 999).expect("reads")), [1, 2, 3, 4]);
}

#[test]
fn a_table_has_one_position_in_whatever_case_it_is_named() {
    let folder = Folder::new(TABLE);
    folder.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1)");
    let mut outbox = folder.open();
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(1).expect("writes");
    let options = OutboxOptions { table: "OutBox".into(), ..folder.options() };
    assert!(matches!(Outbox::open(&options), Err(Error::Locked { .. })));
    drop(outbox);
    assert_eq!(Outbox::open(&options).expect("opens").position(), 1);
    assert_eq!(Outbox::status(&options).expect("reads").forwarded, 1);
}

#[test]
fn a_state_is_a_file_of_its_own_and_of_one_database() {
    let (one, other) = (Folder::new(TABLE), Folder::new(TABLE));
    one.run("INSERT INTO outbox(subject, payload) VALUES ('a', 1)");
    let state = one.0.path().join("state.db");
    let with = |folder: &Folder, state: &Path| OutboxOptions { state: Some(state.to_owned()), ..folder.options() };
    let refused = |options: &OutboxOptions| Outbox::open(options).map(drop).expect_err("is refused").to_string();
    let mut outbox = Outbox::open(&with(&one, &state)).expect("opens");
    outbox.after(0, 9, 999).expect("reads");
    outbox.done_through(1).expect("writes");
    drop(outbox);
    let of_another = refused(&with(&other, &state));
    assert!(of_another.contains("the position of table outbox of another database"), "{of_another}");
    assert!(Outbox::status(&with(&other, &state)).is_err());
    for no_path in [":memory:", "file:state.db"] {
        let said = refused(&with(&one, Path::new(no_path)));
        assert!(said.contains("is no path of a file"), "{said}");
    }
    let foreign = refused(&with(&one, &other.options().path));
    assert!(foreign.contains("it is the database of something else (it has table outbox)"), "{foreign}");
    // It was moved, with its file.
    let moved = one.0.path().join("moved.db");
    std::fs::rename(one.options().path, &moved).expect("moves");
    let options = OutboxOptions { path: moved, ..with(&one, &state) };
    assert_eq!(Outbox::open(&options).expect("opens").position(), 1);
}
