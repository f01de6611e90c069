//! JWTs as `nsc` makes them (<https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>), and
//! the configuration of a server that trusts them.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An operator with one account that has JetStream.
pub struct Operator {
    trusted: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

/// A user of the account.
pub struct User {
    pub jwt: String,
    pub seed: String,
}

impl Operator {
    pub fn new() -> Self {
        Self { trusted: KeyPair::new_operator(), account: KeyPair::new_account(), system: KeyPair::new_account() }
    }

    /// For a server that has JetStream and all JWTs in its memory.
    pub fn config(&self) -> String {
        let (operator, system) = (self.trusted.public_key(), self.system.public_key());
        let operator = sign(&self.trusted, &operator, None, &json!({ "type": "operator", "version": 2 }));
        let preload = |account: &KeyPair, storage: i64| {
            let jwt = sign(&self.trusted, &account.public_key(), None, &account_claims(storage));
            format!("{}: {jwt}\n", account.public_key())
        };
        // The system's account may have no JetStream.
        let (first, second) = (preload(&self.account, -1), preload(&self.system, 0));
        format!(
            "jetstream: {{}}\noperator: {operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{\n{first}{second}}}\n"
        )
    }

    /// A user whose JWT ends so many seconds from now.
    pub fn user(&self, seconds: i64) -> User {
        let user = KeyPair::new_user();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let expires = i64::try_from(now).expect("this age") + seconds;
        let claims = json!({
            "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
        });
        let jwt = sign(&self.account, &user.public_key(), Some(expires), &claims);
        User { jwt, seed: user.seed().expect("a seed") }
    }
}

impl User {
    /// As in a credentials file.
    pub fn creds(&self) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            self.jwt, self.seed
        )
    }
}

/// Without limits, but for the bytes of its streams.
fn account_claims(storage: i64) -> Value {
    json!({
        "type": "account", "version": 2,
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": storage, "disk_storage": storage, "streams": -1, "consumer": -1,
        },
        "default_permissions": { "pub": {}, "sub": {} },
    })
}

fn sign(issuer: &KeyPair, subject: &str, expires: Option<i64>, nats: &Value) -> String {
    let mut claims = json!({
        "jti": "A", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test", "sub": subject, "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).expect("a seed");
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}
