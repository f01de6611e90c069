//! Which route takes an event.

pub(super) mod authorizer;
pub(super) mod budget;
pub(super) mod decoded_batch;
pub(super) mod plan;
pub(super) mod statements;

use std::sync::Arc;

use crate::config::{RouteConfig, Unmatched, validate_routes};
use crate::error::Error;
use crate::subject::Filter;

/// The routes of a configuration. Cheap to clone. By default there are none: everything goes to table `events`.
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

/// What takes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taker {
    /// The route with this number, counted from 0.
    Route(usize),
    /// Table `events`.
    Events,
    /// Nothing: it is dropped.
    Nothing,
}

impl Routes {
    /// Routes in the order of the file: the first whose subject matches takes an event. What becomes of events that none
    /// takes says `unmatched`. Their SQL is looked at when a database is opened with them.
    ///
    /// # Errors
    ///
    /// [`Error::Config`]: a subject that is none or in which `{prefix}` still stands, no SQL, a JSON Pointer that is none, two
    /// routes of one name.
    pub fn new(routes: &[RouteConfig], unmatched: Unmatched) -> Result<Self, Error> {
        validate_routes(routes)?;
        let route = |config: &RouteConfig| {
            let refused = |reason| Error::config(format!("route {}", config.name()), reason);
            let filter = config.subject.parse().map_err(|reason| refused(format!("subject {reason}")))?;
            if config.subject.contains(crate::config::PREFIX) {
                return Err(refused("its {prefix} stands for nothing here; write the subject out".into()));
            }
            Ok(Route { config: config.clone(), filter })
        };
        Ok(Self { routes: routes.iter().map(route).collect::<Result<_, _>>()?, unmatched })
    }

    /// Whether some route confirms its events to whoever asks for it.
    #[must_use]
    pub fn confirm(&self) -> bool {
        self.routes.iter().any(|route| route.config.reply)
    }

    /// Whether the route that takes this subject does.
    #[must_use]
    pub fn confirm_on(&self, subject: &str) -> bool {
        matches!(self.taker(subject), Taker::Route(route) if self.routes[route].config.reply)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// How many statements they have.
    pub(super) fn statements(&self) -> usize {
        self.routes.iter().map(|route| route.config.sql.len()).sum()
    }

    /// Whether table `events` takes everything.
    pub(super) fn is_plain(&self) -> bool {
        self.routes.is_empty() && self.unmatched == Unmatched::Store
    }

    /// Whether some events may go to table `events`.
    pub(super) fn use_events(&self) -> bool {
        self.unmatched == Unmatched::Store
    }

    pub(super) fn taker(&self, subject: &str) -> Taker {
        match (self.routes.iter().position(|route| route.filter.matches(subject)), self.unmatched) {
            (Some(route), _) => Taker::Route(route),
            (None, Unmatched::Store) => Taker::Events,
            (None, Unmatched::Drop) => Taker::Nothing,
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
    fn the_first_route_that_matches_takes_an_event() {
        let configs = [route("a.b"), route("a.*"), route("a.>")];
        let routes = Routes::new(&configs, Unmatched::Store).expect("routes");
        let taken = ["a.b", "a.c", "a.b.c", "b"].map(|subject| routes.taker(subject));
        assert_eq!(taken, [Taker::Route(0), Taker::Route(1), Taker::Route(2), Taker::Events]);
        assert_eq!(Routes::new(&configs, Unmatched::Drop).expect("routes").taker("b"), Taker::Nothing);
        assert_eq!(Routes::default().taker("a.b"), Taker::Events);
    }

    #[test]
    fn a_prefix_that_nobody_put_in_is_refused() {
        let refused = Routes::new(&[route("{prefix}.log")], Unmatched::Store).expect_err("must be refused").to_string();
        assert!(refused.contains("route {prefix}.log: its {prefix} stands for nothing here"), "{refused}");
    }
}
