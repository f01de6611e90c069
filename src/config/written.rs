//! Settings as TOML values, in the order of the documentation and with secrets hidden: what `config show` prints, and the defaults in
//! the schema.
//!
//! Each struct is taken apart field by field: a new setting does not compile until it is written here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use toml::{Table, Value};

use super::secrets::{is_contents, is_jwt, without_secrets};
use super::{
    BackupConfig, BatchConfig, BrokerConfig, Checkpoints, Codec, Config, CoreConfig, CoreOverflow, DatabaseConfig,
    DeleteMarkers, Migrations, Mode, ObserveConfig, ParameterConfig, ParameterType, ParameterValue, PrefetchConfig,
    QueryConfig, RetentionConfig, RetentionRule, RouteConfig, RouteExample, ServiceConfig, Synchronous, TlsConfig,
    Unmatched, UpkeepConfig,
};

/// What is written in the place of a secret.
const HIDDEN: &str = "***";

/// A table of the settings file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Section {
    /// Its name, `broker.tls`; empty for the keys outside of tables; `route` and `query` for one of these lists.
    pub(crate) name: &'static str,
    /// Its number in its list, from 0.
    pub(crate) number: Option<usize>,
    /// Its keys and values. A setting without a value is left out.
    pub(crate) settings: Vec<(Cow<'static, str>, Value)>,
}

impl Section {
    /// The path of one of its settings: `broker.tls.ca`, `route[0].sql`.
    pub(crate) fn path(&self, key: &str) -> String {
        match (self.name, self.number) {
            ("", _) => key.to_owned(),
            (name, None) => format!("{name}.{key}"),
            (name, Some(number)) => format!("{name}[{number}].{key}"),
        }
    }
}

/// All settings. No secret is in them: no password, no token, no login of an address, no contents of a file.
pub(crate) fn sections(config: &Config) -> Vec<Section> {
    let Config {
        prefix,
        unmatched,
        delete_markers,
        broker,
        database,
        batch,
        routes,
        queries,
        service,
        backup,
        observe,
        retention,
        upkeep,
    } = config;
    let top = [
        prefix.as_deref().map(|prefix| ("prefix", text(prefix))),
        Some(("unmatched", text(of_unmatched(*unmatched)))),
        Some(("delete_markers", text(of_delete_markers(*delete_markers)))),
    ];
    let mut sections = vec![section("", top)];
    sections.extend(of_broker(broker));
    sections.extend([
        of_database(database),
        of_batch(batch),
        of_service(service),
        of_backup(backup),
        of_observe(observe),
        of_upkeep(upkeep),
    ]);
    sections.extend((!retention.is_empty()).then(|| of_retention(retention)));
    let routes = routes.iter().enumerate().map(|(number, route)| Section { number: Some(number), ..of_route(route) });
    let queries = queries.iter().enumerate().map(|(number, query)| Section { number: Some(number), ..of_query(query) });
    sections.extend(routes.chain(queries));
    sections
}

fn section(name: &'static str, settings: impl IntoIterator<Item = Option<(&'static str, Value)>>) -> Section {
    let settings = settings.into_iter().flatten().map(|(key, value)| (key.into(), value)).collect();
    Section { name, number: None, settings }
}

fn of_broker(broker: &BrokerConfig) -> [Section; 4] {
    let BrokerConfig {
        servers,
        // Not a setting.
        address_file: _,
        user,
        password,
        password_file,
        token,
        token_file,
        creds,
        nkey,
        jwt,
        tls,
        domain,
        api_prefix,
        inbox_prefix,
        mode,
        stream,
        subjects,
        create_stream,
        partitions,
        partition,
        timeout,
        wait,
        silence,
        retry,
        prefetch,
        core,
        connection_name,
    } = broker;
    let TlsConfig { required, ca, cert, key } = tls;
    let PrefetchConfig { events, bytes, requests, poll_interval } = prefetch;
    let CoreConfig { queue, max_events, max_bytes, overflow } = core;
    let jwt = jwt.as_deref().map(|jwt| if is_jwt(jwt) { text(HIDDEN) } else { file(Path::new(jwt)) });
    let named = |value: &Option<String>| value.as_deref().map(text);
    let hidden = |secret: &Option<String>| secret.as_ref().map(|_| text(HIDDEN));
    let path = |value: &Option<std::path::PathBuf>| value.as_deref().map(file);
    let own = [
        Some(("servers", list(servers.iter().map(|server| shown_address(server))))),
        named(user).map(|value| ("user", value)),
        hidden(password).map(|value| ("password", value)),
        path(password_file).map(|value| ("password_file", value)),
        hidden(token).map(|value| ("token", value)),
        path(token_file).map(|value| ("token_file", value)),
        path(creds).map(|value| ("creds", value)),
        path(nkey).map(|value| ("nkey", value)),
        jwt.map(|value| ("jwt", value)),
        named(domain).map(|value| ("domain", value)),
        named(api_prefix).map(|value| ("api_prefix", value)),
        named(inbox_prefix).map(|value| ("inbox_prefix", value)),
        Some(("mode", text(of_mode(*mode)))),
        Some(("stream", text(stream))),
        Some(("subjects", list(subjects.iter().cloned()))).filter(|_| !subjects.is_empty()),
        Some(("create_stream", Value::Boolean(*create_stream))),
        partitions.map(|number| ("partitions", Value::Integer(number.into()))),
        partition.map(|number| ("partition", Value::Integer(number.into()))),
        Some(("timeout", duration(*timeout))),
        Some(("wait", duration(*wait))),
        Some(("silence", duration(*silence))),
        Some(("retry", duration(*retry))),
        Some(("connection_name", text(connection_name))),
    ];
    let tls = [
        Some(("required", Value::Boolean(*required))),
        path(ca).map(|value| ("ca", value)),
        path(cert).map(|value| ("cert", value)),
        path(key).map(|value| ("key", value)),
    ];
    let prefetch = [
        ("events", number(*events)),
        ("bytes", size(*bytes)),
        ("requests", number(*requests)),
        ("poll_interval", duration(*poll_interval)),
    ];
    let core = [
        named(queue).map(|value| ("queue", value)),
        Some(("max_events", number(*max_events))),
        Some(("max_bytes", size(*max_bytes))),
        Some(("overflow", text(of_overflow(*overflow)))),
    ];
    [
        section("broker", own),
        section("broker.tls", tls),
        section("broker.prefetch", prefetch.map(Some)),
        section("broker.core", core),
    ]
}

fn of_database(database: &DatabaseConfig) -> Section {
    let DatabaseConfig {
        path,
        permissions,
        synchronous,
        checkpoint,
        writers,
        busy_timeout,
        forget_recorders,
        migrations,
    } = database;
    let migrations = match migrations {
        Some(Migrations::Folder(folder)) => Some(file(folder)),
        // A file has none of these.
        Some(Migrations::Scripts(_)) | None => None,
    };
    let settings = [
        Some(("path", text(&path.to_string_lossy()))),
        migrations.map(|value| ("migrations", value)),
        Some(("permissions", text(&format!("{permissions:04o}")))),
        Some(("synchronous", text(of_synchronous(*synchronous)))),
        Some(("checkpoint", text(of_checkpoint(*checkpoint)))),
        Some(("writers", number(*writers))),
        Some(("busy_timeout", duration(*busy_timeout))),
        Some(("forget_recorders", duration(*forget_recorders))),
    ];
    section("database", settings)
}

fn of_batch(batch: &BatchConfig) -> Section {
    let BatchConfig { max_events, max_bytes, linger } = batch;
    let settings =
        [("max_events", number(*max_events)), ("max_bytes", size(*max_bytes)), ("linger", duration(*linger))];
    section("batch", settings.map(Some))
}

fn of_service(service: &ServiceConfig) -> Section {
    let ServiceConfig { name, description, threads, waiting } = service;
    let settings = [
        ("name", text(name)),
        ("description", text(description)),
        ("threads", number(*threads)),
        ("waiting", number(*waiting)),
    ];
    section("service", settings.map(Some))
}

fn of_backup(backup: &BackupConfig) -> Section {
    let BackupConfig { folder, every, keep, rate, max_wal } = backup;
    let settings = [
        folder.as_deref().map(|folder| ("folder", file(folder))),
        Some(("every", duration(*every))),
        Some(("keep", number(*keep))),
        Some(("rate", size(*rate))),
        Some(("max_wal", size(*max_wal))),
    ];
    section("backup", settings)
}

fn of_observe(observe: &ObserveConfig) -> Section {
    let ObserveConfig { listen, token, token_file, unready_after, max_pending, max_lag } = observe;
    let settings = [
        listen.as_deref().map(|listen| ("listen", text(listen))),
        token.as_ref().map(|_| ("token", text(HIDDEN))),
        token_file.as_deref().map(|path| ("token_file", file(path))),
        Some(("unready_after", duration(*unready_after))),
        max_pending.map(|most| ("max_pending", number(most))),
        max_lag.map(|most| ("max_lag", duration(most))),
    ];
    section("observe", settings)
}

fn of_upkeep(upkeep: &UpkeepConfig) -> Section {
    let UpkeepConfig { retain_every, optimize_every, check_every, max_wal } = upkeep;
    let settings = [
        ("retain_every", duration(*retain_every)),
        ("optimize_every", duration(*optimize_every)),
        ("check_every", duration(*check_every)),
        ("max_wal", size(*max_wal)),
    ];
    section("upkeep", settings.map(Some))
}

fn of_retention(retention: &RetentionConfig) -> Section {
    let RetentionConfig { tables } = retention;
    let rules = |rules: &[RetentionRule]| match rules {
        [one] => of_rule(one),
        several => Value::Array(several.iter().map(of_rule).collect()),
    };
    let settings = tables.iter().map(|(table, of_table)| (table.clone().into(), rules(&of_table.0))).collect();
    Section { name: "retention", number: None, settings }
}

fn of_rule(rule: &RetentionRule) -> Value {
    let RetentionRule { rows, keep, column, bytes, condition, archive } = rule;
    let settings = [
        rows.map(|rows| ("rows", number(rows))),
        keep.map(|keep| ("keep", duration(keep))),
        column.as_deref().map(|column| ("column", text(column))),
        bytes.map(|bytes| ("bytes", size(bytes))),
        condition.as_deref().map(|condition| ("where", text(condition))),
        archive.as_deref().map(|archive| ("archive", file(archive))),
    ];
    Value::Table(settings.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn of_route(route: &RouteConfig) -> Section {
    let RouteConfig { subject, name, sql, bind, codec, reply, example, delete_markers, max_steps } = route;
    let sql = match &sql[..] {
        [one] => text(one),
        several => list(several.iter().cloned()),
    };
    let example = example.as_ref().map(|RouteExample { subject, payload }| {
        let fields = [("subject", subject), ("payload", payload)];
        Value::Table(fields.map(|(key, value)| (key.to_owned(), text(value))).into_iter().collect())
    });
    let settings = [
        name.as_deref().map(|name| ("name", text(name))),
        Some(("subject", text(subject))),
        Some(("sql", sql)),
        pointers(bind).map(|value| ("bind", value)),
        codec.map(|codec| ("codec", text(of_codec(codec)))),
        Some(("reply", Value::Boolean(*reply))),
        example.map(|value| ("example", value)),
        Some(("delete_markers", text(of_delete_markers(*delete_markers)))),
        Some(("max_steps", number(*max_steps))),
    ];
    section("route", settings)
}

fn of_query(query: &QueryConfig) -> Section {
    let QueryConfig { subject, name, sql, bind, parameters, codec, timeout, max_rows, max_bytes } = query;
    let parameters: Table = parameters.iter().map(|(name, one)| (name.clone(), of_parameter(one))).collect();
    let settings = [
        name.as_deref().map(|name| ("name", text(name))),
        Some(("subject", text(subject))),
        Some(("sql", text(sql))),
        pointers(bind).map(|value| ("bind", value)),
        Some(("parameters", Value::Table(parameters)))
            .filter(|(_, value)| value.as_table().is_some_and(|t| !t.is_empty())),
        codec.map(|codec| ("codec", text(of_codec(codec)))),
        Some(("timeout", duration(*timeout))),
        Some(("max_rows", number(*max_rows))),
        Some(("max_bytes", size(*max_bytes))),
    ];
    section("query", settings)
}

fn of_parameter(parameter: &ParameterConfig) -> Value {
    let ParameterConfig { kind, required, default, min, max } = parameter;
    let kind = match kind {
        ParameterType::Any => "any",
        ParameterType::Integer => "integer",
        ParameterType::Real => "real",
        ParameterType::Text => "text",
        ParameterType::Time => "time",
        ParameterType::Boolean => "boolean",
    };
    let value = |value: &Option<ParameterValue>| {
        value.as_ref().map(|value| match value {
            ParameterValue::Boolean(value) => Value::Boolean(*value),
            ParameterValue::Integer(value) => Value::Integer(*value),
            ParameterValue::Real(value) => Value::Float(*value),
            ParameterValue::Text(value) => text(value),
        })
    };
    let settings = [
        Some(("type", text(kind))),
        required.then_some(("required", Value::Boolean(true))),
        value(default).map(|value| ("default", value)),
        value(min).map(|value| ("min", value)),
        value(max).map(|value| ("max", value)),
    ];
    Value::Table(settings.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn pointers(bind: &BTreeMap<String, String>) -> Option<Value> {
    let table: Table = bind.iter().map(|(name, pointer)| (name.clone(), text(pointer))).collect();
    (!table.is_empty()).then_some(Value::Table(table))
}

fn of_mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Jetstream => "jetstream",
        Mode::Core => "core",
    }
}

fn of_overflow(overflow: CoreOverflow) -> &'static str {
    match overflow {
        CoreOverflow::DropNewest => "drop_newest",
        CoreOverflow::Block => "block",
    }
}

fn of_synchronous(synchronous: Synchronous) -> &'static str {
    match synchronous {
        Synchronous::Full => "full",
        Synchronous::Normal => "normal",
    }
}

fn of_checkpoint(checkpoint: Checkpoints) -> &'static str {
    match checkpoint {
        Checkpoints::Auto => "auto",
        Checkpoints::External => "external",
    }
}

fn of_codec(codec: Codec) -> &'static str {
    match codec {
        Codec::Json => "json",
        Codec::Messagepack => "messagepack",
    }
}

fn of_unmatched(unmatched: Unmatched) -> &'static str {
    match unmatched {
        Unmatched::Store => "store",
        Unmatched::Drop => "drop",
    }
}

fn of_delete_markers(markers: DeleteMarkers) -> &'static str {
    match markers {
        DeleteMarkers::Store => "store",
        DeleteMarkers::Skip => "skip",
        DeleteMarkers::DeadLetter => "dead_letter",
        DeleteMarkers::Only => "only",
    }
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn list(items: impl Iterator<Item = String>) -> Value {
    Value::Array(items.map(Value::String).collect())
}

/// A file's name. What is given in its place by mistake may be a secret.
fn file(path: &Path) -> Value {
    text(if is_contents(path) { HIDDEN.into() } else { path.to_string_lossy() }.as_ref())
}

/// An address. A login is hidden, and whatever else may be part of a password.
fn shown_address(server: &str) -> String {
    let shown = without_secrets(server);
    let has_login = server.contains('@') && !shown.contains(HIDDEN);
    match shown.split_once("://") {
        _ if !has_login => shown,
        Some((scheme, host)) => format!("{scheme}://{HIDDEN}@{host}"),
        None => format!("{HIDDEN}@{shown}"),
    }
}

fn duration(value: Duration) -> Value {
    text(&humantime::format_duration(value).to_string())
}

/// A whole number; one that TOML cannot have is its greatest.
fn number(value: impl TryInto<i64>) -> Value {
    Value::Integer(value.try_into().unwrap_or(i64::MAX))
}

/// A size with the largest unit in which it is a whole number.
fn size(value: ByteSize) -> Value {
    let bytes = value.as_u64();
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(bits, _)| bytes > 0 && bytes.is_multiple_of(1 << bits)) {
        Some((bits, unit)) => text(&format!("{}{unit}", bytes >> bits)),
        None => number(bytes),
    }
}

#[cfg(test)]
mod tests;
