use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use crate::config::BrokerConfig;
use bytesize::ByteSize;
use tempfile::TempDir;

use super::*;

/// A directory with a settings file, and an environment.
struct Home {
    dir: TempDir,
    settings: Settings,
}

impl Home {
    fn new(file: &str, environment: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("catchment.toml");
        fs::write(&path, file).unwrap();
        let variables = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let environment = Environment::of(variables).unwrap();
        Self { dir, settings: Settings { file: SettingsFile::named(path), environment } }
    }

    /// With a database in the directory, so that no file beside it is found by chance.
    fn database(&self) -> DatabaseArgs {
        DatabaseArgs { database: Some(self.dir.path().join("a.db")) }
    }

    fn broker(&self, flags: &BrokerArgs) -> Config {
        self.settings.for_broker(&self.database(), flags).expect("must be accepted")
    }

    fn refusal(&self) -> String {
        self.settings.for_broker(&self.database(), &BrokerArgs::default()).expect_err("must be refused").to_string()
    }
}

fn flags(servers: &[&str]) -> BrokerArgs {
    BrokerArgs { servers: servers.iter().map(|&server| server.to_owned()).collect(), ..BrokerArgs::default() }
}

fn url(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_higher_source_takes_precedence() {
    let file = "[broker]\nservers = ['nats://file']\nstream = 'FILE'\ntimeout = '2s'";
    let nats = ("NATS_URL", "nats://env-a, nats://env-b");
    let variable = ("CATCHMENT_BROKER__SERVERS", "nats://variable");
    let servers = |file, environment: &[_], flags| Home::new(file, environment).broker(&flags).broker.servers;

    assert_eq!(servers("", &[], flags(&[])), ["nats://127.0.0.1:4222"]);
    assert_eq!(servers("", &[nats], flags(&[])), ["nats://env-a", "nats://env-b"]);
    assert_eq!(servers(file, &[nats], flags(&[])), ["nats://file"]);
    assert_eq!(servers(file, &[nats, variable], flags(&[])), ["nats://variable"]);
    assert_eq!(servers(file, &[nats, variable], flags(&["nats://flag", " nats://b"])), ["nats://flag", "nats://b"]);

    let config = Home::new(file, &[variable, ("NATS_TIMEOUT", "9s")]).broker(&flags(&[]));
    assert_eq!((config.broker.stream, config.broker.timeout), ("FILE".into(), Duration::from_secs(2)));
}

#[test]
fn the_old_key_of_prefetch_still_works_beside_the_new_one() {
    let home = Home::new("[broker.prefetch]\nevents = 8\nrequests = 4", &[("CATCHMENT_BROKER__AHEAD__EVENTS", "9")]);
    let prefetch = home.broker(&flags(&[])).broker.prefetch;
    assert_eq!((prefetch.events, prefetch.requests), (9, 4));
    let home = Home::new("[broker.ahead]\nevents = 8\nrequests = 4", &[("CATCHMENT_BROKER__PREFETCH__EVENTS", "9")]);
    let prefetch = home.broker(&flags(&[])).broker.prefetch;
    assert_eq!((prefetch.events, prefetch.requests), (9, 4));
    let both = [("CATCHMENT_BROKER__AHEAD__REQUESTS", "2"), ("CATCHMENT_BROKER__PREFETCH__EVENTS", "9")];
    let prefetch = Home::new("", &both).broker(&flags(&[])).broker.prefetch;
    assert_eq!((prefetch.events, prefetch.requests), (9, 2));
    assert_eq!(Home::new("[broker.ahead]\nevents = 8", &[]).broker(&flags(&[])).broker.prefetch.events, 8);
    let both = Home::new("[broker]\nahead = { events = 8 }\nprefetch = { events = 9 }", &[]).refusal();
    assert!(both.contains("duplicate key `prefetch`"), "{both}");
}

#[test]
fn a_server_beside_the_database_replaces_only_nats_variables() {
    let nats = [("NATS_URL", "nats://env"), ("NATS_TOKEN", "t0ken"), ("NATS_TIMEOUT", "9s")];
    let home = Home::new("", &nats);
    fs::write(home.dir.path().join("a.db.server"), "nats://127.0.0.1:4567\n").unwrap();
    let broker = home.broker(&flags(&[])).broker;
    assert_eq!(broker.servers, ["nats://127.0.0.1:4567"]);
    assert_eq!((broker.token, broker.timeout), (None, Duration::from_secs(9)));
    assert_eq!(home.broker(&flags(&["nats://flag"])).broker.servers, ["nats://flag"]);

    let own = home.settings.for_own_broker(&home.database(), &BrokerArgs::default()).unwrap();
    assert_eq!((own.broker.servers, own.broker.token), (vec![url("nats://127.0.0.1:4222")], None));
}

#[test]
fn variables_that_contradict_each_other_are_refused() {
    let two = [("CATCHMENT_BROKER__TOKEN", "t0ken"), ("CATCHMENT_BROKER__CREDS", "/a.creds")];
    assert!(Home::new("", &two).refusal().contains("broker: give only one of"));
    let three = [("CATCHMENT_BROKER__USER", "me"), ("CATCHMENT_BROKER__PASSWORD", "p"), two[0]];
    assert!(Home::new("", &three).refusal().contains("broker: give only one of"));
}

#[test]
fn a_command_without_broker_minds_no_nats_variable() {
    let home = Home::new("[database]\npath = 'file.db'", &[("NATS_TIMEOUT", "soon"), ("NATS_USER", "me")]);
    let path = |args| home.settings.for_database(&args).unwrap().database.path;
    assert_eq!(path(DatabaseArgs::default()), Path::new("file.db"));
    assert_eq!(path(home.database()), home.dir.path().join("a.db"));
    assert_eq!(home.refusal().split(':').take(2).collect::<String>(), "configuration NATS_TIMEOUT");
}

#[test]
fn a_variable_is_toml_or_text_or_a_list() {
    let config = Home::new(
        "",
        &[
            ("CATCHMENT_BATCH__MAX_EVENTS", "17"),
            ("CATCHMENT_BATCH__MAX_BYTES", "2MiB"),
            ("CATCHMENT_BATCH__LINGER", "5ms"),
            ("CATCHMENT_BROKER__SUBJECTS", "a.>, b.>"),
            ("CATCHMENT_BROKER__SERVERS", "[\"nats://a\", \"nats://b\"]"),
            ("CATCHMENT_BROKER__USER", "true"),
            ("CATCHMENT_BROKER__PASSWORD", "12345"),
            ("CATCHMENT_BROKER__CREATE_STREAM", "false"),
            ("CATCHMENT_BROKER__PREFETCH__EVENTS", "9"),
            ("CATCHMENT_LOG_FORMAT", "json"),
        ],
    )
    .broker(&flags(&[]));
    let (batch, broker) = (config.batch, config.broker);
    assert_eq!((batch.max_events, batch.max_bytes), (17, ByteSize::mib(2)));
    assert_eq!(batch.linger, Duration::from_millis(5));
    assert_eq!(broker.subjects, ["a.>", "b.>"]);
    assert_eq!(broker.servers, ["nats://a", "nats://b"]);
    assert_eq!((broker.user, broker.password), (Some("true".into()), Some("12345".into())));
    assert_eq!((broker.create_stream, broker.prefetch.events), (false, 9));
}

#[test]
fn a_way_in_replaces_those_of_lower_sources() {
    let file = "[broker]\nuser = 'me'\npassword = 'file'";
    let ways = |environment: &[_], token: Option<&str>| {
        let flags = BrokerArgs { token: token.map(str::to_owned), ..BrokerArgs::default() };
        let broker = Home::new(file, environment).broker(&flags).broker;
        (broker.user, broker.password, broker.token)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(ways(&[("NATS_TOKEN", "t")], None), (some("me"), some("file"), None));
    assert_eq!(ways(&[("CATCHMENT_BROKER__PASSWORD", "env")], None), (some("me"), some("env"), None));
    assert_eq!(ways(&[("CATCHMENT_BROKER__PASSWORD", "env")], Some("t")), (None, None, some("t")));
}

#[test]
fn a_way_in_replaces_all_others_however_they_are_given() {
    let broker = |file: &str, environment: &[_], flags| Home::new(file, environment).broker(&flags).broker;
    let some = |text: &str| Some(text.to_owned());
    // Of two that say the same, the higher one; the user of the lower source stays.
    let file = "[broker]\nuser = 'me'\npassword = 'file'";
    let higher = broker(file, &[], BrokerArgs { password_file: some("pw"), ..flags(&[]) });
    assert_eq!((higher.user, higher.password, higher.password_file), (some("me"), None, Some("pw".into())));
    // Whom an address names, and who replaces an address's.
    let named = broker(file, &[], flags(&["nats://you:pw@a"]));
    assert_eq!((named.user, named.password, named.servers), (None, None, vec![url("nats://you:pw@a")]));
    let file = "[broker]\nservers = ['nats://you:pw@a', 'b']";
    let replaced = broker(file, &[], BrokerArgs { nkey: some("seed"), ..flags(&[]) });
    assert_eq!((replaced.nkey, replaced.servers), (Some("seed".into()), vec![url("nats://a"), url("b")]));
    let kept = broker(file, &[("NATS_CREDS", "me.creds")], flags(&[]));
    assert_eq!((kept.creds, &*kept.servers[0]), (None, "nats://you:pw@a"));
    // The domain of one source does not meet the prefix of another.
    let file = "[broker]\ndomain = 'hub'\ntls.ca = 'file.pem'";
    let prefix = broker(file, &[("NATS_CA", "env.pem")], BrokerArgs { js_api_prefix: some("js.hub"), ..flags(&[]) });
    assert_eq!((prefix.api_prefix(), prefix.domain, prefix.tls.ca), ("js.hub".into(), None, Some("file.pem".into())));
    let tls = [("NATS_CERT", "c.pem"), ("NATS_KEY", "k.pem"), ("NATS_CA", "ca.pem"), ("NATS_NKEY", "seed")];
    let nats = broker("", &tls, flags(&[]));
    assert_eq!((nats.tls.cert, nats.tls.key), (Some("c.pem".into()), Some("k.pem".into())));
    assert_eq!((nats.tls.ca, nats.nkey), (Some("ca.pem".into()), Some("seed".into())));
}

/// A folder of contexts, `selected` selected.
fn contexts(selected: &str, contexts: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("nats/context")).unwrap();
    fs::write(dir.path().join("nats/context.txt"), selected).unwrap();
    for (name, text) in contexts {
        fs::write(dir.path().join(format!("nats/context/{name}.json")), text).unwrap();
    }
    dir
}

#[test]
fn a_context_counts_as_much_as_it_was_asked_for() {
    let one = r#"{"url": "nats://one", "user": "me", "password": "pw", "jetstream_domain": "hub"}"#;
    let two = r#"{"url": "nats://two-a, nats://two-b", "creds": "two.creds", "ca": "two.pem"}"#;
    let folder = contexts("one\n", &[("one", one), ("two", two)]);
    let xdg = ("XDG_CONFIG_HOME", folder.path().to_str().unwrap());
    let broker = |file: &str, environment: &[_], context: Option<&str>, servers: &[&str]| {
        let flags = BrokerArgs { context: context.map(str::to_owned), ..flags(servers) };
        Home::new(file, &[&[xdg], environment].concat()).broker(&flags).broker
    };
    let who = |broker: BrokerConfig| (broker.servers.join(" "), broker.user, broker.creds, broker.domain);
    let me = || Some("me".to_owned());
    let hub = || Some("hub".to_owned());
    let two_creds = || Some(PathBuf::from("two.creds"));

    // The selected one, whole or not at all.
    assert_eq!(who(broker("", &[], None, &[])), ("nats://one".into(), me(), None, hub()));
    assert_eq!(who(broker("", &[], None, &["nats://flag"])), ("nats://flag".into(), None, None, None));
    let url = ("NATS_URL", "nats://env");
    assert_eq!(who(broker("", &[url], None, &[])), ("nats://env".into(), None, None, None));
    // One that the environment names, below the other variables.
    let named = ("NATS_CONTEXT", "two");
    let two_servers = "nats://two-a nats://two-b";
    assert_eq!(who(broker("", &[named], None, &[])), (two_servers.into(), None, two_creds(), None));
    assert_eq!(who(broker("", &[named, url], None, &[])), ("nats://env".into(), None, two_creds(), None));
    // One that a flag names, above everything but other flags.
    let file = "[broker]\nservers = ['nats://file']\ntoken = 't'";
    let variable = ("CATCHMENT_BROKER__SERVERS", "nats://variable");
    let given = broker(file, &[url, variable, ("NATS_CONTEXT", "one")], Some("two"), &[]);
    assert_eq!((given.token.clone(), given.tls.ca.clone()), (None, Some("two.pem".into())));
    assert_eq!(who(given), (two_servers.into(), None, two_creds(), None));
    assert_eq!(who(broker("", &[], Some("two"), &["nats://flag"])), ("nats://flag".into(), None, two_creds(), None));

    // None of it for a broker of our own, nor where one is beside the database.
    let home = Home::new("", &[xdg, named]);
    let own = home.settings.for_own_broker(&home.database(), &BrokerArgs::default()).unwrap();
    assert_eq!(own.broker.creds, None);
    fs::write(home.dir.path().join("a.db.server"), "nats://127.0.0.1:4567\n").unwrap();
    assert_eq!(who(home.broker(&flags(&[])).broker), ("nats://127.0.0.1:4567".into(), None, None, None));
    let flags = BrokerArgs { context: me().map(|_| "one".into()), ..BrokerArgs::default() };
    assert_eq!(who(home.broker(&flags).broker), ("nats://one".into(), me(), None, hub()));
}

#[test]
fn a_context_that_cannot_be_used_is_named() {
    let folder = contexts("gone", &[("broken", "{\"password\": \"hunter2\"")]);
    let xdg = ("XDG_CONFIG_HOME", folder.path().to_str().unwrap());
    let refusal = |name| Home::new("", &[xdg, ("NATS_CONTEXT", name)]).refusal();
    let gone = refusal("");
    assert!(gone.starts_with("configuration: context gone: there is no ") && gone.contains("gone.json"), "{gone}");
    let broken = refusal("broken");
    assert!(
        broken.contains("broken.json: is not a JSON object: error at line 1") && !broken.contains("hunter2"),
        "{broken}"
    );
    assert!(refusal("../broken").contains("is not a valid context name"));
}

#[test]
fn a_mistake_is_told_in_one_line_with_its_place() {
    let in_file = |text| Home::new(text, &[]).refusal();
    let unknown = in_file("\n[database]\npth = 'x'");
    assert!(unknown.contains("catchment.toml:3: unknown key `pth`; the closest one is `path`"), "{unknown}");
    let broken = in_file("[broker]\nstream = 'A");
    assert!(broken.contains("catchment.toml:2: ") && !broken.contains('\n'), "{broken}");

    let in_variable = |name, value| Home::new("", &[(name, value)]).refusal();
    let unknown = in_variable("CATCHMENT_DATABASE__PTH", "x");
    assert!(
        unknown.starts_with("configuration: CATCHMENT_DATABASE__PTH: unknown key `pth`; the closest one is `path`"),
        "{unknown}"
    );
    let section = in_variable("CATCHMENT_BROKRE__STREAM", "x");
    assert!(
        section.contains("CATCHMENT_BROKRE__STREAM: unknown key `brokre`; the closest one is `broker`"),
        "{section}"
    );
    let kind = in_variable("CATCHMENT_BATCH__MAX_EVENTS", "many");
    assert!(kind.ends_with("CATCHMENT_BATCH__MAX_EVENTS: expected a whole number, found a string"), "{kind}");

    let mut missing = Home::new("", &[]);
    missing.settings.file = SettingsFile::named("/nowhere/c.toml".into());
    assert_eq!(missing.refusal(), "configuration: /nowhere/c.toml: there is no such file; name another with --config");
}

#[test]
fn a_setting_that_cannot_be_used_is_named_with_its_source() {
    let file = "[broker]\n\nstream = 'A B'\n[[route]]\nsubject = 'a'";
    let in_file = Home::new(file, &[]).refusal();
    assert!(in_file.contains("catchment.toml:3: broker.stream: \"A B\" is not a valid stream name"), "{in_file}");
    let variable = Home::new(file, &[("CATCHMENT_BROKER__STREAM", "C D")]).refusal();
    assert!(variable.starts_with("configuration: CATCHMENT_BROKER__STREAM: \"C D\" is not"), "{variable}");
    let flags = BrokerArgs { stream: Some("E F".into()), ..BrokerArgs::default() };
    let home = Home::new(file, &[("CATCHMENT_BROKER__STREAM", "C D")]);
    let flag = home.settings.for_broker(&home.database(), &flags).expect_err("a bad name").to_string();
    assert!(flag.starts_with("configuration: --stream: \"E F\" is not"), "{flag}");
    let flags = BrokerArgs { stream: Some("E".into()), tlscert: Some("c.pem".into()), ..BrokerArgs::default() };
    let tls = home.settings.for_broker(&home.database(), &flags).expect_err("no key").to_string();
    assert!(tls.starts_with("configuration: --tlscert: needs"), "{tls}");
    let flags = BrokerArgs { stream: Some("E".into()), ..BrokerArgs::default() };
    let route = home.settings.for_broker(&home.database(), &flags).expect_err("no SQL").to_string();
    assert!(route.contains("catchment.toml:4: route a: has no sql"), "{route}");
    let database = DatabaseArgs { database: Some("file:a.db".into()) };
    let path = home.settings.for_broker(&database, &flags).expect_err("an address").to_string();
    assert!(path.starts_with("configuration: --database: "), "{path}");
    let nats = Home::new("", &[("NATS_CERT", "c.pem")]).refusal();
    assert!(nats.starts_with("configuration: NATS_CERT: needs"), "{nats}");
}

#[test]
fn a_refusal_shows_no_secret() {
    let number = Home::new("[broker]\npassword = 987654321", &[]).refusal();
    assert!(number.ends_with("catchment.toml:2: expected a string, found a whole number"), "{number}");
    let server = Home::new("[broker]\nservers = 'nats://me:hunter2@a, expected b'", &[]).refusal();
    assert!(server.ends_with("expected a list, found a string"), "{server}");
}
