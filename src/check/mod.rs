//! `catchment check`: whether everything is in order, from the settings to the stream. A check makes and changes nothing, except
//! a temporary database.

mod backups;
mod broker;
mod collector;
mod database;
mod disk;
pub mod finding;
mod options;
mod permissions;
mod reachability;
mod statements;

pub use finding::{Finding, Level, Report};
pub use options::CheckOptions;
pub use permissions::check_permissions;

use crate::config::Config;
use crate::error::Error;
use crate::store::Lock;
use finding::ReportBuilder;

/// Checks everything in turn and calls `on_finding` with each finding at once. Blocks for a few times `broker.timeout` at most,
/// and, unless [`CheckOptions::quick`] is set, for as long as it takes to read the database.
///
/// `located` adds to an error of a route, a query or the migrations where its setting comes from.
pub fn check(
    config: &Config,
    options: &CheckOptions,
    located: &dyn Fn(Error) -> Error,
    on_finding: &mut dyn FnMut(&Finding),
) -> Report {
    let mut report = ReportBuilder::new(on_finding);
    let valid = config.resolved().and_then(|config| config.validate().map(|()| config));
    let config = match valid {
        Ok(config) => config,
        Err(error) => {
            report.error("settings", &error);
            return report.finish();
        }
    };
    report.ok("settings", "valid");
    statements::check(&config, located, &mut report);
    reachability::check(&config, &mut report);
    let holder = Lock::holder(&config.database.path);
    let collecting = matches!(holder, Ok(Some(_)));
    let database = database::check(&config, options, holder, &mut report);
    disk::check(&config, options, &mut report);
    backups::check(&config, &mut report);
    if collecting {
        collector::check(&config, &mut report);
    }
    if !options.offline {
        broker::check(&config, options, &database, collecting, &mut report);
    }
    report.finish()
}
