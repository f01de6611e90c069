//! Every way in, against a server configured for it: collector and publisher get in by it, what is wrong is refused in one
//! line, and no secret is shown, however much is logged.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use catchment::{Event, NatsRecorder, NatsRecorderConfig, Recorder};
use nkeys::KeyPair;

use crate::support::authority::{Authority, Pair};
use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::operator::Operator;
use crate::support::oracle;
use crate::support::refusal::{SECRETS, ends};
use crate::support::server::{Server, program, version};
use crate::support::{eventually, eventually_within};

const PASSWORD: &str = SECRETS[0];

/// A folder with a server, and the files that lead there.
struct Destination {
    folder: tempfile::TempDir,
}

impl Destination {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// A server with this configuration, in a folder of its own.
    fn server(&self, name: &str, config: &str) -> Server {
        let file = self.file(&format!("{name}/server.conf"), config);
        Server::start_with(&self.path().join(name), &["--config", text(&file)])
    }

    /// The collector and the publisher get in and do their work, and show none of these.
    #[track_caller]
    fn works(&self, secrets: &[&str], with: impl Fn(&mut Command)) {
        let database =
            tempfile::NamedTempFile::new_in(self.path()).expect("a file").into_temp_path().with_extension("db");
        let payload = format!("to {}", database.display());
        let mut run = catchment();
        run.args(["run", "--drain", "--database"]).arg(&database).env("RUST_LOG", "trace");
        let mut publish = catchment();
        publish.args(["publish", "events.a", &payload, "-v"]).env("RUST_LOG", "trace");
        with(&mut run);
        with(&mut publish);
        for command in [&mut run, &mut publish] {
            succeeds(command, secrets);
        }
        succeeds(&mut run, secrets);
        assert_eq!(oracle::payloads(&database).last(), Some(&payload));
    }

    /// Neither gets in; both say so with these words in one line, and show no secret.
    #[track_caller]
    fn refuses(&self, secrets: &[&str], words: &[&str], with: impl Fn(&mut Command)) {
        self.refuses_with(1, secrets, words, with);
    }

    #[track_caller]
    fn refuses_with(&self, status: i32, secrets: &[&str], words: &[&str], with: impl Fn(&mut Command)) {
        let mut run = catchment();
        run.args(["run", "--drain", "--database"]).arg(self.path().join("refused.db"));
        let mut publish = catchment();
        publish.args(["publish", "events.a", "x"]);
        for mut command in [run, publish] {
            command.args(["--timeout", "1s"]);
            with(&mut command);
            let said = ends(&mut command, status, words);
            assert_eq!(said.lines().count(), 1, "one line: {said}");
            shows_none(&said, secrets);
            let said = ends(command.arg("-v").env("RUST_LOG", "trace"), status, words);
            shows_none(&said, secrets);
        }
    }
}

#[track_caller]
fn succeeds(command: &mut Command, secrets: &[&str]) {
    let done = output(command);
    assert!(done.status.success(), "{}", stderr(&done));
    shows_none(&stderr(&done), secrets);
    shows_none(&String::from_utf8_lossy(&done.stdout), secrets);
}

#[track_caller]
fn shows_none(said: &str, secrets: &[&str]) {
    for secret in secrets.iter().chain(&SECRETS) {
        assert!(!said.contains(secret), "a secret is shown: {said}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Whether the server is old; says so, for a test that passes it over.
fn is_before(wanted: (u32, u32), what: &str) -> bool {
    let old = version() < wanted;
    if old {
        eprintln!("skipped: {what}: needs nats-server {}.{}", wanted.0, wanted.1);
    }
    old
}

fn tls(pair: &Pair, more: &str) -> String {
    let (cert, key) = (text(&pair.cert), text(&pair.key));
    format!("jetstream: {{}}\ntls {{ cert_file: {cert:?}, key_file: {key:?}\n{more} }}\n")
}

fn with_scheme(server: &Server, scheme: &str) -> String {
    server.url().replace("nats", scheme)
}

#[test]
fn a_user_and_a_password_lead_in_from_everywhere() {
    let place = Destination::new();
    let password = format!("{PASSWORD} @:/%\"");
    let users = format!("users: [{{ user: me, password: {password:?} }}]");
    let server = place.server("server", &format!("jetstream: {{}}\nauthorization {{ {users} }}\n"));
    let url = server.url();
    let secrets = [&*password];
    let right = place.file("right", &format!("\n {password}\n"));
    let (wrong, empty) = (place.file("wrong", SECRETS[1]), place.file("empty", " \n"));

    place.works(&secrets, |command| {
        command.args(["--server", &url, "--user", "me", "--password", &password]);
    });
    place.works(&secrets, |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", text(&right)]);
    });
    place.works(&secrets, |command| {
        command.env("CATCHMENT_BROKER__SERVERS", &url).env("CATCHMENT_BROKER__USER", "me");
        command.env("CATCHMENT_BROKER__PASSWORD", &password);
    });
    place.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_USER", "me").env("NATS_PASSWORD", &password);
    });
    let in_file = format!("[broker]\nservers = [{url:?}]\nuser = 'me'\npassword_file = {:?}\n", text(&right));
    let in_file = place.file("catchment.toml", &in_file);
    place.works(&secrets, |command| {
        command.arg("--config").arg(&in_file);
    });

    place.refuses(&secrets, &[&url, "user me", "--password-file"], |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", text(&wrong)]);
    });
    place.refuses(&secrets, &["nothing in", "empty", "--password-file"], |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", text(&empty)]);
    });
    place.refuses(&secrets, &["cannot read the password", "/nowhere/pw", "--password-file"], |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", "/nowhere/pw"]);
    });
}

#[test]
fn an_address_says_who_we_are() {
    let place = Destination::new();
    let (user, password) = ("m:e", format!("{PASSWORD}@/%é"));
    let users = format!("users: [{{ user: {user:?}, password: {password:?} }}]");
    let server = place.server("user", &format!("jetstream: {{}}\nauthorization {{ {users} }}\n"));
    let encoded = format!("{PASSWORD}%40%2F%25%C3%A9");
    let secrets = [&*password, &*encoded];
    let url = server.url().replace("//", &format!("//m%3Ae:{encoded}@"));
    place.works(&secrets, |command| {
        command.args(["--server", &url]);
    });
    place.works(&secrets, |command| {
        command.env("NATS_URL", &url);
    });
    let wrong = server.url().replace("//", &format!("//me:{}@", SECRETS[1]));
    place.refuses(&secrets, &[&server.url(), "user me and the password in its address"], |command| {
        command.args(["--server", &wrong]);
    });

    let token = format!("{PASSWORD}+/=");
    let server = place.server("token", &format!("jetstream: {{}}\nauthorization {{ token: {token:?} }}\n"));
    let in_address = server.url().replace("//", &format!("//{PASSWORD}+%2F%3D@"));
    place.works(&[&token], |command| {
        command.args(["--server", &in_address]);
    });
    let wrong = server.url().replace("//", &format!("//{}@", SECRETS[2]));
    place.refuses(&[&token], &[&server.url(), "the token in its address"], |command| {
        command.args(["--server", &wrong]);
    });
    place.refuses_with(2, &[], &["broker", "only one"], |command| {
        command.args(["--server", &wrong, "--user", "me", "--password", SECRETS[1]]);
    });
}

#[test]
fn a_token_leads_in() {
    let place = Destination::new();
    let server = place.server("server", &format!("jetstream: {{}}\nauthorization {{ token: {PASSWORD:?} }}\n"));
    let url = server.url();
    let file = place.file("token", &format!("{PASSWORD}\n"));
    for (flag, value) in [("--token", PASSWORD), ("--token-file", text(&file))] {
        place.works(&[], |command| {
            command.args(["--server", &url, flag, value]);
        });
    }
    place.works(&[], |command| {
        command.env("NATS_URL", &url).env("NATS_TOKEN", PASSWORD);
    });
    place.refuses(&[], &[&url, "the token", "--token"], |command| {
        command.args(["--server", &url, "--token", SECRETS[1]]);
    });
}

#[test]
fn an_nkey_leads_in() {
    let place = Destination::new();
    let pair = KeyPair::new_user();
    let users = format!("users: [{{ nkey: {} }}]", pair.public_key());
    let server = place.server("server", &format!("jetstream: {{}}\nauthorization {{ {users} }}\n"));
    let (url, seed) = (server.url(), pair.seed().expect("a seed"));
    let file = place.file("seed.nk", &format!("# the seed of a test\n{seed}\n"));
    let secrets = [&*seed];
    place.works(&secrets, |command| {
        command.args(["--server", &url, "--nkey", text(&file)]);
    });
    place.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_NKEY", &file);
    });
    let other = KeyPair::new_user();
    let other_seed = other.seed().expect("a seed");
    let wrong = place.file("wrong.nk", &other_seed);
    place.refuses(&[&seed, &other_seed], &[&url, "wrong.nk", &other.public_key(), "--nkey"], |command| {
        command.args(["--server", &url, "--nkey", text(&wrong)]);
    });
    let damaged = place.file("damaged.nk", &seed.replace("SU", "SA"));
    place.refuses(&[&seed[2..]], &["no user's seed", "damaged.nk", "--nkey"], |command| {
        command.args(["--server", &url, "--nkey", text(&damaged)]);
    });
    place.refuses(&secrets, &["cannot read the nkey", "/nowhere/seed.nk"], |command| {
        command.args(["--server", &url, "--nkey", "/nowhere/seed.nk"]);
    });
    // The seed itself, where its file should be named.
    place.refuses_with(2, &secrets, &["broker.nkey", "is a seed"], |command| {
        command.args(["--server", &url, "--nkey", &seed]);
    });
}

#[test]
fn credentials_and_jwts_lead_in() {
    let place = Destination::new();
    let operator = Operator::new();
    let server = place.server("server", &operator.config());
    let url = server.url();
    let user = operator.user(3_600);
    let (creds, seed, jwt) =
        (place.file("me.creds", &user.creds()), place.file("me.nk", &user.seed), place.file("me.jwt", &user.jwt));
    let secrets = [&*user.seed, &*user.jwt];
    place.works(&secrets, |command| {
        command.args(["--server", &url, "--creds", text(&creds)]);
    });
    place.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_CREDS", &creds);
    });
    place.works(&secrets, |command| {
        command.args(["--server", &url, "--nkey", text(&seed), "--jwt", text(&jwt)]);
    });
    place.works(&secrets, |command| {
        command.args(["--server", &url, "--nkey", text(&seed)]).env("CATCHMENT_BROKER__JWT", &user.jwt);
    });

    let expired = operator.user(-60);
    let file = place.file("expired.creds", &expired.creds());
    place.refuses(&[&expired.seed, &expired.jwt], &[&url, "expired.creds", "expired at 20", "--creds"], |command| {
        command.args(["--server", &url, "--creds", text(&file)]);
    });
    let foreign = Operator::new().user(3_600);
    let file = place.file("foreign.creds", &foreign.creds());
    place.refuses(&[&foreign.seed, &foreign.jwt], &[&url, "refuses the credentials", "--creds"], |command| {
        command.args(["--server", &url, "--creds", text(&file)]);
    });
    for (name, content, words) in
        [("no-seed.creds", &user.jwt, "no user's seed"), ("no.creds", &user.seed, "user's JWT")]
    {
        let file = place.file(name, content);
        place.refuses(&secrets, &[words, name, "--creds"], |command| {
            command.args(["--server", &url, "--creds", text(&file)]);
        });
    }
    place.refuses(&secrets, &[&url, "the JWT", "the nkey", "--jwt"], |command| {
        let other = place.file("other.nk", &KeyPair::new_user().seed().expect("a seed"));
        command.args(["--server", &url, "--nkey", text(&other), "--jwt", text(&jwt)]);
    });
    place.refuses_with(2, &secrets, &["broker.jwt", "needs broker.nkey"], |command| {
        command.args(["--server", &url, "--jwt", text(&jwt)]);
    });
}

#[test]
fn a_private_authority_is_trusted_when_named() {
    let place = Destination::new();
    let (ours, other) = (Authority::new(place.path(), "ours"), Authority::new(place.path(), "other"));
    let pair = ours.issue(&["localhost", "127.0.0.1"]);
    let server = place.server("server", &tls(&pair, ""));
    let (ca, other) = (text(&ours.file), text(&other.file));
    for scheme in ["nats", "tls"] {
        let url = with_scheme(&server, scheme);
        for url in [url.replace("127.0.0.1", "localhost"), url] {
            place.works(&[], |command| {
                command.args(["--server", &url, "--tlsca", ca]);
            });
        }
    }
    let url = server.url();
    place.works(&[], |command| {
        command.env("NATS_URL", &url).env("NATS_CA", ca);
    });
    // What this machine trusts, when none is named.
    place.works(&[], |command| {
        command.args(["--server", &url]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", ca);
    });
    place.refuses(&[], &[&url, "this machine does not trust", "--tlsca"], |command| {
        command.args(["--server", &url]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", other);
    });
    place.refuses(&[], &[&url, "not in", "other.pem", "--tlsca"], |command| {
        // A named one replaces those of the machine.
        command.args(["--server", &url, "--tlsca", other]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", ca);
    });
    place.refuses(&[], &[&url, "/nowhere/ca.pem", "--tlsca"], |command| {
        command.args(["--server", &url, "--tlsca", "/nowhere/ca.pem"]);
    });
    place.refuses(&[&pair.secret()], &[&url, "no certificate in", "--tlsca"], |command| {
        command.args(["--server", &url, "--tlsca", text(&pair.key)]);
    });
    for arguments in [&[][..], &["--tlsca", ca]] {
        place.refuses(&[], &[&url, "/nowhere.pem", "SSL_CERT_FILE"], |command| {
            command
                .args(["--server", &url])
                .args(arguments)
                .env_remove("SSL_CERT_DIR")
                .env("SSL_CERT_FILE", "/nowhere.pem");
        });
    }
}

#[test]
fn a_certificate_for_another_name_or_another_time_is_refused() {
    let place = Destination::new();
    let authority = Authority::new(place.path(), "ours");
    let elsewhere = place.server("elsewhere", &tls(&authority.issue(&["elsewhere.test", "127.0.0.2"]), ""));
    let expired = place.server("expired", &tls(&authority.issue_until(2020, &["127.0.0.1"]), ""));
    for (server, words) in [
        (&elsewhere, &["is for elsewhere.test, 127.0.0.2, not for 127.0.0.1"][..]),
        (&expired, &["expired at 2020-01-01T00:00:00Z", "renew it"]),
    ] {
        let url = server.url();
        let words = [&[&*url], words].concat();
        place.refuses(&[], &words, |command| {
            command.args(["--server", &url, "--tlsca", text(&authority.file)]);
        });
    }
}

#[test]
fn a_server_asks_for_our_certificate() {
    let place = Destination::new();
    let (ours, other) = (Authority::new(place.path(), "ours"), Authority::new(place.path(), "other"));
    let (ca, pair) = (text(&ours.file), ours.issue(&["127.0.0.1"]));
    let server = place.server("server", &tls(&pair, &format!("ca_file: {ca:?}, verify: true")));
    let url = server.url();
    let (client, stranger) = (ours.issue(&["client.test"]), other.issue(&["client.test"]));
    let secrets = [client.secret(), stranger.secret()];
    let secrets = [&*secrets[0], &*secrets[1]];
    let shown = |pair: &Pair| ["--tlscert", text(&pair.cert), "--tlskey", text(&pair.key)].map(str::to_owned);
    place.works(&secrets, |command| {
        command.args(["--server", &url, "--tlsca", ca]).args(shown(&client));
    });
    place.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_CA", ca).env("NATS_CERT", &client.cert).env("NATS_KEY", &client.key);
    });
    place.refuses(&[], &[&url, "asks for a client certificate", "--tlscert"], |command| {
        command.args(["--server", &url, "--tlsca", ca]);
    });
    place.refuses(&secrets, &[&url, "client.test", "--tlscert"], |command| {
        command.args(["--server", &url, "--tlsca", ca]).args(shown(&stranger));
    });
    place.refuses(&secrets, &["no private key in", "--tlskey"], |command| {
        command.args(["--server", &url, "--tlscert", text(&client.cert), "--tlskey", text(&client.cert)]);
    });
    place.refuses_with(2, &[], &["broker.tls.cert", "broker.tls.key"], |command| {
        command.args(["--server", &url, "--tlscert", text(&client.cert)]);
    });

    // And by it knows who we are.
    let mapped = format!(
        "{}authorization {{ users: [{{ user: client.test }}] }}\n",
        tls(&pair, &format!("ca_file: {ca:?}, verify_and_map: true"))
    );
    let server = place.server("mapped", &mapped);
    place.works(&secrets, |command| {
        command.args(["--server", &server.url(), "--tlsca", ca]).args(shown(&client));
    });
    let nobody = ours.issue(&["nobody.test"]);
    place.refuses(&secrets, &[&server.url(), "refuses", "nobody.test"], |command| {
        command.args(["--server", &server.url(), "--tlsca", ca]).args(shown(&nobody));
    });
}

#[test]
fn a_server_without_tls_is_refused_where_it_was_asked_for() {
    let place = Destination::new();
    let authority = Authority::new(place.path(), "ours");
    let client = authority.issue(&["client.test"]);
    let server = place.server("server", "jetstream: {}\n");
    let (url, ca) = (server.url(), text(&authority.file));
    let cert = ["--tlscert", text(&client.cert), "--tlskey", text(&client.key)];
    for (wish, scheme, arguments) in
        [("tls://", "tls", &[][..]), ("broker.tls.ca", "nats", &["--tlsca", ca]), ("broker.tls.cert", "nats", &cert)]
    {
        place.refuses(&[], &["has no TLS", wish], |command| {
            command.args(["--server", &with_scheme(&server, scheme)]).args(arguments);
        });
    }
    place.refuses(&[], &[&url, "has no TLS", "broker.tls.required"], |command| {
        command.args(["--server", &url]).env("CATCHMENT_BROKER__TLS__REQUIRED", "true");
    });
    // Without TLS, what this machine trusts is of no concern.
    place.works(&[], |command| {
        command.args(["--server", &url]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", "/nowhere.pem");
    });
}

#[test]
fn tls_first_is_refused_in_time_and_auto_works() {
    if is_before((2, 10), "tls_first_is_refused_in_time_and_auto_works") {
        return;
    }
    let place = Destination::new();
    let authority = Authority::new(place.path(), "ours");
    let (ca, pair) = (text(&authority.file), authority.issue(&["127.0.0.1"]));
    let first = place.server("first", &tls(&pair, "handshake_first: true"));
    place.refuses(&[], &[&first.url(), "handshake_first", "auto"], |command| {
        command.args(["--server", &first.url(), "--tlsca", ca]);
    });
    let auto = place.server("auto", &tls(&pair, "handshake_first: auto"));
    place.works(&[], |command| {
        command.args(["--server", &auto.url(), "--tlsca", ca]);
    });
}

#[test]
fn tls_is_used_where_it_is_offered_and_asked_for() {
    let place = Destination::new();
    let authority = Authority::new(place.path(), "ours");
    let pair = authority.issue(&["127.0.0.1"]);
    let config = format!("allow_non_tls: true\n{}", tls(&pair, ""));
    let server = place.server("server", &config);
    let (url, ca) = (server.url(), text(&authority.file));
    place.works(&[], |command| {
        command.args(["--server", &url, "--tlsca", ca]);
    });
    place.works(&[], |command| {
        command.args(["--server", &url]);
    });
    place.refuses(&[], &["this machine does not trust"], |command| {
        let other = Authority::new(place.path(), "other").file;
        command.args(["--server", &with_scheme(&server, "tls")]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", other);
    });
}

#[test]
fn contexts_of_the_nats_command_lead_in() {
    let place = Destination::new();
    let users = format!("users: [{{ user: me, password: {PASSWORD:?} }}]");
    let authority = Authority::new(place.path(), "ours");
    let pair = authority.issue(&["127.0.0.1"]);
    let config = format!("{}authorization {{ {users} }}\n", tls(&pair, "")).replace("{}", "{ domain: hub }");
    let server = place.server("server", &config);
    let url = server.url();
    let context = |more: &str| {
        format!(
            "{{\"description\": \"x\", \"url\": {url:?}, \"user\": \"me\", \"ca\": {:?}, \"token\": \"\", {more}}}",
            text(&authority.file)
        )
    };
    let right = format!("\"password\": {PASSWORD:?}, \"jetstream_domain\": \"hub\"");
    place.file("xdg/nats/context/right.json", &context(&right));
    place.file("home/.config/nats/context/right.json", &context(&right));
    place.file("xdg/nats/context/wrong.json", &context(&format!("\"password\": {:?}", SECRETS[1])));
    place.file("xdg/nats/context/broken.json", &format!("{{\"password\": {PASSWORD:?}"));
    place.file("xdg/nats/context/nsc.json", "{\"nsc\": \"nsc://operator/account/user\"}");
    place.file("xdg/nats/context.txt", "right\n");
    let xdg = place.path().join("xdg");
    let with = |command: &mut Command| _ = command.env("XDG_CONFIG_HOME", &xdg);

    // The selected one; one that is named, which then stands above a variable; from the home.
    place.works(&[], with);
    place.works(&[], |command| {
        with(command);
        command.args(["--context", "right"]).env("NATS_URL", "nats://127.0.0.1:1");
    });
    place.works(&[], |command| {
        command.env_remove("XDG_CONFIG_HOME").env("HOME", place.path().join("home")).env("NATS_CONTEXT", "right");
    });
    for (name, words) in [
        ("wrong", &[&*url, "user me", "--password"][..]),
        ("broken", &["context broken", "broken.json", "is no JSON object at line 1"]),
        ("missing", &["context missing", "missing.json", "nats context ls"]),
        ("nsc", &["context nsc", "nsc"]),
    ] {
        place.refuses_with(if name == "wrong" { 1 } else { 2 }, &[], words, |command| {
            with(command);
            command.args(["--context", name]);
        });
    }
    // A server of our own is none of theirs.
    place.file("xdg/nats/context.txt", "broken\n");
    let mut own = catchment();
    own.args(["run", "--with-server", "--drain", "-q", "--database"]).arg(place.path().join("own.db"));
    with(&mut own);
    own.env("NATS_URL", "nats://127.0.0.1:1").env("NATS_CA", "/nowhere/ca.pem").env("NATS_CONTEXT", "missing");
    own.env("NATS_SERVER_BIN", program());
    succeeds(&mut own, &[]);
}

#[test]
fn a_domain_is_reached() {
    let place = Destination::new();
    let server = place.server("server", "jetstream: { domain: hub }\n");
    let url = server.url();
    place.works(&[], |command| {
        command.args(["--server", &url, "--js-domain", "hub"]);
    });
    let mut run = catchment();
    run.args(["run", "--server", &url, "--timeout", "1s", "--js-domain", "elsewhere", "--database"]);
    ends(run.arg(place.path().join("a.db")), 1, &[&url, "$JS.elsewhere.API", "--js-domain"]);
}

#[test]
fn jetstream_of_another_account_is_reached_by_a_prefix() {
    let place = Destination::new();
    let config = format!(
        "jetstream: {{}}
        accounts: {{
            HUB: {{
                jetstream: enabled
                users: [{{ user: hub, password: {PASSWORD:?} }}]
                exports: [{{ service: \"$JS.API.>\", response_type: stream }}, {{ service: \"events.>\" }}]
            }}
            APP: {{
                users: [{{ user: app, password: {PASSWORD:?} }}]
                imports: [
                    {{ service: {{ account: HUB, subject: \"$JS.API.>\" }}, to: \"js.hub.>\" }}
                    {{ service: {{ account: HUB, subject: \"events.>\" }} }}
                ]
            }}
        }}\n"
    );
    let server = place.server("server", &config);
    let url = server.url();
    let who = ["--user", "app", "--password", PASSWORD];
    place.works(&[], |command| {
        command.args(["--server", &url, "--js-api-prefix", "js.hub"]).args(who);
    });
    let mut run = catchment();
    run.args(["run", "--server", &url, "--timeout", "1s", "--js-api-prefix", "js.other"]).args(who);
    let database = place.path().join("a.db");
    ends(run.arg("--database").arg(&database), 1, &[&url, "js.other", "--js-api-prefix"]);
}

#[test]
fn the_next_server_is_taken_where_the_first_is_down() {
    let place = Destination::new();
    let server = place.server("server", &format!("jetstream: {{}}\nauthorization {{ token: {PASSWORD:?} }}\n"));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let servers = format!("nats://127.0.0.1:{port}, {}", server.url());
    place.works(&[], |command| {
        command.args(["--server", &servers, "--token", PASSWORD]);
    });
    // Each with a user of its own.
    let servers =
        format!("nats://{}@127.0.0.1:{port},{}", SECRETS[1], server.url().replace("//", &format!("//{PASSWORD}@")));
    place.works(&[], |command| {
        command.env("NATS_URL", &servers);
    });
}

#[test]
fn the_server_lists_us_by_name() {
    let place = Destination::new();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let server = place.server("server", &format!("jetstream: {{}}\nhttp: \"127.0.0.1:{port}\"\n"));
    let lists = |name: &str| {
        eventually(name, || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.write_all(b"GET /connz?state=all HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.contains(&format!("\"name\": \"{name}\"")).then_some(())
        });
    };
    let mut command = run(&server.url(), &place.path().join("a.db"));
    command.args(["--connection-name", "the collector"]);
    let collector = Collector::start(command, &place.path().join("log"));
    lists("the collector");
    let mut publish = catchment();
    publish.args(["publish", "events.a", "x", "--server", &server.url(), "--connection-name", "the publisher"]);
    succeeds(&mut publish, &[]);
    lists("the publisher");
    assert!(collector.stop().success());
}

#[test]
fn a_secret_that_changes_is_read_anew() {
    let place = Destination::new();
    let config = |password: &str| format!("jetstream: {{}}\nauthorization {{ user: me, password: {password:?} }}\n");
    let mut server = place.server("server", &config(SECRETS[0]));
    let file = place.file("password", SECRETS[0]);
    let database = place.path().join("a.db");
    let mut command = run(&server.url(), &database);
    command.args(["--user", "me", "--password-file", text(&file)]);
    let collector = Collector::start(command, &place.path().join("log"));
    collector.said("collecting stream");
    server.stop();
    place.file("server/server.conf", &config(SECRETS[1]));
    server.restart();
    collector.said("refuses user me");
    place.file("password", SECRETS[1]);
    let mut publish = catchment();
    publish.args(["publish", "events.a", "x", "--server", &server.url(), "--user", "me", "--password", SECRETS[1]]);
    succeeds(&mut publish, &[]);
    eventually("the event", || (oracle::count(&database) == 1).then_some(()));
    shows_none(&collector.log(), &[]);
    assert!(collector.stop().success());
}

#[test]
fn a_flood_gets_through_tls() {
    // The client ends a connection over TLS on which it is given more than the server takes at once.
    let place = Destination::new();
    let authority = Authority::new(place.path(), "ours");
    let server = place.server("server", &tls(&authority.issue(&["127.0.0.1"]), ""));
    let database = place.path().join("a.db");
    let ca = ["--tlsca", text(&authority.file), "-v"];
    let drain = || succeeds(run(&server.url(), &database).arg("--drain").args(ca), &[]);
    drain();
    for (count, size) in [("20000", "1000"), ("100", "500000")] {
        let mut publish = catchment();
        publish.args(["publish", "events.a", "--server", &server.url(), "--count", count, "--size", size]).args(ca);
        let done = output(&mut publish);
        assert!(done.status.success() && !stderr(&done).contains("broke off"), "{}", stderr(&done));
    }
    drain();
    assert_eq!(oracle::count(&database), 20_100);
}

#[test]
fn no_event_waits_for_the_next_one_over_tls() {
    // The client's writes read as well over TLS, and its reading thread does not hear of it.
    let place = Destination::new();
    let authority = Authority::new(place.path(), "ours");
    let server = place.server("server", &tls(&authority.issue(&["127.0.0.1"]), ""));
    let database = place.path().join("a.db");
    let mut command = catchment();
    command.args(["run", "--server", &server.url(), "--tlsca", text(&authority.file), "--database"]).arg(&database);
    let collector = Collector::start(command, &place.path().join("log"));
    collector.said("collecting stream");
    let mut broker = server.config();
    broker.tls.ca = Some(authority.file);
    let recorder =
        NatsRecorder::open(NatsRecorderConfig { broker, ..NatsRecorderConfig::default() }).expect("connects");
    for number in 1..=300 {
        let receipt = recorder.record(Event::new("events.a", "x")).expect("takes it");
        receipt.wait(Duration::from_secs(1)).expect("confirmed before long");
        eventually_within(Duration::from_secs(1), "the event before long", &mut || {
            (oracle::count(&database) == number).then_some(())
        });
    }
    recorder.close(Duration::from_secs(5)).expect("closes");
    assert!(collector.stop().success());
}
