use super::*;
use crate::config::DatabaseConfig;
use crate::store::{Database, Editor, Routes, Value};

struct Fixture {
    _folder: tempfile::TempDir,
    letters: DeadLetters,
}

/// A database with letters 1 to 6: `(subject, route, error)`, recorded at 10, 20, …
fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
    drop(Database::open(&config, &Routes::default()).expect("a new database"));
    let letters = DeadLetters::open(&config.path).expect("opens");
    let sql = "INSERT INTO catchment_dead_letters(
                   stream, epoch, sequence, published_us, subject, headers, payload, route, statement, error, recorded_us
               ) VALUES
                   ('S', 1, 7, 1, 'chat.log', '{\"A\":\"1\"}', '{}', 'chat', 'INSERT', 'NOT NULL constraint failed', 10),
                   ('S', 1, 8, 2, 'chat.log', NULL, x'ff00', 'chat', 'INSERT', 'malformed JSON', 20),
                   ('S', 1, 9, 3, 'chat.user.left', x'fe', 'text', NULL, NULL, 'a header line has no colon', 30),
                   (NULL, NULL, NULL, 4, 'door', NULL, '', 'doors', 'INSERT', 'UNIQUE constraint failed', 40),
                   (NULL, NULL, NULL, 5, 'door', NULL, '12', 'doors', 'INSERT', 'not null constraint', 50),
                   (NULL, NULL, NULL, 6, 'door.front', NULL, '12', 'doors', 'COMMIT', 'FOREIGN KEY', 60)";
    Editor::open(&config.path).expect("opens").run(sql).expect("SQL");
    Fixture { _folder: folder, letters }
}

fn ids(fixture: &Fixture, selection: &Selection) -> Vec<i64> {
    let letters = fixture.letters.list(selection).expect("can be read");
    let ids: Vec<i64> = letters.map(|letter| letter.expect("a letter").id).collect();
    assert_eq!(fixture.letters.count(selection).expect("can be counted"), ids.len() as u64);
    ids
}

#[test]
fn a_letter_is_read_as_it_was_inserted() {
    let fixture = fixture();
    let letters: Vec<DeadLetter> =
        fixture.letters.list(&Selection::default()).expect("reads").collect::<Result<_, _>>().expect("letters");
    let first = DeadLetter {
        id: 1,
        recorded_us: 10,
        published_us: 1,
        stream: Some("S".into()),
        epoch: Some(1),
        sequence: Some(7),
        subject: "chat.log".into(),
        headers: Some("{\"A\":\"1\"}".into()),
        raw_headers: None,
        payload: Value::Text("{}".into()),
        route: Some("chat".into()),
        statement: Some("INSERT".into()),
        error: "NOT NULL constraint failed".into(),
    };
    assert_eq!(letters[0], first);
    assert_eq!((&letters[1].headers, &letters[1].payload), (&None, &Value::Blob(b"\xff\0".to_vec())));
    assert_eq!((&letters[2].headers, &letters[2].raw_headers), (&None, &Some(b"\xfe".to_vec())));
    assert_eq!(
        (&letters[3].stream, letters[3].sequence, &letters[3].payload),
        (&None, None, &Value::Text(String::new()))
    );
    assert_eq!(letters.len(), 6);
}

#[test]
fn each_condition_narrows_the_selection() {
    let fixture = fixture();
    let all = Selection::default;
    let filter = |text: &str| Some(text.parse().expect("a filter"));
    for (selection, expected) in [
        (all(), &[1, 2, 3, 4, 5, 6][..]),
        (Selection::with_ids([5, 2, 99]), &[2, 5]),
        (Selection::with_ids([]), &[]),
        (Selection { since_us: Some(30), ..all() }, &[3, 4, 5, 6]),
        (Selection { until_us: Some(30), ..all() }, &[1, 2]),
        (Selection { subject: filter("door"), ..all() }, &[4, 5]),
        (Selection { subject: filter("chat.>"), ..all() }, &[1, 2, 3]),
        (Selection { subject: filter("*.*"), ..all() }, &[1, 2, 6]),
        (Selection { error: Some("Not Null".into()), ..all() }, &[1, 5]),
        (Selection { error: Some("%".into()), ..all() }, &[]),
        (Selection { route: Some("chat".into()), ..all() }, &[1, 2]),
        (Selection { limit: Some(2), ..all() }, &[1, 2]),
        (Selection { limit: Some(0), ..all() }, &[]),
        (Selection { limit: Some(2), newest_first: true, ..all() }, &[6, 5]),
        (Selection { limit: Some(1), subject: filter("door"), newest_first: true, ..all() }, &[5]),
        (
            Selection { error: Some("constraint".into()), route: Some("doors".into()), since_us: Some(50), ..all() },
            &[5],
        ),
    ] {
        assert_eq!(ids(&fixture, &selection), expected, "{selection:?}");
    }
}

#[test]
fn what_is_removed_is_what_was_selected() {
    let fixture = fixture();
    let of_doors = Selection { route: Some("doors".into()), limit: Some(2), ..Selection::default() };
    assert_eq!(fixture.letters.remove(&of_doors).expect("removes"), 2);
    assert_eq!(ids(&fixture, &Selection::default()), [1, 2, 3, 6]);
    assert_eq!(fixture.letters.remove(&Selection::with_ids([4, 5])).expect("nothing to remove"), 0);
    assert_eq!(fixture.letters.remove(&Selection::default()).expect("removes"), 4);
    assert_eq!(ids(&fixture, &Selection::default()), [0; 0]);
}

#[test]
fn many_letters_are_read_in_pages() {
    let fixture = fixture();
    let many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2500)
                INSERT INTO catchment_dead_letters(published_us, subject, payload, error, recorded_us)
                SELECT x, 'many.' || (x % 2), zeroblob(CASE x WHEN 7 THEN 3000000 ELSE 9 END), '', x FROM n";
    Editor::open(fixture.letters.connection.path()).expect("opens").run(many).expect("SQL");
    let selection = |text: &str| Selection { subject: Some(text.parse().expect("a filter")), ..Selection::default() };
    for newest_first in [false, true] {
        let mut expected: Vec<i64> = (7..=2506).collect();
        if newest_first {
            expected.reverse();
        }
        assert_eq!(ids(&fixture, &Selection { newest_first, ..selection("many.*") }), expected);
    }
    let limited = Selection { limit: Some(1_100), ..selection("many.1") };
    assert_eq!(fixture.letters.remove(&limited).expect("removes"), 1_100);
    assert_eq!(ids(&fixture, &selection("many.1")).len(), 150);
    assert_eq!(fixture.letters.remove(&selection("many.0")).expect("removes"), 1_250);
    assert_eq!(ids(&fixture, &Selection::default()).len(), 156);
}

#[test]
fn letters_added_later_are_not_listed() {
    let fixture = fixture();
    let all = Selection::default();
    let mut list = fixture.letters.list(&all).expect("reads");
    assert_eq!(list.next().expect("the first").expect("a letter").id, 1);
    let another = "INSERT INTO catchment_dead_letters(published_us, subject, payload, error, recorded_us)
                   VALUES (1, 'a', '', '', 1)";
    Editor::open(fixture.letters.connection.path()).expect("opens").run(another).expect("SQL");
    assert_eq!(list.last().expect("the last").expect("a letter").id, 6);
}

#[test]
fn a_missing_file_is_refused_and_not_created() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    let error = DeadLetters::open(&path).expect_err("must be refused").to_string();
    assert!(error.contains("there is no such file") && !path.exists(), "{error}");
    Connection::open(&path).and_then(|other| other.execute_batch("CREATE TABLE t(x)")).expect("a database");
    let error = DeadLetters::open(&path).expect_err("must be refused").to_string();
    assert!(error.contains("it has no tables of catchment"), "{error}");
}
