//! What a check examines, and the limits it compares with.

use bytesize::ByteSize;

/// What to check, and from which values on a finding is a warning or critical.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Skip the broker. Default false.
    pub offline: bool,
    /// Skip checks that read the whole database. Default false.
    pub quick: bool,
    /// Warn if the stream has at least this many events that are not in the database. Default 100,000.
    pub lag_warning: u64,
    /// Critical from this many events on. Default 10,000,000.
    pub lag_critical: u64,
    /// Warn if the disk of the database has less free space than this. Default 1 GiB.
    pub disk_warning: ByteSize,
    /// Critical below this. Default 100 MiB.
    pub disk_critical: ByteSize,
}

impl Default for CheckOptions {
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
