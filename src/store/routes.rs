//! The configured routes, and which of them an event matches.

pub(super) mod authorizer;
pub(super) mod budget;
pub(super) mod decoded_batch;
pub(super) mod plan;
pub(super) mod statements;

use std::sync::Arc;

use crate::config::{RouteConfig, Unmatched, validate_routes};
use crate::error::Error;
use crate::subject::Filter;

/// The routes of a configuration. Cheap to clone. By default there are none: every event goes to table `events`.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: Arc<[Route]>,
    unmatched: Unmatched,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: RouteConfig,
    filter: Filter,
}

/// Where an event goes by its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The route with this number, counted from 0.
    Route(usize),
    /// Table `events`.
    Events,
    /// Nowhere: it is dropped.
    Nothing,
}

impl Routes {
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
        Ok(Self { routes: routes.iter().map(route).collect::<Result<_, _>>()?, unmatched })
    }

    /// Whether some route confirms its events.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.routes.iter().any(|route| route.config.reply)
    }

    /// Whether the route of this subject confirms its events.
    #[must_use]
    pub fn confirms_on(&self, subject: &str) -> bool {
        matches!(self.target(subject), Target::Route(route) if self.routes[route].config.reply)
    }

    /// Whether an event on this subject is dropped: no route takes it, and `unmatched` is `drop`.
    #[must_use]
    pub fn drops(&self, subject: &str) -> bool {
        self.unmatched == Unmatched::Drop && self.target(subject) == Target::Nothing
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// How many statements all routes have.
    pub(super) fn statements(&self) -> usize {
        self.routes.iter().map(|route| route.config.sql.len()).sum()
    }

    /// Whether every event goes to table `events`.
    pub(super) fn is_plain(&self) -> bool {
        self.routes.is_empty() && self.unmatched == Unmatched::Store
    }

    /// Whether events may go to table `events`.
    pub(super) fn use_events(&self) -> bool {
        self.unmatched == Unmatched::Store
    }

    pub(super) fn target(&self, subject: &str) -> Target {
        match (self.routes.iter().position(|route| route.filter.matches(subject)), self.unmatched) {
            (Some(route), _) => Target::Route(route),
            (None, Unmatched::Store) => Target::Events,
            (None, Unmatched::Drop) => Target::Nothing,
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
        let targets = ["a.b", "a.c", "a.b.c", "b"].map(|subject| routes.target(subject));
        assert_eq!(targets, [Target::Route(0), Target::Route(1), Target::Route(2), Target::Events]);
        assert_eq!(Routes::new(&configs, Unmatched::Drop).expect("routes").target("b"), Target::Nothing);
        assert_eq!(Routes::default().target("a.b"), Target::Events);
    }

    #[test]
    fn a_prefix_that_was_not_replaced_is_refused() {
        let refused = Routes::new(&[route("{prefix}.log")], Unmatched::Store).expect_err("must be refused").to_string();
        assert!(refused.contains("route {prefix}.log: its {prefix} is not replaced here"), "{refused}");
    }
}
