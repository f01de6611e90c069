//! The configured routes, and which of them an event matches.

pub(super) mod authorizer;
pub(super) mod budget;
pub(super) mod decoded_batch;
mod delete_markers;
pub(super) mod insert_group;
mod multi_row;
pub(super) mod plan;
pub(super) mod route_counters;
pub(super) mod statements;

use std::sync::Arc;

use delete_markers::is_delete_marker;

use crate::config::{Config, DeleteMarkers, RouteConfig, Unmatched, validate_routes};
use crate::error::Error;
use crate::subject::Filter;

/// The routes of a configuration. Cheap to clone. By default there are none: every event goes to table `events`.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    all: Arc<[Route]>,
    unmatched: Unmatched,
    delete_markers: DeleteMarkers,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: RouteConfig,
    filter: Filter,
}

/// Where an event goes, by its subject and by whether it is a delete marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The route with this number, counted from 0.
    Route(usize),
    /// Table `events`.
    Events,
    /// Nowhere: it is dropped.
    Nothing,
    /// Nowhere: it is a delete marker that is skipped.
    SkippedMarker,
    /// It is a delete marker that becomes a dead letter, of the route with this number if there is one.
    DeadMarker(Option<usize>),
}

impl Routes {
    /// The routes of a configuration, with its settings for what no route matches.
    ///
    /// # Errors
    ///
    /// As [`Routes::new`].
    pub fn of(config: &Config) -> Result<Self, Error> {
        Ok(Self::new(&config.routes, config.unmatched)?.with_delete_markers(config.delete_markers))
    }

    /// Routes in the order of the file: an event goes to the first whose subject matches. `unmatched` decides about events that match
    /// none. The SQL is checked when a database is opened with the routes.
    ///
    /// # Errors
    ///
    /// [`Error::Config`]: an invalid subject, a subject with `{prefix}`, no SQL, an invalid JSON Pointer, or two routes with one name.
    pub fn new(routes: &[RouteConfig], unmatched: Unmatched) -> Result<Self, Error> {
        validate_routes(routes)?;
        let route = |config: &RouteConfig| {
            let refused = |reason| Error::config(format!("route {}", config.name()), reason);
            let filter = config.subject.parse().map_err(|reason| refused(format!("subject {reason}")))?;
            if config.subject.contains(crate::config::PREFIX) {
                return Err(refused("its {prefix} is not replaced here".into()).with_remedy("write the subject out"));
            }
            Ok(Route { config: config.clone(), filter })
        };
        let all = routes.iter().map(route).collect::<Result<_, _>>()?;
        Ok(Self { all, unmatched, delete_markers: DeleteMarkers::default() })
    }

    /// The same routes, with this setting for delete markers whose subject no route matches.
    fn with_delete_markers(self, delete_markers: DeleteMarkers) -> Self {
        Self { delete_markers, ..self }
    }

    /// Whether some route confirms its events.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.all.iter().any(|route| route.config.reply)
    }

    /// Whether the route of this subject confirms its events.
    #[must_use]
    pub fn confirms_on(&self, subject: &str) -> bool {
        matches!(self.target(subject, false), Target::Route(route) if self.all[route].config.reply)
    }

    /// Whether an event is dropped: no route takes it and `unmatched` is `drop`, or it is a delete marker that is skipped.
    #[must_use]
    pub fn drops<'h>(&self, subject: &str, headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> bool {
        !self.is_plain()
            && matches!(self.target(subject, is_delete_marker(headers)), Target::Nothing | Target::SkippedMarker)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.all.iter()
    }

    /// How many statements all routes have.
    pub(super) fn statements(&self) -> usize {
        self.all.iter().map(|route| route.config.sql.len()).sum()
    }

    /// Whether every event goes to table `events`.
    pub(super) fn is_plain(&self) -> bool {
        self.all.is_empty()
            && self.unmatched == Unmatched::Store
            && matches!(self.delete_markers, DeleteMarkers::Store | DeleteMarkers::Only)
    }

    /// Whether events may go to table `events`.
    pub(super) fn use_events(&self) -> bool {
        self.unmatched == Unmatched::Store
    }

    pub(super) fn target(&self, subject: &str, is_delete_marker: bool) -> Target {
        let mut matching = self.all.iter().enumerate().filter(|(_, route)| route.filter.matches(subject));
        let takes = |route: &Route| match (is_delete_marker, route.config.delete_markers) {
            (false, taken) => taken != DeleteMarkers::Only,
            (true, taken) => taken != DeleteMarkers::Skip,
        };
        let is_skipped = is_delete_marker && matching.clone().next().is_some();
        let route = matching.find(|(_, route)| takes(route));
        match (route, self.delete_markers, self.unmatched) {
            (Some((number, route)), ..)
                if is_delete_marker && route.config.delete_markers == DeleteMarkers::DeadLetter =>
            {
                Target::DeadMarker(Some(number))
            }
            (Some((number, _)), ..) => Target::Route(number),
            (None, ..) if is_skipped => Target::SkippedMarker,
            (None, DeleteMarkers::Skip, _) if is_delete_marker => Target::SkippedMarker,
            (None, DeleteMarkers::DeadLetter, _) if is_delete_marker => Target::DeadMarker(None),
            (None, _, Unmatched::Store) => Target::Events,
            (None, _, Unmatched::Drop) => Target::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(subject: &str) -> RouteConfig {
        RouteConfig { subject: subject.into(), sql: vec!["-".into()], ..RouteConfig::default() }
    }

    #[test]
    fn an_event_goes_to_the_first_route_that_matches() {
        let configs = [route("a.b"), route("a.*"), route("a.>")];
        let routes = Routes::new(&configs, Unmatched::Store).expect("routes");
        let targets = ["a.b", "a.c", "a.b.c", "b"].map(|subject| routes.target(subject, false));
        assert_eq!(targets, [Target::Route(0), Target::Route(1), Target::Route(2), Target::Events]);
        assert_eq!(Routes::new(&configs, Unmatched::Drop).expect("routes").target("b", false), Target::Nothing);
        assert_eq!(Routes::default().target("a.b", true), Target::Events);
    }

    #[test]
    fn a_delete_marker_goes_to_a_route_that_takes_it() {
        let takes = |subject, delete_markers| RouteConfig { delete_markers, name: None, ..route(subject) };
        let named = |name: &str, config: RouteConfig| RouteConfig { name: Some(name.into()), ..config };
        let configs = [
            takes("kv.*", DeleteMarkers::Skip),
            named("gone", takes("kv.*", DeleteMarkers::Only)),
            takes("ttl.*", DeleteMarkers::Skip),
            takes("log.*", DeleteMarkers::Store),
            takes("odd.*", DeleteMarkers::DeadLetter),
            named("first only", takes("x", DeleteMarkers::Only)),
            takes("x", DeleteMarkers::Skip),
        ];
        let routes = Routes::new(&configs, Unmatched::Store).expect("routes");
        let of =
            |is_marker| ["kv.a", "ttl.a", "log.a", "odd.a", "x", "y"].map(|subject| routes.target(subject, is_marker));
        let (route, skipped) = (Target::Route, Target::SkippedMarker);
        assert_eq!(of(false), [route(0), route(2), route(3), route(4), route(6), Target::Events]);
        assert_eq!(of(true), [route(1), skipped, route(3), Target::DeadMarker(Some(4)), route(5), Target::Events]);
        let unmatched = |delete_markers, unmatched| {
            let routes = Routes::new(&configs, unmatched).expect("routes").with_delete_markers(delete_markers);
            assert_eq!(routes.target("y", false), Routes::new(&configs, unmatched).expect("routes").target("y", false));
            routes.target("y", true)
        };
        assert_eq!(unmatched(DeleteMarkers::Skip, Unmatched::Store), Target::SkippedMarker);
        assert_eq!(unmatched(DeleteMarkers::DeadLetter, Unmatched::Drop), Target::DeadMarker(None));
        assert_eq!(unmatched(DeleteMarkers::Store, Unmatched::Drop), Target::Nothing);
    }

    #[test]
    fn a_prefix_that_was_not_replaced_is_refused() {
        let refused = Routes::new(&[route("{prefix}.log")], Unmatched::Store).expect_err("must be refused").to_string();
        assert!(refused.contains("route {prefix}.log: its {prefix} is not replaced here"), "{refused}");
    }
}
