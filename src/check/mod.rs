//! `catchment check`: whether everything is in order, from the settings to the stream. Nothing is made or changed, but for a
//! temporary database.

mod broker;
mod database;
mod disk;
pub mod finding;
mod reachability;
mod statements;

pub use finding::{Finding, Level, Report};

use bytesize::ByteSize;

use crate::config::Config;
use crate::store::Lock;
use finding::Notebook;

/// What to look at, and from where on something is bad.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Leave the broker out. Default false.
    pub offline: bool,
    /// Leave out what reads the whole database. Default false.
    pub quick: bool,
    /// A warning from this many events on that are in the stream and not in the database. Default 100,000.
    pub lag_warning: u64,
    /// Critical from this many on. Default 10,000,000.
    pub lag_critical: u64,
    /// A warning where the database's disk has less room. Default 1 GiB.
    pub disk_warning: ByteSize,
    /// Critical where it has less. Default 100 MiB.
    pub disk_critical: ByteSize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            offline: false,
            quick: false,
            lag_warning: 100_000,
            lag_critical: 10_000_000,
            disk_warning: ByteSize::gib(1),
            disk_critical: ByteSize::mib(100),
        }
    }
}

/// Looks at everything in turn; `hear` is told of each finding at once. Blocks for a few times `broker.timeout` at most, and
/// for as long as reading the database takes unless [`Options::quick`] says not to.
pub fn check(config: &Config, options: &Options, hear: &mut dyn FnMut(&Finding)) -> Report {
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
