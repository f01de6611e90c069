//! Random numbers that a run can be repeated with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `SplitMix64` (<https://prng.di.unimi.it/splitmix64.c>): small, and the same everywhere.
pub struct Chance(u64);

impl Chance {
    /// From [`Chance::seed`].
    pub fn new() -> Self {
        Self::of(Self::seed())
    }

    /// `TEST_SEED`, else from the clock.
    pub fn seed() -> u64 {
        let given = std::env::var("TEST_SEED").ok().filter(|seed| !seed.is_empty());
        given.map_or_else(
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos())),
            |seed| seed.parse().expect("TEST_SEED is a number"),
        )
    }

    /// From this seed. It is printed: a failed test shows it.
    pub fn of(seed: u64) -> Self {
        println!("to draw the same again: TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 1 to `most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        1 + self.next() % most.max(1)
    }

    /// A time below `longest`.
    pub fn time(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).expect("a short time");
        Duration::from_nanos(self.next() % nanos.max(1))
    }
}
