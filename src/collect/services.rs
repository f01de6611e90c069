//! The query service of a collector, which can be replaced while the collector runs.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Error;
use crate::query::{QueryStatus, Service};

/// How many services that were replaced may still answer their last requests. With more, the oldest is interrupted.
const MAX_RETIRED: usize = 4;

/// The service, and those that it has replaced.
#[derive(Debug, Default)]
pub(super) struct Services(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Service>>,
    /// They answer the requests that they have accepted, and end.
    retired: Vec<Arc<Service>>,
    is_closed: bool,
}

impl Services {
    pub(super) fn new(first: Option<Service>) -> Self {
        Self(Mutex::new(State { current: first.map(Arc::new), ..State::default() }))
    }

    /// Puts this service in the place of the current one, which accepts no more requests. Calls `switch` before that. Does nothing and
    /// returns `false` if all services are closed, or `switch` returns `false`: the caller then drops the service, which ends it.
    pub(super) fn replace(&self, service: Option<Service>, switch: impl FnOnce() -> bool) -> bool {
        let mut state = self.0.lock();
        if state.is_closed || !switch() {
            return false;
        }
        let replaced = std::mem::replace(&mut state.current, service.map(Arc::new));
        if let Some(replaced) = &replaced {
            replaced.close();
        }
        state.retired.retain(|service| !service.has_ended());
        state.retired.extend(replaced);
        let too_many = state.retired.len().saturating_sub(MAX_RETIRED);
        let interrupted: Vec<_> = state.retired.drain(..too_many).collect();
        drop(state);
        for service in interrupted {
            if let Err(error) = service.finish(Instant::now()) {
                log::warn!(event = "service.failed", error:% = error; "service: {error}");
            }
        }
        true
    }

    /// What the requests of each query of the current service did.
    pub(super) fn queries(&self) -> Vec<QueryStatus> {
        self.0.lock().current.as_deref().map(Service::queries).unwrap_or_default()
    }

    /// Calls this while no stop closes the services; `false` without a call if one has.
    pub(super) fn unless_closed(&self, work: impl FnOnce() -> bool) -> bool {
        let state = self.0.lock();
        !state.is_closed && work()
    }

    /// Accepts no more requests, and no more services.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        state.all().for_each(|service| service.close());
    }

    /// Waits until all accepted requests are answered, at most until the deadline; then statements are interrupted. Returns the
    /// names of the threads that did not end, if any. Can be called again.
    pub(super) fn finish(&self, until: Instant) -> Result<Option<String>, Error> {
        let all: Vec<_> = self.0.lock().all().cloned().collect();
        let mut unfinished = Vec::new();
        for service in all {
            unfinished.extend(service.finish(until)?);
        }
        Ok((!unfinished.is_empty()).then(|| unfinished.join(", ")))
    }
}

impl State {
    fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.current.iter().chain(&self.retired)
    }
}
