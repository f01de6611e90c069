//! Routes and queries that receive nothing: their subject is not collected, or an earlier one takes everything.

use super::routes::DeleteMarkers;
use super::{Config, RouteConfig};
use crate::subject::Filter;

/// A route or query that receives nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// `routes` or `queries`.
    pub(crate) section: &'static str,
    /// Which one, and why.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl Config {
    /// What receives nothing by these settings, whatever the stream stores.
    pub(crate) fn unreachable(&self) -> Vec<Unreachable> {
        let mut all = Vec::new();
        if !self.broker.takes_all_of_stream() {
            let remedy = "add it to broker.subjects, or change the route's subject";
            all.extend(self.routes_outside(&self.broker.filters()).map(|route| Unreachable {
                section: "routes",
                what: format!("route {} receives no events: {} is not in broker.subjects", route.name(), route.subject),
                remedy: remedy.into(),
            }));
        }
        let shadowed = |kind: &'static str, what: &'static str, earlier: &str, later: &str| Unreachable {
            section: if kind == "route" { "routes" } else { "queries" },
            what: format!("{kind} {later} receives no {what}: the earlier {kind} {earlier} takes all of them"),
            remedy: format!("move {kind} {later} before {kind} {earlier}"),
        };
        for (at, later) in self.routes.iter().enumerate() {
            let before = |kind| earlier_route(&self.routes[..at], later, kind);
            let earlier: Vec<_> = KINDS.into_iter().filter(|kind| takes(later, *kind)).map(before).collect();
            if let Some(Some(first)) = earlier.first().filter(|_| earlier.iter().all(Option::is_some)) {
                all.push(shadowed("route", "events", first.name(), later.name()));
            }
        }
        for (at, later) in self.queries.iter().enumerate() {
            let earlier = self.queries[..at].iter().find(|earlier| covers(&earlier.subject, &later.subject));
            all.extend(earlier.map(|earlier| shadowed("query", "requests", earlier.name(), later.name())));
        }
        all
    }

    /// The routes that receive nothing from the stream, which stores these subjects. Only if no subjects are set.
    pub(crate) fn unreachable_from(&self, stored: &[String]) -> Vec<Unreachable> {
        let stream = &self.broker.stream;
        let unreachable = self.routes_outside(stored).map(|route| Unreachable {
            section: "routes",
            what: format!(
                "route {} receives no events: stream {stream} does not store {}",
                route.name(),
                route.subject
            ),
            remedy: "change the route's subject, or add it to the stream: nats stream edit".into(),
        });
        unreachable.collect()
    }

    fn routes_outside(&self, collected: &[String]) -> impl Iterator<Item = &RouteConfig> {
        let collected: Vec<Filter> = collected.iter().filter_map(|subject| subject.parse().ok()).collect();
        self.routes.iter().filter(move |route| {
            let filter = route.subject.parse::<Filter>();
            filter.is_ok_and(|filter| !collected.iter().any(|collected| collected.overlaps(&filter)))
        })
    }
}

/// What a route may take.
#[derive(Clone, Copy)]
enum Kind {
    Events,
    DeleteMarkers,
}

const KINDS: [Kind; 2] = [Kind::Events, Kind::DeleteMarkers];

fn takes(route: &RouteConfig, kind: Kind) -> bool {
    match kind {
        Kind::Events => route.delete_markers != DeleteMarkers::Only,
        Kind::DeleteMarkers => route.delete_markers != DeleteMarkers::Skip,
    }
}

/// The earlier route that takes everything of this kind on the subject of a later one.
fn earlier_route<'r>(earlier: &'r [RouteConfig], later: &RouteConfig, kind: Kind) -> Option<&'r RouteConfig> {
    earlier.iter().find(|earlier| takes(earlier, kind) && covers(&earlier.subject, &later.subject))
}

fn covers(wide: &str, narrow: &str) -> bool {
    match (wide.parse::<Filter>(), narrow.parse::<Filter>()) {
        (Ok(wide), Ok(narrow)) => wide.covers(&narrow),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::QueryConfig;

    fn route(subject: &str, delete_markers: DeleteMarkers) -> RouteConfig {
        let name = format!("{subject} {delete_markers:?}");
        RouteConfig { name: Some(name), delete_markers, ..RouteConfig::new(subject, ["-"]) }
    }

    fn said(config: &Config) -> Vec<String> {
        config.unreachable().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_route_outside_of_what_is_collected_is_told() {
        let mut config = Config { routes: vec![RouteConfig::new("b.*", ["-"])], ..Config::default() };
        assert_eq!(said(&config), [""; 0], "the stream decides");
        let of_stream = |stored: &str| config.unreachable_from(&[stored.to_owned()]).pop().map(|one| one.to_string());
        assert_eq!(of_stream("b.c"), None);
        let outside = of_stream("a.>").expect("outside");
        assert!(outside.starts_with("route b.* receives no events: stream EVENTS does not store b.*;"), "{outside}");
        config.broker.subjects = vec!["a.>".into()];
        assert!(said(&config)[0].starts_with("route b.* receives no events: b.* is not in broker.subjects; add it"));
    }

    #[test]
    fn a_route_is_shadowed_if_earlier_ones_take_all_it_takes() {
        use DeleteMarkers::{DeadLetter, Only, Skip, Store};
        let shadowed = |routes: &[(&str, DeleteMarkers)]| {
            let routes = routes.iter().map(|(subject, markers)| route(subject, *markers)).collect();
            said(&Config { routes, ..Config::default() }).len()
        };
        assert_eq!(shadowed(&[("a.*", Skip), ("a.b", Skip)]), 1);
        assert_eq!(shadowed(&[("a.b", Skip), ("a.*", Skip)]), 0);
        assert_eq!(shadowed(&[("a.*", Skip), ("a.b", Only)]), 0);
        assert_eq!(shadowed(&[("a.*", Only), ("a.b", Skip)]), 0);
        assert_eq!(shadowed(&[("a.*", Store), ("a.b", Only)]), 1);
        assert_eq!(shadowed(&[("a.*", Skip), ("a.b", Store)]), 0);
        assert_eq!(shadowed(&[("a.*", Skip), ("a.>", Only), ("a.b", DeadLetter)]), 1);
        let queries = ["q.*", "q.r"].map(|subject| QueryConfig::new(subject, "SELECT 1")).into();
        let said = said(&Config { queries, ..Config::default() });
        assert_eq!(
            said,
            [
                "query q.r receives no requests: the earlier query q.* takes all of them; move query q.r before query q.*"
            ]
        );
    }
}
