//! The settings of a command, from all sources.
//!
//! Precedence, highest first: flags, the context that `--context` names, `CATCHMENT_*` variables, the file, implicit sources,
//! defaults. Implicit sources are the broker that `catchment run --with-server` started beside the database; without one, the `NATS_*`
//! variables of the `nats` command, then the context that `NATS_CONTEXT` names or `nats context select` selected. The selected
//! context is used only where nothing else names a server, because its credentials are for its own servers.
//! Each source is a TOML table. It is checked by itself first, so that an error names the place of the mistake.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize, Serializer};
use toml::{Table, Value};

use super::context::Contexts;
use crate::broker::address_in;
use crate::config::{AuthenticationSetting, Config, DatabaseConfig, without_login};
use crate::error::Error;
use crate::store::beside;

/// `CATCHMENT_*` variables that are flags of the command, not settings of the library.
const COMMAND_VARIABLES: [&str; 4] = ["CATCHMENT_CONFIG", "CATCHMENT_LOG", "CATCHMENT_LOG_FORMAT", "CATCHMENT_PROFILE"];

/// The variables of the `nats` command, and the setting in `[broker]` for each.
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

/// The variables that name a context or the folder of contexts.
const CONTEXT_VARIABLES: [&str; 3] = ["NATS_CONTEXT", "XDG_CONFIG_HOME", "HOME"];

/// Two settings of `[broker]` that exclude each other; the one from the higher source is used.
const EXCLUSIVE: [&str; 2] = ["domain", "api_prefix"];

/// The database.
#[derive(Args, Default)]
pub struct DatabaseArgs {
    /// The database file [default: database.path of the settings, else catchment.db]
    #[arg(short, long, value_name = "PATH")]
    database: Option<PathBuf>,
}

impl DatabaseArgs {
    /// Whether the flag is given.
    pub fn is_given(&self) -> bool {
        self.database.is_some()
    }
}

/// The broker, the stream, and authentication. Serialized, its fields are settings of `[broker]` by their keys.
#[derive(Args, Default, Serialize)]
pub struct BrokerArgs {
    /// Servers of one cluster, separated by commas [below the settings file: NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(short, long = "server", value_name = "URL", value_delimiter = ',', help_heading = "Broker")]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "trimmed")]
    servers: Vec<String>,

    /// Take servers, credentials and the rest from this context of the nats command [below the settings file: NATS_CONTEXT; where
    /// nothing names a server, the selected context]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    #[serde(skip)]
    context: Option<String>,

    /// User name [below the settings file: NATS_USER]
    #[arg(long, value_name = "NAME", help_heading = "Broker", allow_hyphen_values = true)]
    user: Option<String>,

    /// Password. Other users of this machine can see flags; a file is safer [below the settings file: NATS_PASSWORD]
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

    /// A credentials file (JWT and seed), instead of the others [below the settings file: NATS_CREDS]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    creds: Option<String>,

    /// A file that holds an nkey's seed, instead of the others [below the settings file: NATS_NKEY]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    nkey: Option<String>,

    /// A file that holds the JWT of the --nkey
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    jwt: Option<String>,

    /// The client certificate, for servers that ask for one, PEM [below the settings file: NATS_CERT]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    #[serde(rename = "tls.cert")]
    tlscert: Option<String>,

    /// The private key of --tlscert [below the settings file: NATS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    #[serde(rename = "tls.key")]
    tlskey: Option<String>,

    /// Authorities to trust instead of those of this machine, PEM [below the settings file: NATS_CA]
    #[arg(long, value_name = "FILE", help_heading = "Broker", allow_hyphen_values = true)]
    #[serde(rename = "tls.ca")]
    tlsca: Option<String>,

    /// The JetStream domain
    #[arg(long, value_name = "DOMAIN", help_heading = "Broker")]
    #[serde(rename = "domain")]
    js_domain: Option<String>,

    /// The prefix of JetStream requests, instead of a domain [default: $JS.API]
    #[arg(long, value_name = "PREFIX", help_heading = "Broker", conflicts_with = "js_domain")]
    #[serde(rename = "api_prefix")]
    js_api_prefix: Option<String>,

    /// The prefix of the subjects on which replies are received [default: _INBOX]
    #[arg(long, value_name = "PREFIX", help_heading = "Broker")]
    inbox_prefix: Option<String>,

    /// The longest that connecting, or one answer, may take [below the settings file: NATS_TIMEOUT] [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "Broker")]
    #[serde(serialize_with = "as_text")]
    timeout: Option<humantime::Duration>,

    /// The connection's name in the server's lists [default: catchment]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    connection_name: Option<String>,

    /// The stream [default: EVENTS]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    stream: Option<String>,
}

fn trimmed<S: Serializer>(servers: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    list(servers.iter().map(String::as_str)).serialize(serializer)
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn as_text<S: Serializer>(duration: &Option<humantime::Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.to_string()).serialize(serializer)
}

/// All sources but the flags.
pub struct Settings {
    file: Option<PathBuf>,
    environment: Environment,
}

type Environment = BTreeMap<String, String>;

impl Settings {
    /// Takes this file, else the one that `CATCHMENT_CONFIG` names, and the environment of the process.
    pub fn new(file: Option<PathBuf>) -> Result<Self, Error> {
        let named = || std::env::var_os("CATCHMENT_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        Ok(Self { file: file.or_else(named), environment: relevant(std::env::vars_os())? })
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// For a command that uses the database and no broker.
    pub fn for_database(&self, database: &DatabaseArgs) -> Result<Config, Error> {
        self.config(database, None, Table::new(), ImplicitSources::Ignored)
    }

    /// For a command that uses a broker.
    pub fn for_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, broker.context.as_deref(), broker.table(), ImplicitSources::Used)
    }

    /// For a command that starts its own broker: implicit sources are ignored. The caller replaces the broker's settings from other
    /// sources.
    pub fn for_own_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, None, broker.table(), ImplicitSources::Ignored)
    }

    fn config(
        &self,
        database: &DatabaseArgs,
        context: Option<&str>,
        flags: Table,
        implicit: ImplicitSources,
    ) -> Result<Config, Error> {
        let mut given = Table::new();
        if let Some(file) = &self.file {
            merge(&mut given, with_new_keys(file_table(file)?));
        }
        merge(&mut given, environment_table(&self.environment)?);
        if let Some(name) = context {
            merge(&mut given, self.context_table(name)?);
        }
        merge(&mut given, flags);
        let path = database.database.clone();
        let mut address_file = None;
        let mut all = match implicit {
            ImplicitSources::Used => {
                let path = path.clone().or_else(|| setting(&given, "database", "path")?.as_str().map(PathBuf::from));
                let path = path.unwrap_or_else(|| DatabaseConfig::default().path);
                let has_servers = setting(&given, "broker", "servers").is_some();
                let file = Some(beside(&path, "server")).filter(|_| !has_servers);
                address_file = file.filter(|file| address_in(file).is_some());
                self.implicit_table(&path, has_servers, context.is_some())?
            }
            ImplicitSources::Ignored => Table::new(),
        };
        merge(&mut all, given);
        // Each source was checked by itself before, so all keys are known.
        let mut config = read(all).map_err(|reason| refused("settings", reason))?;
        if let Some(path) = path {
            config.database.path = path;
        }
        config.broker.address_file = address_file;
        let config = config.resolved()?;
        config.validate()?;
        Ok(config)
    }

    /// Whether something names the servers that outranks the broker beside the database: these flags, the environment or the file.
    pub fn names_servers(&self, broker: &BrokerArgs) -> Result<bool, Error> {
        let file = self.file.as_deref().map_or_else(|| Ok(Table::new()), file_table)?;
        let sources = [file, environment_table(&self.environment)?, broker.table()];
        let is_named = sources.iter().any(|source| setting(source, "broker", "servers").is_some());
        Ok(is_named || broker.context.is_some())
    }

    /// The settings of implicit sources. A broker beside the database replaces `NATS_*` variables and contexts, credentials included.
    /// A context that a flag names replaces other contexts.
    fn implicit_table(&self, database: &Path, has_servers: bool, has_context: bool) -> Result<Table, Error> {
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
        log::debug!("settings: using the context {name} of the nats command");
        let settings = settings.into_iter().map(|(key, value)| (key, broker_value(key, &value)));
        Ok(broker_table(settings))
    }
}

/// Whether to use the broker beside the database, the `NATS_*` variables and contexts.
#[derive(Clone, Copy)]
enum ImplicitSources {
    Used,
    Ignored,
}

impl BrokerArgs {
    fn table(&self) -> Table {
        let given = Table::try_from(self).expect("flags are texts and a list of texts");
        broker_table(given.iter().map(|(key, value)| (key.as_str(), value.clone())))
    }
}

/// A table with these settings of `[broker]`; `tls.ca` is `ca` in its table `tls`.
fn broker_table<'a>(values: impl Iterator<Item = (&'a str, Value)>) -> Table {
    let mut table = Table::new();
    for (key, value) in values {
        merge_keys(&mut table, nested(&format!("broker.{key}"), ".", value));
    }
    table
}

/// The value of a setting of `[broker]` that is given as text.
fn broker_value(key: &str, text: &str) -> Value {
    if key == "servers" { list(text.split(',')) } else { Value::String(text.to_owned()) }
}

/// The variables that are settings, or name a context.
fn relevant(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment, Error> {
    let mut environment = Environment::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        let is_setting = name.starts_with("CATCHMENT_") && !COMMAND_VARIABLES.contains(&name.as_str());
        let is_nats = NATS_VARIABLES.iter().any(|(nats, _)| *nats == name);
        if is_setting || is_nats || CONTEXT_VARIABLES.contains(&name.as_str()) {
            match value.into_string() {
                Ok(value) => _ = environment.insert(name, value),
                // Then there is no folder of contexts.
                Err(_) if ["XDG_CONFIG_HOME", "HOME"].contains(&name.as_str()) => {}
                Err(_) => return Err(refused(&name, "its value is not UTF-8")),
            }
        }
    }
    Ok(environment)
}

/// The settings of the `CATCHMENT_*` variables.
fn environment_table(environment: &Environment) -> Result<Table, Error> {
    let mut table = Table::new();
    for (name, value) in environment {
        let Some(key) = name.strip_prefix("CATCHMENT_") else { continue };
        let variable = variable(&key.to_lowercase(), value).map_err(|reason| refused(name, reason))?;
        // Variables are one source: two ways to authenticate are refused later, whichever comes first.
        merge_keys(&mut table, with_new_keys(variable));
    }
    Ok(table)
}

/// A variable's value is read as TOML if that fits the setting; else as text; else as a list with commas.
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

/// With separator `__`, `database__path` is `path` in table `database`.
fn nested(key: &str, separator: &str, value: Value) -> Table {
    match key.split_once(separator) {
        Some((outer, inner)) => Table::from_iter([(outer.to_owned(), Value::Table(nested(inner, separator, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> Value {
    let items = items.map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

/// The settings of the `NATS_*` variables; an empty one counts as absent.
fn nats_table(environment: &Environment) -> Result<Table, Error> {
    let mut found = Vec::new();
    for (name, key) in NATS_VARIABLES {
        let Some(value) = environment.get(name).filter(|value| !value.is_empty()) else { continue };
        if key == "timeout" {
            let reason = |e| format!("{value:?} is not a duration: {e}; an example is 5s");
            humantime::parse_duration(value).map_err(|e| refused(name, reason(e)))?;
        }
        found.push((key, broker_value(key, value)));
    }
    Ok(broker_table(found.into_iter()))
}

/// The address in the file that `catchment run --with-server` writes beside the database.
fn server_beside(database: &Path) -> Option<String> {
    let file = beside(database, "server");
    let url = address_in(&file)?;
    log::debug!("broker: using the server named in {}", file.display());
    Some(url)
}

fn file_table(file: &Path) -> Result<Table, Error> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| {
        refused(name.to_string(), format!("cannot be read: {e}")).with_remedy("name another with --config")
    })?;
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

/// Why TOML or a setting was refused, in one line. The value is left out where it may be a secret: a password that looks like a
/// number, a server's address outside a list.
fn one_line(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ").replace("unknown field", "unknown key");
    // The words of the file, not of the program.
    let message = message.replace("expected usize", "expected a whole number");
    let message = message.replace("expected a duration", "expected a duration, as \"5s\"");
    let message = message.replace("expected parsable string", "expected a size, as \"4MiB\"");
    let message = match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected a table"),
        None => message,
    };
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

/// The earlier key of `broker.prefetch` is `ahead`. Two sources may use one key each.
fn with_new_keys(mut source: Table) -> Table {
    if let Some(Value::Table(broker)) = source.get_mut("broker")
        && let Some(prefetch) = broker.remove("ahead")
    {
        broker.insert("prefetch".into(), prefetch);
    }
    source
}

/// Merges a source into the lower ones, key by key; lists are replaced whole.
fn merge(below: &mut Table, above: Table) {
    if let (Some(Value::Table(below)), Some(Value::Table(above))) = (below.get_mut("broker"), above.get("broker")) {
        drop_other_authentication(below, above);
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

/// Where a source gives one way to authenticate, removes the other ways from the lower sources: a token given as a flag must not
/// contradict the user and password of the file.
fn drop_other_authentication(below: &mut Table, above: &Table) {
    let alternatives =
        AuthenticationSetting::ALL.into_iter().filter_map(|one| Some((one.key(), one.alternative()?.key())));
    let [domain, api_prefix] = EXCLUSIVE;
    for (given, dropped) in alternatives.chain([(domain, api_prefix), (api_prefix, domain)]) {
        if above.contains_key(given) {
            below.remove(dropped);
        }
    }
    let given: Vec<_> = AuthenticationSetting::ALL.into_iter().filter(|one| above.contains_key(one.key())).collect();
    let in_address = above.get("servers").is_some_and(|servers| texts(servers).any(|server| server.contains('@')));
    if given.is_empty() && !in_address {
        return;
    }
    for other in AuthenticationSetting::ALL {
        if !given.iter().any(|given| given.method() == other.method()) {
            below.remove(other.key());
        }
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
