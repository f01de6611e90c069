//! Lists of servers' addresses that are written with commas.

use toml::Value;

use super::merging::list;
use crate::config::split_scheme;

/// The value of a setting of `[broker]` that is given as text. The reason of a refusal shows nothing of it.
pub fn value_of(key: &str, text: &str) -> Result<Value, String> {
    match key {
        "servers" => Ok(list(list_of(text)?.iter().map(String::as_str))),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// The addresses of a list with commas. A comma in a password does not end an address where what is before it cannot be one:
/// `nats://me:a,b@host`.
///
/// # Errors
///
/// The reason if there are two ways to read it: `nats://me:1,2@host` may be the two addresses `nats://me:1` and `2@host`. It shows
/// nothing of the text.
pub fn list_of(text: &str) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let mut addresses = Vec::new();
    let mut at = 0;
    while at < parts.len() {
        // Up to the end of a login that may continue behind commas.
        let mut others = parts[at + 1..].iter().take_while(|other| !has_scheme(other.trim()));
        let continued = others.position(|other| other.contains('@')).map(|end| at + 1 + end);
        let continued = continued.filter(|_| !parts[at].contains('@'));
        let end = match (continued, Beginning::of(parts[at].trim())) {
            (Some(end), Beginning::Login) => end,
            (Some(_), Beginning::LoginOrPort) => {
                let detail = "has a comma before an @; in a user name or password write it as %2C, and write each \
                              address of a list with nats:// or tls://";
                return Err(detail.into());
            }
            _ => at,
        };
        addresses.push(parts[at..=end].join(",").trim().to_owned());
        at = end + 1;
    }
    addresses.retain(|address| !address.is_empty());
    Ok(addresses)
}

fn has_scheme(part: &str) -> bool {
    split_scheme(part).0.is_some()
}

/// What the text before a comma can be.
#[derive(PartialEq, Eq)]
enum Beginning {
    /// A host, or a host and a port.
    Address,
    /// `me:17`: a host and a port, or a user and the beginning of a password.
    LoginOrPort,
    /// A user and the beginning of a password.
    Login,
}

impl Beginning {
    fn of(text: &str) -> Self {
        let (_, rest) = split_scheme(text);
        match rest.split_once(':') {
            None => Self::Address,
            Some(_) if rest.starts_with('[') => Self::Address,
            Some((_, port)) if port.parse::<u16>().is_ok() => Self::LoginOrPort,
            Some(_) => Self::Login,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_separated_by_commas() {
        for (text, addresses) in [
            ("nats://a", &["nats://a"][..]),
            (" nats://a:4222 , b ,", &["nats://a:4222", "b"]),
            ("nats://me:pw@a:4222,nats://me:pw@b:4222", &["nats://me:pw@a:4222", "nats://me:pw@b:4222"]),
            ("nats://a:4222,nats://me:pw@b:4222", &["nats://a:4222", "nats://me:pw@b:4222"]),
            ("me:pw@a,me:pw@b", &["me:pw@a", "me:pw@b"]),
            ("[::1]:4222,t0ken@b", &["[::1]:4222", "t0ken@b"]),
            ("a,t0ken@b", &["a", "t0ken@b"]),
            ("", &[]),
        ] {
            assert_eq!(list_of(text).expect(text), addresses);
        }
    }

    #[test]
    fn a_comma_in_a_password_ends_no_address() {
        for (text, addresses) in [
            ("nats://me:a,b@host", &["nats://me:a,b@host"][..]),
            ("nats://me:a,b,,c@host:1,nats://x", &["nats://me:a,b,,c@host:1", "nats://x"]),
            ("me:,a@host", &["me:,a@host"]),
            ("nats://x, nats://me:a,b@host", &["nats://x", "nats://me:a,b@host"]),
        ] {
            assert_eq!(list_of(text).expect(text), addresses);
        }
    }

    #[test]
    fn an_address_that_can_be_read_in_two_ways_is_refused() {
        for text in ["nats://hunter2:17,8@host", "hunter2:1,2,3@host", "nats://x,nats://hunter2:17,8@host"] {
            let refusal = list_of(text).expect_err(text);
            assert!(refusal.contains("%2C") && !refusal.contains("hunter2") && !refusal.contains("17"), "{refusal}");
        }
    }
}
