//! Times as numbers since 1970, in which databases and messages keep them. A time before 1970 is 0, and one that no number holds is the
//! largest.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    nanoseconds(SystemTime::now())
}

/// Now, in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    microseconds(SystemTime::now())
}

/// A time in nanoseconds since 1970.
pub(crate) fn nanoseconds(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

/// A time in microseconds since 1970.
pub(crate) fn microseconds(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// The time of these nanoseconds since 1970.
pub(crate) fn at_ns(ns: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

/// The time of these microseconds since 1970.
pub(crate) fn at_us(us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// How long ago this was, in microseconds since 1970, by the clock of this machine. Zero for a time that is still to come.
pub(crate) fn since_us(us: i64) -> Duration {
    SystemTime::now().duration_since(at_us(us)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_and_its_number_are_converted_into_each_other() {
        let at = UNIX_EPOCH + Duration::from_micros(1_795_719_599_000_001);
        assert_eq!((nanoseconds(at), microseconds(at)), (1_795_719_599_000_001_000, 1_795_719_599_000_001));
        assert_eq!((at_ns(nanoseconds(at)), at_us(microseconds(at))), (at, at));
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!((nanoseconds(before), microseconds(before)), (0, 0));
        assert_eq!((at_ns(-1), at_us(-1)), (UNIX_EPOCH, UNIX_EPOCH));
        assert_eq!(nanoseconds(at_us(i64::MAX)), i64::MAX);
        assert_eq!(since_us(i64::MAX), Duration::ZERO);
    }
}
