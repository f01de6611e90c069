//! TLS: which servers are trusted, the certificate that we show, what is refused, and that nothing waits or breaks off.

use std::time::Duration;

use catchment::{Event, NatsRecorder, NatsRecorderConfig, Recorder};

use crate::support::access::{AccessFixture, succeeds, text, tls, with_scheme};
use crate::support::authority::{Authority, Pair};
use crate::support::collector::{Collector, catchment, output, run, stderr};
use crate::support::server::needs;
use crate::support::{eventually_within, oracle};

#[test]
fn a_private_authority_is_trusted_when_named() {
    let fixture = AccessFixture::new();
    let (ours, other) = (Authority::new(fixture.path(), "ours"), Authority::new(fixture.path(), "other"));
    let pair = ours.issue(&["localhost", "127.0.0.1"]);
    let server = fixture.server("server", &tls(&pair, ""));
    let (ca, other) = (text(&ours.file), text(&other.file));
    for scheme in ["nats", "tls"] {
        let url = with_scheme(&server, scheme);
        for url in [url.replace("127.0.0.1", "localhost"), url] {
            fixture.works(&[], |command| {
                command.args(["--server", &url, "--tlsca", ca]);
            });
        }
    }
    let url = server.url();
    fixture.works(&[], |command| {
        command.env("NATS_URL", &url).env("NATS_CA", ca);
    });
    // What this machine trusts, when none is named.
    fixture.works(&[], |command| {
        command.args(["--server", &url]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", ca);
    });
    fixture.refuses(&[], &[&url, "this machine does not trust", "--tlsca"], |command| {
        command.args(["--server", &url]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", other);
    });
    fixture.refuses(&[], &[&url, "not in", "other.pem", "--tlsca"], |command| {
        // A named one replaces those of the machine.
        command.args(["--server", &url, "--tlsca", other]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", ca);
    });
    fixture.refuses(&[], &[&url, "/nowhere/ca.pem", "--tlsca"], |command| {
        command.args(["--server", &url, "--tlsca", "/nowhere/ca.pem"]);
    });
    fixture.refuses(&[&pair.secret()], &[&url, "no certificate in", "--tlsca"], |command| {
        command.args(["--server", &url, "--tlsca", text(&pair.key)]);
    });
    for arguments in [&[][..], &["--tlsca", ca]] {
        fixture.refuses(&[], &[&url, "/nowhere.pem", "SSL_CERT_FILE"], |command| {
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
    let fixture = AccessFixture::new();
    let authority = Authority::new(fixture.path(), "ours");
    let elsewhere = fixture.server("elsewhere", &tls(&authority.issue(&["elsewhere.test", "127.0.0.2"]), ""));
    let expired = fixture.server("expired", &tls(&authority.issue_until(2020, &["127.0.0.1"]), ""));
    for (server, words) in [
        (&elsewhere, &["is for elsewhere.test, 127.0.0.2, not for 127.0.0.1"][..]),
        (&expired, &["expired at 2020-01-01T00:00:00Z", "renew it"]),
    ] {
        let url = server.url();
        let words = [&[&*url], words].concat();
        fixture.refuses(&[], &words, |command| {
            command.args(["--server", &url, "--tlsca", text(&authority.file)]);
        });
    }
}

#[test]
fn a_server_asks_for_our_certificate() {
    let fixture = AccessFixture::new();
    let (ours, other) = (Authority::new(fixture.path(), "ours"), Authority::new(fixture.path(), "other"));
    let (ca, pair) = (text(&ours.file), ours.issue(&["127.0.0.1"]));
    let server = fixture.server("server", &tls(&pair, &format!("ca_file: {ca:?}, verify: true")));
    let url = server.url();
    let (client, stranger) = (ours.issue(&["client.test"]), other.issue(&["client.test"]));
    let secrets = [client.secret(), stranger.secret()];
    let secrets = [&*secrets[0], &*secrets[1]];
    let shown = |pair: &Pair| ["--tlscert", text(&pair.cert), "--tlskey", text(&pair.key)].map(str::to_owned);
    fixture.works(&secrets, |command| {
        command.args(["--server", &url, "--tlsca", ca]).args(shown(&client));
    });
    fixture.works(&secrets, |command| {
        command.env("NATS_URL", &url).env("NATS_CA", ca).env("NATS_CERT", &client.cert).env("NATS_KEY", &client.key);
    });
    fixture.refuses(&[], &[&url, "asks for a client certificate", "--tlscert"], |command| {
        command.args(["--server", &url, "--tlsca", ca]);
    });
    fixture.refuses(&secrets, &[&url, "client.test", "--tlscert"], |command| {
        command.args(["--server", &url, "--tlsca", ca]).args(shown(&stranger));
    });
    fixture.refuses(&secrets, &["no private key in", "--tlskey"], |command| {
        command.args(["--server", &url, "--tlscert", text(&client.cert), "--tlskey", text(&client.cert)]);
    });
    fixture.refuses_with(2, &[], &["--tlscert", "--tlskey"], |command| {
        command.args(["--server", &url, "--tlscert", text(&client.cert)]);
    });

    // And by it knows who we are.
    let mapped = format!(
        "{}authorization {{ users: [{{ user: client.test }}] }}\n",
        tls(&pair, &format!("ca_file: {ca:?}, verify_and_map: true"))
    );
    let server = fixture.server("mapped", &mapped);
    fixture.works(&secrets, |command| {
        command.args(["--server", &server.url(), "--tlsca", ca]).args(shown(&client));
    });
    let nobody = ours.issue(&["nobody.test"]);
    fixture.refuses(&secrets, &[&server.url(), "refuses", "nobody.test"], |command| {
        command.args(["--server", &server.url(), "--tlsca", ca]).args(shown(&nobody));
    });
}

#[test]
fn a_server_without_tls_is_refused_where_it_was_asked_for() {
    let fixture = AccessFixture::new();
    let authority = Authority::new(fixture.path(), "ours");
    let client = authority.issue(&["client.test"]);
    let server = fixture.server("server", "jetstream: {}\n");
    let (url, ca) = (server.url(), text(&authority.file));
    let cert = ["--tlscert", text(&client.cert), "--tlskey", text(&client.key)];
    for (wish, scheme, arguments) in
        [("tls://", "tls", &[][..]), ("broker.tls.ca", "nats", &["--tlsca", ca]), ("broker.tls.cert", "nats", &cert)]
    {
        fixture.refuses(&[], &["has no TLS", wish], |command| {
            command.args(["--server", &with_scheme(&server, scheme)]).args(arguments);
        });
    }
    fixture.refuses(&[], &[&url, "has no TLS", "broker.tls.required"], |command| {
        command.args(["--server", &url]).env("CATCHMENT_BROKER__TLS__REQUIRED", "true");
    });
    // Without TLS, what this machine trusts is of no concern.
    fixture.works(&[], |command| {
        command.args(["--server", &url]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", "/nowhere.pem");
    });
}

#[test]
fn tls_first_is_refused_in_time_and_auto_works() {
    if !needs((2, 10), "handshake_first") {
        return;
    }
    let fixture = AccessFixture::new();
    let authority = Authority::new(fixture.path(), "ours");
    let (ca, pair) = (text(&authority.file), authority.issue(&["127.0.0.1"]));
    let first = fixture.server("first", &tls(&pair, "handshake_first: true"));
    fixture.refuses(&[], &[&first.url(), "handshake_first", "auto"], |command| {
        command.args(["--server", &first.url(), "--tlsca", ca]);
    });
    let auto = fixture.server("auto", &tls(&pair, "handshake_first: auto"));
    fixture.works(&[], |command| {
        command.args(["--server", &auto.url(), "--tlsca", ca]);
    });
}

#[test]
fn tls_is_used_where_it_is_offered_and_asked_for() {
    let fixture = AccessFixture::new();
    let authority = Authority::new(fixture.path(), "ours");
    let pair = authority.issue(&["127.0.0.1"]);
    let config = format!("allow_non_tls: true\n{}", tls(&pair, ""));
    let server = fixture.server("server", &config);
    let (url, ca) = (server.url(), text(&authority.file));
    fixture.works(&[], |command| {
        command.args(["--server", &url, "--tlsca", ca]);
    });
    fixture.works(&[], |command| {
        command.args(["--server", &url]);
    });
    fixture.refuses(&[], &["this machine does not trust"], |command| {
        let other = Authority::new(fixture.path(), "other").file;
        command.args(["--server", &with_scheme(&server, "tls")]).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", other);
    });
}

#[test]
fn a_flood_gets_through_tls() {
    // The client ends a connection over TLS on which it is given more than the server takes at once.
    let fixture = AccessFixture::new();
    let authority = Authority::new(fixture.path(), "ours");
    let server = fixture.server("server", &tls(&authority.issue(&["127.0.0.1"]), ""));
    let database = fixture.path().join("a.db");
    let ca = ["--tlsca", text(&authority.file), "-v"];
    let drain = || succeeds(run(&server.url(), &database).arg("--drain").args(ca), &[]);
    drain();
    for (count, size) in [("20000", "1000"), ("100", "500000")] {
        let mut publish = catchment();
        publish.args(["publish", "events.a", "--server", &server.url(), "--count", count, "--size", size]).args(ca);
        let done = output(&mut publish);
        assert!(done.status.success() && !stderr(&done).contains("publishing failed"), "{}", stderr(&done));
    }
    drain();
    assert_eq!(oracle::count(&database), 20_100);
}

#[test]
fn no_event_waits_for_the_next_one_over_tls() {
    // The client's writes read as well over TLS, and its reading thread does not hear of it.
    let fixture = AccessFixture::new();
    let authority = Authority::new(fixture.path(), "ours");
    let server = fixture.server("server", &tls(&authority.issue(&["127.0.0.1"]), ""));
    let database = fixture.path().join("a.db");
    let mut command = catchment();
    command.args(["run", "--server", &server.url(), "--tlsca", text(&authority.file), "--database"]).arg(&database);
    let collector = Collector::start(command, &fixture.path().join("log"));
    collector.said("collecting stream");
    let mut broker = server.config();
    broker.tls.ca = Some(authority.file);
    let mut config = NatsRecorderConfig::default();
    config.broker = broker;
    let recorder = NatsRecorder::open(config).expect("connects");
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
