//! A small chart of the last minutes, as SVG without a script.

use std::fmt::Write;

use crate::markup::escaped;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 80.0;

/// A chart of one or two lines.
pub(super) struct Chart<'c> {
    pub(super) title: &'c str,
    /// The names of the lines.
    pub(super) names: &'c [&'c str],
    /// Seconds before now, and the value of each line, oldest first. Where a value is missing, the line is interrupted.
    pub(super) points: Vec<(f64, Vec<Option<f64>>)>,
    /// How many seconds the chart covers.
    pub(super) seconds: f64,
    /// A value for people.
    pub(super) shown: fn(f64) -> String,
}

impl Chart<'_> {
    /// The chart in HTML.
    pub(super) fn html(&self) -> String {
        let values = || self.points.iter().flat_map(|(_, values)| values.iter().flatten().copied());
        let most = values().fold(0.0, f64::max);
        let ceiling = if most > 0.0 { most * 1.08 } else { 1.0 };
        let now: Vec<String> = (0..self.names.len()).map(|line| self.last(line)).collect();
        let told: Vec<String> = self.names.iter().zip(&now).map(|(name, now)| format!("{name} {now}")).collect();
        let label = if values().next().is_none() {
            format!("{}: nothing in the last minutes", self.title)
        } else {
            format!("{}, the last 5 minutes: now {}; at most {}", self.title, told.join(", "), (self.shown)(most))
        };
        let mut html = format!("<figure class=\"chart\"><figcaption>{}<span class=\"legend\">", self.title);
        let classes = ["one", "two"];
        for ((name, now), class) in self.names.iter().zip(&now).zip(classes) {
            let _ = write!(html, "<i class=\"{class}\">{name} {}</i> ", escaped(now));
        }
        let _ = write!(
            html,
            "</span></figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
            escaped(&label)
        );
        let _ = write!(html, "<path class=\"grid\" d=\"M0 {HEIGHT}H{WIDTH}M0 0H{WIDTH}\"/>");
        for (line, class) in (0..self.names.len()).zip(["a", "b"]) {
            let runs = self.runs(line, ceiling);
            if line == 0 {
                for run in &runs {
                    let (first, last) = (run[0].0, run[run.len() - 1].0);
                    let _ = write!(
                        html,
                        "<path class=\"fill\" d=\"{}L{last:.1} {HEIGHT}L{first:.1} {HEIGHT}Z\"/>",
                        path(run)
                    );
                }
            }
            let _ = write!(
                html,
                "<path class=\"{class}\" d=\"{}\"/>",
                runs.iter().map(|run| path(run)).collect::<String>()
            );
        }
        let minutes = self.seconds / 60.0;
        let top = if most > 0.0 { format!("at most {}", (self.shown)(most)) } else { String::new() };
        let _ = write!(
            html,
            "</svg><div class=\"axis\" aria-hidden=\"true\"><span>{minutes:.0} min ago</span><span>{}</span><span>now</span></div></figure>",
            escaped(&top)
        );
        html
    }

    /// The last value of a line, or a dash.
    fn last(&self, line: usize) -> String {
        self.points.last().and_then(|(_, values)| values[line]).map_or_else(|| "–".into(), self.shown)
    }

    /// The parts of a line between interruptions.
    fn runs(&self, line: usize, ceiling: f64) -> Vec<Vec<(f64, f64)>> {
        let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut is_open = false;
        for (ago, values) in &self.points {
            let Some(value) = values[line] else {
                is_open = false;
                continue;
            };
            let x = (WIDTH * (1.0 - ago / self.seconds)).clamp(0.0, WIDTH);
            let y = HEIGHT * (1.0 - (value / ceiling).clamp(0.0, 1.0));
            match runs.last_mut().filter(|_| is_open) {
                Some(run) => run.push((x, y)),
                None => runs.push(vec![(x, y)]),
            }
            is_open = true;
        }
        runs
    }
}

fn path(run: &[(f64, f64)]) -> String {
    let mut path = String::with_capacity(run.len() * 12);
    for (at, (x, y)) in run.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
    }
    if let [(x, _)] = run {
        // A point of its own is as wide as the line.
        let _ = write!(path, "L{x:.1} {:.1}", run[0].1);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_interrupted_where_nothing_was_measured() {
        let point = |ago, value| (ago, vec![value]);
        let points = vec![point(300.0, Some(0.0)), point(150.0, Some(10.0)), point(100.0, None), point(0.0, Some(5.0))];
        let chart = Chart { title: "T", names: &["a"], points, seconds: 300.0, shown: |value| format!("<{value}>") };
        let html = chart.html();
        assert!(html.contains("d=\"M0.0 80.0L150.0 5.9M300.0 43.0L300.0 43.0\""), "{html}");
        assert!(html.contains("aria-label=\"T, the last 5 minutes: now a &lt;5&gt;; at most &lt;10&gt;\""), "{html}");
        let empty = Chart { title: "T", names: &["a"], points: Vec::new(), seconds: 300.0, shown: |_| String::new() };
        assert!(empty.html().contains("nothing in the last minutes"));
    }
}
