//! Each way to authenticate, against a server configured for it: collector and publisher get in by it, what is wrong is refused in
//! one line, and no secret is shown, however much is logged. Then contexts, domains and prefixes of JetStream.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use nkeys::KeyPair;

use crate::support::access::{AccessFixture, shows_none, succeeds, text, tls};
use crate::support::authority::Authority;
use crate::support::collector::{Collector, catchment, run};
use crate::support::operator::Operator;
use crate::support::refusal::{SECRETS, ends};
use crate::support::server::program;
use crate::support::{eventually, oracle};

const PASSWORD: &str = SECRETS[0];

#[test]
fn a_user_and_a_password_lead_in_from_everywhere() {
    let fixture = AccessFixture::new();
    let password = format!("{PASSWORD} @:/%\"");
    let users = format!("users: [{{ user: me, password: {password:?} }}]");
    let server = fixture.server("server", &format!("jetstream: {{}}\nauthorization {{ {users} }}\n"));
    let url = server.url();
    let secrets = [&*password];
    let right = fixture.file("right", &format!("\n {password}\n"));
    let (wrong, empty) = (fixture.file("wrong", SECRETS[1]), fixture.file("empty", " \n"));

    fixture.works(&secrets, |command| {
        command.args(["--server", &url, "--user", "me", "--password", &password]);
    });
    fixture.works(&secrets, |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", text(&right)]);
    });
    fixture.works(&secrets, |command| {
        command.env("CATCHMENT_BROKER__SERVERS", &url).env("CATCHMENT_BROKER__USER", "me");
        command.env("CATCHMENT_BROKER__PASSWORD", &password);
    });
    fixture.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_USER", "me").env("NATS_PASSWORD", &password);
    });
    let in_file = format!("[broker]\nservers = [{url:?}]\nuser = 'me'\npassword_file = {:?}\n", text(&right));
    let in_file = fixture.file("catchment.toml", &in_file);
    fixture.works(&secrets, |command| {
        command.arg("--config").arg(&in_file);
    });

    fixture.refuses(&secrets, &[&url, "user me", "--password-file"], |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", text(&wrong)]);
    });
    fixture.refuses(&secrets, &["nothing in", "empty", "--password-file"], |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", text(&empty)]);
    });
    fixture.refuses(&secrets, &["cannot read the password", "/nowhere/pw", "--password-file"], |command| {
        command.args(["--server", &url, "--user", "me", "--password-file", "/nowhere/pw"]);
    });
}

#[test]
fn an_address_says_who_we_are() {
    let fixture = AccessFixture::new();
    let (user, password) = ("m:e", format!("{PASSWORD}@/%é"));
    let users = format!("users: [{{ user: {user:?}, password: {password:?} }}]");
    let server = fixture.server("user", &format!("jetstream: {{}}\nauthorization {{ {users} }}\n"));
    let encoded = format!("{PASSWORD}%40%2F%25%C3%A9");
    let secrets = [&*password, &*encoded];
    let url = server.url().replace("//", &format!("//m%3Ae:{encoded}@"));
    fixture.works(&secrets, |command| {
        command.args(["--server", &url]);
    });
    fixture.works(&secrets, |command| {
        command.env("NATS_URL", &url);
    });
    let wrong = server.url().replace("//", &format!("//me:{}@", SECRETS[1]));
    fixture.refuses(&secrets, &[&server.url(), "user me and the password in its address"], |command| {
        command.args(["--server", &wrong]);
    });

    let token = format!("{PASSWORD}+/=");
    let server = fixture.server("token", &format!("jetstream: {{}}\nauthorization {{ token: {token:?} }}\n"));
    let in_address = server.url().replace("//", &format!("//{PASSWORD}+%2F%3D@"));
    fixture.works(&[&token], |command| {
        command.args(["--server", &in_address]);
    });
    let wrong = server.url().replace("//", &format!("//{}@", SECRETS[2]));
    fixture.refuses(&[&token], &[&server.url(), "the token in its address"], |command| {
        command.args(["--server", &wrong]);
    });
    fixture.refuses_with(2, &[], &["broker", "only one"], |command| {
        command.args(["--server", &wrong, "--user", "me", "--password", SECRETS[1]]);
    });
}

#[test]
fn a_password_in_an_address_may_have_any_character() {
    let fixture = AccessFixture::new();
    let passwords = [
        "abc/def+ghi=",
        "p@ss:word",
        "ha#sh!x^y*z",
        "quiz?x=1",
        "50%off",
        "fizz%zz",
        "ends%2",
        "com,ma,,s",
        "x://y/z",
        "back\\[sl ash]",
    ];
    // Users of one server, each with one of these passwords.
    let users =
        passwords.iter().enumerate().map(|(at, password)| format!("{{ user: bot{at}, password: {password:?} }}"));
    let users = users.collect::<Vec<_>>().join(", ");
    let server = fixture.server("server", &format!("jetstream: {{}}\nauthorization {{ users: [{users}] }}\n"));
    for (at, password) in passwords.into_iter().enumerate() {
        let url = server.url().replace("//", &format!("//bot{at}:{password}@"));
        let settings = fixture.file("c.toml", &format!("[broker]\nservers = ['{url}']\n"));
        fixture.file("nats/context/a.json", &serde_json::json!({ "url": url }).to_string());
        // All ways lead through the same reader of addresses, so each password goes one of them.
        fixture.works(&[password], |command| {
            match at % 5 {
                0 => command.env("NATS_URL", &url),
                1 => command.args(["--server", &url]),
                2 => command.env("CATCHMENT_BROKER__SERVERS", &url),
                3 => command.arg("--config").arg(&settings),
                _ => command.env("XDG_CONFIG_HOME", fixture.path()).args(["--context", "a"]),
            };
        });
    }
    let comma = server.url().replace("//", "//bot7:com,ma,,s@");
    fixture.works(&["com,ma,,s"], |command| _ = command.env("NATS_URL", &comma));
}

#[test]
fn an_address_that_can_be_read_in_two_ways_gets_a_hint() {
    let fixture = AccessFixture::new();
    let users = format!("users: [{{ user: bot, password: \"{PASSWORD}%41b\" }}]");
    let server = fixture.server("server", &format!("jetstream: {{}}\nauthorization {{ {users} }}\n"));
    let url = |password: &str| server.url().replace("//", &format!("//bot:{password}@"));
    fixture.works(&[PASSWORD], |command| _ = command.args(["--server", &url(&format!("{PASSWORD}%2541b"))]));
    fixture.refuses(&[PASSWORD], &["user bot", "a % in them is written %25", "--password"], |command| {
        command.args(["--server", &url(&format!("{PASSWORD}%41b"))]);
    });
    // Two addresses, or one with a comma in its password.
    fixture.refuses_with(2, &[PASSWORD], &["--server", "a comma before an @", "%2C"], |command| {
        command.args(["--server", &url(&format!("17,{PASSWORD}"))]);
    });
    fixture.refuses_with(2, &[PASSWORD], &["NATS_URL", "a comma before an @", "%2C"], |command| {
        command.env("NATS_URL", url(&format!("17,{PASSWORD}")));
    });
}

#[test]
fn a_token_leads_in() {
    let fixture = AccessFixture::new();
    let server = fixture.server("server", &format!("jetstream: {{}}\nauthorization {{ token: {PASSWORD:?} }}\n"));
    let url = server.url();
    let file = fixture.file("token", &format!("{PASSWORD}\n"));
    for (flag, value) in [("--token", PASSWORD), ("--token-file", text(&file))] {
        fixture.works(&[], |command| {
            command.args(["--server", &url, flag, value]);
        });
    }
    fixture.works(&[], |command| {
        command.env("NATS_URL", &url).env("NATS_TOKEN", PASSWORD);
    });
    fixture.refuses(&[], &[&url, "the token", "--token"], |command| {
        command.args(["--server", &url, "--token", SECRETS[1]]);
    });
}

#[test]
fn an_nkey_leads_in() {
    let fixture = AccessFixture::new();
    let pair = KeyPair::new_user();
    let users = format!("users: [{{ nkey: {} }}]", pair.public_key());
    let server = fixture.server("server", &format!("jetstream: {{}}\nauthorization {{ {users} }}\n"));
    let (url, seed) = (server.url(), pair.seed().expect("a seed"));
    let file = fixture.file("seed.nk", &format!("# the seed of a test\n{seed}\n"));
    let secrets = [&*seed];
    fixture.works(&secrets, |command| {
        command.args(["--server", &url, "--nkey", text(&file)]);
    });
    fixture.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_NKEY", &file);
    });
    let other = KeyPair::new_user();
    let other_seed = other.seed().expect("a seed");
    let wrong = fixture.file("wrong.nk", &other_seed);
    fixture.refuses(&[&seed, &other_seed], &[&url, "wrong.nk", &other.public_key(), "--nkey"], |command| {
        command.args(["--server", &url, "--nkey", text(&wrong)]);
    });
    let damaged = fixture.file("damaged.nk", &seed.replace("SU", "SA"));
    fixture.refuses(&[&seed[2..]], &["no user's seed", "damaged.nk", "--nkey"], |command| {
        command.args(["--server", &url, "--nkey", text(&damaged)]);
    });
    fixture.refuses(&secrets, &["cannot read the nkey", "/nowhere/seed.nk"], |command| {
        command.args(["--server", &url, "--nkey", "/nowhere/seed.nk"]);
    });
    // The seed itself, where its file should be named.
    fixture.refuses_with(2, &secrets, &["--nkey", "is a seed"], |command| {
        command.args(["--server", &url, "--nkey", &seed]);
    });
}

#[test]
fn credentials_and_jwts_lead_in() {
    let fixture = AccessFixture::new();
    let operator = Operator::new();
    let server = fixture.server("server", &operator.config());
    let url = server.url();
    let user = operator.user(3_600);
    let (creds, seed, jwt) =
        (fixture.file("me.creds", &user.creds()), fixture.file("me.nk", &user.seed), fixture.file("me.jwt", &user.jwt));
    let secrets = [&*user.seed, &*user.jwt];
    fixture.works(&secrets, |command| {
        command.args(["--server", &url, "--creds", text(&creds)]);
    });
    fixture.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_CREDS", &creds);
    });
    fixture.works(&secrets, |command| {
        command.args(["--server", &url, "--nkey", text(&seed), "--jwt", text(&jwt)]);
    });
    fixture.works(&secrets, |command| {
        command.args(["--server", &url, "--nkey", text(&seed)]).env("CATCHMENT_BROKER__JWT", &user.jwt);
    });

    let expired = operator.user(-60);
    let file = fixture.file("expired.creds", &expired.creds());
    fixture.refuses(&[&expired.seed, &expired.jwt], &[&url, "expired.creds", "expired at 20", "--creds"], |command| {
        command.args(["--server", &url, "--creds", text(&file)]);
    });
    let foreign = Operator::new().user(3_600);
    let file = fixture.file("foreign.creds", &foreign.creds());
    fixture.refuses(&[&foreign.seed, &foreign.jwt], &[&url, "refuses the credentials", "--creds"], |command| {
        command.args(["--server", &url, "--creds", text(&file)]);
    });
    for (name, content, words) in
        [("no-seed.creds", &user.jwt, "no user's seed"), ("no.creds", &user.seed, "user's JWT")]
    {
        let file = fixture.file(name, content);
        fixture.refuses(&secrets, &[words, name, "--creds"], |command| {
            command.args(["--server", &url, "--creds", text(&file)]);
        });
    }
    fixture.refuses(&secrets, &[&url, "the JWT", "the nkey", "--jwt"], |command| {
        let other = fixture.file("other.nk", &KeyPair::new_user().seed().expect("a seed"));
        command.args(["--server", &url, "--nkey", text(&other), "--jwt", text(&jwt)]);
    });
    fixture.refuses_with(2, &secrets, &["--jwt", "needs --nkey"], |command| {
        command.args(["--server", &url, "--jwt", text(&jwt)]);
    });
}

#[test]
fn contexts_of_the_nats_command_lead_in() {
    let fixture = AccessFixture::new();
    let users = format!("users: [{{ user: me, password: {PASSWORD:?} }}]");
    let authority = Authority::new(fixture.path(), "ours");
    let pair = authority.issue(&["127.0.0.1"]);
    let config = format!("{}authorization {{ {users} }}\n", tls(&pair, "")).replace("{}", "{ domain: hub }");
    let server = fixture.server("server", &config);
    let url = server.url();
    let context = |more: &str| {
        format!(
            "{{\"description\": \"x\", \"url\": {url:?}, \"user\": \"me\", \"ca\": {:?}, \"token\": \"\", {more}}}",
            text(&authority.file)
        )
    };
    let right = format!("\"password\": {PASSWORD:?}, \"jetstream_domain\": \"hub\"");
    fixture.file("xdg/nats/context/right.json", &context(&right));
    fixture.file("home/.config/nats/context/right.json", &context(&right));
    fixture.file("xdg/nats/context/wrong.json", &context(&format!("\"password\": {:?}", SECRETS[1])));
    fixture.file("xdg/nats/context/broken.json", &format!("{{\"password\": {PASSWORD:?}"));
    fixture.file("xdg/nats/context/nsc.json", "{\"nsc\": \"nsc://operator/account/user\"}");
    fixture.file("xdg/nats/context.txt", "right\n");
    let xdg = fixture.path().join("xdg");
    let with = |command: &mut Command| _ = command.env("XDG_CONFIG_HOME", &xdg);

    // The selected one; one that is named, which then stands above a variable; from the home.
    fixture.works(&[], with);
    fixture.works(&[], |command| {
        with(command);
        command.args(["--context", "right"]).env("NATS_URL", "nats://127.0.0.1:1");
    });
    fixture.works(&[], |command| {
        command.env_remove("XDG_CONFIG_HOME").env("HOME", fixture.path().join("home")).env("NATS_CONTEXT", "right");
    });
    for (name, words) in [
        ("wrong", &[&*url, "user me", "--password"][..]),
        ("broken", &["context broken", "broken.json", "is not a JSON object: error at line 1"]),
        ("missing", &["context missing", "missing.json", "nats context ls"]),
        ("nsc", &["context nsc", "nsc"]),
    ] {
        fixture.refuses_with(if name == "wrong" { 1 } else { 2 }, &[], words, |command| {
            with(command);
            command.args(["--context", name]);
        });
    }
    // A server of our own is none of theirs.
    fixture.file("xdg/nats/context.txt", "broken\n");
    let mut own = catchment();
    own.args(["run", "--with-server", "--drain", "-q", "--database"]).arg(fixture.path().join("own.db"));
    with(&mut own);
    own.env("NATS_URL", "nats://127.0.0.1:1").env("NATS_CA", "/nowhere/ca.pem").env("NATS_CONTEXT", "missing");
    own.env("NATS_SERVER_BIN", program());
    succeeds(&mut own, &[]);
}

#[test]
fn a_domain_is_reached() {
    let fixture = AccessFixture::new();
    let server = fixture.server("server", "jetstream: { domain: hub }\n");
    let url = server.url();
    fixture.works(&[], |command| {
        command.args(["--server", &url, "--js-domain", "hub"]);
    });
    let mut run = catchment();
    run.args(["run", "--server", &url, "--timeout", "1s", "--js-domain", "elsewhere", "--database"]);
    ends(run.arg(fixture.path().join("a.db")), 1, &[&url, "$JS.elsewhere.API", "--js-domain"]);
}

#[test]
fn jetstream_of_another_account_is_reached_by_a_prefix() {
    let fixture = AccessFixture::new();
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
    let server = fixture.server("server", &config);
    let url = server.url();
    let who = ["--user", "app", "--password", PASSWORD];
    fixture.works(&[], |command| {
        command.args(["--server", &url, "--js-api-prefix", "js.hub"]).args(who);
    });
    let mut run = catchment();
    run.args(["run", "--server", &url, "--timeout", "1s", "--js-api-prefix", "js.other"]).args(who);
    let database = fixture.path().join("a.db");
    ends(run.arg("--database").arg(&database), 1, &[&url, "js.other", "--js-api-prefix"]);
}

#[test]
fn the_next_server_is_taken_where_the_first_is_down() {
    let fixture = AccessFixture::new();
    let server = fixture.server("server", &format!("jetstream: {{}}\nauthorization {{ token: {PASSWORD:?} }}\n"));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let servers = format!("nats://127.0.0.1:{port}, {}", server.url());
    fixture.works(&[], |command| {
        command.args(["--server", &servers, "--token", PASSWORD]);
    });
    // Each with a user of its own.
    let servers =
        format!("nats://{}@127.0.0.1:{port},{}", SECRETS[1], server.url().replace("//", &format!("//{PASSWORD}@")));
    fixture.works(&[], |command| {
        command.env("NATS_URL", &servers);
    });
}

#[test]
fn the_server_lists_us_by_name() {
    let fixture = AccessFixture::new();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let server = fixture.server("server", &format!("jetstream: {{}}\nhttp: \"127.0.0.1:{port}\"\n"));
    let lists = |name: &str| {
        eventually(name, || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.write_all(b"GET /connz?state=all HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.contains(&format!("\"name\": \"{name}\"")).then_some(())
        });
    };
    let mut command = run(&server.url(), &fixture.path().join("a.db"));
    command.args(["--connection-name", "the collector"]);
    let collector = Collector::start(command, &fixture.path().join("log"));
    lists("the collector");
    let mut publish = catchment();
    publish.args(["publish", "events.a", "x", "--server", &server.url(), "--connection-name", "the publisher"]);
    succeeds(&mut publish, &[]);
    lists("the publisher");
    assert!(collector.stop().success());
}

#[test]
fn a_secret_that_changes_is_read_anew() {
    let fixture = AccessFixture::new();
    let config = |password: &str| format!("jetstream: {{}}\nauthorization {{ user: me, password: {password:?} }}\n");
    let mut server = fixture.server("server", &config(SECRETS[0]));
    let file = fixture.file("password", SECRETS[0]);
    let database = fixture.path().join("a.db");
    let mut command = run(&server.url(), &database);
    command.args(["--user", "me", "--password-file", text(&file)]);
    let collector = Collector::start(command, &fixture.path().join("log"));
    collector.said("collecting stream");
    server.stop();
    fixture.file("server/server.conf", &config(SECRETS[1]));
    server.restart();
    collector.said("refuses user me");
    fixture.file("password", SECRETS[1]);
    let mut publish = catchment();
    publish.args(["publish", "events.a", "x", "--server", &server.url(), "--user", "me", "--password", SECRETS[1]]);
    succeeds(&mut publish, &[]);
    eventually("the event", || (oracle::count(&database) == 1).then_some(()));
    shows_none(&collector.log(), &[]);
    assert!(collector.stop().success());
}
