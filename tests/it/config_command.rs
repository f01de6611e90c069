//! `catchment config`: the effective settings, where they come from, and their schema.

use std::path::Path;
use std::process::Command;

use catchment::Config;
use serde_json::Value;

use crate::support::collector::{catchment, output, printed, stderr};
use crate::support::server::Server;

fn show(folder: &Path, arguments: &[&str]) -> Command {
    let mut show = catchment();
    show.current_dir(folder).args(["config", "show"]).args(arguments);
    show
}

fn folder_with(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("catchment.toml"), settings).expect("writes");
    folder
}

/// The comment behind this setting of a section.
#[track_caller]
fn origin<'o>(shown: &'o str, section: &str, key: &str) -> &'o str {
    let rest =
        if section.is_empty() { shown } else { shown.split_once(&format!("[{section}]\n")).expect("a section").1 };
    let line =
        rest.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap_or_else(|| panic!("{key}: {rest}"));
    line.rsplit_once("  # ").expect("an origin").1
}

#[test]
fn every_value_has_its_origin() {
    let folder = folder_with(
        "prefix = 'x'\n\n[broker]\nstream = 'FILE'\nsubjects = ['{prefix}.>']\nahead.events = 7\n[database]\nbusy_timeout = '2s'\n\
         [[route]]\nsubject = '{prefix}.a'\nsql = 'DELETE FROM events'\n[[route]]\nname = 'two'\n\nsubject = 'b'\nsql = 'DELETE FROM events'\n",
    );
    let contexts = folder.path().join("nats/context");
    std::fs::create_dir_all(&contexts).expect("a folder");
    let context = r#"{"url": "nats://me:hunter2@ctx:1", "inbox_prefix": "_ME", "ca": "ca.pem"}"#;
    std::fs::write(contexts.join("one.json"), context).expect("writes");
    let mut command = show(folder.path(), &["--origin", "--connection-name", "flag", "-d", "mine.db"]);
    command.env("XDG_CONFIG_HOME", folder.path()).env("NATS_CONTEXT", "one").env("NATS_TIMEOUT", "4s");
    command.env("CATCHMENT_BROKER__STREAM", "VARIABLE").env("CATCHMENT_BROKER__TLS", "{required = true}");
    let shown = printed(&mut command);
    for (section, key, expected) in [
        ("", "prefix", "catchment.toml:1"),
        ("", "unmatched", "default"),
        ("broker", "servers", "context one (NATS_CONTEXT)"),
        ("broker", "stream", "CATCHMENT_BROKER__STREAM"),
        ("broker", "subjects", "catchment.toml:5"),
        ("broker", "timeout", "NATS_TIMEOUT"),
        ("broker", "inbox_prefix", "context one (NATS_CONTEXT)"),
        ("broker", "connection_name", "--connection-name"),
        ("broker.tls", "required", "CATCHMENT_BROKER__TLS"),
        ("broker.tls", "ca", "context one (NATS_CONTEXT)"),
        ("broker.prefetch", "events", "catchment.toml:6"),
        ("broker.prefetch", "requests", "default"),
        ("database", "path", "--database"),
        ("database", "busy_timeout", "catchment.toml:8"),
        ("[route]", "subject", "catchment.toml:10"),
        ("[route]", "max_steps", "default"),
    ] {
        assert_eq!(origin(&shown, section, key), expected, "{section} {key}:\n{shown}");
    }
    assert!(shown.contains("name = \"two\"") && shown.contains("# catchment.toml:13"), "{shown}");
    assert!(shown.contains("servers = [\"nats://***@ctx:1\"]") && !shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("subject = \"x.a\""), "the prefix is in its place: {shown}");
    // A flag replaces a context, a named context the variable.
    let shown = printed(command.args(["--context", "one", "-s", "nats://flag"]));
    assert_eq!(origin(&shown, "broker", "servers"), "--server");
    assert_eq!(origin(&shown, "broker", "inbox_prefix"), "context one (--context)");
}

#[test]
fn the_address_file_of_a_server_is_an_origin() {
    let folder = folder_with("");
    std::fs::write(folder.path().join("catchment.db.server"), "nats://127.0.0.1:4711\n").expect("writes");
    let mut command = show(folder.path(), &["--origin"]);
    command.env("NATS_URL", "nats://env");
    let shown = printed(&mut command);
    assert!(origin(&shown, "broker", "servers").ends_with("catchment.db.server (run --with-server)"), "{shown}");
    assert!(shown.contains("servers = [\"nats://127.0.0.1:4711\"]"), "{shown}");
    std::fs::remove_file(folder.path().join("catchment.db.server")).expect("removes");
    assert_eq!(origin(&printed(&mut command), "broker", "servers"), "NATS_URL");
}

#[test]
fn what_is_shown_is_a_settings_file_with_the_same_effect() {
    let presets = ["events", "chat", "telemetry"];
    for preset in presets {
        let folder = tempfile::tempdir().expect("a folder");
        printed(catchment().current_dir(folder.path()).args(["init", "--preset", preset, "-q"]));
        for flag in [&[][..], &["--origin"]] {
            let shown = printed(&mut show(folder.path(), flag));
            Config::from_toml(&shown).unwrap_or_else(|error| panic!("{preset}: {error}:\n{shown}"));
            std::fs::write(folder.path().join("again.toml"), &shown).expect("writes");
            assert_eq!(printed(show(folder.path(), &["-c", "again.toml"]).arg("--json")).replace("again.toml", ""), {
                let mut original: Value =
                    serde_json::from_str(&printed(&mut show(folder.path(), &["--json"]))).expect("JSON");
                let again = printed(show(folder.path(), &["-c", "again.toml"]).arg("--json"));
                let again: Value = serde_json::from_str(&again).expect("JSON");
                assert_eq!(original["settings"], again["settings"], "{preset}");
                original["origins"] = again["origins"].clone();
                format!("{original}\n").replace("again.toml", "")
            });
        }
    }
}

#[test]
fn json_has_settings_and_origins() {
    let folder = folder_with("[broker]\nstream = 'S'\n[[query]]\nsubject = 'q'\nsql = 'SELECT 1'\n");
    let shown: Value =
        serde_json::from_str(&printed(&mut show(folder.path(), &["--json", "--user", "me", "--password", "hunter2"])))
            .expect("JSON");
    assert_eq!(shown["settings"]["broker"]["stream"], "S");
    assert_eq!(shown["settings"]["broker"]["password"], "***");
    assert_eq!(shown["settings"]["broker"]["prefetch"]["events"], 5000);
    assert_eq!(shown["settings"]["query"][0]["subject"], "q");
    let origin = |path: &str| shown["origins"][path].clone();
    assert_eq!(origin("broker.stream"), serde_json::json!({ "source": "file", "name": "catchment.toml", "line": 2 }));
    assert_eq!(origin("broker.password"), serde_json::json!({ "source": "flag", "name": "--password" }));
    assert_eq!(origin("query[0].sql"), serde_json::json!({ "source": "file", "name": "catchment.toml", "line": 5 }));
    assert_eq!(origin("batch.linger"), serde_json::json!({ "source": "default" }));
    assert!(!shown.to_string().contains("hunter2"));
}

#[test]
fn settings_that_contradict_each_other_are_shown_with_the_error() {
    let folder = folder_with("[broker]\nuser = 'me'\n[batch]\nlinger = '2h'\n");
    let done = output(&mut show(folder.path(), &["--origin"]));
    let (shown, said) = (String::from_utf8_lossy(&done.stdout).into_owned(), stderr(&done));
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("catchment.toml:2: broker.user: user and password go together"), "{said}");
    assert_eq!(origin(&shown, "batch", "linger"), "catchment.toml:4");
    // What cannot be read at all is not shown.
    let done = output(&mut show(folder_with("[broker]\nstraem = 'x'").path(), &[]));
    assert!(
        done.status.code() == Some(2)
            && done.stdout.is_empty()
            && stderr(&done).contains("catchment.toml:2: unknown key")
    );
}

#[test]
fn the_schema_is_the_committed_one_and_reads_no_settings() {
    let folder = folder_with("[brokr]");
    let printed = printed(catchment().current_dir(folder.path()).args(["config", "schema"]));
    assert_eq!(printed, include_str!("../../docs/settings.schema.json"));
    let refused = output(catchment().current_dir(folder.path()).args(["config", "schema", "-c", "catchment.toml"]));
    assert!(stderr(&refused).contains("config schema reads no settings file; leave out --config"));
}

#[test]
fn new_files_are_for_their_owner_and_others_stay_as_they_are() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).expect(name).permissions().mode() & 0o777;
    // With the umask of most systems, and with one that lets others write.
    for (umask, permissions, expected) in [("022", None, 0o600), ("000", None, 0o600), ("077", Some("0640"), 0o640)] {
        let name = format!("{umask}.db");
        let run = |more: &str| {
            let mut shell = Command::new("sh");
            let program = catchment();
            shell
                .args(["-c", &format!("umask {umask}; exec \"$0\" run --with-server -d {name} {more}")])
                .arg(program.get_program());
            shell.current_dir(folder.path()).env("XDG_CONFIG_HOME", "/nowhere");
            shell.env("NATS_SERVER_BIN", crate::support::server::program());
            if let Some(permissions) = permissions {
                shell.env("CATCHMENT_DATABASE__PERMISSIONS", permissions);
            }
            shell
        };
        let collector = crate::support::collector::Collector::start(run(""), &folder.path().join("log"));
        crate::support::eventually("an event in the database", || {
            let mut publish = catchment();
            publish.current_dir(folder.path()).args(["publish", "events.a", "x", "-d", &name]);
            let done = output(&mut publish);
            (done.status.success() && folder.path().join(format!("{name}-wal")).exists()).then_some(())
        });
        for end in ["", "-wal", "-shm", ".lock", ".server"] {
            assert_eq!(mode(&format!("{name}{end}")), expected, "{name}{end}");
        }
        assert_eq!(mode(&format!("{name}.nats")), 0o700);
        collector.stop();
        if umask == "022" {
            std::fs::set_permissions(folder.path().join(&name), std::fs::Permissions::from_mode(0o644)).expect("sets");
            let mut again = crate::support::collector::Collector::start(run("--drain"), &folder.path().join("log"));
            assert!(again.wait().success());
            assert_eq!(mode(&name), 0o644, "it keeps its permissions");
            let check = output(catchment().current_dir(folder.path()).args(["check", "--offline", "-d", &name]));
            let said = String::from_utf8_lossy(&check.stdout).into_owned();
            let words = format!(
                "other users may use {name} (0644), and database.permissions is 0600; to set it: chmod 0600 {name}"
            );
            assert!(check.status.success() && said.contains(&words), "{said}");
        }
    }
    for (permissions, words) in
        [("0400", "is 0400; the owner must"), ("0700", "is 0700"), ("rw", "\"rw\" is not valid; expected permissions")]
    {
        let mut refused = show(folder.path(), &[]);
        let done = output(refused.env("CATCHMENT_DATABASE__PERMISSIONS", permissions));
        assert!(done.status.code() == Some(2) && stderr(&done).contains(words), "{}", stderr(&done));
    }
    let done = output(&mut show(folder_with("[database]\npermissions = 600").path(), &[]));
    assert!(stderr(&done).contains("expected permissions, as \"0600\", found a whole number"), "{}", stderr(&done));
}

#[test]
fn misspelt_names_are_answered_with_those_that_were_meant() {
    let (folder, server) = Server::in_new_folder();
    let at = |arguments: &[&str]| {
        let mut command = catchment();
        command.current_dir(folder.path()).args(arguments).env("XDG_CONFIG_HOME", folder.path());
        stderr(&output(&mut command))
    };
    let url = server.url();
    server.make_stream("CHAT", &["chat.>"]);
    let query = "[broker]\nstream = 'CHAT'\n[[query]]\nsubject = 'ask.count'\nsql = 'SELECT count(*) AS n FROM events'";
    std::fs::write(folder.path().join("catchment.toml"), query).expect("writes");
    let mut run = catchment();
    run.current_dir(folder.path()).args(["run", "--server", &url]);
    let collector = crate::support::collector::Collector::start(run, &folder.path().join("log"));
    collector.said("collecting stream CHAT");
    for mode in ["jetstream", "core"] {
        // From the services at the broker.
        let mut ask = catchment();
        ask.args(["query", "--no-config", "ask.cuont", "--server", &url]).env("CATCHMENT_BROKER__MODE", mode);
        let said = stderr(&output(&mut ask));
        assert!(said.contains("ask.cuont") && said.contains("did you mean ask.count?"), "{mode}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let unlike = at(&["query", "something.else", "--server", &url]);
    assert!(unlike.contains("no collector answers on something.else") && !unlike.contains("did you mean"), "{unlike}");
    for (arguments, words) in [
        (
            &["sql", "SELECT subjct FROM events"][..],
            "no such column: subjct (at 1:8, \"subjct FROM events\"); did you mean subject?",
        ),
        (&["sql", "SELECT 1 FROM evnts"], "no such table: evnts; did you mean events?"),
        (&["tail", "evnts", "--no-follow"], "there is no table evnts; did you mean events?"),
        (&["man", "dead-leters"], "catchment has no command \"dead-leters\"; did you mean dead-letters?"),
    ] {
        let said = at(arguments);
        assert!(said.trim_end().ends_with(words), "{arguments:?}: {said}");
    }
    assert!(collector.stop().success());
    // From the settings, where no collector runs.
    let said = at(&["query", "ask.cuont", "--server", &url]);
    assert!(said.contains("did you mean ask.count?"), "{said}");
    let missing = ["run", "--no-config", "-d", "b.db", "--server", &url, "--stream", "CAHT"];
    let said = at(&missing);
    assert!(
        said.contains("there is no stream CAHT, and ") && said.contains("; did you mean CHAT? Otherwise create"),
        "{said}"
    );
    let contexts = folder.path().join("nats/context");
    std::fs::create_dir_all(&contexts).expect("a folder");
    std::fs::write(contexts.join("production.json"), "{}").expect("writes");
    let said = at(&["query", "a", "--context", "prodction"]);
    assert!(said.trim_end().ends_with("prodction.json; did you mean production?"), "{said}");
}
