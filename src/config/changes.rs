//! Which settings differ between two configurations, and which of them a running collector cannot take over.

use super::{
    BackupConfig, BatchConfig, BrokerConfig, Config, CoreConfig, DatabaseConfig, ObserveConfig, PrefetchConfig,
    RetentionConfig, TlsConfig, UpkeepConfig,
};

/// Adds the names of the fields that differ. Names every field of the struct, so that a new one is not forgotten.
macro_rules! differing {
    ($keys:ident, $section:literal, $old:expr, $new:expr, $of:ident { $($field:ident),* $(; $($passed:ident),*)? }) => {{
        let $of { $($field: _,)* $($($passed: _,)*)? } = $old;
        $(if $old.$field != $new.$field {
            $keys.push(concat!($section, stringify!($field)).to_owned());
        })*
    }};
}

impl Config {
    /// The settings that differ from these and need a restart, by their names in the file. Both must be resolved.
    pub(crate) fn changes_that_need_a_restart(&self, new: &Config) -> Vec<String> {
        let mut keys = Vec::new();
        let (old_broker, broker) = (&self.broker, &new.broker);
        // `wait` is for the start only. The servers of an address file are read from the file for each connection.
        differing!(keys, "broker.", old_broker, broker, BrokerConfig {
            user, password, password_file, token, token_file, creds, nkey, jwt, domain, api_prefix, inbox_prefix, mode, stream, subjects,
            create_stream, partitions, partition, timeout, silence, retry, connection_name; servers, address_file, tls, wait, prefetch, core
        });
        if old_broker.servers != broker.servers && (old_broker.address_file.is_none() || broker.address_file.is_none())
        {
            keys.insert(0, "broker.servers".into());
        }
        differing!(keys, "broker.tls.", &old_broker.tls, broker.tls, TlsConfig { required, ca, cert, key });
        let (old_prefetch, prefetch) = (&old_broker.prefetch, &broker.prefetch);
        differing!(
            keys,
            "broker.prefetch.",
            old_prefetch,
            prefetch,
            PrefetchConfig { events, bytes, requests, poll_interval }
        );
        let (old_core, core) = (&old_broker.core, &broker.core);
        differing!(keys, "broker.core.", old_core, core, CoreConfig { queue, max_events, max_bytes, overflow });
        let (old_database, database) = (&self.database, &new.database);
        differing!(
            keys,
            "database.",
            old_database,
            database,
            DatabaseConfig {
                path,
                permissions,
                synchronous,
                checkpoint,
                writers,
                busy_timeout,
                forget_recorders,
                migrations
            }
        );
        let (old_observe, observe) = (&self.observe, &new.observe);
        differing!(
            keys,
            "observe.",
            old_observe,
            observe,
            ObserveConfig { listen, token, token_file, unready_after, max_pending, max_lag }
        );
        keys
    }

    /// The settings that differ from these and can change while a collector runs: `batch.linger`, `route message`. Both must be
    /// resolved.
    pub(crate) fn changes_without_a_restart(&self, new: &Config) -> Vec<String> {
        // `prefix` counts where it is used; broker, database and observe have a function of their own.
        let Self {
            prefix: _,
            unmatched: _,
            delete_markers: _,
            broker: _,
            database: _,
            observe: _,
            backup: _,
            batch: _,
            routes: _,
            queries: _,
            service: _,
            retention: _,
            upkeep: _,
        } = self;
        let mut keys = Vec::new();
        if self.unmatched != new.unmatched {
            keys.push("unmatched".to_owned());
        }
        if self.delete_markers != new.delete_markers {
            keys.push("delete_markers".to_owned());
        }
        differing!(keys, "batch.", &self.batch, new.batch, BatchConfig { max_events, max_bytes, linger });
        entries("route", &mut keys, &self.routes, &new.routes, |route| route.name());
        entries("query", &mut keys, &self.queries, &new.queries, |query| query.name());
        differing!(keys, "backup.", &self.backup, new.backup, BackupConfig { folder, every, keep, rate, max_wal });
        if self.service != new.service {
            keys.push("service".to_owned());
        }
        let RetentionConfig { tables } = &self.retention;
        let others = new.retention.tables.keys().filter(|name| !tables.contains_key(*name));
        let differs = |name: &&String| tables.get(*name) != new.retention.tables.get(*name);
        keys.extend(tables.keys().chain(others).filter(differs).map(|name| format!("retention.{name}")));
        differing!(
            keys,
            "upkeep.",
            &self.upkeep,
            new.upkeep,
            UpkeepConfig { retain_every, optimize_every, check_every, max_wal }
        );
        keys
    }
}

/// Adds the entries of a list that were added, removed or changed; the list itself where only their order differs.
fn entries<T: PartialEq>(list: &str, keys: &mut Vec<String>, old: &[T], new: &[T], name: impl Fn(&T) -> &str) {
    if old == new {
        return;
    }
    let find = |of: &[T], wanted: &T| of.iter().position(|entry| name(entry) == name(wanted));
    let differs = |entry: &&T| find(old, entry).is_none_or(|at| old[at] != **entry);
    let mut found: Vec<String> = new.iter().filter(differs).map(|entry| format!("{list} {}", name(entry))).collect();
    let removed = old.iter().filter(|entry| find(new, entry).is_none());
    found.extend(removed.map(|entry| format!("{list} {} (removed)", name(entry))));
    if found.is_empty() {
        found.push(format!("the order of [[{list}]]"));
    }
    keys.append(&mut found);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Mode, QueryConfig, RouteConfig};

    #[test]
    fn what_cannot_change_while_it_runs_is_named() {
        let old = Config::default();
        assert_eq!(old.changes_that_need_a_restart(&old), Vec::<String>::new());
        let mut new = old.clone();
        new.broker.servers = vec!["nats://b".into()];
        (new.broker.mode, new.broker.stream, new.broker.password) = (Mode::Core, "B".into(), Some("secret".into()));
        (new.broker.tls.required, new.broker.prefetch.requests, new.broker.core.max_events) = (true, 7, 7);
        (new.database.path, new.database.writers) = ("b.db".into(), 2);
        new.broker.wait = Duration::from_secs(9);
        new.batch.max_events = 7;
        let expected = [
            "broker.servers",
            "broker.password",
            "broker.mode",
            "broker.stream",
            "broker.tls.required",
            "broker.prefetch.requests",
            "broker.core.max_events",
            "database.path",
            "database.writers",
        ];
        assert_eq!(old.changes_that_need_a_restart(&new), expected);
        assert_eq!(old.changes_without_a_restart(&new), ["batch.max_events"]);
    }

    #[test]
    fn the_servers_of_an_address_file_may_change() {
        let mut old = Config::default();
        old.broker.address_file = Some("a.db.server".into());
        let mut new = old.clone();
        new.broker.servers = vec!["nats://127.0.0.1:7".into()];
        assert_eq!(old.changes_that_need_a_restart(&new), Vec::<String>::new());
        new.broker.address_file = None;
        assert_eq!(old.changes_that_need_a_restart(&new), ["broker.servers"]);
    }

    #[test]
    fn routes_and_queries_are_compared_by_their_names() {
        let route = |subject: &str, sql: &str| RouteConfig::new(subject, [sql]);
        let mut old = Config { routes: vec![route("a", "1"), route("b", "1"), route("c", "1")], ..Config::default() };
        old.queries = vec![QueryConfig::new("q", "1"), QueryConfig::new("r", "1")];
        let mut new = old.clone();
        new.routes = vec![route("a", "1"), route("c", "2"), route("d", "1")];
        new.queries.swap(0, 1);
        new.batch.linger = Duration::from_secs(1);
        new.service.threads = 3;
        assert_eq!(
            old.changes_without_a_restart(&new),
            ["batch.linger", "route c", "route d", "route b (removed)", "the order of [[query]]", "service"]
        );
        assert_eq!(old.changes_that_need_a_restart(&new), Vec::<String>::new());
    }
}
