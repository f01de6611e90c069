//! The page: how the collector is, in one sentence, and its figures. It is whole without a script; a small one reads it again every two
//! seconds. Nothing is loaded from elsewhere, and only this style and this script may be used.

mod chart;
mod charts;
mod numbers;
mod sections;

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::history::Sample;
use super::snapshot::{Snapshot, State};
use crate::markup::escaped;
use numbers::clock;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

/// An icon without a request.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='none' stroke='%233b7ddd' stroke-width='2' d='M2 4q3 3 6 0t6 0M2 9q3 3 6 0t6 0M2 14q3 3 6 0t6 0'/%3E%3C/svg%3E";

/// What the page may do: use its own style and script, and read itself again. <https://www.w3.org/TR/CSP3/>.
static POLICY: LazyLock<Arc<str>> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
    .into()
});

/// The Content-Security-Policy of the page.
pub(super) fn policy() -> Arc<str> {
    Arc::clone(&POLICY)
}

/// The page for a snapshot and the samples before it.
pub(super) fn html(snapshot: &Snapshot, samples: &[Sample]) -> String {
    let what = snapshot.source.stream.as_deref().unwrap_or("core NATS");
    let (class, word) = state(snapshot.state);
    let mut html = String::with_capacity(64 << 10);
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{word}: {what} – catchment</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
         <link rel=\"icon\" href=\"{ICON}\"><style>{STYLE}</style></head><body>\
         <header><strong>catchment</strong> <span>{}</span> \
         <span id=\"live\" data-at=\"{at}\">as of {at} UTC; <a href=\"/\">read again</a></span></header>\
         <div id=\"spoken\" class=\"hidden\" role=\"status\"></div>",
        escaped(&snapshot.database.path),
        at = clock(&snapshot.at, &snapshot.at),
        what = escaped(what),
    );
    let _ = write!(
        html,
        "<main data-state=\"{class}\"><section class=\"lead {class}\"><span class=\"badge\">{word}</span>"
    );
    let _ = write!(html, "<h1>{}</h1>", escaped(&snapshot.summary));
    sections::troubles(&mut html, snapshot);
    html.push_str("</section>");
    sections::tiles(&mut html, snapshot);
    html.push_str("<h2>The last 5 minutes</h2><div class=\"charts\">");
    charts::all(&mut html, samples);
    html.push_str("</div>");
    sections::tables(&mut html, snapshot);
    let _ = writeln!(
        html,
        "</main><footer><nav aria-label=\"Other formats\"><a href=\"/metrics\">metrics</a> · <a href=\"/status\">figures as JSON</a> · \
         <a href=\"/readyz\">readiness</a></nav><p>catchment {}, SQLite {}. Times are UTC. Percentiles are of the last minute.</p></footer>\
         <script>{SCRIPT}</script></body></html>",
        escaped(&snapshot.program.version),
        escaped(&snapshot.program.sqlite),
    );
    html
}

/// The name of a state in the style, and the word for it.
fn state(state: State) -> (&'static str, &'static str) {
    match state {
        State::Starting => ("starting", "Starting"),
        State::Well => ("well", "Well"),
        State::Degraded => ("degraded", "Trouble"),
        State::Failed => ("failed", "Not ready"),
        State::Stopping => ("stopping", "Stopping"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::observe::Observer;
    use crate::observe::snapshot::{DeadLetterLine, RouteFigures, Trouble};

    #[test]
    fn text_from_outside_is_never_markup() {
        let mut snapshot = Observer::new(&Config::default()).snapshot();
        let evil = "</script><img src=x onerror=alert(1)>\"'&".to_owned();
        snapshot.source.stream = Some(evil.clone());
        snapshot.database.path.clone_from(&evil);
        snapshot.summary.clone_from(&evil);
        snapshot.troubles = vec![Trouble { part: evil.clone(), reason: evil.clone(), for_seconds: 1.0 }];
        snapshot.reasons.clone_from(&snapshot.troubles);
        snapshot.dead_letters.stored = Some(1);
        snapshot.dead_letters.last = vec![DeadLetterLine {
            id: 1,
            at: evil.clone(),
            subject: evil.clone(),
            sequence: Some(1),
            route: Some(evil.clone()),
            error: evil.clone(),
        }];
        snapshot.routes =
            vec![RouteFigures { name: Some(evil.clone()), events: 1, dead_letters: 1, spent_seconds: 0.0 }];
        snapshot.source.connected = Some(evil.clone());
        snapshot.source.subjects = vec![evil];
        let page = html(&snapshot, &[]);
        assert!(!page.contains("<img") && !page.contains("onerror=alert(1)>\""), "{page}");
        assert!(page.matches("&lt;img src=x").count() > 8, "{page}");
        assert_eq!(page.matches("</script>").count(), 1);
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = html(&Observer::new(&Config::default()).snapshot(), &[]);
        let without_names = page.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !without_names.contains("http://") && !without_names.contains("https://") && !page.contains("url("),
            "{page}"
        );
        assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy forbids these");
        assert!(policy().contains("default-src 'none'") && !policy().contains("unsafe"), "{}", policy());
    }
}
