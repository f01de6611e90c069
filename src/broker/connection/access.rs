//! Credentials for the broker, the addresses of its servers, and why a server refuses a connection.
//!
//! Files are read again for each connection: credentials may be renewed in the meantime. No text made here contains a secret.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use nats::{Options, ServerAddress};
use nkeys::{KeyPair, KeyPairType};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::greeting::Greeting;
use super::problem::Problem;
use super::remarks::one_line;
use super::tls::{self, Objection};
use crate::config::{Authentication, BrokerConfig, Secret, is_jwt, split_scheme, without_secrets};
use crate::error::{BrokerFault, Error};

/// An empty file of certificates. Without any file the client reads all authorities that this machine trusts, for each connection,
/// also for one without TLS, and fails where it cannot.
const NO_CERTIFICATES: &str = "/dev/null";

/// A server's address, and the login in it if it has one.
pub(in crate::broker) struct Address {
    /// Without user, password or token: the client would not decode them.
    server: ServerAddress,
    login: Option<Login>,
}

enum Login {
    User(String, String),
    Token(String),
}

impl Address {
    pub(in crate::broker) fn host(&self) -> &str {
        self.server.host()
    }

    pub(in crate::broker) fn port(&self) -> u16 {
        self.server.port()
    }

    /// For the client.
    pub(in crate::broker) fn server(&self) -> ServerAddress {
        self.server.clone()
    }
}

/// Reads an address. A user, password or token is before the last `@`, percent-encoded or as it is: the characters that end a host
/// (`/`, `?`, `#`) are part of it there. An `@` or a `:` that would be read otherwise has to be percent-encoded.
pub(in crate::broker) fn parse(server: &str) -> Result<Address, Error> {
    let refused = |what: String| {
        let detail = format!("{}: {what}", without_secrets(server));
        let remedy = if server.contains('@') {
            "write it as nats://user:password@host:4222, with @ as %40 and % as %25 in user and password"
        } else {
            "write it as nats://host:4222 or nats://user:password@host:4222"
        };
        Error::config("broker.servers", detail).with_remedy(remedy)
    };
    let (scheme, rest) = split_scheme(server);
    let (login, host) = rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
    if login.is_some() && host.is_empty() {
        return Err(refused("has a user, but no host".into()));
    }
    // The client gets no login: it would not decode it.
    let address = format!("{}://{host}", scheme.unwrap_or("nats"));
    let invalid = |e: std::io::Error| match one_line(&e).strip_prefix("NATS server URL is invalid: ") {
        Some("invalid port number") => refused("the port is not a number from 1 to 65535".into()),
        Some("empty host") => refused("it has no host".into()),
        Some(what) => refused(what.to_owned()),
        None => refused(one_line(&e)),
    };
    let given: ServerAddress = address.parse().map_err(invalid)?;
    let url = given.into_inner();
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused("it has no host".into()));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        let what = "has something after the host; write a password before an @, as nats://user:password@host";
        return Err(refused(what.into()));
    }
    let login = match login.map(|login| login.split_once(':').map_or((login, None), |(user, pw)| (user, Some(pw)))) {
        None | Some(("", None)) => None,
        Some(("", Some(_))) => return Err(refused("has a password, but no user".into())),
        Some((token, None)) => Some(Login::Token(decoded(token))),
        Some((user, Some(password))) => Some(Login::User(decoded(user), decoded(password))),
    };
    let server = ServerAddress::from_url(url).map_err(|e| refused(one_line(&e)))?;
    Ok(Address { server, login })
}

/// A part of a login, decoded; as it is where it cannot be percent-encoded text.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// One attempt to connect to a server, to explain why it failed.
pub(in crate::broker) struct Attempt<'a> {
    config: &'a BrokerConfig,
    given: Given,
    /// Over TLS: why the server's certificate was refused, if it was.
    tls: Option<Objection>,
}

/// The given credentials, without their secrets, and how to correct them.
struct Given {
    what: String,
    remedy: &'static str,
    /// When the JWT in them expires, in seconds of Unix time.
    expires: Option<i64>,
}

/// The client's options for credentials and TLS, for a server that has greeted. Impossible settings are refused here, before the
/// client reports them less clearly.
pub(in crate::broker) fn prepare<'a>(
    config: &'a BrokerConfig,
    address: &Address,
    greeting: &Greeting,
) -> Result<(Options, Attempt<'a>), Problem> {
    let (options, given) = identify(config, address)?;
    let demand = tls_demand(config, address);
    if let Some(demand) = demand.filter(|_| !greeting.tls_required && !greeting.tls_available) {
        let what = format!("it has no TLS, but {demand} asks for it");
        return Err(Problem::new(BrokerFault::Tls, what).with_remedy("name another server, or do without TLS"));
    }
    if demand.is_none() && !greeting.tls_required {
        return Ok((options.add_root_certificate(NO_CERTIFICATES), Attempt { config, given, tls: None }));
    }
    if greeting.tls_verify && config.tls.cert.is_none() {
        let what = "it asks for a client certificate, and none was given";
        return Err(
            Problem::new(BrokerFault::Tls, what).with_remedy("give one with broker.tls.cert and broker.tls.key")
        );
    }
    let (client, objection) = tls::client(&config.tls)?;
    let options = options.tls_client_config(client).tls_required(true);
    Ok((options, Attempt { config, given, tls: Some(objection) }))
}

/// The setting that asks for TLS, if one does.
fn tls_demand(config: &BrokerConfig, address: &Address) -> Option<&'static str> {
    let demands = [
        (address.server.tls_required(), "tls://"),
        (config.tls.required, "broker.tls.required"),
        (config.tls.ca.is_some(), "broker.tls.ca"),
        (config.tls.cert.is_some(), "broker.tls.cert"),
    ];
    demands.into_iter().find_map(|(given, demand)| given.then_some(demand))
}

/// The client's options for the credentials.
fn identify(config: &BrokerConfig, address: &Address) -> Result<(Options, Given), Problem> {
    let given = |what: String, remedy| Given { what, remedy, expires: None };
    match &address.login {
        Some(Login::User(user, password)) => {
            let given = given(
                format!("user {user} and the password in its address"),
                "correct them there (a % in them is written %25), or give broker.user and broker.password instead",
            );
            return Ok((Options::with_user_pass(user, password), given));
        }
        Some(Login::Token(token)) => {
            let given = given(
                "the token in its address".into(),
                "correct it there (a % in it is written %25), or give broker.token instead",
            );
            return Ok((Options::with_token(token), given));
        }
        None => {}
    }
    let settings = config.authentication().map_err(|error| Problem::new(BrokerFault::Refused, error.to_string()))?;
    match settings {
        Authentication::None => {
            let remedy = "give broker.user and broker.password, broker.token, broker.creds or broker.nkey";
            Ok((Options::new(), given("a connection without credentials".into(), remedy)))
        }
        Authentication::Password { user, password } => {
            let (password, remedy) = match password {
                Secret::Given(password) => (password.to_owned(), "check broker.user and broker.password"),
                Secret::File(file) => (
                    secret(file, "the password", "check broker.password_file")?,
                    "check broker.user and broker.password_file",
                ),
            };
            let what = format!("user {user} and its password");
            Ok((Options::with_user_pass(user, &password), given(what, remedy)))
        }
        Authentication::Token(token) => {
            let (token, remedy) = match token {
                Secret::Given(token) => (token.to_owned(), "check broker.token"),
                Secret::File(file) => {
                    (secret(file, "the token", "check broker.token_file")?, "check broker.token_file")
                }
            };
            Ok((Options::with_token(&token), given("the token".into(), remedy)))
        }
        Authentication::Credentials(file) => {
            let remedy = "check broker.creds";
            let text = read(file, "the credentials", remedy)?;
            let bad = |what| unusable(format!("there is no {what} in the credentials {}", file.display()), remedy);
            let jwt = jwt_in(&text).ok_or_else(|| bad("user's JWT"))?;
            let pair = seed_in(&text).ok_or_else(|| bad("user's seed"))?;
            let what = format!("the credentials {}", file.display());
            Ok(with_jwt(jwt, pair, given(what, remedy)))
        }
        Authentication::Nkey(file) => {
            let pair = nkey(file)?;
            let public = pair.public_key();
            let what = format!("the nkey {}, which is {public}", file.display());
            let options = Options::with_nkey(&public, move |nonce| pair.sign(nonce).unwrap_or_default());
            Ok((options, given(what, "check broker.nkey")))
        }
        Authentication::Jwt { jwt, nkey: file } => {
            let pair = nkey(file)?;
            let (jwt, what) = match jwt {
                Secret::Given(jwt) => (jwt.to_owned(), "the JWT and the nkey".to_owned()),
                Secret::File(path) => {
                    let (shown, remedy) = (path.display(), "check broker.jwt");
                    let text = read(path, "the JWT", remedy)?;
                    let jwt = jwt_in(&text);
                    let jwt = jwt.ok_or_else(|| unusable(format!("there is no JWT in {shown}"), remedy))?;
                    (jwt, format!("the JWT {shown} and the nkey"))
                }
            };
            Ok(with_jwt(jwt, pair, given(format!("{what} {}", file.display()), "check broker.jwt and broker.nkey")))
        }
    }
}

fn nkey(file: &Path) -> Result<KeyPair, Problem> {
    let remedy = "check broker.nkey";
    let text = read(file, "the nkey", remedy)?;
    seed_in(&text).ok_or_else(|| {
        unusable(format!("there is no user's seed in the nkey's file {}; one begins with SU", file.display()), remedy)
    })
}

fn unusable(what: String, remedy: &'static str) -> Problem {
    Problem::new(BrokerFault::Refused, what).with_remedy(remedy)
}

fn with_jwt(jwt: String, pair: KeyPair, given: Given) -> (Options, Given) {
    let given = Given { expires: expiry(&jwt), ..given };
    let options = Options::with_jwt(move || Ok(jwt.clone()), move |nonce| pair.sign(nonce).unwrap_or_default());
    (options, given)
}

fn read(file: &Path, what: &str, remedy: &'static str) -> Result<String, Problem> {
    std::fs::read_to_string(file).map_err(|e| match e.kind() {
        ErrorKind::InvalidData => unusable(format!("cannot use {what} {}: it is not text", file.display()), remedy),
        _ => unusable(format!("cannot read {what} {}: {e}", file.display()), remedy),
    })
}

/// The content of a file without the white space around it.
fn secret(file: &Path, what: &str, remedy: &'static str) -> Result<String, Problem> {
    let text = read(file, what, remedy)?;
    match text.trim() {
        "" => Err(unusable(format!("there is nothing in {}, where {what} should be", file.display()), remedy)),
        secret => Ok(secret.to_owned()),
    }
}

/// The first JWT of a text, on a line of its own as in a credentials file.
fn jwt_in(text: &str) -> Option<String> {
    text.lines().map(str::trim).find(|line| is_jwt(line)).map(str::to_owned)
}

/// The first user's seed of a text, on a line of its own.
fn seed_in(text: &str) -> Option<KeyPair> {
    let seeds = text.lines().map(str::trim).filter(|line| line.starts_with("SU"));
    seeds.filter_map(|seed| KeyPair::from_seed(seed).ok()).find(|pair| pair.key_pair_type() == KeyPairType::User)
}

/// When a JWT expires, if it does.
fn expiry(jwt: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct JwtClaims {
        exp: Option<i64>,
    }
    let claims = BASE64URL_NOPAD.decode(jwt.split('.').nth(1)?.as_bytes()).ok()?;
    serde_json::from_slice::<JwtClaims>(&claims).ok()?.exp.filter(|exp| *exp > 0)
}

impl Attempt<'_> {
    /// Whether it is made over TLS.
    pub(in crate::broker) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Why connecting failed.
    pub(in crate::broker) fn explain(&self, error: &std::io::Error) -> Problem {
        if let Some(objection) = self.tls.as_ref().and_then(|objection| objection.lock().take()) {
            return objection;
        }
        let reported = one_line(error);
        let lower = reported.to_lowercase();
        if ["authorization", "authentication"].iter().any(|word| lower.contains(word)) {
            return self.refused();
        }
        if lower.contains("could not load platform certs") {
            // The client always reads them, whatever other certificates it gets.
            return Problem::new(BrokerFault::Tls, reported).with_remedy("check SSL_CERT_FILE and SSL_CERT_DIR");
        }
        match (&self.tls, &self.config.tls.cert) {
            // A server that does not accept our certificate may just close the connection.
            (Some(_), Some(cert)) => {
                let reason = format!("the server may refuse the certificate {}", cert.display());
                let remedy = format!("{reason}: check broker.tls.cert and broker.tls.key");
                Problem::new(BrokerFault::Tls, reported).with_remedy(remedy)
            }
            (Some(_), None) if lower.contains("tls") || lower.contains("alert") => {
                Problem::new(BrokerFault::Tls, reported)
            }
            _ => Problem::new(BrokerFault::Unreachable, reported),
        }
    }

    fn refused(&self) -> Problem {
        let Given { what, remedy, expires } = &self.given;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        if let Some(expired) = expires.filter(|exp| i64::try_from(now).is_ok_and(|now| now >= *exp)) {
            let date = OffsetDateTime::from_unix_timestamp(expired).ok().and_then(|time| time.format(&Rfc3339).ok());
            let date = date.unwrap_or_else(|| "some time ago".into());
            return unusable(format!("it refuses {what}, which expired at {date}"), remedy);
        }
        match &self.config.tls.cert {
            Some(cert) => {
                unusable(format!("it refuses {what}, with the client certificate {}", cert.display()), remedy)
            }
            None => unusable(format!("it refuses {what}"), remedy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(server: &str) -> (String, Option<(String, String)>) {
        let address = parse(server).expect("an address");
        let url = address.server().into_inner();
        assert!(url.username().is_empty() && url.password().is_none(), "{url}");
        let login = address.login.map(|login| match login {
            Login::User(user, password) => (user, password),
            Login::Token(token) => ("token".into(), token),
        });
        (url.to_string(), login)
    }

    #[test]
    fn who_we_are_is_taken_out_of_an_address_and_decoded() {
        let some = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login("nats://a:1"), ("nats://a:1".into(), None));
        assert_eq!(login("me:pw@a"), ("nats://a".into(), some("me", "pw")));
        assert_eq!(login("tls://m%40e:p%3A%2F%40%25@a"), ("tls://a".into(), some("m@e", "p:/@%")));
        assert_eq!(login("nats://me:p@ss w%rd@[::1]:2"), ("nats://[::1]:2".into(), some("me", "p@ss w%rd")));
        assert_eq!(login("nats://t%2Fk@a"), ("nats://a".into(), some("token", "t/k")));
        assert_eq!(login("nats://me:p/w?#\\x@a:1"), ("nats://a:1".into(), some("me", "p/w?#\\x")));
        assert_eq!(login("me:a//b@c:1/"), ("nats://c:1/".into(), some("me", "a//b")));
        assert_eq!(login("me:a://b@c:1"), ("nats://c:1".into(), some("me", "a://b")));
        // What cannot be percent-encoded text is not decoded.
        assert_eq!(login("nats://me:50%off%zz%ff%@a"), ("nats://a".into(), some("me", "50%off%zz%ff%")));
        assert_eq!(login("nats://me:\t é,[x]^@a"), ("nats://a".into(), some("me", "\t é,[x]^")));
        assert_eq!(login("nats://me:@a"), ("nats://a".into(), some("me", "")));
        assert_eq!(login("nats://@a"), ("nats://a".into(), None));
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_secret() {
        for server in [
            "nats://:hunter2@a",
            "nats://me:hunter2@",
            "http://me:hunter2@a",
            "nats://me:hunter2@a:x",
            "nats://me:hunter2/a",
            "nats://me:hunter2/a:4222",
            "nats://me:1/hunter2",
            "nats://me@hunter2/a:4222",
            "nats://hunter2/a",
            "nats://a:4222?hunter2",
            "nats://a#hunter2",
            "nats://me:hunter2:4222",
        ] {
            let refusal = parse(server).err().expect("must be refused").to_string();
            assert!(refusal.starts_with("configuration: broker.servers: "), "{refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_its_own_fault() {
        for (server, said) in [
            (
                "localhost:99999",
                "localhost:99999: the port is not a number from 1 to 65535; write it as nats://host:4222 or ",
            ),
            ("nats://", "nats://: it has no host; write it as nats://host:4222 or "),
            ("tls://", "tls://: it has no host; "),
            ("nats:///", "nats://: it has no host; "),
            (
                "nats://me:pw@a:99999",
                "nats://a:99999: the port is not a number from 1 to 65535; write it as nats://user:",
            ),
            ("me:pw@:4222", "***: it has no host; write it as nats://user:password@host:4222, with @ as %40"),
        ] {
            let refusal = parse(server).err().expect("must be refused").to_string();
            assert!(refusal.starts_with(&format!("configuration: broker.servers: {said}")), "{refusal}");
            assert!(server.contains('@') || !refusal.contains("%40"), "{refusal}");
        }
    }

    #[test]
    fn jwt_and_seed_are_found_in_credentials() {
        let pair = KeyPair::new_user();
        let (seed, jwt) = (pair.seed().expect("a seed"), "eyJ0.eyJleHAiOjE3MDAwMDAwMDB9.c2ln");
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\r\n{jwt}\r\n------END NATS USER JWT------\r\n\r\n\
             ************************* IMPORTANT *************************\r\n\r\n\
             -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
        );
        assert_eq!(jwt_in(&creds).as_deref(), Some(jwt));
        assert_eq!(expiry(jwt), Some(1_700_000_000));
        assert_eq!(seed_in(&creds).map(|pair| pair.public_key()), Some(pair.public_key()));
        assert!(jwt_in("no credentials").is_none() && seed_in("SUNDAY\nSU").is_none());
        let account = KeyPair::new_account().seed().expect("a seed");
        assert!(seed_in(&account).is_none());
    }
}
