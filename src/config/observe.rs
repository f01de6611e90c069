//! How a collector can be watched: `[observe]`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::limits::validate_duration;
use crate::error::Error;

/// How a collector can be watched, and when it counts as not ready: `[observe]`.
///
/// `catchment run` serves metrics, health and a page over HTTP. The library alone opens no port: a program has the same figures from
/// [`Collector::status`](crate::Collector::status).
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ObserveConfig {
    /// Where to serve HTTP: an IP address and a port, `127.0.0.1:9464`, or a unix socket, `unix:/run/catchment/http.sock`. Default
    /// none: nothing is served.
    pub listen: Option<String>,
    /// A secret that every request over TCP must have, as bearer token or as the password of basic authentication. At least 16
    /// visible ASCII characters. It is required if `listen` is beyond loopback. Default none.
    pub token: Option<String>,
    /// A file with this secret, instead of `token`. It is read at the start.
    pub token_file: Option<PathBuf>,
    /// How long something may be wrong, or nothing be committed while events wait, before the collector counts as not ready. Up to a
    /// day, at least a second. Default 30 s.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub unready_after: Duration,
    /// Not ready if more events than this are still to be delivered, for longer than `unready_after`. Default none.
    pub max_pending: Option<u64>,
    /// Not ready if events wait, and the last committed one was published longer ago than this, for longer than `unready_after`.
    /// Up to a day. Default none.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "Option<crate::config::schema_types::Time>"))]
    pub max_lag: Option<Duration>,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// On a port.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

/// The fewest characters of a token.
const SHORTEST_TOKEN: usize = 16;

impl Default for ObserveConfig {
    fn default() -> Self {
        Self {
            listen: None,
            token: None,
            token_file: None,
            unready_after: Duration::from_secs(30),
            max_pending: None,
            max_lag: None,
        }
    }
}

/// Without the token.
impl fmt::Debug for ObserveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, token, token_file, unready_after, max_pending, max_lag } = self;
        f.debug_struct("ObserveConfig")
            .field("listen", listen)
            .field("token", &token.as_ref().map(|_| "***"))
            .field("token_file", token_file)
            .field("unready_after", unready_after)
            .field("max_pending", max_pending)
            .field("max_lag", max_lag)
            .finish()
    }
}

impl ObserveConfig {
    /// Checks every setting. Opens no file and no port.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.unready_after < Duration::from_secs(1) {
            let detail = format!("is {:?}; the least is a second", self.unready_after);
            return Err(Error::config("observe.unready_after", detail));
        }
        validate_duration("observe.unready_after", self.unready_after)?;
        validate_duration("observe.max_lag", self.max_lag.unwrap_or_default())?;
        if self.token.is_some() && self.token_file.is_some() {
            let error = Error::config("observe.token_file", "cannot be combined with observe.token");
            return Err(error.with_remedy("give only one of them"));
        }
        if let Some(token) = &self.token {
            validate_token("observe.token", token)?;
        }
        match self.address()? {
            Some(ListenAddress::Tcp(address))
                if !address.ip().is_loopback() && self.token.is_none() && self.token_file.is_none() =>
            {
                let detail = format!("is {address}, which other machines can reach, and there is no token");
                let remedy = "give observe.token or observe.token_file, or listen on 127.0.0.1";
                Err(Error::config("observe.listen", detail).with_remedy(remedy))
            }
            _ => Ok(()),
        }
    }

    /// Where to serve HTTP, if anywhere.
    pub(crate) fn address(&self) -> Result<Option<ListenAddress>, Error> {
        let Some(listen) = &self.listen else { return Ok(None) };
        let refused = |detail: String| {
            let remedy =
                "give an IP address and a port, as 127.0.0.1:9464, or a socket, as unix:/run/catchment/http.sock";
            Error::config("observe.listen", detail).with_remedy(remedy)
        };
        if let Some(path) = listen.strip_prefix("unix:") {
            return match path {
                "" => Err(refused("names no socket".into())),
                path => Ok(Some(ListenAddress::Unix(path.into()))),
            };
        }
        let localhost = || {
            let port = listen.strip_prefix("localhost:")?.parse().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        };
        let address = listen.parse().ok().or_else(localhost);
        address.map(|address| Some(ListenAddress::Tcp(address))).ok_or_else(|| refused(format!("is {listen:?}")))
    }

    /// The token, read from its file if the settings name one.
    pub(crate) fn secret(&self) -> Result<Option<String>, Error> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => read_token(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn read_token(file: &Path) -> Result<String, Error> {
    let key = "observe.token_file";
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::config(key, format!("{shown} cannot be read: {error}")).with_remedy("make it, or name another file")
    })?;
    let token = text.trim();
    validate_token(key, token)?;
    Ok(token.to_owned())
}

fn validate_token(key: &str, token: &str) -> Result<(), Error> {
    let remedy = "make one with: openssl rand -hex 32";
    if token.len() < SHORTEST_TOKEN {
        let detail = format!("has {} characters; the fewest are {SHORTEST_TOKEN}", token.len());
        return Err(Error::config(key, detail).with_remedy(remedy));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = "has a character that is no letter, digit or sign of ASCII";
        return Err(Error::config(key, detail).with_remedy(remedy));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(listen: &str) -> ObserveConfig {
        ObserveConfig { listen: Some(listen.into()), ..ObserveConfig::default() }
    }

    #[test]
    fn addresses_are_ip_addresses_with_a_port_or_sockets() {
        let tcp = |text: &str| Some(ListenAddress::Tcp(text.parse().expect("an address")));
        for (listen, address) in [
            ("127.0.0.1:9464", tcp("127.0.0.1:9464")),
            ("localhost:0", tcp("127.0.0.1:0")),
            ("[::1]:9464", tcp("[::1]:9464")),
            ("unix:a/b.sock", Some(ListenAddress::Unix("a/b.sock".into()))),
        ] {
            assert_eq!(listening(listen).address().expect("an address"), address, "{listen}");
            listening(listen).validate().expect("is valid");
        }
        for listen in ["", "9464", "127.0.0.1", "host:9464", "unix:", "http://127.0.0.1:9464", "localhost:x"] {
            let said = listening(listen).validate().expect_err("must be refused").to_string();
            assert!(said.starts_with("configuration: observe.listen: "), "{said}");
        }
    }

    #[test]
    fn other_machines_need_a_token() {
        for listen in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464"] {
            let said = listening(listen).validate().expect_err("must be refused").to_string();
            assert!(said.contains("other machines can reach") && said.contains("observe.token"), "{said}");
            let with = ObserveConfig { token: Some("0123456789abcdef".into()), ..listening(listen) };
            with.validate().expect("is valid");
            assert!(!format!("{with:?}").contains("0123456789"), "{with:?}");
            let file = ObserveConfig { token_file: Some("token".into()), ..listening(listen) };
            file.validate().expect("is valid");
        }
    }

    #[test]
    fn a_token_is_long_and_visible() {
        for token in ["", "short", "0123456789abcde ", "0123456789abcdé0"] {
            let config = ObserveConfig { token: Some(token.into()), ..ObserveConfig::default() };
            let said = config.validate().expect_err("must be refused").to_string();
            assert!(said.contains("observe.token") && said.contains("openssl rand"), "{said}");
            assert!(token.is_empty() || !said.contains(token), "{said}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let config = ObserveConfig { token_file: Some(file.clone()), ..ObserveConfig::default() };
        assert!(config.secret().expect_err("there is no file").to_string().contains("cannot be read"));
        std::fs::write(&file, "0123456789abcdef\n").expect("writes");
        assert_eq!(config.secret().expect("reads").as_deref(), Some("0123456789abcdef"));
    }
}
