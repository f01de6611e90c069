//! Progress on a terminal's standard error; nothing anywhere else.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A count that moves, with a rate; a bar where the end is known.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows a count, of `total` where that is known. `what` is what is counted: `events committed`.
    pub fn new(total: Option<u64>, what: &'static str) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = if total.is_some() {
            "{bar:24} {human_pos} of {human_len} {prefix}, {per_sec} {msg}"
        } else {
            "{spinner} {human_pos} {prefix}, {per_sec} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    /// Shows this count and a few words behind it.
    pub fn show(&self, count: u64, note: String) {
        self.0.set_position(count);
        self.0.set_message(note);
    }

    /// Takes the line away, so that something else can be printed there.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
