//! A flamegraph of stacks: a box for each function, as wide as its share, above its caller. It is an SVG without scripts; the
//! title of a box shows when the pointer rests on it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::activity::Activity;
use super::stack::Stack;
use crate::markup::escaped;

const WIDTH: f64 = 1200.0;
/// Height of a box.
const ROW: f64 = 17.0;
/// Boxes narrower than this are left out.
const NARROWEST: f64 = 0.4;
/// Approximate width of a letter.
const LETTER: f64 = 6.6;

/// A function with the same callers.
#[derive(Default)]
struct Node<'a> {
    samples: u64,
    callees: BTreeMap<&'a str, Node<'a>>,
}

/// Where a box begins.
#[derive(Clone, Copy)]
struct Corner {
    left: f64,
    depth: usize,
}

/// Draws the stacks.
pub(super) fn draw(stacks: &[Stack]) -> String {
    let mut all = Node::default();
    let mut deepest = 0;
    for stack in stacks {
        all.samples += stack.samples;
        deepest = deepest.max(stack.frames.len());
        let mut node = &mut all;
        for frame in &stack.frames {
            node = node.callees.entry(frame).or_default();
            node.samples += stack.samples;
        }
    }
    let mut picture = Picture { svg: String::new(), total: all.samples, height: height(deepest + 2) };
    picture.begin();
    picture.boxes("all", &all, Corner { left: 0.0, depth: 0 }, &mut Vec::new());
    picture.svg.push_str("</svg>\n");
    picture.svg
}

#[allow(clippy::cast_precision_loss, reason = "a few hundred at most")]
fn height(rows: usize) -> f64 {
    rows as f64 * ROW
}

struct Picture {
    svg: String,
    total: u64,
    height: f64,
}

impl Picture {
    fn begin(&mut self) {
        let _ = writeln!(
            self.svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {0}\" width=\"{WIDTH}\" height=\"{0}\" \
             font-family=\"monospace\" font-size=\"11\">",
            self.height
        );
        for (at, activity) in Activity::ALL.into_iter().enumerate() {
            let left = height(at) * 5.0 + 4.0;
            let (colour, name) = (colour(activity), activity.name());
            let _ = writeln!(
                self.svg,
                "<rect x=\"{left}\" y=\"3\" width=\"11\" height=\"11\" fill=\"{colour}\"/><text x=\"{}\" y=\"12\">{name}</text>",
                left + 15.0
            );
        }
    }

    /// Draws a box and the boxes above it. `path` has the names of the callers.
    #[allow(clippy::cast_precision_loss, reason = "counts become widths")]
    fn boxes<'a>(&mut self, name: &'a str, node: &Node<'a>, at: Corner, path: &mut Vec<String>) {
        let share = node.samples as f64 / self.total as f64;
        let (width, top) = (share * WIDTH, self.height - height(at.depth + 1));
        if width < NARROWEST {
            return;
        }
        path.push(name.to_owned());
        let (fill, shown, left) = (colour(Activity::of(path)), escaped(name), at.left);
        let (samples, percent, narrower) = (node.samples, share * 100.0, (width - 0.3).max(NARROWEST));
        let _ = write!(
            self.svg,
            "<g><title>{shown}: {samples} samples, {percent:.1} %</title><rect x=\"{left:.1}\" y=\"{top:.1}\" \
             width=\"{narrower:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>",
            ROW - 1.0
        );
        if let Some(label) = label(name, width) {
            let _ =
                write!(self.svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", left + 3.0, top + 12.0, escaped(&label));
        }
        self.svg.push_str("</g>\n");
        let mut left = at.left;
        for (name, callee) in &node.callees {
            self.boxes(name, callee, Corner { left, depth: at.depth + 1 }, path);
            left += callee.samples as f64 / self.total as f64 * WIDTH;
        }
        path.pop();
    }
}

/// As much of a name as fits; none if fewer than four letters fit.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width is small and not negative")]
fn label(name: &str, width: f64) -> Option<String> {
    let fits = ((width - 6.0).max(0.0) / LETTER) as usize;
    if name.chars().count() <= fits {
        return Some(name.to_owned());
    }
    (fits >= 4).then(|| name.chars().take(fits - 1).chain(['…']).collect())
}

fn colour(activity: Activity) -> &'static str {
    match activity {
        Activity::Nats => "#8fbf6f",
        Activity::Sqlite => "#7fb2d9",
        Activity::Json => "#e5c15c",
        Activity::Channel => "#c69ad1",
        Activity::Kernel => "#e58c70",
        Activity::Other => "#c9c9c9",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[&str], samples: u64) -> Stack {
        Stack { frames: frames.iter().map(|&frame| frame.to_owned()).collect(), samples }
    }

    #[test]
    fn a_caller_is_as_wide_as_its_callees() {
        let svg = draw(&[stack(&["a", "b"], 1), stack(&["a", "<c as D>::e"], 2), stack(&["f"], 1)]);
        assert!(svg.contains("<title>all: 4 samples, 100.0 %</title><rect x=\"0.0\""), "{svg}");
        assert!(svg.contains("<title>a: 3 samples, 75.0 %</title>"), "{svg}");
        assert!(svg.contains("<title>&lt;c as D&gt;::e: 2 samples, 50.0 %</title>"), "{svg}");
        assert!(svg.contains("<title>f: 1 samples, 25.0 %</title><rect x=\"900.0\""), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    }

    #[test]
    fn a_name_that_does_not_fit_is_cut() {
        assert_eq!(label("memcpy", 100.0).as_deref(), Some("memcpy"));
        assert_eq!(label("sqlite3VdbeExec", 60.0).as_deref(), Some("sqlite3…"));
        assert_eq!(label("memcpy", 20.0), None);
    }
}
