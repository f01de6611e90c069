use std::fs;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::*;
use crate::store::{Database, Routes};

struct Fixture {
    folder: tempfile::TempDir,
    config: DatabaseConfig,
}

/// A folder with these files, and the path of a new database.
fn fixture(files: &[(&str, &str)]) -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let migrations = folder.path().join("m");
    fs::create_dir(&migrations).expect("a folder");
    let config = DatabaseConfig {
        path: folder.path().join("a.db"),
        migrations: Some(migrations.into()),
        ..DatabaseConfig::default()
    };
    let fixture = Fixture { folder, config };
    for (name, text) in files {
        fixture.write(name, text);
    }
    fixture
}

impl Fixture {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("m").join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.file(name), text).expect("writes");
    }

    fn open(&self) -> Result<(), String> {
        Database::open(&self.config, &Routes::default()).map(drop).map_err(|e| e.to_string())
    }

    /// The error of a failed open, without the folder's name.
    #[track_caller]
    fn refusal(&self) -> String {
        let message = self.open().expect_err("must be refused");
        assert_eq!(message.lines().count(), 1, "{message}");
        message.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn pending(&self) -> Vec<String> {
        pending(&self.config).expect("reads").iter().map(Migration::name).collect()
    }

    fn connection(&self) -> Connection {
        Connection::open(&self.config.path).expect("opens")
    }

    fn text(&self, sql: &str) -> String {
        self.connection().query_row(sql, [], |row| row.get(0)).expect("one text")
    }

    fn tables(&self) -> String {
        self.text(
            "SELECT coalesce(group_concat(name), '') FROM (SELECT name FROM sqlite_schema WHERE type = 'table'
             AND name NOT LIKE 'catchment%' AND name NOT LIKE 'sqlite%' AND name <> 'events' ORDER BY name)",
        )
    }
}

#[test]
fn new_migrations_are_applied_once_in_number_order() {
    let fixture = fixture(&[
        ("10-more.sql", "INSERT INTO lines VALUES ('ten')"),
        ("002_fill.sql", "INSERT INTO lines VALUES ('two'); SELECT * FROM lines;"),
        ("1_lines.sql", "CREATE TABLE lines(text TEXT) STRICT;"),
        ("README.md", "no SQL"),
        (".003_hidden.sql", "no SQL"),
    ]);
    assert_eq!(fixture.pending(), ["1_lines.sql", "002_fill.sql", "10-more.sql"]);
    assert!(!fixture.config.path.exists(), "telling what is pending makes no database");
    for _ in 0..2 {
        fixture.open().expect("applies");
        assert_eq!(fixture.text("SELECT group_concat(text) FROM lines"), "two,ten");
    }
    assert_eq!(fixture.pending(), [""; 0]);
    fixture.write("11_last.sql", "INSERT INTO lines VALUES ('eleven')");
    assert_eq!(fixture.pending(), ["11_last.sql"]);
    fixture.open().expect("applies");
    assert_eq!(fixture.text("SELECT group_concat(text) FROM lines"), "two,ten,eleven");
    let rows = "SELECT group_concat(number || name || length(checksum), ' ') FROM catchment_migrations";
    assert_eq!(fixture.text(rows), "11_lines.sql64 2002_fill.sql64 1010-more.sql64 1111_last.sql64");
}

#[test]
fn a_start_applies_all_of_them_or_none() {
    let fixture = fixture(&[("1_a.sql", "CREATE TABLE a(x)"), ("2_b.sql", "CREATE TABLE b(x);\nCREATE TABEL c(x);")]);
    let message = fixture.refusal();
    assert_eq!(
        message,
        "migration m/2_b.sql:2: near \"TABEL\": syntax error; correct it; no new migration was applied"
    );
    assert_eq!(fixture.tables(), "");
    assert_eq!(fixture.pending(), ["1_a.sql", "2_b.sql"]);
    fixture.write("2_b.sql", "CREATE TABLE b(x);\nCREATE TABLE c(x);");
    fixture.open().expect("applies");
    assert_eq!(fixture.tables(), "a,b,c");
}

#[test]
fn an_error_names_its_line() {
    for (text, message) in [
        ("CREATE TABLE a(x);\n\n-- now\n\nCREATE TABLE b(\n  x,\n  ,\n);", ":7: near \",\": syntax error"),
        ("CREATE TABLE a(x);\n;;\n/* it\n fails */\n  INSERT INTO a VALUES (1),\n (x'', 2);", ":5: all VALUES must"),
        (
            "CREATE TABLE a(x UNIQUE);\n-- 'twice';\nINSERT INTO a\n VALUES (1), (1);",
            ":3: UNIQUE constraint failed: a.x",
        ),
        ("CREATE TABLE a(x)\n;\n\nINSERT INTO nowhere VALUES (1);", ":4: no such table: nowhere"),
        ("\u{feff}\nSELECT json('{');", ":2: malformed JSON"),
        ("SELECT 1;\nVACUUM;", ":2: cannot VACUUM from within a transaction"),
        ("SELECT 1;\nSELECT\n :name;", ":2: :name is a parameter"),
        ("CREATE TABLE a(x);\r\nSELECT y FROM a;\r\n", ":2: no such column: y"),
        ("-- it's\n;/* ; ' */\u{feff};\n SELECT y;", ":3: no such column: y"),
        ("SELECT 'a", ":1: unrecognized token: \"'a\""),
        ("CREATE TABLE a(x UNIQUE);\nINSERT INTO a VALUES (1);\nINSERT OR ROLLBACK INTO a VALUES (1);", ":3: UNIQUE"),
    ] {
        let fixture = fixture(&[("1_a.sql", text)]);
        let refusal = fixture.refusal();
        assert!(refusal.starts_with(&format!("migration m/1_a.sql{message}")), "{text:?}: {refusal}");
        assert_eq!(fixture.tables(), "", "{text:?}");
    }
}

#[test]
fn only_comments_and_empty_statements_are_skipped() {
    let fixture = fixture(&[
        (
            "1_a.sql",
            "/* CREATE TABLE a(x); */; ;CREATE TABLE a(x);-- DROP TABLE a;\n;INSERT INTO a VALUES ('-- ;'), ('/*');",
        ),
        ("2_b.sql", "/*/ not ended yet */ INSERT INTO a VALUES (';''') -- ended by the file"),
        ("3_c.sql", "-- nothing at all"),
        ("4_d.sql", ""),
        ("5_e.sql", "INSERT INTO a VALUES ('last'); /* not ended; INSERT INTO a VALUES ('no')"),
        (
            "6_f.sql",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END;\nINSERT INTO a VALUES ('after')",
        ),
    ]);
    fixture.open().expect("applies");
    assert_eq!(fixture.text("SELECT group_concat(x, '|') FROM a"), "-- ;|/*|;'|last|after");
}

#[test]
fn statements_against_the_rules_are_refused_with_their_line() {
    for (sql, message) in [
        ("BEGIN", "take BEGIN, COMMIT and SAVEPOINT out"),
        ("COMMIT", "take BEGIN, COMMIT and SAVEPOINT out"),
        ("ROLLBACK", "take BEGIN, COMMIT and SAVEPOINT out"),
        ("SAVEPOINT a", "take BEGIN, COMMIT and SAVEPOINT out"),
        ("ATTACH 'b.db' AS b", "take ATTACH and DETACH out"),
        ("DETACH main", "take ATTACH and DETACH out"),
        ("PRAGMA foreign_keys = OFF", "off while migrations run"),
        ("PRAGMA journal_mode = DELETE", "a migration may not run PRAGMA journal_mode"),
        ("PRAGMA writable_schema = ON", "may not run PRAGMA writable_schema"),
        ("PRAGMA page_size = 512", "may not run PRAGMA page_size"),
        ("DROP TABLE catchment_ledger", "catchment_ledger: names that begin with catchment_"),
        ("DELETE FROM Catchment_Ledger", "names that begin"),
        ("UPDATE catchment_meta SET value = 9", "names that begin"),
        ("INSERT INTO catchment_migrations VALUES (9, '', '', 0)", "names that begin"),
        ("ALTER TABLE catchment_meta ADD COLUMN x", "names that begin"),
        ("CREATE INDEX i ON catchment_dead_letters(subject)", "names that begin"),
        ("CREATE TRIGGER t AFTER INSERT ON catchment_dead_letters BEGIN SELECT 1; END", "names that begin"),
        ("CREATE TABLE catchment_mine(x)", "names that begin"),
        ("CREATE TEMP VIEW catchment_meta AS SELECT 1", "names that begin"),
        ("ALTER TABLE a RENAME TO catchment_x", "catchment_x: names that begin"),
        ("ALTER TABLE a RENAME TO \"Catchment_X\"", "Catchment_X: names that begin"),
        ("CREATE TEMP TABLE t(x); ALTER TABLE t RENAME TO catchment_migrations", "names that begin"),
        ("CREATE VIRTUAL TABLE t USING fts5(x); ALTER TABLE t RENAME TO catchment_words", "names that begin"),
        (
            "INSERT INTO sqlite_sequence VALUES ('catchment_dead_letters', 9223372036854775807)",
            "sqlite_sequence: its rows",
        ),
        ("INSERT INTO SQLITE_sequence VALUES ('Catchment_x', 1)", "sqlite_sequence: its rows"),
        (
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN
                 INSERT INTO sqlite_sequence VALUES ('catchment_dead_letters', 7);
             END;
             INSERT INTO a VALUES (1)",
            "sqlite_sequence: its rows",
        ),
        (
            "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM catchment_ledger; END;
          INSERT INTO events(subject, published_us, payload) VALUES ('a', 1, 'b')",
            "names that begin",
        ),
    ] {
        let fixture = fixture(&[("1_a.sql", &format!("CREATE TABLE a(x);\n{sql};"))]);
        let refusal = fixture.refusal();
        assert!(refusal.starts_with("migration m/1_a.sql:") && refusal.contains(message), "{sql}: {refusal}");
        assert_eq!(fixture.tables(), "", "{sql}");
    }
}

#[test]
fn statements_that_a_schema_needs_are_allowed() {
    let fixture = fixture(&[(
        "1_a.sql",
        "PRAGMA user_version = 7; PRAGMA application_id = 8;
         CREATE TABLE lines(id INTEGER PRIMARY KEY, text TEXT);
         CREATE VIRTUAL TABLE words USING fts5(text, content = 'lines', content_rowid = 'id');
         CREATE TRIGGER lines_words AFTER INSERT ON lines BEGIN
             INSERT INTO words(rowid, text) VALUES (new.id, new.text);
         END;
         INSERT INTO lines(text) VALUES ('a needle; in hay');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
         INSERT INTO boxes VALUES (1, 2, 3);
         CREATE INDEX events_by_subject ON events(subject);
         CREATE VIEW lost AS SELECT * FROM catchment_dead_letters;
         ALTER TABLE lines ADD COLUMN at INTEGER; ALTER TABLE lines RENAME COLUMN at TO message_at;
         CREATE TABLE kinds(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
         INSERT INTO kinds VALUES ('plain');
         ALTER TABLE kinds ADD COLUMN rank INTEGER NOT NULL DEFAULT 0 CHECK (rank >= 0);
         ALTER TABLE kinds ADD COLUMN twice INTEGER AS (rank * 2);
         ALTER TABLE kinds ADD COLUMN parent TEXT REFERENCES kinds(name);
         ALTER TABLE kinds DROP COLUMN parent; ALTER TABLE kinds RENAME TO sorts;
         CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted VALUES (7);
         UPDATE sqlite_sequence SET seq = 8 WHERE name = 'counted'; ALTER TABLE counted RENAME TO numbered;
         DELETE FROM sqlite_sequence WHERE name = 'numbered'; DROP TABLE numbered;
         CREATE VIRTUAL TABLE old USING fts4(text); INSERT INTO old VALUES ('hay'); DROP TABLE old;
         CREATE TEMP TABLE passing(x); INSERT INTO passing VALUES (1); DROP TABLE passing;
         DROP TRIGGER lines_words; DROP INDEX events_by_subject; DROP TABLE boxes;
         ANALYZE; REINDEX;",
    )]);
    fixture.open().expect("applies");
    assert_eq!(fixture.text("SELECT text FROM words WHERE words MATCH 'needle'"), "a needle; in hay");
    assert_eq!(fixture.text("SELECT user_version || '' FROM pragma_user_version"), "7");
    assert_eq!(fixture.text("SELECT name || rank || twice FROM sorts"), "plain00");
    assert_eq!(fixture.text("SELECT count(*) || '' FROM lost"), "0");
}

#[test]
fn a_table_can_be_replaced_while_other_rows_refer_to_it() {
    let fixture = fixture(&[(
        "1_a.sql",
        "CREATE TABLE users(name TEXT PRIMARY KEY);
         CREATE TABLE lines(text TEXT, user TEXT REFERENCES users(name) ON DELETE CASCADE);
         INSERT INTO users VALUES ('ann'); INSERT INTO lines VALUES ('hello', 'ann');",
    )]);
    fixture.open().expect("applies");
    let anew = "CREATE TABLE new(name TEXT PRIMARY KEY, seen INTEGER);
                INSERT INTO new(name) SELECT name FROM users;
                DROP TABLE users;
                ALTER TABLE new RENAME TO users;";
    fixture.write("2_anew.sql", anew);
    fixture.open().expect("applies");
    assert_eq!(fixture.text("SELECT text || user FROM lines"), "helloann");
    fixture.write("3_gone.sql", "DELETE FROM users");
    let message = fixture.refusal();
    assert!(
        message.starts_with("migration m/3_gone.sql: after it, row 1 of lines refers to a row of users"),
        "{message}"
    );
    assert_eq!(fixture.text("SELECT name FROM users"), "ann");
}

#[test]
fn an_applied_file_must_not_change() {
    let fixture = fixture(&[("1_a.sql", "CREATE TABLE a(x);\n"), ("5_b.sql", "CREATE TABLE b(x);\n")]);
    fixture.open().expect("applies");
    fixture.write("1_a.sql", "\u{feff}CREATE TABLE a(x);\r\n");
    fs::rename(fixture.file("5_b.sql"), fixture.file("005-bee.sql")).expect("renames");
    fixture.open().expect("line ends, a byte order mark and names are not what counts");

    fixture.write("1_a.sql", "CREATE TABLE a(x, y);\n");
    assert!(fixture.refusal().starts_with("migration m/1_a.sql: was changed after it was applied at 20"));
    assert!(pending(&fixture.config).is_err());
    fs::remove_file(fixture.file("1_a.sql")).expect("removes");
    let message = fixture.refusal();
    assert!(message.starts_with("migration m/1_a.sql: is missing, but was applied at 20"), "{message}");
    fixture.write("1_a.sql", "CREATE TABLE a(x);\n");
    fixture.write("4_late.sql", "CREATE TABLE late(x)");
    let message = fixture.refusal();
    assert_eq!(
        message,
        "migration m/4_late.sql: comes before 5_b.sql, which is applied already; give it a number above that"
    );
    fs::rename(fixture.file("4_late.sql"), fixture.file("6_late.sql")).expect("renames");
    fixture.open().expect("applies");
    assert_eq!(fixture.tables(), "a,b,late");
}

#[test]
fn unusable_files_are_refused_by_name() {
    for (name, text, message) in [
        (
            "lines.sql",
            &b"SELECT 1"[..],
            "migration m/lines.sql: does not begin with a number, _ or -, and a name; name it as 001_tables.sql, or move it out",
        ),
        ("1.sql", b"SELECT 1", "migration m/1.sql: does not begin with a number"),
        ("1_.sql", b"SELECT 1", "migration m/1_.sql: does not begin with a number"),
        ("-1_a.sql", b"SELECT 1", "migration m/-1_a.sql: does not begin with a number"),
        ("V1__a.sql", b"SELECT 1", "migration m/V1__a.sql: does not begin with a number"),
        ("1_a.sql", b"\xff\xfeS\0", "migration m/1_a.sql:1: has a NUL character; save it as UTF-8"),
        ("0000000000000000001_a.sql", b"SELECT 1", "migration m/0000000000000000001_a.sql: has too large a number"),
        ("1000000000000000000_a.sql", b"SELECT 1", "migration m/1000000000000000000_a.sql: has too large a number"),
        ("99999999999999999999_a.sql", b"SELECT 1", "migration m/99999999999999999999_a.sql: has too large a number"),
        ("1_a.SQL", b"SELECT 1;\n-- gr\xfc\xdfe", "migration m/1_a.SQL:2: is not UTF-8; save it as UTF-8"),
        ("1_a.sql", b"SELECT 1;\n\0DROP TABLE events", "migration m/1_a.sql:2: has a NUL character"),
    ] {
        let fixture = fixture(&[]);
        fixture.write(name, text);
        let refusal = fixture.refusal();
        assert!(refusal.starts_with(message), "{refusal}");
    }
    let beside = fixture(&[("1_a.sql", ""), ("schema.sql", "")]);
    assert!(beside.refusal().starts_with("migration m/schema.sql: does not begin with a number"), "none is left out");
    let twice = fixture(&[("01_b.sql", ""), ("1_a.sql", ""), ("2_c.sql", "")]);
    assert_eq!(
        twice.refusal(),
        "migration m/1_a.sql: has the same number as 01_b.sql; give one of them another number"
    );
    let dangling = fixture(&[]);
    std::os::unix::fs::symlink("nowhere", dangling.file("1_a.sql")).expect("a link");
    assert!(dangling.refusal().starts_with("migration m/1_a.sql: cannot be read: No such file"));
}

#[test]
fn a_folder_without_migrations_is_a_wrong_setting() {
    let mut fixture = fixture(&[("README.md", "")]);
    let message = fixture.refusal();
    assert!(message.starts_with("configuration: database.migrations: m has no .sql file; add one"), "{message}");
    for folder in ["missing", "m/README.md"] {
        fixture.config.migrations = Some(fixture.folder.path().join(folder).into());
        let message = fixture.refusal();
        assert!(
            message.starts_with(&format!("configuration: database.migrations: {folder} cannot be read: ")),
            "{message}"
        );
    }
    assert!(!fixture.config.path.exists() || fixture.tables().is_empty());
}

#[test]
fn files_that_undo_a_migration_are_never_run() {
    let fixture = fixture(&[
        ("001_a.up.sql", "CREATE TABLE a(x)"),
        ("001_a.down.sql", "DROP TABLE a"),
        ("002_b.DOWN.SQL", "DROP TABLE b"),
    ]);
    assert_eq!(fixture.pending(), ["001_a.up.sql"]);
    fixture.open().expect("applies");
    assert_eq!(fixture.tables(), "a");
    fs::remove_file(fixture.file("001_a.up.sql")).expect("removes");
    let message = fixture.refusal();
    assert!(message.contains("m has .down.sql files alone, which are passed over; add one"), "{message}");
}

#[test]
fn a_part_that_undoes_the_migration_is_refused_with_its_line() {
    for mark in
        ["-- +goose Down", "--+goose down", "  -- +migrate Down notransaction", "-- migrate:down transaction:false"]
    {
        let text = format!("-- +goose Up\nCREATE TABLE a(x);\n{mark}\nDROP TABLE a;\n");
        let fixture = fixture(&[("1_a.sql", &text)]);
        let message = fixture.refusal();
        assert!(
            message.starts_with("migration m/1_a.sql:3: here begins a part that undoes the migration"),
            "{message}"
        );
        assert_eq!(fixture.tables(), "");
    }
    let fixture = fixture(&[("1_a.sql", "-- +goose Up\n-- +goose StatementBegin\nCREATE TABLE a(x); -- down\n")]);
    fixture.open().expect("only comments");
}

#[test]
fn a_mark_that_an_earlier_version_counted_is_no_change() {
    let fixture = fixture(&[("1_a.sql", "CREATE TABLE a(x);\n")]);
    fixture.open().expect("applies");
    let with_mark = HEXLOWER.encode(&Sha256::digest("\u{feff}CREATE TABLE a(x);\n"));
    fixture.connection().execute("UPDATE catchment_migrations SET checksum = ?", [with_mark]).expect("SQL");
    for text in ["\u{feff}CREATE TABLE a(x);\n", "CREATE TABLE a(x);\n"] {
        fixture.write("1_a.sql", text);
        fixture.open().expect("unchanged");
    }
}

#[test]
fn scripts_of_the_program_follow_the_rules_of_files() {
    let mut fixture = fixture(&[]);
    let scripts = |scripts: &[(&str, &str)]| Some(Migrations::scripts(scripts.iter().copied()));
    let [first, second] = [("001_a.sql", "CREATE TABLE a(x);\r\n"), ("sql/2-b.sql", "CREATE TABLE b(x);")];
    fixture.config.migrations = scripts(&[second, first]);
    assert_eq!(fixture.pending(), ["001_a.sql", "2-b.sql"]);
    for _ in 0..2 {
        fixture.open().expect("applies");
        assert_eq!(fixture.tables(), "a,b");
    }
    fixture.config.migrations = scripts(&[first]);
    assert!(fixture.refusal().starts_with("migration 2-b.sql: is missing, but was applied at 20"));
    for (name, text, said) in [
        ("sql/2-b.sql", "CREATE TABLE c(x);", "migration sql/2-b.sql: was changed after it was applied at 20"),
        ("3_c.sql", "CREATE TABLE c(x);\nOOPS;", "migration 3_c.sql:2: near \"OOPS\": syntax error"),
        ("3_c.sql", "SELECT '\0'", "migration 3_c.sql:1: has a NUL character"),
        ("1_c.sql", "", "migration 1_c.sql: has the same number as 001_a.sql"),
        ("c.sql", "", "migration c.sql: does not begin with a number"),
        ("3_c", "", "migration 3_c: is not named as a migration; name it as 001_tables.sql"),
        ("3_c.down.sql", "", "migration 3_c.down.sql: is named as one that undoes another; leave it out"),
    ] {
        fixture.config.migrations = scripts(&[first, second, (name, text)]);
        if name == second.0 {
            fixture.config.migrations = scripts(&[first, (name, text)]);
        }
        let message = fixture.refusal();
        assert!(message.starts_with(said), "{message}");
    }
    // The same files in a folder are the same migrations.
    fixture.config.migrations = Some(fixture.folder.path().join("m").into());
    fixture.write("001_a.sql", first.1);
    fixture.write("2-b.sql", second.1);
    assert_eq!(fixture.pending(), [""; 0]);
    fixture.open().expect("nothing is new");
}

#[test]
fn concurrent_opens_apply_each_migration_once() {
    let fixture = fixture(&[("1_a.sql", "CREATE TABLE a(x)"), ("2_b.sql", "INSERT INTO a VALUES (1)")]);
    let config = DatabaseConfig { busy_timeout: std::time::Duration::from_secs(30), ..fixture.config.clone() };
    std::thread::scope(|scope| {
        let openers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Database::open(&config, &Routes::default()).map(drop))).collect();
        for opener in openers {
            opener.join().expect("no panic").expect("opens");
        }
    });
    assert_eq!(fixture.text("SELECT count(*) || '' FROM a"), "1");
}
