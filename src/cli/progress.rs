//! A progress line on standard error, if that is a terminal and this process is in its foreground. A process in the background (`&`)
//! would write into the lines of the others.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::pipeline::room_for_threads;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use nix::unistd::{getpgrp, tcgetpgrp};

/// A count with its rate, and a bar where the total is known.
pub struct Progress {
    bar: ProgressBar,
    /// What is counted, as words after one and after several.
    counted: Option<[String; 2]>,
    began: Instant,
    /// Whether the line is drawn: only in the foreground, and not if standard error is JSON.
    is_drawn: AtomicBool,
}

/// What takes less time needs no progress.
const UNNOTICED: Duration = Duration::from_millis(500);

/// Standard error is only for programs.
static HIDDEN: AtomicBool = AtomicBool::new(false);

/// Shows no progress from now on, because standard error is JSON.
pub fn hide() {
    HIDDEN.store(true, Ordering::Relaxed);
}

/// Whether somebody reads along: standard error is text on a terminal, and this process is in its foreground, so that Ctrl-C stops it.
pub fn is_watched() -> bool {
    let stderr = std::io::stderr();
    !HIDDEN.load(Ordering::Relaxed) && stderr.is_terminal() && tcgetpgrp(&stderr).is_ok_and(|group| group == getpgrp())
}

fn target(is_drawn: bool) -> ProgressDrawTarget {
    if is_drawn { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() }
}

/// The progress line that is shown now, for code that writes to the terminal too.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Runs `write` while the progress line is hidden.
pub fn aside(write: impl FnOnce()) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

impl Progress {
    /// Shows a count, and the total where it is known, of what has this noun, and what was done with it: `event`, `committed`.
    pub fn new(total: Option<u64>, noun: &str, done: &str) -> Self {
        let template = if total.is_some() {
            "{bar:24} {human_pos} of {human_len} {prefix}, {rate} {msg}"
        } else {
            "{spinner} {human_pos} {prefix}, {rate} {msg}"
        };
        let words = [format!("{noun} {done}"), format!("{noun}s {done}")];
        Self { counted: Some(words), ..Self::with_template(total, "", template) }
    }

    /// Shows the steps of a long work; see [`Progress::step`].
    pub fn of_steps() -> Self {
        Self::with_template(Some(1), "step", "{bar:24} {prefix} {human_pos} of {human_len}: {msg}")
    }

    /// Shows bytes, and their total where it is known, and what is done: `copying`.
    pub fn of_bytes(total: Option<u64>, step: &'static str) -> Self {
        let template = if total.is_some() {
            "{prefix} {bar:24} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}"
        } else {
            "{spinner} {prefix} {binary_bytes}, {binary_bytes_per_sec}"
        };
        Self::with_template(total, step, template)
    }

    /// Shows what is done, of which no part can be counted.
    pub fn of_work(step: &'static str) -> Self {
        Self::with_template(None, step, "{spinner} {prefix} {elapsed}")
    }

    fn with_template(total: Option<u64>, what: &'static str, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, target(false));
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, to: &mut dyn Write| {
                let _ = write!(to, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.with_key("rate", rate));
        }
        bar.set_prefix(what);
        // The ticker is a thread, and indicatif panics where no thread can be started.
        if std::io::stderr().is_terminal() && room_for_threads(1, "for the progress").is_ok() {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self { bar, counted: None, began: Instant::now(), is_drawn: AtomicBool::new(false) }
    }

    /// Shows this count and a note after it.
    pub fn show(&self, count: u64, note: String) {
        // A shell moves its processes: Ctrl-Z, bg, fg.
        let is_drawn = self.began.elapsed() >= UNNOTICED && is_watched();
        if self.is_drawn.swap(is_drawn, Ordering::Relaxed) != is_drawn {
            self.bar.set_draw_target(target(is_drawn));
        }
        if let Some(words) = &self.counted {
            self.bar.set_prefix(words_after(self.bar.length().unwrap_or(count), words).to_owned());
        }
        self.bar.set_position(count);
        self.bar.set_message(note);
    }

    /// Shows the number of the step that begins, from 1, how many there are, and what it does.
    pub fn step(&self, number: u64, of: u64, what: String) {
        self.bar.set_length(of.max(number));
        self.show(number, what);
    }

    /// Removes the line, so that something else can be printed there.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
        SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The words for what is counted after this number.
fn words_after(number: u64, [one, several]: &[String; 2]) -> &str {
    if number == 1 { one } else { several }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_one() {
        let progress = Progress::new(None, "event", "committed");
        for (count, words) in [(0, "events committed"), (1, "event committed"), (2, "events committed")] {
            progress.show(count, String::new());
            assert_eq!(progress.bar.prefix(), words, "{count}");
        }
        let of_one = Progress::new(Some(1), "event", "committed");
        of_one.show(0, String::new());
        assert_eq!(of_one.bar.prefix(), "event committed", "0 of 1");
    }
}
