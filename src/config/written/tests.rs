use super::*;

/// The sections as the text of a file.
fn as_file(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let name = section.name;
        match (name, section.number) {
            ("", _) => {}
            (_, None) => text.extend(["[", name, "]\n"]),
            (_, Some(_)) => text.extend(["[[", name, "]]\n"]),
        }
        for (key, value) in &section.settings {
            text.extend([key, " = ", &value.to_string(), "\n"]);
        }
    }
    text
}

const ALL: &str = r#"
        prefix = "x"
        unmatched = "drop"
        delete_markers = "dead_letter"
        [broker]
        servers = ["nats://a:1", "tls://b"]
        user = "me"
        password_file = "p"
        domain = "hub"
        inbox_prefix = "_ME"
        mode = "core"
        stream = "S"
        subjects = ["a.>", "b"]
        create_stream = false
        timeout = "1m 2s"
        wait = "90ms"
        silence = "3s"
        retry = "10ms"
        connection_name = "n"
        tls = { required = true, ca = "ca", cert = "cert", key = "key" }
        prefetch = { events = 1, bytes = 1025, requests = 2, poll_interval = "3ms" }
        core = { queue = "q", max_events = 3, max_bytes = "3GiB", overflow = "block" }
        [database]
        path = "a b.db"
        migrations = "m"
        permissions = "0640"
        synchronous = "normal"
        checkpoint = "external"
        writers = 2
        busy_timeout = "1ms"
        forget_recorders = "2years 3months"
        [batch]
        max_events = 7
        max_bytes = "5KiB"
        linger = "1s"
        [service]
        name = "s"
        description = "d \" \n"
        threads = 3
        waiting = 4
        [backup]
    folder = "backups"
    every = "6h"
    keep = 3
    rate = "5MiB"
    max_wal = "2GiB"
    [observe]
        listen = "127.0.0.1:9464"
        token_file = "t"
        unready_after = "10s"
        max_pending = 9
        max_lag = "1m"
        [retention]
        events = { rows = 5, keep = "3days", bytes = "3MiB", where = "a = 'b'", archive = "old.db" }
        t = [{ keep = "1h", column = "at" }, { rows = 2 }]
        [upkeep]
        retain_every = "2m"
        optimize_every = "0s"
        check_every = "7days"
        max_wal = "2GiB"
        [[route]]
        name = "n"
        subject = "a"
        sql = "INSERT"
        bind = { "x-y" = "/a/b", z = "" }
        codec = "messagepack"
        reply = true
        example = { subject = "a", payload = '{"a": 1}' }
        delete_markers = "only"
        max_steps = 5
        [[route]]
        subject = "b"
        sql = ["one", "two\nlines"]
        [[query]]
        name = "q"
        subject = "c"
        sql = "SELECT"
        bind = { a = "/b" }
        parameters = { a = "time", b = { type = "integer", default = 2, min = 1, max = 3 }, c = { required = true } }
        codec = "json"
        timeout = "2s"
        max_rows = 8
        max_bytes = 100
    "#;

#[test]
fn settings_are_the_same_when_they_are_read_again() {
    for given in ["", ALL] {
        let read = |text: &str| -> Config { toml::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}")) };
        let config = read(given);
        let written = sections(&config);
        assert_eq!(sections(&read(&as_file(&written))), written);
        // The text that is read has another order, and other ways to write a value.
        assert_eq!(format!("{config:?}"), format!("{:?}", read(&as_file(&written))));
    }
    let keys: usize = sections(&toml::from_str(ALL).expect("TOML")).iter().map(|one| one.settings.len()).sum();
    assert!(keys > 60, "{keys}");
}

#[test]
fn no_secret_is_written() {
    let seed = format!("SU{}", "A".repeat(56));
    let mut config = Config::default();
    config.broker.servers =
        ["nats://me:hunter2@a:1", "hunter2@b", "nats://me:hunter2/x", "nats://c"].map(str::to_owned).into();
    config.broker.password = Some("hunter2".into());
    config.broker.token = Some("hunter2".into());
    config.broker.jwt = Some("eyJhunter2.eyJi.c2ln".into());
    config.broker.creds = Some(format!("-----BEGIN\n{seed}").into());
    config.broker.nkey = Some(seed.clone().into());
    config.broker.tls.key = Some("-----BEGIN hunter2".into());
    let written = as_file(&sections(&config));
    assert!(!written.contains("hunter2") && !written.contains(&seed), "{written}");
    let servers = r#"servers = ["nats://***@a:1", "***@b", "nats://me:***", "nats://c"]"#;
    assert!(written.contains(servers) && written.matches(r#" = "***""#).count() == 6, "{written}");
}
