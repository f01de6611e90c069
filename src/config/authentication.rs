//! How this program authenticates to the broker: the settings for it, and what they mean together.
//!
//! The settings are listed here once. Precedence of sources, checks and `Debug` go through [`AuthenticationSetting::ALL`].

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use super::broker::{BrokerConfig, TlsConfig};
use super::secrets::{is_contents, is_jwt, is_seed};
use crate::error::Error;

/// A setting of `[broker]` for authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthenticationSetting {
    User,
    Password,
    PasswordFile,
    Token,
    TokenFile,
    Creds,
    Nkey,
    Jwt,
}

/// A way to authenticate; it may take several settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthenticationMethod {
    Password,
    Token,
    Credentials,
    Nkey,
}

/// The authentication that the settings ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authentication<'c> {
    /// No setting is given. A server's address may name a user or a token.
    None,
    Password {
        user: &'c str,
        password: Secret<'c>,
    },
    Token(Secret<'c>),
    /// A file with a JWT and its seed.
    Credentials(&'c Path),
    /// A file with a seed.
    Nkey(&'c Path),
    Jwt {
        jwt: Secret<'c>,
        /// The file with its seed.
        nkey: &'c Path,
    },
}

/// A secret, or the file that holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secret<'c> {
    Given(&'c str),
    File(&'c Path),
}

impl AuthenticationSetting {
    pub(crate) const ALL: [Self; 8] = [
        Self::User,
        Self::Password,
        Self::PasswordFile,
        Self::Token,
        Self::TokenFile,
        Self::Creds,
        Self::Nkey,
        Self::Jwt,
    ];

    /// Its key in `[broker]`.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Password => "password",
            Self::PasswordFile => "password_file",
            Self::Token => "token",
            Self::TokenFile => "token_file",
            Self::Creds => "creds",
            Self::Nkey => "nkey",
            Self::Jwt => "jwt",
        }
    }

    pub(crate) const fn method(self) -> AuthenticationMethod {
        match self {
            Self::User | Self::Password | Self::PasswordFile => AuthenticationMethod::Password,
            Self::Token | Self::TokenFile => AuthenticationMethod::Token,
            Self::Creds => AuthenticationMethod::Credentials,
            Self::Nkey | Self::Jwt => AuthenticationMethod::Nkey,
        }
    }

    /// The other setting for the same secret. Only one of the two can be given.
    pub(crate) const fn alternative(self) -> Option<Self> {
        match self {
            Self::Password => Some(Self::PasswordFile),
            Self::PasswordFile => Some(Self::Password),
            Self::Token => Some(Self::TokenFile),
            Self::TokenFile => Some(Self::Token),
            Self::User | Self::Creds | Self::Nkey | Self::Jwt => None,
        }
    }

    fn value(self, config: &BrokerConfig) -> Option<&OsStr> {
        match self {
            Self::User => config.user.as_deref().map(OsStr::new),
            Self::Password => config.password.as_deref().map(OsStr::new),
            Self::PasswordFile => config.password_file.as_deref().map(Path::as_os_str),
            Self::Token => config.token.as_deref().map(OsStr::new),
            Self::TokenFile => config.token_file.as_deref().map(Path::as_os_str),
            Self::Creds => config.creds.as_deref().map(Path::as_os_str),
            Self::Nkey => config.nkey.as_deref().map(Path::as_os_str),
            Self::Jwt => config.jwt.as_deref().map(OsStr::new),
        }
    }

    fn unset(self, config: &mut BrokerConfig) {
        match self {
            Self::User => config.user = None,
            Self::Password => config.password = None,
            Self::PasswordFile => config.password_file = None,
            Self::Token => config.token = None,
            Self::TokenFile => config.token_file = None,
            Self::Creds => config.creds = None,
            Self::Nkey => config.nkey = None,
            Self::Jwt => config.jwt = None,
        }
    }

    /// The file that it names. `None` where it is not given or holds the value itself.
    fn file(self, config: &BrokerConfig) -> Option<&Path> {
        let value = self.value(config).map(Path::new);
        match self {
            Self::User | Self::Password | Self::Token => None,
            Self::Jwt => value.filter(|value| !is_jwt(&value.to_string_lossy())),
            Self::PasswordFile | Self::TokenFile | Self::Creds | Self::Nkey => value,
        }
    }

    /// The value for a log line: a user's name or a file's name, never a secret. A file's setting may hold a secret by mistake.
    fn shown(self, config: &BrokerConfig) -> Option<String> {
        let value = self.value(config)?;
        let is_shown = match self {
            Self::User => true,
            Self::Password | Self::Token => false,
            Self::PasswordFile | Self::TokenFile | Self::Creds | Self::Nkey | Self::Jwt => {
                !is_contents(Path::new(value))
            }
        };
        Some(if is_shown { value.to_string_lossy().into_owned() } else { "***".into() })
    }
}

/// Shows whether there are secrets, never the secrets.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BrokerConfig");
        shown.field("servers", &self.shown_servers());
        for setting in AuthenticationSetting::ALL {
            shown.field(setting.key(), &setting.shown(self));
        }
        shown
            .field("tls", &self.tls)
            .field("api_prefix", &self.api_prefix())
            .field("mode", &self.mode)
            .field("stream", &self.stream)
            .field("subjects", &self.subjects)
            .finish_non_exhaustive()
    }
}

impl BrokerConfig {
    /// How this program authenticates, unless a server's address has a user or token.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where settings contradict each other or one is missing.
    pub(crate) fn authentication(&self) -> Result<Authentication<'_>, Error> {
        resolve(self)
    }

    /// Refuses a secret that stands where the name of a file should: it would be shown in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], without the value.
    pub(super) fn validate_files(&self) -> Result<(), Error> {
        let authentication = AuthenticationSetting::ALL.into_iter().map(|setting| (setting.key(), setting.file(self)));
        let tls = [("tls.ca", &self.tls.ca), ("tls.cert", &self.tls.cert), ("tls.key", &self.tls.key)];
        for (key, file) in authentication.chain(tls.map(|(key, file)| (key, file.as_deref()))) {
            let detail = match file {
                Some(file) if is_seed(file) => "is a seed",
                Some(file) if is_contents(file) => "is the contents of a file, not its name",
                _ => continue,
            };
            let remedy = "write it to a file that only you can read, and name that file";
            return Err(Error::config(format!("broker.{key}"), detail).with_remedy(remedy));
        }
        Ok(())
    }

    /// The same settings for a nats-server that this program started: at this address, without authentication, TLS or prefixes.
    pub(crate) fn on_own_server(mut self, url: &str) -> Self {
        for setting in AuthenticationSetting::ALL {
            setting.unset(&mut self);
        }
        Self {
            servers: vec![url.to_owned()],
            address_file: None,
            tls: TlsConfig::default(),
            domain: None,
            api_prefix: None,
            inbox_prefix: None,
            ..self
        }
    }
}

fn resolve(config: &BrokerConfig) -> Result<Authentication<'_>, Error> {
    let is_given = |setting: AuthenticationSetting| setting.value(config).is_some();
    let mut methods: Vec<_> = AuthenticationSetting::ALL
        .into_iter()
        .filter(|one| is_given(*one))
        .map(AuthenticationSetting::method)
        .collect();
    methods.dedup();
    if methods.len() + usize::from(config.servers.iter().any(|server| server.contains('@'))) > 1 {
        let ways = "user and password, token, creds, nkey, or a user in the server's address";
        return Err(Error::config("broker", format!("give only one of {ways}")));
    }
    let refused = |setting: AuthenticationSetting, detail: &str, remedy: &str| {
        Error::config(format!("broker.{}", setting.key()), detail).with_remedy(remedy)
    };
    for setting in [AuthenticationSetting::PasswordFile, AuthenticationSetting::TokenFile] {
        if let Some(other) = setting.alternative().filter(|other| is_given(*other) && is_given(setting)) {
            let detail = format!("cannot be combined with broker.{}", other.key());
            return Err(refused(setting, &detail, "give only one of them"));
        }
    }
    let password = secret(config.password.as_deref(), config.password_file.as_deref());
    let token = secret(config.token.as_deref(), config.token_file.as_deref());
    let jwt =
        config.jwt.as_deref().map(|jwt| if is_jwt(jwt) { Secret::Given(jwt) } else { Secret::File(Path::new(jwt)) });
    match (config.user.as_deref(), password) {
        (Some(user), Some(password)) => return Ok(Authentication::Password { user, password }),
        (None, None) => {}
        _ => {
            use AuthenticationSetting::{Password, PasswordFile, User};
            let given = [User, Password, PasswordFile].into_iter().find(|setting| is_given(*setting)).unwrap_or(User);
            return Err(refused(given, "user and password go together", "give both"));
        }
    }
    if let Some(token) = token {
        return Ok(Authentication::Token(token));
    }
    if let Some(file) = config.creds.as_deref() {
        return Ok(Authentication::Credentials(file));
    }
    match (config.nkey.as_deref(), jwt) {
        (Some(nkey), Some(jwt)) => Ok(Authentication::Jwt { jwt, nkey }),
        (Some(nkey), None) => Ok(Authentication::Nkey(nkey)),
        (None, Some(_)) => {
            let remedy = "a file with both goes into broker.creds";
            Err(refused(AuthenticationSetting::Jwt, "needs broker.nkey, the file with its seed", remedy))
        }
        (None, None) => Ok(Authentication::None),
    }
}

fn secret<'c>(given: Option<&'c str>, file: Option<&'c Path>) -> Option<Secret<'c>> {
    given.map(Secret::Given).or(file.map(Secret::File))
}
