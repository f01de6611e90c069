//! Who we are to the broker, how its servers are addressed, and what it means when one refuses us.
//!
//! Files are read anew for each connection: credentials may be renewed while we run. No secret is in any text made here.

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
use super::link::one_line;
use super::tls::{self, Objection};
use crate::config::{BrokerConfig, is_jwt, without_secrets};
use crate::error::{BrokerFault, Error};

/// Has no certificates in it. The client, unless it is told of a file, reads all that this machine trusts for each
/// connection, a plain one too, and fails where it cannot.
const NO_CERTIFICATES: &str = "/dev/null";

/// A server's address, and who we are to it where the address says so.
pub(in crate::broker) struct Address {
    /// Without user, password or token: the client would take them as they are, percent-encoded.
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

/// Reads an address.
pub(in crate::broker) fn parse(server: &str) -> Result<Address, Error> {
    let refused = |what: String| {
        let shown = without_secrets(server);
        Error::config("broker.servers", format!("{shown}: {what}; an address looks like nats://host:4222"))
    };
    let given: ServerAddress = encoded(server).parse().map_err(|e: std::io::Error| refused(one_line(&e)))?;
    let mut url = given.into_inner();
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        let what =
            "has something behind the host; a password in an address stands before an @, as nats://user:password@host";
        return Err(refused(what.into()));
    }
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
        text.map_err(|_| refused("what stands before the @ is no UTF-8 when decoded".into()))
    };
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        ("", Some(_)) => return Err(refused("has a password, but no user".into())),
        (token, None) => Some(Login::Token(decoded(token)?)),
        (user, Some(password)) => Some(Login::User(decoded(user)?, decoded(password)?)),
    };
    if login.is_some() && (url.set_password(None).is_err() || url.set_username("").is_err()) {
        return Err(refused("has a user, but no host".into()));
    }
    let server = ServerAddress::from_url(url).map_err(|e| refused(one_line(&e)))?;
    Ok(Address { server, login })
}

/// The address with what ends a host percent-encoded where it stands before the last `@`: it is part of a password there.
fn encoded(server: &str) -> Cow<'_, str> {
    let start = server.find("://").map_or(0, |at| at + 3);
    let Some(end) = server.rfind('@').filter(|end| *end > start) else { return Cow::Borrowed(server) };
    let (scheme, login, host) = (&server[..start], &server[start..end], &server[end..]);
    if !login.contains(['/', '?', '#', '\\']) {
        return Cow::Borrowed(server);
    }
    let login = login.replace('/', "%2F").replace('?', "%3F").replace('#', "%23").replace('\\', "%5C");
    Cow::Owned(format!("{scheme}{login}{host}"))
}

/// One try at a server: what is needed to say why it failed.
pub(in crate::broker) struct Attempt<'a> {
    config: &'a BrokerConfig,
    given: Given,
    /// Over TLS; what we had against the server's certificate.
    tls: Option<Objection>,
}

/// What was given for us, without the secrets, and where to set it right.
struct Given {
    what: String,
    way_out: &'static str,
    /// Until when the JWT in it holds, in seconds of Unix time.
    expires: Option<i64>,
}

/// The client's options for who we are and for TLS, before a server that has greeted. What cannot be right is refused here
/// already, in our own words.
pub(in crate::broker) fn prepare<'a>(
    config: &'a BrokerConfig,
    address: &Address,
    greeting: &Greeting,
) -> Result<(Options, Attempt<'a>), (BrokerFault, String)> {
    let (options, given) = identify(config, address).map_err(|why| (BrokerFault::Refused, why))?;
    let wish = tls_wish(config, address);
    if let Some(wish) = wish.filter(|_| !greeting.tls_required && !greeting.tls_available) {
        let way_out = "name another server, or do without TLS";
        return Err((BrokerFault::Tls, format!("it has no TLS, but {wish} asks for it; {way_out}")));
    }
    if wish.is_none() && !greeting.tls_required {
        return Ok((options.add_root_certificate(NO_CERTIFICATES), Attempt { config, given, tls: None }));
    }
    if greeting.tls_verify && config.tls.cert.is_none() {
        let way_out = "give one with broker.tls.cert and broker.tls.key";
        return Err((BrokerFault::Tls, format!("it asks for a client certificate, and none was given; {way_out}")));
    }
    let (client, objection) = tls::client(&config.tls).map_err(|why| (BrokerFault::Tls, why))?;
    let options = options.tls_client_config(client).tls_required(true);
    Ok((options, Attempt { config, given, tls: Some(objection) }))
}

/// What asks for TLS, in words of the user's.
fn tls_wish(config: &BrokerConfig, address: &Address) -> Option<&'static str> {
    let wishes = [
        (address.server.tls_required(), "tls://"),
        (config.tls.required, "broker.tls.required"),
        (config.tls.ca.is_some(), "broker.tls.ca"),
        (config.tls.cert.is_some(), "broker.tls.cert"),
    ];
    wishes.into_iter().find_map(|(given, wish)| given.then_some(wish))
}

/// The client's options for who we are.
fn identify(config: &BrokerConfig, address: &Address) -> Result<(Options, Given), String> {
    let given = |what: String, way_out| Given { what, way_out, expires: None };
    match &address.login {
        Some(Login::User(user, password)) => {
            let given = given(
                format!("user {user} and the password in its address"),
                "correct them there, or give broker.user and broker.password instead",
            );
            return Ok((Options::with_user_pass(user, password), given));
        }
        Some(Login::Token(token)) => {
            let given = given("the token in its address".into(), "correct it there, or give broker.token instead");
            return Ok((Options::with_token(token), given));
        }
        None => {}
    }
    if let Some(user) = &config.user {
        let (password, way_out) = match (&config.password, &config.password_file) {
            (None, Some(file)) => {
                (secret(file, "the password", "broker.password_file")?, "check broker.user and broker.password_file")
            }
            (password, _) => (password.clone().unwrap_or_default(), "check broker.user and broker.password"),
        };
        let what = format!("user {user} and its password");
        return Ok((Options::with_user_pass(user, &password), given(what, way_out)));
    }
    if let Some(token) = &config.token {
        return Ok((Options::with_token(token), given("the token".into(), "check broker.token")));
    }
    if let Some(file) = &config.token_file {
        let token = secret(file, "the token", "broker.token_file")?;
        return Ok((Options::with_token(&token), given("the token".into(), "check broker.token_file")));
    }
    if let Some(file) = &config.creds {
        let text = read(file, "the credentials", "broker.creds")?;
        let bad = |what| format!("there is no {what} in the credentials {}; check broker.creds", file.display());
        let jwt = jwt_in(&text).ok_or_else(|| bad("user's JWT"))?;
        let pair = seed_in(&text).ok_or_else(|| bad("user's seed"))?;
        let what = format!("the credentials {}", file.display());
        return Ok(with_jwt(jwt, pair, given(what, "check broker.creds")));
    }
    if let Some(file) = &config.nkey {
        let text = read(file, "the nkey", "broker.nkey")?;
        let pair = seed_in(&text).ok_or_else(|| {
            format!(
                "there is no user's seed in the nkey's file {}; one begins with SU; check broker.nkey",
                file.display()
            )
        })?;
        let Some(jwt) = &config.jwt else {
            let (public, what) = (pair.public_key(), format!("the nkey {}", file.display()));
            let what = format!("{what}, which is {public}");
            let options = Options::with_nkey(&public, move |nonce| pair.sign(nonce).unwrap_or_default());
            return Ok((options, given(what, "check broker.nkey")));
        };
        let (jwt, what) = if is_jwt(jwt) {
            (jwt.clone(), "the JWT and the nkey".to_owned())
        } else {
            let text = read(Path::new(jwt), "the JWT", "broker.jwt")?;
            let found = jwt_in(&text).ok_or_else(|| format!("there is no JWT in {jwt}; check broker.jwt"))?;
            (found, format!("the JWT {jwt} and the nkey"))
        };
        return Ok(with_jwt(
            jwt,
            pair,
            given(format!("{what} {}", file.display()), "check broker.jwt and broker.nkey"),
        ));
    }
    let way_out = "give broker.user and broker.password, broker.token, broker.creds or broker.nkey";
    Ok((Options::new(), given("a connection without credentials".into(), way_out)))
}

fn with_jwt(jwt: String, pair: KeyPair, given: Given) -> (Options, Given) {
    let given = Given { expires: expiry(&jwt), ..given };
    let options = Options::with_jwt(move || Ok(jwt.clone()), move |nonce| pair.sign(nonce).unwrap_or_default());
    (options, given)
}

fn read(file: &Path, what: &str, setting: &str) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|e| match e.kind() {
        ErrorKind::InvalidData => format!("cannot use {what} {}: it is no text; check {setting}", file.display()),
        _ => format!("cannot read {what} {}: {e}; check {setting}", file.display()),
    })
}

/// What a file holds, less the white space around it.
fn secret(file: &Path, what: &str, setting: &str) -> Result<String, String> {
    let text = read(file, what, setting)?;
    match text.trim() {
        "" => Err(format!("there is nothing in {}, where {what} should be; check {setting}", file.display())),
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

/// Until when a JWT holds, where it says so.
fn expiry(jwt: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<i64>,
    }
    let claims = BASE64URL_NOPAD.decode(jwt.split('.').nth(1)?.as_bytes()).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok()?.exp.filter(|exp| *exp > 0)
}

impl Attempt<'_> {
    /// Whether it is made over TLS.
    pub(in crate::broker) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Why connecting failed, with the way out.
    pub(in crate::broker) fn explain(&self, error: &std::io::Error) -> (BrokerFault, String) {
        if let Some(objection) = self.tls.as_ref().and_then(|objection| objection.lock().take()) {
            return (BrokerFault::Tls, objection);
        }
        let said = one_line(error);
        let lower = said.to_lowercase();
        if ["authorization", "authentication"].iter().any(|word| lower.contains(word)) {
            return (BrokerFault::Refused, self.refused());
        }
        if lower.contains("could not load platform certs") {
            // The client insists on reading them, whatever it is given.
            let detail = format!("{said}; check SSL_CERT_FILE and SSL_CERT_DIR");
            return (BrokerFault::Tls, detail);
        }
        match (&self.tls, &self.config.tls.cert) {
            // That it does not like our certificate may show in no more than its hanging up.
            (Some(_), Some(cert)) => {
                let (cert, doubt) = (cert.display(), "does it accept the certificate");
                (BrokerFault::Tls, format!("{said}; {doubt} {cert}? check broker.tls.cert and broker.tls.key"))
            }
            (Some(_), None) if lower.contains("tls") || lower.contains("alert") => (BrokerFault::Tls, said),
            _ => (BrokerFault::Unreachable, said),
        }
    }

    fn refused(&self) -> String {
        let Given { what, way_out, expires } = &self.given;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        if let Some(expired) = expires.filter(|exp| i64::try_from(now).is_ok_and(|now| now >= *exp)) {
            let date = OffsetDateTime::from_unix_timestamp(expired).ok().and_then(|time| time.format(&Rfc3339).ok());
            let date = date.unwrap_or_else(|| "some time ago".into());
            return format!("it refuses {what}, which expired at {date}; {way_out}");
        }
        match &self.config.tls.cert {
            Some(cert) => format!("it refuses {what}, shown the certificate {}; {way_out}", cert.display()),
            None => format!("it refuses {what}; {way_out}"),
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
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_secret() {
        for server in [
            "nats://:hunter2@a",
            "nats://me:%ffhunter2@a",
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
