//! Limits how often the same event is logged, so that trouble that repeats fills no disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{Level, Log, Record};

use super::fields;

/// So many lines of one event, of one part, are logged in a window.
const LINES: u64 = 20;

/// The length of a window. The first line after its end begins the next one.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts the lines of each event.
#[derive(Default)]
pub struct Limiter(BTreeMap<String, Window>);

struct Window {
    began: Instant,
    lines: u64,
    /// The level of the last line that was left out.
    level: Level,
}

/// What happens to a line.
pub struct Verdict {
    pub is_logged: bool,
    /// To log before it.
    pub left_out: Vec<LeftOut>,
}

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    name: String,
    lines: u64,
    level: Level,
    seconds: u64,
}

impl Limiter {
    /// Decides about a line. Lines without an event are never left out.
    pub fn judge(&mut self, record: &Record<'_>, now: Instant) -> Verdict {
        let left_out = self.close_windows(now);
        let Some(name) = fields::name_of(record) else { return Verdict { is_logged: true, left_out } };
        let window = self.0.entry(name).or_insert(Window { began: now, lines: 0, level: record.level() });
        window.lines += 1;
        window.level = record.level();
        Verdict { is_logged: window.lines <= LINES, left_out }
    }

    /// Ends the windows that are over.
    fn close_windows(&mut self, now: Instant) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        self.0.retain(|name, window| {
            let age = now.saturating_duration_since(window.began);
            if age >= WINDOW && window.lines > LINES {
                let (lines, level) = (window.lines - LINES, window.level);
                left_out.push(LeftOut { name: name.clone(), lines, level, seconds: age.as_secs() });
            }
            age < WINDOW
        });
        left_out
    }
}

impl LeftOut {
    /// Logs how many there were.
    pub fn log(&self, logger: &impl Log) {
        let Self { name, lines, level, seconds } = self;
        log::log!(
            logger: logger, *level, event = "log.left_out", of = name, lines = *lines, seconds = *seconds;
            "log: {lines} more lines of {name} within {seconds} s were left out; --verbose shows all"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(limiter: &mut Limiter, event: &'static str, now: Instant) -> (bool, Vec<LeftOut>) {
        let pairs = [("event", log::kv::Value::from(event)), ("part", log::kv::Value::from("broker"))];
        let record = Record::builder().level(Level::Warn).key_values(&pairs).build();
        let Verdict { is_logged, left_out } = limiter.judge(&record, now);
        (is_logged, left_out)
    }

    #[test]
    fn lines_beyond_the_limit_are_counted_and_the_count_is_logged() {
        let (mut limiter, began) = (Limiter::default(), Instant::now());
        let logged = (0..1_000).filter(|_| judged(&mut limiter, "trouble.began", began).0).count();
        assert_eq!(logged as u64, LINES);
        assert_eq!(judged(&mut limiter, "trouble.ended", began), (true, vec![]), "each event has its own limit");
        let expected =
            LeftOut { name: "trouble.began (broker)".into(), lines: 1_000 - LINES, level: Level::Warn, seconds: 60 };
        let other = judged(&mut limiter, "trouble.ended", began + WINDOW);
        assert_eq!(other, (true, vec![expected]), "any later line brings the count");
        assert_eq!(judged(&mut limiter, "trouble.began", began + WINDOW), (true, vec![]));
        assert!(limiter.0.len() <= 2, "nothing is kept of windows that are over");
    }

    #[test]
    fn lines_without_an_event_are_all_logged() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let record = Record::builder().level(Level::Info).build();
        assert!((0..1_000).all(|_| limiter.judge(&record, now).is_logged));
    }
}
