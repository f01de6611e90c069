//! Values of MessagePack that need a conversion: integers as text, timestamps as seconds.

use std::fmt::Write;

use super::item::Item;
use crate::binding::fields::Cell;

/// The type of the only extension that the format defines.
pub(super) const TIMESTAMP: i8 = -1;

/// Writes an integer in decimal.
pub(super) fn write_integer(item: Item, into: &mut String) {
    // Writing into a string cannot fail.
    let _ = match item {
        Item::Integer(value) => write!(into, "{value}"),
        Item::Unsigned(value) => write!(into, "{value}"),
        _ => Ok(()),
    };
}

/// Seconds since 1970: an integer if they are whole. `None` if the data is not a valid timestamp.
pub(super) fn timestamp(data: &[u8]) -> Option<Cell> {
    let (seconds, nanoseconds) = match data.len() {
        4 => (u32::from_be_bytes(data.try_into().ok()?).into(), 0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            (i64::try_from(both & ((1 << 34) - 1)).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanoseconds, seconds) = data.split_first_chunk()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanoseconds))
        }
        _ => return None,
    };
    match nanoseconds {
        0 => Some(Cell::Integer(seconds)),
        #[allow(clippy::cast_precision_loss, reason = "a double holds microseconds for some centuries to come")]
        1..1_000_000_000 => Some(Cell::Real(seconds as f64 + f64::from(nanoseconds) / 1e9)),
        _ => None,
    }
}
