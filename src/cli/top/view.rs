//! The lines of the screen, for any size of it.

use std::path::Path;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::series::{Rates, Series};
use super::watch::Look;
use crate::cli::figures::{mean, rate, size, time};
use crate::cli::status::{name_of, shown};
use crate::cli::values::printable;
use crate::counted::count;
use crate::observe::seconds;
use crate::observe::{Snapshot, State};

/// A screen with at least so many columns has whole labels.
const WIDE: usize = 60;

/// Columns of the labels on a narrow and on a wide screen.
const LABELS: (usize, usize) = (11, 14);

/// Columns of the figures before a chart.
const FIGURE: usize = 13;

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Plain,
    Dim,
    Bold,
    Good,
    Bad,
    Worse,
}

/// Whether there are colours.
#[derive(Clone, Copy)]
pub struct Style {
    pub colors: bool,
}

/// A line, and when it is left out: lines of the highest rank go first if there is not room for all.
struct Line {
    parts: Vec<(Paint, String)>,
    rank: u8,
}

/// What is shown.
pub struct View {
    database: String,
    style: Style,
    series: Series,
    last: Option<Look>,
    /// The last answer; older than `last` if no collector answers now.
    snapshot: Option<Box<Snapshot>>,
}

impl View {
    pub fn new(database: &Path, style: Style) -> Self {
        let database = printable(&database.to_string_lossy()).into_owned();
        Self { database, style, series: Series::default(), last: None, snapshot: None }
    }

    /// Shows this look from now on.
    pub fn add(&mut self, mut look: Look) {
        self.series.add(&look);
        if let Ok(snapshot) = &mut look.found {
            self.snapshot = Some(snapshot.clone());
        }
        self.last = Some(look);
    }

    /// The lines for a screen with so many columns and lines.
    pub fn lines(&self, (columns, lines): (usize, usize)) -> Vec<String> {
        let mut all = self.all(columns);
        while all.len() > lines.max(1) {
            let highest = all.iter().map(|line| line.rank).max().unwrap_or_default();
            let at = all.iter().rposition(|line| line.rank == highest).unwrap_or_default();
            all.remove(at);
        }
        all.into_iter().map(|line| self.painted(line, columns)).collect()
    }

    fn all(&self, columns: usize) -> Vec<Line> {
        let mut lines = vec![self.title(columns)];
        let (state, look, sentence) = self.state();
        let sentence = format!("{state}: {sentence}");
        for (at, text) in wrapped(&sentence, columns.saturating_sub(2), 4).into_iter().enumerate() {
            let dot = if at == 0 { "● " } else { "  " };
            lines.push(Line { parts: vec![(look, dot.into()), (Paint::Plain, text)], rank: u8::from(at > 0) });
        }
        lines.push(blank());
        if let Some(snapshot) = &self.snapshot {
            let is_current = self.last.as_ref().is_some_and(|look| look.found.is_ok());
            lines.extend(self.figures(snapshot, is_current, columns));
        }
        lines.push(blank());
        lines.push(Line { parts: vec![(Paint::Dim, "q quits".into())], rank: 4 });
        lines
    }

    /// The database at the left, the time of the figures at the right.
    fn title(&self, columns: usize) -> Line {
        let at = self.snapshot.as_ref().map(|snapshot| clock(&snapshot.at)).unwrap_or_default();
        let left = format!("catchment top  {}", self.database);
        let gap = columns.saturating_sub(left.width() + at.width());
        let right = if gap > 1 { " ".repeat(gap) + &at } else { String::new() };
        Line { parts: vec![(Paint::Bold, left), (Paint::Dim, right)], rank: 3 }
    }

    fn state(&self) -> (&'static str, Paint, String) {
        match self.last.as_ref().map(|look| &look.found) {
            None => ("starting", Paint::Dim, format!("asking the collector of {}", self.database)),
            Some(Ok(snapshot)) => {
                let look = match snapshot.state {
                    State::Well => Paint::Good,
                    State::Failed => Paint::Worse,
                    State::Starting | State::Degraded | State::Stopping => Paint::Bad,
                };
                (name_of(snapshot.state), look, printable(&snapshot.summary).into_owned())
            }
            Some(Err(unanswered)) => {
                let look = if unanswered.state == "failed" { Paint::Worse } else { Paint::Bad };
                (unanswered.state, look, printable(&unanswered.summary).into_owned())
            }
        }
    }

    fn figures(&self, snapshot: &Snapshot, is_current: bool, columns: usize) -> Vec<Line> {
        let rates = self.series.last();
        let is_wide = columns >= WIDE;
        let label_width = if is_wide { LABELS.1 } else { LABELS.0 };
        let chart = |figure: fn(&Rates) -> f64| {
            let room = columns.saturating_sub(label_width + FIGURE + 1);
            spark(&self.series.of(figure), room)
        };
        let charted = |figure: String, chart: String| format!("{figure:<FIGURE$}{chart}").trim_end().to_owned();
        let mut rows = Vec::new();
        let lag = &snapshot.lag;
        let behind = lag.behind_seconds.filter(|behind| *behind > 0.0);
        let behind = behind.map(|behind| format!(", {} behind", time(Some(behind)))).unwrap_or_default();
        let queued = count(snapshot.queue.events);
        rows.push((0, "to come", format!("{}, {queued} in the queue{behind}", count(lag.pending)), Paint::Plain));
        let (received, committed) = match (rates, is_current) {
            (Some(rates), true) => (rates.received, rates.committed),
            (None, true) => (snapshot.rates.received, snapshot.rates.committed),
            (_, false) => (0.0, 0.0),
        };
        rows.push((0, "in", charted(format!("{}/s", rate(received)), chart(|rates| rates.received)), Paint::Plain));
        let figure = format!("{}/s", rate(committed));
        rows.push((0, "committed", charted(figure, chart(|rates| rates.committed)), Paint::Plain));
        let batch = mean(rates.and_then(|rates| rates.batch_events).or(snapshot.batch_events.mean));
        let total = count(snapshot.totals.committed);
        rows.push((2, "batch", format!("{batch} events, {total} since the start"), Paint::Plain));
        let (commit, delay) = (&snapshot.commit_seconds, &snapshot.publish_to_commit_seconds);
        let ago =
            snapshot.last_commit_seconds.map(|ago| format!(", the last {} ago", seconds(ago))).unwrap_or_default();
        rows.push((1, "commit", format!("{}, 99 % in {}{ago}", time(commit.p50), time(commit.p99)), Paint::Plain));
        let text = format!("{}, 99 % in {} from publish to commit", time(delay.p50), time(delay.p99));
        rows.push((2, "delay", text, Paint::Plain));
        let stored = snapshot.dead_letters.stored;
        let dead = rates.map_or(0.0, |rates| rates.dead_letters);
        let look = match (dead > 0.0, stored) {
            (true, _) => Paint::Worse,
            (false, Some(0)) => Paint::Plain,
            (false, _) => Paint::Bad,
        };
        let text = format!("{} stored, {}/s", stored.map_or("not known".into(), count), rate(dead));
        rows.push((1, if is_wide { "dead letters" } else { "dead" }, text, look));
        let database = &snapshot.database;
        let free = database.disk_free_bytes.map(|free| format!(", {} free", size(free))).unwrap_or_default();
        let text = format!("{}, WAL {}{free}", size(database.file_bytes), size(database.wal_bytes));
        rows.push((2, "database", text, Paint::Plain));
        let process = &snapshot.process;
        let cpu = format!("{:.0} % CPU", rates.map_or(0.0, |rates| rates.cpu) * 100.0);
        let up = seconds(snapshot.program.up_seconds);
        rows.push((5, "process", format!("{cpu}, {}, up {up}", size(process.resident_bytes)), Paint::Plain));
        for trouble in
            snapshot.reasons.iter().chain(snapshot.troubles.iter().filter(|it| !snapshot.reasons.contains(it)))
        {
            rows.push((2, "trouble", shown(trouble), Paint::Worse));
        }
        if let (Some(incident), true) = (snapshot.incidents.first(), snapshot.troubles.is_empty()) {
            let text = format!("{} {}: {}", clock(&incident.at), incident.part, incident.reason);
            rows.push((5, "last error", text, Paint::Dim));
        }
        for route in snapshot.routes.iter().filter(|route| route.events > 0 || route.dead_letters > 0) {
            let name = route.name.as_deref().unwrap_or("no route");
            let text = format!("{name}: {}, {} dead", count(route.events), count(route.dead_letters));
            rows.push((7, "route", text, if route.dead_letters > 0 { Paint::Bad } else { Paint::Plain }));
        }
        let line = |(rank, label, text, look): (u8, &str, String, Paint)| {
            let text = printable(&text).into_owned();
            let look = if is_current { look } else { Paint::Dim };
            Line { parts: vec![(Paint::Dim, format!("{label:<label_width$}")), (look, text)], rank }
        };
        rows.into_iter().map(line).collect()
    }

    /// The line, cut at the right edge of the screen.
    fn painted(&self, line: Line, columns: usize) -> String {
        let (mut room, mut painted) = (columns, String::new());
        for (look, text) in line.parts {
            let cut = cut(&text, room);
            room -= cut.width().min(room);
            let codes = match look {
                Paint::Plain => "",
                Paint::Dim => "2",
                Paint::Bold => "1",
                Paint::Good => "32",
                Paint::Bad => "33",
                Paint::Worse => "31",
            };
            if self.style.colors && !codes.is_empty() && !cut.is_empty() {
                painted.extend(["\x1b[", codes, "m", &cut, "\x1b[0m"]);
            } else {
                painted += &cut;
            }
        }
        painted
    }
}

fn blank() -> Line {
    Line { parts: Vec::new(), rank: 6 }
}

/// The time of day of a time in RFC 3339.
fn clock(at: &str) -> String {
    match (at.get(11..19), at.ends_with('Z')) {
        (Some(time), true) => format!("{time}Z"),
        _ => at.to_owned(),
    }
}

/// The text, at most so many columns wide; a text that is cut ends with `…`.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let (mut cut, mut width) = (String::new(), 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if width + wide + 1 > columns {
            break;
        }
        cut.push(c);
        width += wide;
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// The text in lines, broken between words, at most so many; the last one is cut.
fn wrapped(text: &str, columns: usize, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.len() >= most;
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() || full || line.width() + 1 + word.width() <= columns {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.into_iter().map(|line| cut(&line, columns)).collect()
}

/// The last values as a chart of one line, so many columns wide at most. The largest value has a full block.
fn spark(values: &[f64], columns: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(columns)..];
    let most = shown.iter().copied().fold(0.0, f64::max);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of eight")]
    let block = |value: &f64| {
        if *value <= 0.0 {
            return ' ';
        }
        let part = (value / most * 8.0).ceil() as usize;
        BLOCKS[part.clamp(1, 8) - 1]
    };
    if columns < 8 { String::new() } else { shown.iter().map(block).collect::<String>().trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::cli::status::Unanswered;
    use crate::config::Config;
    use crate::observe::{AskError, Observer, Trouble};

    fn snapshot(committed: u64) -> Box<Snapshot> {
        let mut snapshot = Observer::new(&Config::default()).snapshot();
        snapshot.state = State::Well;
        (snapshot.reasons, snapshot.troubles, snapshot.incidents) = (Vec::new(), Vec::new(), Vec::new());
        snapshot.summary = "Collecting stream EVENTS into catchment.db. All is well, and nothing waits.".into();
        snapshot.at = "2026-01-01T12:34:56.789Z".into();
        snapshot.program.started = "then".into();
        (snapshot.totals.committed, snapshot.totals.batches) = (committed, committed / 100);
        let route = |name: &str, events: u64| serde_json::json!({ "name": name, "events": events, "dead_letters": 0, "spent_seconds": 0.0 });
        let routes = serde_json::json!([route("日本語", 7), route("unused", 0)]);
        snapshot.routes = serde_json::from_value(routes).expect("routes");
        Box::new(snapshot)
    }

    /// A view after looks that are a second apart.
    fn view(found: Vec<Result<Box<Snapshot>, Unanswered>>) -> View {
        let mut view = View::new(Path::new("a\u{1b}.db"), Style { colors: false });
        let began = Instant::now();
        for (at, found) in (0..).zip(found) {
            view.add(Look { at: began + Duration::from_secs(at), found });
        }
        view
    }

    fn absent() -> Unanswered {
        Unanswered::of(Path::new("/nowhere/a.db"), AskError::NobodyRuns("x".into()))
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let lines = view(vec![Ok(snapshot(1_000)), Ok(snapshot(3_500)), Ok(snapshot(6_000))]).lines((80, 40));
        let text = lines.join("\n");
        assert!(text.starts_with("catchment top  a\\u001b.db "), "{text}");
        assert!(lines[0].ends_with(" 12:34:56Z") && lines[0].width() == 80, "{text}");
        assert!(text.contains("\n● well: Collecting stream EVENTS"), "{text}");
        assert!(text.contains("\ncommitted     2,500/s       ") && text.contains("██"), "{text}");
        assert!(text.contains("\nbatch         100 events, 6,000 since the start\n"), "{text}");
        assert!(text.contains("日本語: 7, 0 dead") && !text.contains("unused"), "{text}");
        // A collector that started again counts from 0.
        let mut again = snapshot(10);
        again.program.started = "later".into();
        let text = view(vec![Ok(snapshot(1_000)), Ok(again)]).lines((80, 40)).join("\n");
        assert!(text.contains("\ncommitted     0/s\n"), "{text}");
    }

    #[test]
    fn every_size_of_screen_is_kept_to_and_the_state_is_the_last_to_go() {
        let mut bad = snapshot(5);
        bad.state = State::Failed;
        bad.summary = "Not ready: 日本語 ".repeat(20);
        bad.troubles = vec![Trouble { part: "broker".into(), reason: "no answer".repeat(30), for_seconds: 3.0 }];
        let views = [view(Vec::new()), view(vec![Ok(snapshot(1)), Ok(snapshot(2))]), view(vec![Ok(bad)])];
        for view in &views {
            for columns in [0, 1, 2, 8, 20, 40, 59, 60, 80, 200] {
                for lines in [1, 2, 5, 24, 100] {
                    let shown = view.lines((columns, lines));
                    assert!(!shown.is_empty() && shown.len() <= lines, "{columns}x{lines}");
                    assert!(shown.iter().all(|line| line.width() <= columns), "{columns}x{lines}: {shown:#?}");
                }
            }
            assert!(view.lines((80, 1))[0].starts_with('●'), "{:?}", view.lines((80, 1)));
        }
    }

    #[test]
    fn without_a_collector_the_last_figures_stay_and_rates_are_zero() {
        let text = view(vec![Ok(snapshot(1_000)), Ok(snapshot(2_000)), Err(absent())]).lines((80, 40)).join("\n");
        assert!(text.contains("● absent: no collector uses /nowhere/a.db; catchment run starts one"), "{text}");
        assert!(text.contains("\ncommitted     0/s") && text.contains("2,000 since the start"), "{text}");
        assert!(!view(vec![Err(absent())]).lines((80, 40)).join("\n").contains("committed"));
    }

    #[test]
    fn colours_are_only_where_they_may_be() {
        let mut view = view(vec![Ok(snapshot(1))]);
        assert!(!view.lines((80, 40)).concat().contains('\u{1b}'));
        view.style.colors = true;
        assert!(view.lines((80, 40)).concat().contains("\u{1b}[32m● \u{1b}[0m"));
    }

    #[test]
    fn a_chart_shows_the_last_values() {
        assert_eq!(spark(&[0.0, 1.0, 4.0, 8.0], 60), " ▁▄█");
        assert_eq!(spark(&[9.0, 9.0, 1.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0], 8), "▁█     █");
        assert_eq!(
            (spark(&[1.0], 7), spark(&[0.0], 60), spark(&[], 60)),
            (String::new(), String::new(), String::new())
        );
    }
}
