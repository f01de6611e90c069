//! The library's settings from everywhere a user may give them.
//!
//! Flags outrank `CATCHMENT_*` variables, these the file, this what was found in the surroundings: the broker that
//! `catchment run --with-server` started beside the database, else the `NATS_*` variables that the `nats` command knows.
//! Each source is a table of TOML, read by itself first, so that a mistake is told with the place it was made in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use catchment::config::{Config, DatabaseConfig};
use catchment::error::Error;
use catchment::store::beside;
use clap::Args;
use serde::Deserialize;
use toml::{Table, Value};

/// Variables of ours that are no settings of the library.
const NO_SETTINGS: [&str; 3] = ["CATCHMENT_CONFIG", "CATCHMENT_LOG", "CATCHMENT_LOG_FORMAT"];

/// The variables that the `nats` command knows, and our settings for them.
const NATS_VARIABLES: [(&str, &str); 6] = [
    ("NATS_URL", "servers"),
    ("NATS_USER", "user"),
    ("NATS_PASSWORD", "password"),
    ("NATS_TOKEN", "token"),
    ("NATS_CREDS", "creds"),
    ("NATS_TIMEOUT", "timeout"),
];

/// The ways to identify oneself to a broker. A source that gives one of them replaces those of lower sources.
const WAYS_IN: [&[&str]; 3] = [&["user", "password"], &["token"], &["creds"]];

/// Which database.
#[derive(Args, Default)]
pub struct DatabaseArgs {
    /// The database file [default: database.path of the settings, else catchment.db]
    #[arg(short, long, value_name = "PATH")]
    database: Option<PathBuf>,
}

/// Which broker and stream, and who we are to it.
#[derive(Args, Default)]
pub struct BrokerArgs {
    /// Servers of one cluster, separated by commas [below the settings file: NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(short, long = "server", value_name = "URL", value_delimiter = ',', help_heading = "Broker")]
    servers: Vec<String>,

    /// User name [below the settings file: NATS_USER]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    user: Option<String>,

    /// Password; a variable is safer, other users of this machine see flags [below the settings file: NATS_PASSWORD]
    #[arg(long, value_name = "PASSWORD", help_heading = "Broker")]
    password: Option<String>,

    /// Token, instead of user and password [below the settings file: NATS_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = "Broker")]
    token: Option<String>,

    /// Credentials file, instead of the others [below the settings file: NATS_CREDS]
    #[arg(long, value_name = "FILE", help_heading = "Broker")]
    creds: Option<String>,

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

    /// For a command that reads the database and meets no broker.
    pub fn for_database(&self, database: &DatabaseArgs) -> Result<Config, Error> {
        self.config(database, Table::new(), Surroundings::Ignored)
    }

    /// For a command that meets a broker.
    pub fn for_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, broker.table(), Surroundings::Asked)
    }

    /// For a command that starts a broker of its own: neither `NATS_*` variables nor another one's address count. Only
    /// `broker.servers` is left for the caller to set.
    pub fn for_own_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, broker.table(), Surroundings::Ignored)
    }

    fn config(&self, database: &DatabaseArgs, flags: Table, surroundings: Surroundings) -> Result<Config, Error> {
        let mut given = match &self.file {
            Some(file) => file_table(file)?,
            None => Table::new(),
        };
        merge(&mut given, environment_table(&self.environment)?);
        merge(&mut given, flags);
        let path = database.database.clone();
        let mut all = match surroundings {
            Surroundings::Asked => {
                let path = path.clone().or_else(|| setting(&given, "database", "path")?.as_str().map(PathBuf::from));
                let path = path.unwrap_or_else(|| DatabaseConfig::default().path);
                let has_servers = setting(&given, "broker", "servers").is_some();
                surroundings_table(&self.environment, if has_servers { None } else { server_beside(&path) })?
            }
            Surroundings::Ignored => Table::new(),
        };
        merge(&mut all, given);
        // Each source was read by itself before, so nothing here is unknown.
        let mut config = read(all).map_err(|reason| refused("settings", reason))?;
        if let Some(path) = path {
            config.database.path = path;
        }
        config.validate()?;
        Ok(config)
    }
}

/// Whether the broker beside the database and the `NATS_*` variables count.
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
            ("token", one(&self.token)),
            ("creds", one(&self.creds)),
            ("timeout", one(&self.timeout.map(|timeout| timeout.to_string()))),
            ("connection_name", one(&self.connection_name)),
            ("stream", one(&self.stream)),
        ];
        broker_table(values.into_iter().filter_map(|(key, value)| Some((key, value?))))
    }
}

fn broker_table<'a>(values: impl Iterator<Item = (&'a str, Value)>) -> Table {
    let values: Table = values.map(|(key, value)| (key.to_owned(), value)).collect();
    if values.is_empty() { Table::new() } else { Table::from_iter([("broker".to_owned(), Value::Table(values))]) }
}

/// The variables that concern us.
fn ours(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment, Error> {
    let mut environment = Environment::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        let is_setting = name.starts_with("CATCHMENT_") && !NO_SETTINGS.contains(&name.as_str());
        if is_setting || NATS_VARIABLES.iter().any(|(nats, _)| *nats == name) {
            let value = value.into_string().map_err(|_| refused(&name, "its value is no UTF-8"))?;
            environment.insert(name, value);
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
        let table = nested(key, value);
        match read(table.clone()) {
            Ok(_) => return Ok(table),
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    Err(first_reason.unwrap_or_default())
}

/// `database__path` is `path` in table `database`.
fn nested(key: &str, value: Value) -> Table {
    match key.split_once("__") {
        Some((outer, inner)) => Table::from_iter([(outer.to_owned(), Value::Table(nested(inner, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> Value {
    let items = items.map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

/// The broker of `NATS_*` variables, of which an empty one counts as absent. A broker beside the database stands in for
/// all that these say about another, who we are to it included.
fn surroundings_table(environment: &Environment, server_beside: Option<String>) -> Result<Table, Error> {
    let mut found = Vec::new();
    for (name, key) in NATS_VARIABLES {
        let Some(value) = environment.get(name).filter(|value| !value.is_empty()) else { continue };
        match key {
            "timeout" => {
                let reason = |e| format!("{value:?} is no duration: {e}; one looks like 5s");
                humantime::parse_duration(value).map_err(|e| refused(name, reason(e)))?;
            }
            _ if server_beside.is_some() => continue,
            _ => {}
        }
        found.push((key, if key == "servers" { list(value.split(',')) } else { Value::String(value.clone()) }));
    }
    found.extend(server_beside.map(|server| ("servers", list(std::iter::once(server.as_str())))));
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
    Error::Config { key: key.into(), reason: reason.into() }
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
    let gives = |way: &[&str]| way.iter().any(|key| above.contains_key(*key));
    if WAYS_IN.iter().any(|way| gives(way)) {
        for key in WAYS_IN.iter().filter(|way| !gives(way)).copied().flatten() {
            below.remove(*key);
        }
    }
}

#[cfg(test)]
mod tests;
