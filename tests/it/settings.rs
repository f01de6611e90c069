//! Where settings come from: the file in the current directory, flags that name another or none, variables of others.

use std::path::Path;
use std::process::Command;

use crate::support::collector::{catchment, output, run, stderr};
use crate::support::refusal::ends;
use crate::support::server::Server;

/// A folder with these settings, in the file that is used by default.
fn folder_with(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("catchment.toml"), settings).expect("writes");
    folder
}

/// A command in this folder.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = catchment();
    command.current_dir(folder).args(arguments);
    command
}

/// Which database a command would open: none of them exists.
#[track_caller]
fn database_of(command: &mut Command) -> (String, String) {
    let said = stderr(&output(command));
    let (log, error) = said.split_once("catchment: database ").unwrap_or_else(|| panic!("{said}"));
    (error.split_once(':').expect("a name").0.to_owned(), log.to_owned())
}

/// Runs a command that must succeed; what it logged.
#[track_caller]
fn log_of(command: &mut Command) -> String {
    let done = output(command);
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    said
}

#[track_caller]
fn has(said: &str, words: &[&str]) {
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not in: {said}");
}

const USED: &str = "INFO  using the settings in catchment.toml; --no-config goes without them\n";

#[test]
fn the_file_in_the_current_directory_is_used_and_said_first() {
    let folder = folder_with("[database]\npath = 'mine.db'\n");
    for arguments in [&["sql", "SELECT 1"][..], &["tail", "--no-follow"], &["dead-letters", "list"], &["adopt"]] {
        let (database, log) = database_of(&mut command(folder.path(), arguments));
        assert_eq!(database, "mine.db", "{arguments:?}");
        assert_eq!(log, "", "{arguments:?}: only run and check say it");
        let (_, log) = database_of(command(folder.path(), arguments).arg("-v"));
        assert!(log.contains("using the settings in catchment.toml"), "{log}");
        let (database, log) = database_of(command(folder.path(), arguments).arg("--no-config"));
        assert_eq!((&*database, &*log), ("catchment.db", ""), "{arguments:?}");
        let (database, log) = database_of(command(folder.path(), arguments).args(["-q", "-d", "other.db"]));
        assert_eq!((&*database, &*log), ("other.db", ""), "{arguments:?}");
    }
    // A collector, and those that only try statements.
    let server = Server::start(folder.path());
    let mut drain = command(folder.path(), &["run", "--drain", "--server", &server.url()]);
    let said = log_of(&mut drain);
    has(&said, &["into mine.db"]);
    assert!(said.lines().next().expect("a log").ends_with(USED.trim_end()), "{said}");
    let said = stderr(&output(&mut command(folder.path(), &["check", "--offline"])));
    assert!(said.lines().next().is_some_and(|line| line.ends_with(USED.trim_end())), "{said}");
}

#[test]
fn a_file_that_is_named_replaces_the_one_in_the_current_directory() {
    let folder = folder_with("[database]\npath = 'mine.db'\n");
    std::fs::write(folder.path().join("other.toml"), "[database]\npath = 'other.db'\n").expect("writes");
    let sql = || command(folder.path(), &["sql", "SELECT 1"]);
    let other = ("other.db".to_owned(), String::new());
    assert_eq!(database_of(sql().args(["-c", "other.toml"])), other);
    assert_eq!(database_of(sql().env("CATCHMENT_CONFIG", "other.toml")), other);
    assert_eq!(database_of(sql().env("CATCHMENT_CONFIG", "")).0, "mine.db");
    let none = ("catchment.db".to_owned(), String::new());
    assert_eq!(database_of(sql().arg("--no-config").env("CATCHMENT_CONFIG", "other.toml")), none);
    ends(sql().args(["--no-config", "-c", "other.toml"]), 2, &["--config", "cannot be combined with --no-config"]);
    // Before the command and after it.
    let mut both = command(folder.path(), &["--no-config", "sql", "SELECT 1", "--config", "other.toml"]);
    ends(&mut both, 2, &["--config", "cannot be combined with --no-config"]);
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("catchment.toml");
    let sql = || command(folder.path(), &["sql", "SELECT 1"]);
    std::fs::create_dir(&file).expect("a folder");
    ends(&mut sql(), 2, &["catchment: configuration: catchment.toml: is a folder, not a file", "--no-config"]);
    std::fs::remove_dir(&file).expect("removes");
    std::os::unix::fs::symlink("nowhere", &file).expect("a link");
    ends(&mut sql(), 2, &["catchment.toml: is a link to a file that does not exist", "--no-config"]);
    std::fs::remove_file(&file).expect("removes");
    std::fs::write(&file, "[brokr]\n").expect("writes");
    ends(&mut sql(), 2, &["catchment.toml:1: unknown key `brokr`", "--no-config"]);
    std::fs::write(&file, b"\xff\xfe[\0b\0").expect("writes");
    ends(&mut sql(), 2, &["catchment.toml: is UTF-16 text", "iconv"]);
    ends(
        sql().env("CATCHMENT_CONFIG", "nofile"),
        2,
        &["nofile: there is no such file", "CATCHMENT_CONFIG", "--config"],
    );
    let said = ends(sql().args(["-c", "nofile"]), 2, &["nofile: there is no such file; name another with --config"]);
    assert!(!said.contains("CATCHMENT_CONFIG"), "{said}");
    // A monitoring system gets its own status.
    let check = output(&mut command(folder.path(), &["check", "--offline", "--quick"]));
    assert_eq!(check.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&check.stdout).contains("catchment.toml: is UTF-16 text"));
}

#[test]
fn a_selected_context_that_cannot_be_read_ends_the_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let nats = folder.path().join("nats");
    std::fs::create_dir(&nats).expect("a folder");
    std::fs::write(nats.join("context.txt"), b"\xff\xfe").expect("writes");
    let with = |arguments: &[&str]| {
        let mut command = command(folder.path(), arguments);
        command.env("XDG_CONFIG_HOME", folder.path());
        command
    };
    let words = ["nats/context.txt: is not UTF-8 text; it names the selected context", "name a server with --server"];
    ends(&mut with(&["publish", "events.a", "x"]), 2, &words);
    // It is not needed where something names a server, nor without a broker.
    ends(&mut with(&["publish", "events.a", "x", "--server", "nats://127.0.0.1:1"]), 1, &["127.0.0.1:1"]);
    ends(&mut with(&["sql", "SELECT 1"]), 1, &["there is no such file"]);
}

#[test]
fn wrong_sql_in_the_settings_is_wrong_configuration() {
    let route = "[[route]]\nsubject = 'events.a'\nsql = 'INSERT INTO nowhere VALUES (1)'\n";
    let query = "[[query]]\nsubject = 'ask.a'\nsql = 'SELECT nobody'\n";
    for (settings, words) in [
        (route, "catchment.toml:1: route events.a, statement 1: no such table"),
        (query, "catchment.toml:1: query ask.a: no such column"),
    ] {
        let folder = folder_with(settings);
        let server = Server::start(folder.path());
        ends(&mut command(folder.path(), &["run", "--server", &server.url()]), 2, &[words]);
        ends(&mut command(folder.path(), &["test", "/dev/null"]), 2, &[words]);
    }
}

#[test]
fn every_error_of_a_route_a_query_or_the_migrations_names_the_line_of_the_file() {
    let route = "\n[[route]]\nsubject = 'events.a'\nsql = ";
    let query = "\n[[query]]\nsubject = 'ask.a'\nsql = ";
    for (settings, line, words) in [
        (format!("{route}'INSERT INTO nowhere VALUES (1)'"), 2, "route events.a, statement 1: no such table: nowhere"),
        (format!("{route}'DELETE FROM events WHERE nr = 1'"), 2, "route events.a, statement 1: no such column: nr"),
        (format!("{route}'DELETE FROM events'\nbind = {{ foo = '/a' }}"), 2, "route events.a: bind.foo is used by no"),
        (format!("{route}'DELETE FROM events WHERE id = :token_0'"), 2, "route events.a: :token_0 is not a token"),
        (
            format!("{route}'INSERT INTO events(subject) SELECT \"nr\"'"),
            2,
            "route events.a, statement 1: no such column: \"nr\"",
        ),
        (format!("{query}'SELECT \"nobody\"'"), 2, "query ask.a: no such column: \"nobody\""),
        (format!("{query}'SELECT nobody'"), 2, "query ask.a: no such column: nobody (at 1:8, \"nobody\")"),
        (format!("{query}'SELECT 1'\nparameters.limt = 'text'"), 2, "query ask.a: parameters.limt is used by no"),
        ("[database]\nmigrations = 'chatt'\n".to_owned(), 2, "database.migrations: chatt cannot be read"),
    ] {
        let folder = folder_with(&settings);
        let place = format!("catchment.toml:{line}: {words}");
        ends(&mut command(folder.path(), &["test", "/dev/null"]), 2, &[&place]);
        let checked = output(&mut command(folder.path(), &["check", "--offline"]));
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(matches!(checked.status.code(), Some(2 | 3)) && said.contains(&place), "{said}");
    }
}

#[test]
fn where_a_flag_is_refused_the_other_settings_are_named_as_flags() {
    let folder = folder_with("");
    for (flags, words) in [
        (&["--jwt", "a"][..], "--jwt: needs --nkey, the file with its seed; a file with both goes into --creds"),
        (&["--tlscert", "a"], "--tlscert: needs --tlskey, its private key"),
        (&["--tlskey", "a"], "--tlskey: needs --tlscert, its certificate"),
        (&["--password", "a"], "--password: user and password go together; give both"),
        (&["--user", "a"], "--user: user and password go together; give both"),
    ] {
        ends(command(folder.path(), &["publish", "a.b", "x"]).args(flags), 2, &[words]);
    }
    for server in ["nats://", "localhost:99999"] {
        let refused = output(&mut command(folder.path(), &["publish", "a.b", "x", "--server", server]));
        let said = stderr(&refused);
        assert!(refused.status.code() == Some(2) && said.contains(server) && !said.contains("%40"), "{said}");
    }
}

#[test]
fn commands_without_settings_refuse_a_file_and_read_none() {
    let folder = folder_with("[brokr]\n");
    for name in ["init", "compare"] {
        let refused = format!("catchment: {name} reads no settings file; leave out --config");
        ends(&mut command(folder.path(), &[name, "--config", "catchment.toml"]), 2, &[&refused]);
    }
    let done = output(command(folder.path(), &["init", "--force"]).env("CATCHMENT_CONFIG", "nofile"));
    assert!(done.status.success() && !stderr(&done).contains("using the settings"), "{}", stderr(&done));
}

#[test]
fn variables_of_others_change_nothing() {
    let (folder, server) = Server::in_new_folder();
    let mut drain = run(&server.url(), &folder.path().join("a.db"));
    for (name, value) in [
        ("CATCHMENT_SERVICE_HOST", "10.0.48.9"),
        ("CATCHMENT_SERVICE_PORT", "4222"),
        ("CATCHMENT_PORT", "tcp://10.0.48.9:4222"),
        ("CATCHMENT_PORT_4222_TCP", "tcp://10.0.48.9:4222"),
        ("CATCHMENT_PORT_4222_TCP_ADDR", "10.0.48.9"),
        ("CATCHMENT_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("CATCHMENT_VERSION", "1.2"),
        ("CATCHMENT_HOME", "/srv"),
    ] {
        drain.env(name, value);
    }
    let said = log_of(drain.arg("--drain"));
    assert!(said.contains("collecting stream EVENTS") && !said.contains("WARN"), "{said}");
    drain.env("CATCHMENT_DATABASE_PATH", "other.db").env("CATCHMENT_UNMATCHD", "drop").env("CATCHMENT_BROKER", "{}");
    let said = log_of(drain.env("CATCHMENT_SERVER", "nats://127.0.0.1:1"));
    has(&said, &["WARN  variable CATCHMENT_DATABASE_PATH is not used", "CATCHMENT_DATABASE__PATH"]);
    has(&said, &["WARN  variable CATCHMENT_UNMATCHD is not used", "the closest one is CATCHMENT_UNMATCHED"]);
    has(&said, &["WARN  variable CATCHMENT_BROKER is not used", "settings of [broker] are CATCHMENT_BROKER__<KEY>"]);
    has(&said, &["WARN  variable CATCHMENT_SERVER is not used", "broker.servers is CATCHMENT_BROKER__SERVERS"]);
    assert_eq!(said.matches("WARN").count(), 4, "{said}");
    drain.env("CATCHMENT_DATABASE__PTAH", "other.db");
    ends(&mut drain, 2, &["CATCHMENT_DATABASE__PTAH: unknown key `ptah`"]);
}

#[test]
fn levels_that_are_wrong_are_said_and_the_usual_ones_stay() {
    let (folder, server) = Server::in_new_folder();
    let drain = || {
        let mut drain = run(&server.url(), &folder.path().join("a.db"));
        drain.arg("--drain");
        drain
    };
    for (name, levels, wrong) in [
        ("RUST_LOG", "inof", "\"inof\" is not used"),
        ("CATCHMENT_LOG", "catchment=lots", "\"lots\" is no level"),
        ("CATCHMENT_LOG", "catchment=debug=x", "is no level"),
    ] {
        let words = [&*format!("WARN  {name}: "), wrong, "INFO  collecting stream"];
        has(&log_of(drain().env(name, levels)), &words);
    }
    let said = log_of(drain().env("CATCHMENT_LOG_FORMAT", "xml"));
    has(&said, &["WARN  CATCHMENT_LOG_FORMAT: \"xml\" is no format; formats are text and json", "INFO  collecting"]);
    let said = log_of(drain().env("RUST_LOG", "other=debug"));
    assert!(said.contains("INFO  collecting stream") && !said.contains("WARN"), "{said}");
    assert_eq!(log_of(drain().env("CATCHMENT_LOG", "warn")), "");
}
