//! Other routes, queries and batch sizes for a collector that runs.

use crossbeam_channel::Sender;

use super::{Collector, Reloaded, Running, report_unreachable, upkeep};
use crate::config::{Config, Mode, validate_queries_of_stream};
use crate::error::{DatabaseFault, Error};
use crate::pipeline::{Confirmation, Settings};
use crate::query::{self, Service};
use crate::store::{CheckedRoutes, ConfirmationsTo, Database, Queries, Routes, migrations};

impl Collector {
    /// Takes over other settings without a restart: all settings of `[[route]]`, `[[query]]`, `[service]`, `[batch]`, `[backup]`,
    /// `[retention]` and `[upkeep]`, and `unmatched`, `delete_markers` and `prefix`. Blocks until they are in use. That takes as
    /// long as it takes to compile the statements; if queries change, also the time for another connection to the broker, at most a
    /// few times `broker.timeout`.
    ///
    /// Either all settings are taken over or none: after an error the collector continues as before.
    ///
    /// - Statements are compiled against the database first.
    /// - No event is lost, and each is handled by one configuration: one event of the stream is the first that the new routes apply to.
    ///   Events that are received after this call returns are handled by the new routes.
    /// - Each request is answered by one configuration. Requests that the old queries have accepted are answered by them.
    ///   If queries change, a request that is on its way while the old ones cease may get no answer.
    /// - Counters continue.
    ///
    /// New migrations are not applied: they need a restart. [`Reloaded::pending_migrations`] has their names.
    ///
    /// # Errors
    ///
    /// As [`Collector::start`], for wrong settings and for SQL that does not fit the database. [`Error::Config`] names the settings that
    /// differ and that cannot change while a collector runs: those of `[broker]` and `[database]`. [`Error::Ended`] if the collector
    /// has ended, or is stopped meanwhile.
    pub fn reload(&self, config: &Config) -> Result<Reloaded, Error> {
        let mut running = self.running.lock();
        let mut config = config.resolved()?;
        config.validate()?;
        refuse_other_keys(running.given.changes_that_need_a_restart(&config))?;
        report_unreachable(&config);
        let database = self.database.upgrade().ok_or(Error::Ended)?;
        let pending = migrations::pending(&config.database)?;
        let pending_migrations: Vec<String> = pending.iter().map(migrations::Migration::name).collect();
        let (routes, queries) = check(&database, &config, &pending_migrations)?;
        let changed = running.given.changes_without_a_restart(&config);
        let given = config.clone();
        // The broker's settings as the start completed them.
        config.broker = running.completed.broker.clone();
        if config.broker.mode == Mode::Jetstream {
            validate_queries_of_stream(&config.queries, &self.subjects)?;
        }
        database.check_retention(&config.retention)?;
        let jobs = if upkeep::are_same(&running.completed, &config) {
            None
        } else {
            Some(self.upkeep.prepare(upkeep::jobs(&config, &database, &self.parts.retention))?)
        };
        if !self.switch_to(&config, &running.completed, &database, routes, &queries)? {
            return Err(Error::Ended);
        }
        if let Some(jobs) = jobs {
            self.upkeep.use_jobs(jobs);
        }
        *running = Running { given, completed: config };
        Ok(Reloaded { changed, pending_migrations })
    }

    /// Nothing can fail once this has begun to replace the old settings.
    fn switch_to(
        &self,
        config: &Config,
        old: &Config,
        database: &Database,
        routes: CheckedRoutes,
        queries: &Queries,
    ) -> Result<bool, Error> {
        let confirms = |config: &Config| config.routes.iter().any(|route| route.reply);
        let is_same_service = config.queries == old.queries && config.service == old.service;
        if is_same_service && confirms(config) == confirms(old) {
            return Ok(self.services.unless_closed(|| self.use_routes(config, routes, ConfirmationsTo::Same)));
        }
        let (confirmed, confirmations): (Option<Sender<Confirmation>>, _) =
            confirms(config).then(query::confirmations).unzip();
        let (counters, condition) = (&self.parts.shared.counters, &self.parts.service);
        // It receives requests before the old one stops.
        let service =
            Service::start(config, database, queries, confirmations, counters, condition, &self.service_state)?;
        let switch = || self.use_routes(config, routes, ConfirmationsTo::Other(confirmed));
        Ok(self.services.replace(service, switch))
    }

    fn use_routes(&self, config: &Config, routes: CheckedRoutes, confirmations: ConfirmationsTo) -> bool {
        self.pipeline.set(Settings::from(&config.batch));
        self.switch.replace(routes, confirmations)
    }
}

/// Compiles the statements. An error names the migrations that a restart would apply first.
fn check(database: &Database, config: &Config, pending: &[String]) -> Result<(CheckedRoutes, Queries), Error> {
    let routes = Routes::of(config)?;
    database.check_routes(&routes, &config.queries).map_err(|error| match error {
        Error::Database { fault: DatabaseFault::Statement, .. } if !pending.is_empty() => {
            let names = pending.join(", ");
            error.with_remedy(format!("restart the collector if {names} makes it fit: a reload applies no migration"))
        }
        error => error,
    })
}

/// Refuses changes that need a restart.
fn refuse_other_keys(mut keys: Vec<String>) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let first = keys.remove(0);
    let others = if keys.is_empty() { String::new() } else { format!(", and so do {}", keys.join(", ")) };
    let detail = format!("needs a restart{others}: it cannot change while the collector runs");
    Err(Error::config(first, detail).with_remedy("restart the collector, or put the old value back"))
}
