use std::sync::Arc;

use crate::config::{RouteConfig, Unmatched};
use crate::error::{DatabaseFault, Error};
use crate::store::fixture::{Fixture, route};
use crate::store::routes::plan::StatementId;

const SCHEMA: &str = "
    CREATE TABLE users(name TEXT PRIMARY KEY, lines INTEGER);
    CREATE TABLE lines(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, text TEXT);
    CREATE VIRTUAL TABLE found USING fts5(text);
    CREATE TRIGGER t AFTER INSERT ON lines BEGIN INSERT INTO found(text) VALUES (NEW.text); END;
    CREATE VIEW both AS SELECT * FROM users JOIN lines USING (name);
    CREATE TRIGGER v INSTEAD OF INSERT ON both BEGIN DELETE FROM catchment_dead_letters; END;
";

fn open(route: RouteConfig) -> Result<(), Error> {
    Fixture::with_routes(SCHEMA, &[route], Unmatched::Store).map(drop)
}

/// The error for a route with this second statement, without the statement's name.
fn refused(sql: &str) -> String {
    match open(RouteConfig { name: Some("log".into()), ..route("a.>", &["DELETE FROM users", sql]) }) {
        Err(error @ Error::Database { fault: DatabaseFault::Statement, .. }) => {
            let message = error.to_string();
            message.split_once("route log, statement 2: ").expect(&message).1.to_owned()
        }
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn wrong_sql_is_refused_with_its_position() {
    for (sql, words) in [
        ("DELETE FROM users WHERE room = 1", r#"no such column: room (at 1:25, "room = 1")"#),
        #[cfg(feature = "toml")]
        ("DELETE FROM users WHERE nam = 1", r#"no such column: nam (at 1:25, "nam = 1"); did you mean name?"#),
        ("DELETE FROM nobody", "no such table: nobody"),
        ("INSERT INTO users\n(name, né, age)\nVALUES (1, 2, 3)", "table users has no column named né"),
        ("INSERT INTO users\nVALUES ('né', wrong(:a)\n, 3)", r#"no such function: wrong (at 2:15, "wrong(:a)")"#),
        ("DELETE FORM users", r#"near "FORM": syntax error (at 1:8, "FORM users")"#),
        ("DELETE FROM users; DELETE FORM users", r#"near "FORM": syntax error (at 1:27, "FORM users")"#),
        ("DELETE FROM users; DELETE FROM lines", "it is several statements; give a list of them"),
        ("", "it is empty"),
        (" -- nothing\n;", "it is empty"),
    ] {
        assert_eq!(refused(sql), words, "{sql}");
    }
}

#[test]
fn a_statement_that_does_not_write_rows_is_refused() {
    for sql in ["SELECT 1", "VACUUM", "EXPLAIN DELETE FROM users", "DROP TABLE IF EXISTS nobody", "VALUES (:a)"] {
        assert!(refused(sql).starts_with("it writes nothing"), "{sql}: {}", refused(sql));
    }
    assert!(refused("DELETE FROM users RETURNING name").contains("leave RETURNING out"));
}

#[test]
fn a_statement_may_not_change_catchments_own_state() {
    for (sql, words) in [
        ("BEGIN", "transaction"),
        ("COMMIT", "transaction"),
        ("ROLLBACK", "transaction"),
        ("SAVEPOINT mine", "transaction"),
        ("RELEASE one_event", "transaction"),
        ("ATTACH 'b.db' AS b", "attaches"),
        ("DETACH main", "attaches"),
        ("PRAGMA synchronous = OFF", "runs PRAGMA synchronous"),
        ("PRAGMA data_version", "writes nothing"),
        ("INSERT INTO users SELECT name, 1 FROM pragma_table_list", "reads pragma_table_list"),
        ("UPDATE catchment_ledger SET sequence = 0", "writes catchment_ledger, which is catchment's own"),
        ("DELETE FROM CATCHMENT_META", "writes catchment_meta, which is catchment's own"),
        (
            "INSERT INTO both VALUES (1, 2, 3, 4)",
            "writes catchment_dead_letters, which is catchment's own, in trigger or view v",
        ),
        ("CREATE TABLE t(a)", "change tables, indexes and triggers in a migration"),
        ("DROP TABLE users", "change tables, indexes and triggers in a migration"),
        ("ALTER TABLE users ADD COLUMN age", "change tables, indexes and triggers in a migration"),
        (
            "CREATE TEMP TRIGGER x AFTER INSERT ON users BEGIN SELECT 1; END",
            "change tables, indexes and triggers in a migration",
        ),
        ("UPDATE sqlite_sequence SET seq = 0", "change tables, indexes and triggers in a migration"),
        ("REINDEX", "something else than write rows"),
        ("ANALYZE", "change tables, indexes and triggers in a migration"),
    ] {
        assert!(refused(sql).starts_with("it ") && refused(sql).contains(words), "{sql}: {}", refused(sql));
    }
}

#[test]
fn statements_that_write_rows_are_accepted() {
    for sql in [
        "INSERT INTO lines(name, text) VALUES (:name, :text);",
        "REPLACE INTO users VALUES (@name, $lines) -- twice\n",
        "WITH n(a) AS (VALUES (1)) INSERT INTO users SELECT :name, a FROM n WHERE true ON CONFLICT DO UPDATE SET lines = lines + 1",
        "UPDATE users SET lines = (SELECT count(*) FROM catchment_dead_letters) WHERE name = :name",
        "INSERT INTO found(found) VALUES ('optimize')",
        "INSERT INTO events(subject, published_us, payload) VALUES (:subject, :published_us, :payload)",
    ] {
        open(route("a", &[sql])).expect(sql);
    }
}

#[test]
fn a_parameter_needs_a_name_that_can_be_bound() {
    assert!(refused("DELETE FROM users WHERE name = ?").contains("parameter ? without a name"));
    assert!(refused("DELETE FROM users WHERE name = ?2").contains("parameter ? without a name"));
    let token =
        open(route("a", &["DELETE FROM users WHERE name = :token_0"])).expect_err("must be refused").to_string();
    assert!(token.starts_with("configuration: route a: :token_0"), "{token}");
}

#[test]
fn parameters_are_numbered_over_all_statements_of_a_route() {
    let sql =
        ["INSERT INTO users VALUES (:name, :lines)", "INSERT INTO lines(text, name) VALUES (@text, $name || :name)"];
    let fixture =
        Fixture::with_routes(SCHEMA, &[route("a", &sql), route("b", &sql[..1])], Unmatched::Store).expect("opens");
    let plan = Arc::clone(&fixture.open().plan);
    let bindings = |route: usize, number: usize| plan.route(route).statements[number].bindings.clone();
    assert_eq!((bindings(0, 0), bindings(0, 1), bindings(1, 0)), (vec![0, 1], vec![2, 0, 0], vec![0, 1]));
    assert_eq!(plan.slots, 2, "the same statement is prepared once");
}

#[test]
fn rows_are_inserted_together_only_where_nothing_can_tell_and_it_pays() {
    const TABLES: &str = "
        CREATE TABLE plain(\"a b\" TEXT NOT NULL, c INTEGER DEFAULT (random()));
        CREATE TABLE numbered(id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE indexed(name TEXT UNIQUE);
        CREATE TABLE parents(name TEXT PRIMARY KEY);
        CREATE TABLE children(name TEXT REFERENCES parents);
        CREATE TABLE watched(name TEXT);
        CREATE TRIGGER watch AFTER INSERT ON watched BEGIN INSERT INTO plain VALUES (NEW.name, changes()); END;
        CREATE TABLE keyed(name TEXT PRIMARY KEY) WITHOUT ROWID;
        CREATE VIRTUAL TABLE found USING fts5(text);
        CREATE VIEW seen AS SELECT * FROM watched;
        CREATE TRIGGER see INSTEAD OF INSERT ON seen BEGIN DELETE FROM plain; END;
    ";
    let together = |sql: &[&str]| {
        let fixture = Fixture::with_routes(TABLES, &[route("a", sql)], Unmatched::Store).expect("opens");
        fixture.open().plan.is_multi_row(StatementId::Route { route: 0, number: 0 })
    };
    for sql in [
        "INSERT INTO plain VALUES (:a, :b)",
        "insert into main.[plain](c, \"a b\") values ($b, @b); -- done",
        "INSERT INTO plain(\"a b\") VALUES (:a)",
        "INSERT INTO numbered(name) VALUES (:a)",
    ] {
        assert!(together(&[sql]), "{sql}");
    }
    for sql in [
        "INSERT INTO plain VALUES (:a, 1)",
        "INSERT INTO plain VALUES (:a, (SELECT count(*) FROM plain))",
        "INSERT INTO plain VALUES (:a, :b), (:b, :a)",
        "INSERT INTO plain SELECT :a, :b",
        "INSERT OR REPLACE INTO plain VALUES (:a, :b)",
        "INSERT INTO plain VALUES (:a, :b) ON CONFLICT DO NOTHING",
        "INSERT INTO numbered VALUES (:id, :a)",
        "INSERT INTO numbered(name, ID) VALUES (:a, :id)",
        "INSERT INTO plain(c, Rowid) VALUES (:a, :id)",
        "INSERT INTO indexed VALUES (:a)",
        "INSERT INTO parents VALUES (:a)",
        "INSERT INTO children VALUES (:a)",
        "INSERT INTO watched VALUES (:a)",
        "INSERT INTO keyed VALUES (:a)",
        "INSERT INTO found VALUES (:a)",
        "INSERT INTO seen VALUES (:a)",
        "UPDATE plain SET c = :a",
    ] {
        assert!(!together(&[sql]), "{sql}");
    }
    assert!(!together(&["INSERT INTO plain VALUES (:a, :b)", "DELETE FROM parents"]), "a second statement");
}
