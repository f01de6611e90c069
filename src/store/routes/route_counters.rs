//! What the events of each route did, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The counts of a route, from the collector's start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteStatus {
    /// The route's name; `None` for events that no route takes.
    pub name: Option<String>,
    /// Events committed, dead letters included.
    pub events: u64,
    /// Events committed as dead letters.
    pub dead_letters: u64,
    /// Time spent running their statements, on the writer threads. Attempts that failed count too.
    pub time: Duration,
}

/// The counters of all routes. Clones share them. They are found by name, so that they last when routes are read again.
#[derive(Clone, Debug, Default)]
pub struct RouteCounters(Arc<Mutex<Vec<Arc<Counts>>>>);

/// The counters of one route.
#[derive(Debug)]
struct Counts {
    name: Option<Arc<str>>,
    events: AtomicU64,
    dead_letters: AtomicU64,
    nanos: AtomicU64,
}

impl RouteCounters {
    /// The counts now, in the order of the routes; those of events without a route are last.
    #[must_use]
    pub fn now(&self) -> Vec<RouteStatus> {
        let status = |counts: &Arc<Counts>| RouteStatus {
            name: counts.name.as_deref().map(str::to_owned),
            events: counts.events.load(Ordering::Relaxed),
            dead_letters: counts.dead_letters.load(Ordering::Relaxed),
            time: Duration::from_nanos(counts.nanos.load(Ordering::Relaxed)),
        };
        let mut all: Vec<RouteStatus> = self.0.lock().iter().map(status).collect();
        all.sort_by_key(|route| route.name.is_none());
        all
    }

    /// A tally for the routes with these names, by their numbers.
    pub(in crate::store) fn tally(&self, names: impl Iterator<Item = Arc<str>>) -> RouteTally {
        let mut known = self.0.lock();
        let mut counts = |name: Option<Arc<str>>| {
            if let Some(found) = known.iter().find(|counts| counts.name == name) {
                return Arc::clone(found);
            }
            let new = Arc::new(Counts::of(name));
            known.push(Arc::clone(&new));
            new
        };
        let shared: Vec<Arc<Counts>> = names.map(Some).chain([None]).map(&mut counts).collect();
        let local = vec![Local::default(); shared.len()];
        RouteTally { shared, local }
    }
}

impl Counts {
    fn of(name: Option<Arc<str>>) -> Self {
        Self { name, events: AtomicU64::new(0), dead_letters: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }
}

/// What a writer has counted of a batch. It is added to the shared counters once for each batch.
#[derive(Debug)]
pub(in crate::store) struct RouteTally {
    shared: Vec<Arc<Counts>>,
    local: Vec<Local>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Local {
    events: u64,
    dead_letters: u64,
    nanos: u64,
}

impl RouteTally {
    /// Counts an event of the route with this number, or of none.
    pub(in crate::store) fn add(&mut self, route: Option<usize>, is_dead_letter: bool) {
        let local = self.local_mut(route);
        local.events += 1;
        local.dead_letters += u64::from(is_dead_letter);
    }

    /// Counts events that no route takes.
    pub(in crate::store) fn add_unrouted(&mut self, events: usize) {
        self.local_mut(None).events += events as u64;
    }

    /// Measures the time of events that are stored one after the other.
    pub(in crate::store) fn clock(&mut self) -> RouteClock<'_> {
        RouteClock { tally: self, running: None }
    }

    /// Adds what was counted to the shared counters, and empties this.
    pub(in crate::store) fn finish(&mut self) {
        for (shared, local) in self.shared.iter().zip(&mut self.local) {
            let Local { events, dead_letters, nanos } = std::mem::take(local);
            shared.events.fetch_add(events, Ordering::Relaxed);
            shared.dead_letters.fetch_add(dead_letters, Ordering::Relaxed);
            shared.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    fn local_mut(&mut self, route: Option<usize>) -> &mut Local {
        let none = self.local.len() - 1;
        &mut self.local[route.unwrap_or(none).min(none)]
    }
}

/// Measures the time of each route. It reads the clock only where the route changes from one event to the next.
pub(in crate::store) struct RouteClock<'t> {
    tally: &'t mut RouteTally,
    running: Option<(Option<usize>, Instant)>,
}

impl RouteClock<'_> {
    /// An event of this route is stored now.
    pub(in crate::store) fn enter(&mut self, route: Option<usize>) {
        match self.running {
            Some((running, _)) if running == route => {}
            _ => {
                let now = Instant::now();
                self.end(now);
                self.running = Some((route, now));
            }
        }
    }

    fn end(&mut self, now: Instant) {
        if let Some((route, since)) = self.running.take() {
            let took = now.saturating_duration_since(since).as_nanos();
            self.tally.local_mut(route).nanos += u64::try_from(took).unwrap_or(u64::MAX);
        }
    }
}

impl Drop for RouteClock<'_> {
    fn drop(&mut self) {
        self.end(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_last_when_routes_are_read_again() {
        let counters = RouteCounters::default();
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
        let mut first = counters.tally(names(&["a", "b"]).into_iter());
        first.add(Some(0), false);
        first.add(Some(1), true);
        first.add_unrouted(3);
        let mut clock = first.clock();
        clock.enter(Some(0));
        clock.enter(Some(1));
        drop(clock);
        first.finish();
        let mut second = counters.tally(names(&["b", "c"]).into_iter());
        second.add(Some(0), false);
        second.finish();
        let now = counters.now();
        let counted: Vec<_> = now.iter().map(|r| (r.name.as_deref(), r.events, r.dead_letters)).collect();
        assert_eq!(counted, [(Some("a"), 1, 0), (Some("b"), 2, 1), (Some("c"), 0, 0), (None, 3, 0)]);
        assert!(now[0].time > Duration::ZERO, "{now:?}");
    }
}
