//! What a running collector does for its database from time to time: `[upkeep]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::error::Error;

/// The shortest and the longest time between two runs.
const PERIOD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);

/// SQLite keeps a `-wal` file of this size, and uses it again.
const LEAST_WAL: ByteSize = ByteSize::mib(64);

/// What a running collector does for its database from time to time, beside collecting: `[upkeep]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct UpkeepConfig {
    /// How often `[retention]` is applied. From a second to a year. Default a minute.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub retain_every: Duration,
    /// How often SQLite's statistics about tables and indexes are brought up to date where that is due (`PRAGMA optimize`). From a second to
    /// a year. Default a day; `"0s"` turns it off.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub optimize_every: Duration,
    /// How often the whole database is read to look for damage (`PRAGMA quick_check`). Commits continue meanwhile, but the `-wal` file
    /// grows while a table is read. From a second to a year. Default `"0s"`: never.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Time"))]
    pub check_every: Duration,
    /// A `-wal` file that is larger than this is reported as trouble: a reader holds it. At least 64 MiB, because a file of up to this
    /// size is kept and used again. Default 1 GiB; 0 turns it off.
    #[cfg_attr(feature = "cli", schemars(with = "crate::config::schema_types::Size"))]
    pub max_wal: ByteSize,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self {
            retain_every: Duration::from_secs(60),
            optimize_every: Duration::from_secs(86_400),
            check_every: Duration::ZERO,
            max_wal: ByteSize::gib(1),
        }
    }
}

impl UpkeepConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first setting that cannot be used.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let periods = [
            ("upkeep.retain_every", self.retain_every, false),
            ("upkeep.optimize_every", self.optimize_every, true),
            ("upkeep.check_every", self.check_every, true),
        ];
        for (key, period, may_be_off) in periods {
            if !(PERIOD.contains(&period) || (may_be_off && period.is_zero())) {
                return Err(Error::config(key, format!("is {period:?}; from a second to a year")));
            }
        }
        if self.max_wal > ByteSize::b(0) && self.max_wal < LEAST_WAL {
            let detail = format!("is {}; the least is {LEAST_WAL}", self.max_wal);
            return Err(Error::config("upkeep.max_wal", detail).with_remedy("give 0 to turn it off"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_of_zero_turns_off_what_may_be_off() {
        let off = UpkeepConfig { optimize_every: Duration::ZERO, ..UpkeepConfig::default() };
        off.validate().expect("is valid");
        let never = UpkeepConfig { retain_every: Duration::ZERO, ..UpkeepConfig::default() };
        let said = never.validate().expect_err("must be refused").to_string();
        assert_eq!(said, "configuration: upkeep.retain_every: is 0ns; from a second to a year");
    }
}
