//! The parts of the page beside its charts.

use std::fmt::Write;

use super::numbers::{bytes, clock, duration, duration_or_dash, number};
use crate::counted::count;
use crate::markup::escaped;
use crate::observe::snapshot::{Snapshot, State};
use crate::observe::summary::seconds;

/// What is wrong beside what the sentence says.
pub(super) fn troubles(html: &mut String, snapshot: &Snapshot) {
    let said = snapshot.reasons.first().or(snapshot.troubles.first());
    let others: Vec<_> = snapshot.troubles.iter().filter(|trouble| Some(*trouble) != said).collect();
    if others.is_empty() || matches!(snapshot.state, State::Starting | State::Stopping) {
        return;
    }
    html.push_str("<ul>");
    for trouble in others {
        let (part, reason) = (escaped(&trouble.part), escaped(&trouble.reason));
        let _ = write!(html, "<li>{part}, for {}: {reason}</li>", seconds(trouble.for_seconds));
    }
    html.push_str("</ul>");
}

/// The most important numbers.
pub(super) fn tiles(html: &mut String, snapshot: &Snapshot) {
    let Snapshot { rates, lag, queue, totals, dead_letters, database, .. } = snapshot;
    let delay = &snapshot.publish_to_commit_seconds;
    html.push_str("<dl class=\"tiles\">");
    let mut tile = |name: &str, value: &str, note: &str, is_alarm: bool| {
        let class = if is_alarm { "tile alarm" } else { "tile" };
        let _ = write!(html, "<div class=\"{class}\"><dt>{name}</dt><dd>{value} <small>{note}</small></dd></div>");
    };
    tile(
        "Committed",
        &format!("{}/s", number(rates.committed)),
        &format!("{} since the start", count(totals.committed)),
        false,
    );
    let note = format!("p90 {}, p99 {}", duration_or_dash(delay.p90), duration_or_dash(delay.p99));
    tile("Publish to commit", &duration_or_dash(delay.p50), &note, false);
    let behind = match lag.behind_seconds {
        Some(behind) if behind > 0.0 => format!("{} behind", seconds(behind)),
        _ => "nothing waits".into(),
    };
    tile(
        "Still in the stream",
        &count(lag.pending),
        &behind,
        snapshot.reasons.iter().any(|reason| reason.part == "lag"),
    );
    tile("In memory", &count(queue.events), &bytes(queue.bytes), false);
    let stored = dead_letters.stored.map_or_else(|| "–".into(), count);
    let is_alarm = snapshot.troubles.iter().any(|trouble| trouble.part == "dead letters");
    tile("Dead letters", &stored, &format!("{} since the start", count(totals.dead_letters)), is_alarm);
    let ago = snapshot.last_commit_seconds.map_or_else(|| "none yet".into(), ago);
    tile(
        "Last commit",
        &ago,
        &format!("{} failed attempts", count(totals.commit_failures)),
        snapshot.reasons.iter().any(|reason| reason.part == "stall"),
    );
    let free = database.disk_free_bytes.map_or_else(String::new, |free| format!("{} free on the disk", bytes(free)));
    tile("Database", &bytes(database.file_bytes), &format!("WAL {}; {free}", bytes(database.wal_bytes)), false);
    html.push_str("</dl>");
}

/// How long ago something was.
fn ago(ago: f64) -> String {
    if ago < 1.0 { "just now".into() } else { format!("{} ago", seconds(ago)) }
}

/// The tables.
pub(super) fn tables(html: &mut String, snapshot: &Snapshot) {
    html.push_str("<div class=\"sheets\"><section>");
    routes(html, snapshot);
    html.push_str("</section><section>");
    queries(html, snapshot);
    html.push_str("</section></div>");
    dead_letters(html, snapshot);
    incidents(html, snapshot);
    html.push_str("<div class=\"sheets\"><section>");
    source(html, snapshot);
    html.push_str("</section><section>");
    process(html, snapshot);
    html.push_str("</section></div>");
}

/// Begins a table with this heading.
fn begin(html: &mut String, heading: &str, class: &str, columns: &[(&str, bool)]) {
    let _ = write!(
        html,
        "<h2>{heading}</h2><div class=\"sheet\" tabindex=\"0\" role=\"region\" aria-label=\"{heading}\"><table class=\"{class}\" role=\"table\">"
    );
    if !columns.is_empty() {
        html.push_str("<thead role=\"rowgroup\"><tr role=\"row\">");
        for (name, is_number) in columns {
            let class = if *is_number { " class=\"number\"" } else { "" };
            let _ = write!(html, "<th scope=\"col\" role=\"columnheader\"{class}>{name}</th>");
        }
        html.push_str("</tr></thead>");
    }
    html.push_str("<tbody role=\"rowgroup\">");
}

const END: &str = "</tbody></table></div>";

fn cell(html: &mut String, class: &str, name: &str, text: &str) {
    let _ = write!(html, "<td role=\"cell\" class=\"{class}\" data-name=\"{name}\">{}</td>", escaped(text));
}

fn routes(html: &mut String, snapshot: &Snapshot) {
    let columns = [("route", false), ("events", true), ("dead letters", true), ("time an event", true)];
    begin(html, "Routes", "", &columns);
    let has_routes = snapshot.routes.iter().any(|route| route.name.is_some());
    for route in snapshot.routes.iter().filter(|route| route.name.is_some() || route.events > 0 || !has_routes) {
        html.push_str("<tr role=\"row\">");
        cell(html, "", "route", route.name.as_deref().unwrap_or("no route"));
        cell(html, "number", "events", &count(route.events));
        let class = if route.dead_letters > 0 { "number alarm" } else { "number" };
        cell(html, class, "dead letters", &count(route.dead_letters));
        cell(html, "number", "time an event", &each(route.spent_seconds, route.events));
        html.push_str("</tr>");
    }
    html.push_str(END);
}

/// The time of one of so many events.
#[allow(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
fn each(spent: f64, events: u64) -> String {
    match events {
        0 => "–".into(),
        events => {
            let micros = spent * 1e6 / events as f64;
            if micros < 999.5 { format!("{micros:.1} µs") } else { duration(micros / 1e6) }
        }
    }
}

fn queries(html: &mut String, snapshot: &Snapshot) {
    if snapshot.queries.is_empty() {
        html.push_str("<h2>Queries</h2><p class=\"none\">None are configured.</p>");
        return;
    }
    let columns = [("query", false), ("requests", true), ("errors", true), ("median", true), ("p99", true)];
    begin(html, "Queries", "", &columns);
    for query in &snapshot.queries {
        html.push_str("<tr role=\"row\">");
        cell(html, "", "query", &query.name);
        cell(html, "number", "requests", &count(query.requests));
        cell(html, if query.errors > 0 { "number alarm" } else { "number" }, "errors", &count(query.errors));
        cell(html, "number", "median", &duration_or_dash(query.duration_seconds.quantile(0.5)));
        cell(html, "number", "p99", &duration_or_dash(query.duration_seconds.quantile(0.99)));
        html.push_str("</tr>");
    }
    html.push_str(END);
    let last = snapshot.queries.iter().filter_map(|query| Some((&query.name, query.last_error.as_ref()?)));
    for (name, error) in last {
        let _ = write!(html, "<p class=\"none\">Last error of {}: {}</p>", escaped(name), escaped(error));
    }
}

fn dead_letters(html: &mut String, snapshot: &Snapshot) {
    let letters = &snapshot.dead_letters;
    if letters.last.is_empty() {
        let text = if letters.stored.is_some() { "None are stored." } else { "They are not read yet." };
        let _ = write!(html, "<h2>Last dead letters</h2><p class=\"none\">{text}</p>");
        return;
    }
    let columns = [("time", false), ("subject", false), ("route", false), ("sequence", true), ("reason", false)];
    begin(html, "Last dead letters", "cards", &columns);
    for letter in &letters.last {
        html.push_str("<tr role=\"row\">");
        cell(html, "time", "time", &clock(&letter.at, &snapshot.at));
        cell(html, "", "subject", &letter.subject);
        cell(html, "", "route", letter.route.as_deref().unwrap_or("–"));
        cell(html, "number", "sequence", &letter.sequence.map_or_else(|| "–".into(), count));
        cell(html, "", "reason", &letter.error);
        html.push_str("</tr>");
    }
    html.push_str(END);
    html.push_str("<p class=\"none\"><code>catchment dead-letters list</code> shows all, <code>dead-letters retry</code> tries them again.</p>");
}

fn incidents(html: &mut String, snapshot: &Snapshot) {
    if snapshot.incidents.is_empty() {
        html.push_str("<h2>Last errors</h2><p class=\"none\">None since the start.</p>");
        return;
    }
    begin(html, "Last errors", "cards", &[("time", false), ("part", false), ("what", false), ("lasted", true)]);
    for incident in snapshot.incidents.iter().take(10) {
        html.push_str("<tr role=\"row\">");
        cell(html, "time", "time", &clock(&incident.at, &snapshot.at));
        cell(html, "", "part", &incident.part);
        cell(html, "", "what", &incident.reason);
        match incident.lasted_seconds {
            Some(lasted) => cell(html, "number", "lasted", &duration(lasted)),
            None => cell(html, "number alarm", "lasted", "still"),
        }
        html.push_str("</tr>");
    }
    html.push_str(END);
}

fn row(html: &mut String, name: &str, text: &str) {
    let text = escaped(text);
    let _ = write!(
        html,
        "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">{name}</th><td role=\"cell\">{text}</td></tr>"
    );
}

fn source(html: &mut String, snapshot: &Snapshot) {
    let Snapshot { source, position, lag, totals, .. } = snapshot;
    begin(html, "Source", "", &[]);
    let what = source.shown().unwrap_or_else(|| "core NATS, at most once".into());
    row(html, "from", &what);
    row(html, "subjects", &source.subjects.join(", "));
    match (&source.connected, &source.connected_since) {
        (Some(server), Some(since)) => {
            row(html, "connected", &format!("{server} since {}", clock(since, &snapshot.at)));
        }
        _ => row(html, "connected", &format!("no; tries {}", source.servers)),
    }
    row(html, "connected again", &format!("{} times", count(source.reconnects)));
    if let Some(position) = position {
        row(html, "committed up to", &format!("{} (epoch {})", count(position.sequence), position.epoch));
        if let Some(published) = &position.published {
            row(html, "published at", &clock(published, &snapshot.at));
        }
    }
    let acks = format!("{} open, {} sent again", count(lag.ack_pending), count(lag.redelivered));
    row(html, "acknowledgements", &acks);
    for (name, number) in [
        ("duplicates skipped", totals.duplicates),
        ("lost in the stream", totals.lost),
        ("dropped", totals.dropped),
        ("unmatched, dropped", totals.unmatched_dropped),
        ("markers skipped", totals.markers_skipped),
        ("confirmations dropped", totals.confirmations_dropped),
    ] {
        if number > 0 {
            row(html, name, &count(number));
        }
    }
    html.push_str(END);
}

fn process(html: &mut String, snapshot: &Snapshot) {
    let Snapshot { process, program, database, .. } = snapshot;
    begin(html, "Process and database", "", &[]);
    row(html, "running for", &seconds(program.up_seconds));
    row(html, "process", &program.pid.to_string());
    row(html, "CPU time", &duration(process.cpu_seconds));
    row(html, "memory", &bytes(process.resident_bytes));
    let most = process.max_open_files.map_or_else(String::new, |most| format!(" of {}", count(most)));
    row(html, "threads, files", &format!("{}, {}{most}", count(process.threads), count(process.open_files)));
    let free = format!(
        "{} of {} bytes, {} of them free",
        count(database.pages),
        count(database.page_bytes),
        count(database.free_pages)
    );
    row(html, "database pages", &free);
    let wal =
        format!("{}, {} of them copied", count(database.wal_pages.into()), count(database.wal_pages_copied.into()));
    row(html, "WAL pages", &wal);
    html.push_str(END);
}
