//! Sources of settings as tables, and how they are merged.

use toml::{Table, Value};

use crate::config::{AuthenticationSetting, without_login};

/// Two settings of `[broker]` that exclude each other; the one from the higher source is used.
const EXCLUSIVE: [&str; 2] = ["domain", "api_prefix"];

/// A table with these settings of `[broker]`; `tls.ca` is `ca` in its table `tls`.
pub fn broker_table<'a>(values: impl Iterator<Item = (&'a str, Value)>) -> Table {
    let mut table = Table::new();
    for (key, value) in values {
        merge_keys(&mut table, nested(&format!("broker.{key}"), ".", value));
    }
    table
}

/// With separator `__`, `database__path` is `path` in table `database`.
pub fn nested(key: &str, separator: &str, value: Value) -> Table {
    match key.split_once(separator) {
        Some((outer, inner)) => Table::from_iter([(outer.to_owned(), Value::Table(nested(inner, separator, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

/// A list of texts, without white space around them and without empty ones.
pub fn list<'a>(items: impl Iterator<Item = &'a str>) -> Value {
    let items = items.map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

/// The earlier key of `broker.prefetch` is `ahead`. Two sources may use one key each.
pub fn with_new_keys(mut source: Table) -> Table {
    if let Some(Value::Table(broker)) = source.get_mut("broker")
        && let Some(prefetch) = broker.remove("ahead")
    {
        broker.insert("prefetch".into(), prefetch);
    }
    source
}

/// Merges a source into the lower ones, key by key; lists are replaced whole.
pub fn merge(below: &mut Table, above: Table) {
    if let (Some(Value::Table(below)), Some(Value::Table(above))) = (below.get_mut("broker"), above.get("broker")) {
        drop_other_authentication(below, above);
    }
    merge_keys(below, above);
}

/// Merges a source key by key, without a look at authentication.
pub fn merge_keys(below: &mut Table, above: Table) {
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

/// The value of a setting: `broker.tls.ca`.
pub fn value_at<'a>(table: &'a Table, setting: &str) -> Option<&'a Value> {
    match setting.split_once('.') {
        Some((outer, inner)) => value_at(table.get(outer)?.as_table()?, inner),
        None => table.get(setting),
    }
}
