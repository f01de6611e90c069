//! Limits that settings of several sections have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::Error;

/// The most events that one request may ask for, or one transaction commit.
pub(super) const MAX_EVENTS: usize = 1_000_000;

/// The longest duration of any setting.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

pub(super) fn validate_duration(key: &str, value: Duration) -> Result<(), Error> {
    if value > MAX_DURATION {
        return Err(Error::config(key, format!("is {value:?}; the most is a day")));
    }
    Ok(())
}

/// Whether each is a JSON Pointer: <https://www.rfc-editor.org/rfc/rfc6901>.
pub(crate) fn validate_bind(bind: &BTreeMap<String, String>) -> Result<(), String> {
    /// Payloads are read by recursion as deep as pointers reach.
    const MAX_DEPTH: usize = 128;
    for (name, pointer) in bind {
        let tilde_ok = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !(pointer.is_empty() || pointer.starts_with('/')) || !tilde_ok {
            return Err(format!(
                "bind.{name} is {pointer:?}, which is not a JSON Pointer; examples are /address/city and /tags/0"
            ));
        }
        let depth = pointer.matches('/').count();
        if depth > MAX_DEPTH {
            return Err(format!("bind.{name} reaches {depth} levels deep; the most are {MAX_DEPTH}"));
        }
    }
    Ok(())
}
