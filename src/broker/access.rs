//! Who we are to the broker, and how its servers are addressed.

use nats::{Options, ServerAddress};

use super::link::one_line;
use crate::config::{BrokerConfig, without_secrets};
use crate::error::{BrokerFault, Error};

/// Reads an address.
pub(super) fn parse(server: &str) -> Result<ServerAddress, Error> {
    server.parse().map_err(|e: std::io::Error| {
        let what = one_line(&e);
        let shown = without_secrets(server);
        Error::config("broker.servers", format!("{shown}: {what}; an address looks like nats://host:4222"))
    })
}

/// The client's options for who we are.
pub(super) fn options(config: &BrokerConfig) -> Result<Options, (BrokerFault, String)> {
    Ok(match (&config.user, &config.password, &config.token, &config.creds) {
        (Some(user), Some(password), _, _) => Options::with_user_pass(user, password),
        (_, _, Some(token), _) => Options::with_token(token),
        (_, _, _, Some(creds)) => Options::with_credentials(creds),
        _ => Options::new(),
    })
}

/// Why connecting failed, with the way out.
pub(super) fn explain(config: &BrokerConfig, error: &std::io::Error) -> (BrokerFault, String) {
    let said = one_line(error);
    let lower = said.to_lowercase();
    if lower.contains("authorization") || lower.contains("authentication") {
        let given = match config {
            BrokerConfig { user: Some(user), .. } => format!("user {user} and its password"),
            BrokerConfig { token: Some(_), .. } => "the token".into(),
            BrokerConfig { creds: Some(creds), .. } => format!("the credentials {}", creds.display()),
            _ => "a connection without credentials".into(),
        };
        return (BrokerFault::Refused, format!("it refuses {given}; check --user and --password, --token or --creds"));
    }
    if let Some(creds) = config.creds.as_ref().filter(|creds| !creds.is_file()) {
        return (BrokerFault::Refused, format!("cannot read the credentials {}; check --creds", creds.display()));
    }
    if let Some(creds) =
        config.creds.as_ref().filter(|_| ["credentials", "jwt", "seed"].iter().any(|w| lower.contains(w)))
    {
        return (
            BrokerFault::Refused,
            format!("cannot use the credentials {}: {said}; check --creds", creds.display()),
        );
    }
    (BrokerFault::Unreachable, said)
}
