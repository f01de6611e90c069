//! The settings of a command, from all sources.
//!
//! Precedence, highest first: flags, the context that `--context` names, `CATCHMENT_*` variables, the file, implicit sources,
//! defaults. Implicit sources are the broker that `catchment run --with-server` started beside the database; without one, the `NATS_*`
//! variables of the `nats` command, then the context that `NATS_CONTEXT` names or `nats context select` selected. The selected
//! context is used only where nothing else names a server, because its credentials are for its own servers.
//! Each source is a TOML table. It is checked by itself first, so that an error names the place of the mistake.

mod addresses;
mod environment;
mod file;
mod merging;
mod origins;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::context::Contexts;
use super::quantities::{whole, written_duration};
use crate::broker::address_in;
use crate::config::{Config, DatabaseConfig, from_table, line_in};
use crate::error::{DatabaseFault, Error};
use crate::hint;
use crate::store::file_beside;
use environment::Environment;
use file::SettingsFile;
pub use file::{FileArgs, UnusedFileArgs};
use merging::{broker_table, list, merge, merge_keys, nested, value_at, with_new_keys};
pub use origins::Origins;
use origins::{Layer, Source};

/// The database.
#[derive(Args, Default)]
pub struct DatabaseArgs {
    /// The database file [default: database.path of the settings, else catchment.db]
    #[arg(short, long, value_name = "PATH")]
    database: Option<PathBuf>,
}

impl DatabaseArgs {
    /// As the flag gives it.
    pub fn of(database: Option<PathBuf>) -> Self {
        Self { database }
    }

    /// Whether the flag is given.
    pub fn is_given(&self) -> bool {
        self.database.is_some()
    }
}

/// The broker, the stream, and authentication. Serialized, its fields are settings of `[broker]` by their keys.
#[derive(Args, Default, Serialize)]
pub struct BrokerArgs {
    /// Servers of one cluster, separated by commas [below the settings file: NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(short, long = "server", value_name = "URL", help_heading = "Broker")]
    #[serde(skip)]
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
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true, conflicts_with = "password")]
    password_file: Option<String>,

    /// Token, instead of user and password [below the settings file: NATS_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = "Broker", allow_hyphen_values = true)]
    token: Option<String>,

    /// A file that holds the token
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true, conflicts_with = "token")]
    token_file: Option<String>,

    /// A credentials file (JWT and seed), instead of the others [below the settings file: NATS_CREDS]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true)]
    creds: Option<String>,

    /// A file that holds an nkey's seed, instead of the others [below the settings file: NATS_NKEY]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true)]
    nkey: Option<String>,

    /// A file that holds the JWT of the --nkey
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true)]
    jwt: Option<String>,

    /// The client certificate, for servers that ask for one, PEM [below the settings file: NATS_CERT]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true)]
    #[serde(rename = "tls.cert")]
    tlscert: Option<String>,

    /// The private key of --tlscert [below the settings file: NATS_KEY]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true)]
    #[serde(rename = "tls.key")]
    tlskey: Option<String>,

    /// Authorities to trust instead of those of this machine, PEM [below the settings file: NATS_CA]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Broker", allow_hyphen_values = true)]
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
    #[arg(long, value_name = "TIME", value_parser = written_duration, help_heading = "Broker")]
    #[serde(serialize_with = "as_text")]
    timeout: Option<humantime::Duration>,

    /// The connection's name in the server's lists [default: catchment]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    connection_name: Option<String>,

    /// The stream [default: EVENTS]
    #[arg(long, value_name = "NAME", help_heading = "Broker")]
    stream: Option<String>,

    /// The partition of the stream, from 0; broker.partitions of the settings says how many there are
    #[arg(long, value_name = "NUMBER", help_heading = "Broker", value_parser = whole::<u32>(0..=1023, 0))]
    partition: Option<u32>,
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn as_text<S: Serializer>(duration: &Option<humantime::Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.to_string()).serialize(serializer)
}

/// What all sources together give.
struct Gathered {
    table: Table,
    /// The sources, the lowest first.
    layers: Vec<Layer>,
    flags: Table,
    /// The database that the flag names.
    path: Option<PathBuf>,
    address_file: Option<PathBuf>,
}

/// The settings of a command, with where they come from.
pub struct Explained<'s> {
    pub config: Config,
    pub origins: Origins<'s>,
    /// Why they cannot be used.
    pub error: Option<Error>,
}

/// All sources but the flags.
#[derive(Default)]
pub struct Settings {
    file: SettingsFile,
    environment: Environment,
}

impl Settings {
    /// Takes the settings file and the environment of the process. Logs a file that nothing names with this level, and a warning for
    /// variables that are no settings.
    pub fn new(file: &FileArgs, unnamed: log::Level) -> Result<Self, Error> {
        let file = file.choose()?;
        file.log_unnamed(unnamed);
        Ok(Self { file, environment: Environment::of(std::env::vars_os())? })
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.path()
    }

    /// The file, if a flag or a variable names it.
    pub fn named_file(&self) -> Option<&Path> {
        self.file.named_path()
    }

    /// The flag, with a space before it, that makes another command use the same file. Empty if none is needed.
    pub fn file_flag(&self) -> String {
        self.file.flag()
    }

    /// For a command that uses the database and no broker.
    pub fn for_database(&self, database: &DatabaseArgs) -> Result<Config, Error> {
        self.config(database, None, Table::new(), ImplicitSources::Ignored)
    }

    /// For a command that uses a broker.
    pub fn for_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, broker.context.as_deref(), broker.table()?, ImplicitSources::Used)
    }

    /// For a command that starts its own broker: implicit sources are ignored. The caller replaces the broker's settings from other
    /// sources.
    pub fn for_own_broker(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Config, Error> {
        self.config(database, None, broker.table()?, ImplicitSources::Ignored)
    }

    /// As [`Settings::for_broker`], for people: also if the settings contradict each other.
    pub fn explained(&self, database: &DatabaseArgs, broker: &BrokerArgs) -> Result<Explained<'_>, Error> {
        let gathered = self.gather(database, broker.context.as_deref(), broker.table()?, ImplicitSources::Used)?;
        let Gathered { table, layers, flags: given, path, address_file } = gathered;
        let config = read(table, path, address_file)?;
        let (config, error) = match config.resolved() {
            Ok(resolved) => (resolved.clone(), resolved.validate().err()),
            Err(error) => (config, Some(error)),
        };
        let error = error.map(|error| self.with_origin(error, &given));
        Ok(Explained { config, origins: Origins::new(layers, flags(), &self.environment, self.file.path()), error })
    }

    fn config(
        &self,
        database: &DatabaseArgs,
        context: Option<&str>,
        flags: Table,
        implicit: ImplicitSources,
    ) -> Result<Config, Error> {
        let Gathered { table, flags, path, address_file, .. } = self.gather(database, context, flags, implicit)?;
        let config = read(table, path, address_file)?;
        let checked = config.resolved().and_then(|config| config.validate().map(|()| config));
        let config = checked.map_err(|error| self.with_origin(error, &flags))?;
        let mut used = self.file_flag();
        if database.is_given() {
            used = format!("{used} --database {}", hint::word(&config.database.path.to_string_lossy()));
        }
        if let Some(partition) = value_at(&flags, "broker.partition") {
            used = format!("{used} --partition {partition}");
        }
        hint::note_flags(used);
        Ok(config)
    }

    fn gather(
        &self,
        database: &DatabaseArgs,
        context: Option<&str>,
        flags: Table,
        implicit: ImplicitSources,
    ) -> Result<Gathered, Error> {
        let mut given = vec![
            Layer { source: Source::File, table: with_new_keys(self.file.table()?) },
            Layer { source: Source::Variables, table: self.environment.own_table()? },
        ];
        if let Some(name) = context {
            given.push(self.context_layer(name, "--context")?);
        }
        let path = database.database.clone();
        let mut all_flags = flags.clone();
        if let Some(path) = &path {
            let path = Value::String(path.to_string_lossy().into_owned());
            merge_keys(&mut all_flags, nested("database.path", ".", path));
        }
        given.push(Layer { source: Source::Flags, table: flags });
        let mut table = merged(&given);
        let mut address_file = None;
        let mut layers = match implicit {
            ImplicitSources::Used => {
                let path = path.clone().or_else(|| value_at(&table, "database.path")?.as_str().map(PathBuf::from));
                let path = path.unwrap_or_else(|| DatabaseConfig::default().path);
                let has_servers = value_at(&table, "broker.servers").is_some();
                let file = Some(file_beside(&path, ".server")).filter(|_| !has_servers);
                address_file = file.filter(|file| address_in(file).is_some());
                self.implicit_layers(&path, has_servers, context.is_some())?
            }
            ImplicitSources::Ignored => Vec::new(),
        };
        // What implicit sources say of authentication is compared with all others together.
        let mut all = merged(&layers);
        merge(&mut all, std::mem::take(&mut table));
        layers.append(&mut given);
        layers.push(Layer { source: Source::Flags, table: all_flags.clone() });
        Ok(Gathered { table: all, layers, flags: all_flags, path, address_file })
    }

    /// The error of a setting that cannot be used, with where the setting comes from: the flag, the variable, or the line of the file.
    fn with_origin(&self, error: Error, flags: &Table) -> Error {
        let Error::Config { key, detail, remedy } = error else { return error };
        let is_in = |source: &Table| value_at(source, &key).is_some();
        let in_file = || {
            let file = self.file.path()?;
            Some(format!("{}:{}: {key}", file.display(), line_in(file, &key)?))
        };
        if is_in(flags) {
            let (detail, remedy) = (with_flags(&detail), remedy.map(|remedy| with_flags(&remedy)));
            return Error::Config { key: flag_of(&key).unwrap_or(key), detail, remedy };
        }
        let key = if let Some(name) = self.environment.name_of(&key) {
            name
        } else {
            let of_nats = || self.environment.nats_name_of(&key).map(str::to_owned);
            in_file().or_else(of_nats).unwrap_or(key)
        };
        Error::Config { key, detail, remedy }
    }

    /// The error of a setting that a running collector cannot take over, with the line of the file that has it.
    pub fn with_place(&self, error: Error) -> Error {
        self.with_origin(error, &Table::new())
    }

    /// The error of a start. That of a route, a query or the migrations gets the line of the file that has it.
    pub fn with_line(&self, error: Error, config: &Config) -> Error {
        if let Error::Config { key, .. } = &error {
            let is_of_sql = ["route ", "query ", "retention."].iter().any(|list| key.starts_with(list))
                || key == "database.migrations";
            return if is_of_sql { self.with_origin(error, &Table::new()) } else { error };
        }
        let Error::Database { fault: DatabaseFault::Statement, path, detail, remedy, source } = error else {
            return error;
        };
        let routes = config.routes.iter().map(|route| format!("route {}", route.name()));
        let queries = config.queries.iter().map(|query| format!("query {}", query.name()));
        let is_of = |setting: &String| detail.strip_prefix(&**setting).is_some_and(|rest| rest.starts_with([',', ':']));
        let setting = routes.chain(queries).filter(is_of).max_by_key(String::len);
        let place = setting.and_then(|setting| {
            let file = self.file.path()?;
            Some(format!("{}:{}: ", file.display(), line_in(file, &setting)?))
        });
        let detail = place.unwrap_or_default() + &detail;
        Error::Database { fault: DatabaseFault::Statement, path, detail, remedy, source }
    }

    /// Whether something names the servers that outranks the broker beside the database: these flags, the environment or the file.
    pub fn names_servers(&self, broker: &BrokerArgs) -> Result<bool, Error> {
        let sources = [self.file.table()?, self.environment.own_table()?, broker.table()?];
        let is_named = sources.iter().any(|source| value_at(source, "broker.servers").is_some());
        Ok(is_named || broker.context.is_some())
    }

    /// The implicit sources, the lowest first. A broker beside the database replaces `NATS_*` variables and contexts, credentials
    /// included. A context that a flag names replaces other contexts.
    fn implicit_layers(&self, database: &Path, has_servers: bool, has_context: bool) -> Result<Vec<Layer>, Error> {
        let variables = self.environment.nats_table()?;
        if !has_servers && let Some(server) = server_beside(database) {
            let found = broker_table(std::iter::once(("servers", list(std::iter::once(server.as_str())))));
            let mut layers =
                vec![Layer { source: Source::AddressFile(file_beside(database, ".server")), table: found }];
            if let Some(timeout) = value_at(&variables, "broker.timeout") {
                let table = broker_table(std::iter::once(("timeout", timeout.clone())));
                layers.push(Layer { source: Source::NatsVariables, table });
            }
            return Ok(layers);
        }
        let named = self.environment.get("NATS_CONTEXT").filter(|name| !name.is_empty());
        let has_servers = has_servers || value_at(&variables, "broker.servers").is_some();
        let context = match named {
            _ if has_context => None,
            Some(name) => Some((name.to_owned(), "NATS_CONTEXT")),
            None if has_servers => None,
            None => self.contexts().selected()?.map(|name| (name, "selected")),
        };
        let context = context.map(|(name, named_by)| self.context_layer(&name, named_by)).transpose()?;
        Ok(context.into_iter().chain([Layer { source: Source::NatsVariables, table: variables }]).collect())
    }

    fn contexts(&self) -> Contexts {
        Contexts::new(self.environment.get("XDG_CONFIG_HOME"), self.environment.get("HOME"))
    }

    fn context_layer(&self, name: &str, named_by: &'static str) -> Result<Layer, Error> {
        let settings = self.contexts().read(name)?;
        log::debug!("settings: using the context {name} of the nats command");
        let value = |(key, text): (&'static str, String)| Ok((key, addresses::value_of(key, &text)?));
        let settings = settings.into_iter().map(value).collect::<Result<Vec<_>, String>>();
        let settings =
            settings.map_err(|reason| Error::config(format!("context {name}"), format!("its url {reason}")))?;
        let source = Source::Context { name: name.to_owned(), named_by };
        Ok(Layer { source, table: broker_table(settings.into_iter()) })
    }
}

/// These sources, the lowest first, merged.
fn merged(layers: &[Layer]) -> Table {
    layers.iter().fold(Table::new(), |mut below, above| {
        merge(&mut below, above.table.clone());
        below
    })
}

/// Reads merged settings. Each source was checked by itself before, so all keys are known.
fn read(table: Table, path: Option<PathBuf>, address_file: Option<PathBuf>) -> Result<Config, Error> {
    let mut config = from_table(table).map_err(|reason| Error::config("settings", reason))?;
    if let Some(path) = path {
        config.database.path = path;
    }
    config.broker.address_file = address_file;
    Ok(config)
}

/// Whether to use the broker beside the database, the `NATS_*` variables and contexts.
#[derive(Clone, Copy)]
enum ImplicitSources {
    Used,
    Ignored,
}

impl BrokerArgs {
    /// The stream that the flag names.
    pub fn stream(&self) -> Option<&str> {
        self.stream.as_deref()
    }

    fn table(&self) -> Result<Table, Error> {
        let given = Table::try_from(self).expect("flags are texts");
        let mut table = broker_table(given.iter().map(|(key, value)| (key.as_str(), value.clone())));
        if !self.servers.is_empty() {
            let addresses = self.servers.iter().map(|text| addresses::list_of(text)).collect::<Result<Vec<_>, _>>();
            let addresses = addresses.map_err(|reason| Error::config("--server", reason))?.concat();
            let servers = list(addresses.iter().map(String::as_str));
            merge_keys(&mut table, broker_table(std::iter::once(("servers", servers))));
        }
        Ok(table)
    }
}

/// The address in the file that `catchment run --with-server` writes beside the database.
fn server_beside(database: &Path) -> Option<String> {
    let file = file_beside(database, ".server");
    let url = address_in(&file)?;
    log::debug!("broker: using the server named in {}", file.display());
    Some(url)
}

/// The flag of a setting.
fn flag_of(setting: &str) -> Option<String> {
    flags().into_iter().find_map(|(name, flag)| (name == setting).then_some(flag))
}

/// Settings and their flags, from the definitions of the arguments.
pub fn flags() -> Vec<(String, String)> {
    let command = DatabaseArgs::augment_args(BrokerArgs::augment_args(Command::new("settings")));
    let pairs = command.get_arguments().filter_map(|argument| {
        let (setting, flag) = (setting_of(argument.get_id().as_str())?, argument.get_long()?);
        Some((setting, format!("--{flag}")))
    });
    pairs.collect()
}

/// A text with flags in the place of the settings that it names.
pub fn with_flags(text: &str) -> String {
    let flags = flags();
    let words = text.split(' ').map(|word| {
        let setting = word.trim_matches(['(', ')', ',', ';', '.', '?', '`']);
        match flags.iter().find(|(name, _)| name == setting) {
            Some((_, flag)) => Cow::Owned(word.replace(setting, flag)),
            None => Cow::Borrowed(word),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The setting that an argument of this name gives. A context gives several.
fn setting_of(argument: &str) -> Option<String> {
    match argument {
        "context" => None,
        "database" => Some("database.path".into()),
        _ => Some(match argument.strip_prefix("tls") {
            Some(part) => format!("broker.tls.{part}"),
            None => format!("broker.{}", argument.strip_prefix("js_").unwrap_or(argument)),
        }),
    }
}

#[cfg(test)]
mod tests;
