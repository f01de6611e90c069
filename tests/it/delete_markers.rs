//! Delete markers: messages which report that the earlier messages of their subject are gone.

use serde_json::json;

use crate::support::collector::{catchment, output, stderr};
use crate::support::eventually;
use crate::support::oracle;
use crate::support::server::{Server, needs};

struct Fixture {
    folder: tempfile::TempDir,
    server: Server,
}

impl Fixture {
    /// A server, and settings for this stream whose routes fill table `kv`.
    fn new(stream: &str, routes: &str) -> Self {
        let (folder, server) = Server::in_new_folder();
        let settings =
            format!("{routes}\n[broker]\nstream = \"{stream}\"\n[database]\npath = \"a.db\"\nmigrations = \"m\"\n");
        std::fs::write(folder.path().join("catchment.toml"), settings).expect("writes");
        std::fs::create_dir(folder.path().join("m")).expect("a folder");
        let table = "CREATE TABLE kv(key TEXT PRIMARY KEY, value TEXT NOT NULL, why TEXT) STRICT;";
        std::fs::write(folder.path().join("m/001_kv.sql"), table).expect("writes");
        Self { folder, server }
    }

    /// A bucket as a client of NATS makes it: <https://docs.nats.io/nats-concepts/jetstream/key-value-store>.
    fn bucket(routes: &str) -> Self {
        let fixture = Self::new("KV_conf", routes);
        let bucket = json!({ "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "deny_delete": true });
        fixture.server.make_stream_with("KV_conf", &["$KV.conf.>"], &bucket);
        let mut raw = fixture.server.raw();
        let headers = |lines: &str| format!("NATS/1.0\r\n{lines}\r\n\r\n").into_bytes();
        raw.publish("$KV.conf.a", None, "1");
        raw.publish("$KV.conf.b", None, "2");
        raw.publish("$KV.conf.c", None, "3");
        fixture.drain();
        raw.publish("$KV.conf.a", Some(&headers("KV-Operation: DEL")), "");
        raw.publish("$KV.conf.b", Some(&headers("KV-Operation: PURGE\r\nNats-Rollup: sub")), "");
        raw.publish("$KV.conf.c", Some(&headers("Nats-Rollup: sub")), "4");
        fixture
    }

    fn drain(&self) -> String {
        let mut command = catchment();
        command.current_dir(self.folder.path()).args(["run", "--drain", "--config", "catchment.toml"]);
        let done = output(command.args(["--server", &self.server.url()]));
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    }

    fn text(&self, sql: &str) -> String {
        let text =
            oracle::open(&self.folder.path().join("a.db")).query_row(sql, [], |row| row.get::<_, Option<String>>(0));
        text.expect("SQL").unwrap_or_default()
    }

    fn kv(&self) -> String {
        self.text(
            "SELECT group_concat(key || '=' || value || coalesce(why, ''), ' ') FROM (SELECT * FROM kv ORDER BY key)",
        )
    }

    fn dead(&self) -> String {
        self.text("SELECT group_concat(coalesce(route, '-') || ': ' || error, '; ') FROM catchment_dead_letters")
    }
}

const PUT: &str = "[[route]]
name = 'put'
subject = '$KV.conf.*'
sql = 'INSERT INTO kv(key, value) VALUES (:token_3, :payload) ON CONFLICT(key) DO UPDATE SET value = excluded.value'
";

#[test]
fn a_deleted_key_is_skipped_by_default() {
    let fixture = Fixture::bucket(PUT);
    let said = fixture.drain();
    assert!(said.contains("committed 3 events") && said.contains("2 of them skipped as delete markers"), "{said}");
    assert_eq!((fixture.kv().as_str(), fixture.dead().as_str()), ("a=1 b=2 c=4", ""));
    assert_eq!(fixture.text("SELECT group_concat(subject) FROM events"), "");
    assert!(!fixture.drain().contains("delete markers"), "they are committed");
}

#[test]
fn a_route_may_take_delete_markers_only() {
    let delete = "[[route]]
name = 'delete'
subject = '$KV.conf.*'
delete_markers = 'only'
sql = 'DELETE FROM kv WHERE key = :token_3'
";
    for routes in [[PUT, delete].concat(), [delete, PUT].concat()] {
        let fixture = Fixture::bucket(&routes);
        assert!(!fixture.drain().contains("delete markers"));
        assert_eq!((fixture.kv().as_str(), fixture.dead().as_str()), ("c=4", ""));
    }
}

#[test]
fn delete_markers_are_rows_or_dead_letters_if_that_is_set() {
    let with = |markers: &str| {
        let fixture = Fixture::bucket(&format!("{PUT}delete_markers = '{markers}'\n"));
        fixture.drain();
        fixture
    };
    let stored = with("store");
    assert_eq!((stored.kv().as_str(), stored.dead().as_str()), ("a= b= c=4", ""));
    let dead = with("dead_letter");
    let said = "put: it is a delete marker (KV-Operation: DEL); put: it is a delete marker (KV-Operation: PURGE)";
    assert_eq!((dead.kv().as_str(), dead.dead().as_str()), ("a=1 b=2 c=4", said));
}

#[test]
fn delete_markers_without_a_route_are_events() {
    let stored = Fixture::bucket("");
    stored.drain();
    let all =
        "SELECT group_concat(substr(subject, 10) || '=' || payload || coalesce(headers ->> 'KV-Operation', ''), ' ')
               FROM (SELECT * FROM events ORDER BY id)";
    assert_eq!(stored.text(all), "a=1 b=2 c=3 a=DEL b=PURGE c=4");
    let skipped = Fixture::bucket("delete_markers = 'skip'");
    let said = skipped.drain();
    assert!(said.contains("2 of them skipped as delete markers"), "{said}");
    assert_eq!(skipped.text(all), "a=1 b=2 c=3 c=4");
    let dead = Fixture::bucket("delete_markers = 'dead_letter'");
    dead.drain();
    assert_eq!(dead.text(all), "a=1 b=2 c=3 c=4");
    assert!(dead.dead().starts_with("-: it is a delete marker (KV-Operation: DEL)"), "{}", dead.dead());
}

#[test]
fn an_expired_event_leaves_no_dead_letter() {
    if !needs((2, 11), "delete markers of a stream") {
        return;
    }
    let expired = "[[route]]
subject = 'e.*'
delete_markers = 'only'
sql = 'UPDATE kv SET why = :header_nats_marker_reason WHERE key = :token_2'
";
    for (routes, kept) in [("", "a=1 b=2"), (expired, "a=1MaxAge b=2")] {
        let put = PUT.replace("$KV.conf.*", "e.*").replace(":token_3", ":token_2");
        let fixture = Fixture::new("E", &[&put, routes].concat());
        let settings = json!({
            "allow_msg_ttl": true, "allow_rollup_hdrs": true, "subject_delete_marker_ttl": 60_000_000_000_u64,
            "max_msgs_per_subject": 1,
        });
        fixture.server.make_stream_with("E", &["e.>"], &settings);
        let mut raw = fixture.server.raw();
        raw.publish("e.a", Some(b"NATS/1.0\r\nNats-TTL: 1s\r\n\r\n"), "1");
        raw.publish("e.b", None, "2");
        fixture.drain();
        eventually("the marker", || (fixture.server.last_sequence("E") == 3).then_some(()));
        let said = fixture.drain();
        assert_eq!(said.contains("1 of them skipped as delete markers"), routes.is_empty(), "{said}");
        assert_eq!((fixture.kv().as_str(), fixture.dead().as_str()), (kept, ""));
    }
}

#[test]
fn a_setting_for_routes_is_refused_elsewhere() {
    let fixture = Fixture::new("E", "delete_markers = 'only'");
    let mut command = catchment();
    command.current_dir(fixture.folder.path()).args(["check", "--offline", "--config", "catchment.toml"]);
    let said = String::from_utf8_lossy(&output(&mut command).stdout).into_owned();
    assert!(said.contains("delete_markers: is only, which is for routes; give store, skip or dead_letter"), "{said}");
}
