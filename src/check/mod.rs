//! `catchment check`: whether everything is in order, from the settings to the stream. Nothing is made or changed, but for a
//! temporary database.

mod broker;
mod database;
mod disk;
pub mod finding;
mod options;
mod reachability;
mod statements;

pub use finding::{Finding, Level, Report};
pub use options::CheckOptions;

use crate::config::Config;
use crate::store::Lock;
use finding::Notebook;

/// Looks at everything in turn; `hear` is told of each finding at once. Blocks for a few times `broker.timeout` at most, and
/// for as long as reading the database takes unless [`CheckOptions::quick`] says not to.
pub fn check(config: &Config, options: &CheckOptions, hear: &mut dyn FnMut(&Finding)) -> Report {
    let mut notes = Notebook { report: Report::default(), hear };
    let valid = config.resolved().and_then(|config| config.validate().map(|()| config));
    let config = match valid {
        Ok(config) => config,
        Err(error) => {
            notes.error("settings", &error);
            return notes.report;
        }
    };
    notes.ok("settings", "can be used");
    statements::look(&config, &mut notes);
    reachability::look(&config, &mut notes);
    let holder = Lock::holder(&config.database.path);
    let collecting = matches!(holder, Ok(Some(_)));
    let inspection = database::look(&config, options, holder, &mut notes);
    disk::look(&config, options, &mut notes);
    if !options.offline {
        broker::look(&config, options, inspection.as_ref(), collecting, &mut notes);
    }
    notes.report
}
