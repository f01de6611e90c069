//! What a check examines, and its limits.

use bytesize::ByteSize;

/// What to look at, and from where on something is bad.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
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
