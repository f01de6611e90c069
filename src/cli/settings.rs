//! The library's settings from everywhere a user may give them.
//!
//! Flags outrank the context that `--context` names, this `CATCHMENT_*` variables, these the file, this what was found in
//! the surroundings: the broker that `catchment run --with-server` started beside the database, else the `NATS_*` variables
//! that the `nats` command knows above the context that `NATS_CONTEXT` names or `nats context select` has selected. The
//! selected one counts only where nothing else names a server, for its credentials are for its own.
//! Each source is a table of TOML, read by itself first, so that a mistake is told with the place it was made in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{Config, DatabaseConfig, without_login};
use crate::error::Error;
use crate::store::beside;
use clap::Args;
use serde::Deserialize;
use toml::{Table, Value};

use super::context::Contexts;

/// Variables of ours that are no settings of the library.
const NO_SETTINGS: [&str; 4] = ["CATCHMENT_CONFIG", "CATCHMENT_LOG", "CATCHMENT_LOG_FORMAT", "CATCHMENT_PROFILE"];

/// The variables that the `nats` command knows, and our settings for them.
const NATS_VARIABLES: [(&str, &str); 10] = [
    ("NATS_URL", "servers"),
    ("NATS_USER", "user"),
    ("NATS_PASSWORD", "password"),
    ("NATS_TOKEN", "token"),
    ("NATS_CREDS", "creds"),
    ("NATS_NKEY", "nkey"),
    ("NATS_CERT", "tls.cert"),
    ("NATS_KEY", "tls.key"),
    ("NATS_CA", "tls.ca"),
    ("NATS_TIMEOUT", "timeout"),
];

/// Which context, and where contexts are.
const CONTEXT_VARIABLES: [&str; 3] = ["NATS_CONTEXT", "XDG_CONFIG_HOME", "HOME"];

/// The ways to identify oneself to a broker; one more is to do so in its address. A source that gives one of them replaces
/// those of lower sources.
const WAYS_IN: [&[&str]; 4] =
    [&["user", "password", "password_file"], &["token", "token_file"], &["creds"], &["nkey", "jwt"]];

/// Of two settings that exclude each other, the one of the higher source counts.
const EITHER_OR: [[&str; 2]; 3] = [["password", "password_file"], ["token", "token_file"], ["domain", "api_prefix"]];

/// Which database.
#[derive(Args, Default)]
pub struct DatabaseArgs {
    /// The database file [default: database.path of the settings, else catchment.db]
    #[arg(short, long, value_name = "PATH")]
    database: Option<PathBuf>,
}

impl DatabaseArgs {
    /// Whether the flag names one.
    pub fn is_given(&self) -> bool {
        self.database.is_some()
    }
}

/// Which broker and stream, and who we are to it.
#[derive(Args, Default)]
pub struct BrokerArgs {
    /// Servers of one cluster, separated by commas [below the settings file: NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(short, long = "server", value_name = "URL", value_delimiter = ',', help_heading = "Broker")]
    servers: Vec<String>,

    /// Servers, who we are and the rest from this context of the nats command [below the settings file: NATS_CONTEXT; where
    /// nothing names a server, the selected one]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    context: Option<String>,

    /// User name [below the settings file: NATS_USER]
    #[arg(long, value_name = "NAME", help_heading = "Broker", allow_hyphen_values = true)]
    user: Option<String>,

    /// Password; a file is safer, other users of this machine see flags [below the settings file: NATS_PASSWORD]
    #[arg(long, value_name = "PASSWORD", help_heading = "Broker", allow_hyphen_values = true)]
    password: Option<String>,

    /// A file that holds the password
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true, conflicts_with = "password")]
    password_file: Option<String>,

    /// Token, instead of user and password [below the settings file: NATS_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = "Broker", allow_hyphen_values = true)]
    token: Option<String>,

    /// A file that holds the token
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true, conflicts_with = "token")]
    token_file: Option<String>,

    /// Credentials file (JWT and seed), instead of the others [below the settings file: NATS_CREDS]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    creds: Option<String>,

    /// A file that holds an nkey's seed, instead of the others [below the settings file: NATS_NKEY]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    nkey: Option<String>,

    /// A file that holds the JWT of the --nkey
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    jwt: Option<String>,

    /// The certificate we show to servers that ask for one, PEM [below the settings file: NATS_CERT]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    tlscert: Option<String>,

    /// The private key of --tlscert [below the settings file: NATS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    tlskey: Option<String>,

    /// Authorities to trust instead of those of this machine, PEM [below the settings file: NATS_CA]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    tlsca: Option<String>,

    /// The JetStream domain
    #[arg(long, value_name = "DOMAIN", help_heading = "Broker")]
    js_domain: Option<String>,

    /// What the subjects of JetStream requests begin with, instead of a domain [default: $JS.API]
    #[arg(long, value_name = "PREFIX", help_heading = "Broker", conflicts_with = "js_domain")]
    js_api_prefix: Option<String>,

    /// What the subjects begin with on which answers come [default: _INBOX]
    #[arg(long, value_name = "PREFIX", help_heading = "Broker")]
    inbox_prefix: Option<String>,

    /// The longest that connecting, or one answer, may take [below the settings file: NATS_TIMEOUT] [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "Broker")]
    timeout: Option<humantime::Duration>,

    /// The name under which the server lists the connection [default: catchment]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    connection_name: Option<String>,

    /// The stream [default: EVENTS]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    stream: Option<String>,
}

/// The sources other than flags.
pub struct Settings {
    file: Option<PathBuf>,
    environment: Environment,
}

type Environment = BTreeMap<String, String>;

impl Settings {
    /// Settings of this file, else of the one that `CATCHMENT_CONFIG` names, and of the process's environment.
    pub fn new(file: Option<PathBuf>) -> Result<Self, Error> {
        let named = || std::env::var_os("CATCHMENT_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        Ok(Self { file: file.or_else(named), environment: ours(std::env::vars_os())? })
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// For a command that reads the database and meets no broker.
    pub fn for_database(&self, database: &DatabaseArgs) -> Result<Config, Error> {
        self.config(database, None, Table::new(), Surroundings::Ignored)
    }

    /// For a command that meets a broker.
    pub fn for_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, broker.context.as_deref(), broker.table(), Surroundings::Asked)
    }

    /// For a command that starts a broker of its own: neither `NATS_*` variables, nor contexts, nor another one's address
    /// count. What is said of a broker all the same is left for the caller to replace.
    pub fn for_own_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, None, broker.table(), Surroundings::Ignored)
    }

    fn config(
        &self,
        database: &DatabaseArgs,
        context: Option<&str>,
        flags: Table,
        surroundings: Surroundings,
    ) -> Result<Config, Error> {
        let mut given = match &self.file {
            Some(file) => file_table(file)?,
            None => Table::new(),
        };
        merge(&mut given, environment_table(&self.environment)?);
        if let Some(name) = context {
            merge(&mut given, self.context_table(name)?);
        }
        merge(&mut given, flags);
        let path = database.database.clone();
        let mut all = match surroundings {
            Surroundings::Asked => {
                let path = path.clone().or_else(|| setting(&given, "database", "path")?.as_str().map(PathBuf::from));
                let path = path.unwrap_or_else(|| DatabaseConfig::default().path);
                self.surroundings_table(&path, setting(&given, "broker", "servers").is_some(), context.is_some())?
            }
            Surroundings::Ignored => Table::new(),
        };
        merge(&mut all, given);
        // Each source was read by itself before, so nothing here is unknown.
        let mut config = read(all).map_err(|reason| refused("settings", reason))?;
        if let Some(path) = path {
            config.database.path = path;
        }
        let config = config.resolved()?;
        config.validate()?;
        Ok(config)
    }

    /// What is found without being named by a source of ours. A broker beside the database stands in for all that is said of
    /// another, who we are to it included. A context that was asked for stands in for others.
    fn surroundings_table(&self, database: &Path, has_servers: bool, has_context: bool) -> Result<Table, Error> {
        let variables = nats_table(&self.environment)?;
        if !has_servers && let Some(server) = server_beside(database) {
            let mut found = broker_table(std::iter::once(("servers", list(std::iter::once(server.as_str())))));
            if let Some(timeout) = setting(&variables, "broker", "timeout") {
                merge(&mut found, broker_table(std::iter::once(("timeout", timeout.clone()))));
            }
            return Ok(found);
        }
        let named = self.environment.get("NATS_CONTEXT").filter(|name| !name.is_empty());
        let has_servers = has_servers || setting(&variables, "broker", "servers").is_some();
        let name = match named {
            _ if has_context => None,
            Some(name) => Some(name.clone()),
            None if has_servers => None,
            None => self.contexts().selected(),
        };
        let mut found = match name {
            Some(name) => self.context_table(&name)?,
            None => Table::new(),
        };
        merge(&mut found, variables);
        Ok(found)
    }

    fn contexts(&self) -> Contexts {
        let variable = |name| self.environment.get(name).map(String::as_str);
        Contexts::new(variable("XDG_CONFIG_HOME"), variable("HOME"))
    }

    fn context_table(&self, name: &str) -> Result<Table, Error> {
        let settings = self.contexts().read(name)?;
        log::debug!("settings: taking the context {name} of the nats command");
        let settings = settings.into_iter().map(|(key, value)| (key, broker_value(key, &value)));
        Ok(broker_table(settings))
    }
}

/// Whether the broker beside the database, the `NATS_*` variables and contexts count.
#[derive(Clone, Copy)]
enum Surroundings {
    Asked,
    Ignored,
}

impl BrokerArgs {
    fn table(&self) -> Table {
        let one = |value: &Option<String>| value.clone().map(Value::String);
        let servers = (!self.servers.is_empty()).then(|| list(self.servers.iter().map(String::as_str)));
        let values = [
            ("servers", servers),
            ("user", one(&self.user)),
            ("password", one(&self.password)),
            ("password_file", one(&self.password_file)),
            ("token", one(&self.token)),
            ("token_file", one(&self.token_file)),
            ("creds", one(&self.creds)),
            ("nkey", one(&self.nkey)),
            ("jwt", one(&self.jwt)),
            ("tls.cert", one(&self.tlscert)),
            ("tls.key", one(&self.tlskey)),
            ("tls.ca", one(&self.tlsca)),
            ("domain", one(&self.js_domain)),
            ("api_prefix", one(&self.js_api_prefix)),
            ("inbox_prefix", one(&self.inbox_prefix)),
            ("timeout", one(&self.timeout.map(|timeout| timeout.to_string()))),
            ("connection_name", one(&self.connection_name)),
            ("stream", one(&self.stream)),
        ];
        broker_table(values.into_iter().filter_map(|(key, value)| Some((key, value?))))
    }
}

/// A table of settings of `broker`; `tls.ca` is `ca` in its table `tls`.
fn broker_table<'a>(values: impl Iterator<Item = (&'a str, Value)>) -> Table {
    let mut table = Table::new();
    for (key, value) in values {
        merge_keys(&mut table, nested(&format!("broker.{key}"), ".", value));
    }
    table
}

/// A setting of `broker` that was given as text.
fn broker_value(key: &str, text: &str) -> Value {
    if key == "servers" { list(text.split(',')) } else { Value::String(text.to_owned()) }
}

/// The variables that concern us.
fn ours(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment, Error> {
    let mut environment = Environment::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        let is_setting = name.starts_with("CATCHMENT_") && !NO_SETTINGS.contains(&name.as_str());
        let is_nats = NATS_VARIABLES.iter().any(|(nats, _)| *nats == name);
        if is_setting || is_nats || CONTEXT_VARIABLES.contains(&name.as_str()) {
            match value.into_string() {
                Ok(value) => _ = environment.insert(name, value),
                // Then there are no contexts to be found.
                Err(_) if ["XDG_CONFIG_HOME", "HOME"].contains(&name.as_str()) => {}
                Err(_) => return Err(refused(&name, "its value is no UTF-8")),
            }
        }
    }
    Ok(environment)
}

/// What the `CATCHMENT_*` variables say.
fn environment_table(environment: &Environment) -> Result<Table, Error> {
    let mut table = Table::new();
    for (name, value) in environment {
        let Some(key) = name.strip_prefix("CATCHMENT_") else { continue };
        merge(&mut table, variable(&key.to_lowercase(), value).map_err(|reason| refused(name, reason))?);
    }
    Ok(table)
}

/// A variable's value is what TOML makes of it, where that fits the setting; else text; else a list at its commas.
fn variable(key: &str, value: &str) -> Result<Table, String> {
    let as_toml = value.parse::<Value>().ok();
    let as_text = Value::String(value.to_owned());
    let as_list = list(value.split(','));
    let mut first_reason = None;
    for value in as_toml.into_iter().chain([as_text, as_list]) {
        let table = nested(key, "__", value);
        match read(table.clone()) {
            Ok(_) => return Ok(table),
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    Err(first_reason.unwrap_or_default())
}

/// `database__path` is `path` in table `database`, where `__` is what parts them.
fn nested(key: &str, parting: &str, value: Value) -> Table {
    match key.split_once(parting) {
        Some((outer, inner)) => Table::from_iter([(outer.to_owned(), Value::Table(nested(inner, parting, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> Value {
    let items = items.map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

/// The broker of `NATS_*` variables, of which an empty one counts as absent.
fn nats_table(environment: &Environment) -> Result<Table, Error> {
    let mut found = Vec::new();
    for (name, key) in NATS_VARIABLES {
        let Some(value) = environment.get(name).filter(|value| !value.is_empty()) else { continue };
        if key == "timeout" {
            let reason = |e| format!("{value:?} is no duration: {e}; one looks like 5s");
            humantime::parse_duration(value).map_err(|e| refused(name, reason(e)))?;
        }
        found.push((key, broker_value(key, value)));
    }
    Ok(broker_table(found.into_iter()))
}

/// The address that `catchment run --with-server` left beside the database.
fn server_beside(database: &Path) -> Option<String> {
    let file = beside(database, "server");
    let text = std::fs::read_to_string(&file).ok()?;
    let url = text.lines().next()?.trim();
    if !url.contains("://") {
        return None;
    }
    log::debug!("broker: taking the server named in {}", file.display());
    Some(url.to_owned())
}

fn file_table(file: &Path) -> Result<Table, Error> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| refused(name.to_string(), format!("cannot be read: {e}; name another with --config")))?;
    let located = |error: &toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        refused(format!("{name}:{line}"), one_line(error.message()))
    };
    toml::from_str::<Config>(&text).map_err(|e| located(&e))?;
    toml::from_str(&text).map_err(|e| located(&e))
}

fn read(table: Table) -> Result<Config, String> {
    Config::deserialize(Value::Table(table)).map_err(|e| one_line(e.message()))
}

/// The reason why TOML or a setting was refused, in one line and without the value where that may be a secret: a
/// password that looks like a number, a server's address that should be in a list.
fn one_line(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ").replace("unknown field", "unknown key");
    // In words of the file, not of the program.
    let message = message.replace("expected usize", "expected a whole number");
    let message = message.replace("expected a duration", "expected a duration, as \"5s\"");
    let Some(found) = message.strip_prefix("invalid type: ") else { return message };
    match (found.find(['"', '`']), found.rfind(", expected ")) {
        (Some(value), Some(expected)) if value < expected => {
            format!("invalid type: {}{}", found[..value].trim_end(), &found[expected..])
        }
        _ => message,
    }
}

fn refused(key: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::config(key, reason)
}

fn setting<'a>(table: &'a Table, section: &str, key: &str) -> Option<&'a Value> {
    table.get(section)?.get(key)
}

/// Lays a source over those below it, key by key; lists are replaced whole.
fn merge(below: &mut Table, above: Table) {
    if let (Some(Value::Table(below)), Some(Value::Table(above))) = (below.get_mut("broker"), above.get("broker")) {
        drop_other_ways_in(below, above);
    }
    merge_keys(below, above);
}

fn merge_keys(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge_keys(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// A token given as a flag must not meet the user and password of the file, as if both had been given.
fn drop_other_ways_in(below: &mut Table, above: &Table) {
    for [one, other] in EITHER_OR {
        for (given, dropped) in [(one, other), (other, one)] {
            if above.contains_key(given) {
                below.remove(dropped);
            }
        }
    }
    let gives = |way: &[&str]| way.iter().any(|key| above.contains_key(*key));
    let in_address = above.get("servers").is_some_and(|servers| texts(servers).any(|server| server.contains('@')));
    if !in_address && !WAYS_IN.iter().any(|way| gives(way)) {
        return;
    }
    for key in WAYS_IN.iter().filter(|way| !gives(way)).copied().flatten() {
        below.remove(*key);
    }
    if let Some(Value::Array(servers)) = below.get_mut("servers") {
        for server in servers {
            if let Value::String(server) = server {
                *server = without_login(server);
            }
        }
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests;
