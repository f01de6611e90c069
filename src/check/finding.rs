//! Findings, and how bad they are.

use crate::error::Error;

/// How bad a finding is: the exit statuses of monitoring plug-ins,
/// <https://www.monitoring-plugins.org/doc/guidelines.html#AEN78>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not bad yet, but worth a look.
    Warning,
    /// Not checked, because a setting is invalid.
    Unknown,
    /// Events are not collected, or will be lost.
    Critical,
}

impl Level {
    /// 0 ok, 1 warning, 2 critical, 3 unknown.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// The result of checking one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was checked: `database`, `stream`.
    pub object: &'static str,
    /// The result, in one line.
    pub what: String,
    /// What to do about it, if anything.
    pub remedy: Option<String>,
}

impl Finding {
    /// An error: unknown if a setting is invalid, else critical. The remedy and the object's name at the beginning are taken out of
    /// the error's text.
    #[must_use]
    pub fn of_error(object: &'static str, error: &Error) -> Self {
        let level = if matches!(error, Error::Config { .. }) { Level::Unknown } else { Level::Critical };
        let text = error.to_string();
        let what = error.remedy().and_then(|remedy| text.strip_suffix(remedy)?.strip_suffix("; ")).unwrap_or(&text);
        let name = if object == "settings" { "configuration:" } else { object };
        let what = what.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).unwrap_or(what);
        Self { level, object, what: what.to_owned(), remedy: error.remedy().map(str::to_owned) }
    }
}

/// A number that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Its name, with its unit if it has one: `dead_letters`, `disk_free_bytes`.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its value.
    pub value: u64,
}

/// The results of a check, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
    /// The numbers.
    pub measures: Vec<Measure>,
}

impl Report {
    /// The worst level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// Collects findings, and passes each one on at once.
pub(super) struct ReportBuilder<'a> {
    report: Report,
    on_finding: &'a mut dyn FnMut(&Finding),
}

impl<'a> ReportBuilder<'a> {
    pub(super) fn new(on_finding: &'a mut dyn FnMut(&Finding)) -> Self {
        Self { report: Report::default(), on_finding }
    }

    pub(super) fn ok(&mut self, object: &'static str, what: impl Into<String>) {
        self.add(Level::Ok, object, what.into(), None);
    }

    pub(super) fn warning(&mut self, object: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, object, what.into(), Some(remedy.into()));
    }

    pub(super) fn critical(&mut self, object: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Critical, object, what.into(), Some(remedy.into()));
    }

    pub(super) fn error(&mut self, object: &'static str, error: &Error) {
        self.push(Finding::of_error(object, error));
    }

    pub(super) fn measure(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.report.measures.push(Measure { name, help, value });
    }

    /// How many findings there are so far.
    pub(super) fn len(&self) -> usize {
        self.report.findings.len()
    }

    pub(super) fn finish(self) -> Report {
        self.report
    }

    fn add(&mut self, level: Level, object: &'static str, what: String, remedy: Option<String>) {
        self.push(Finding { level, object, what, remedy });
    }

    /// Adds a finding, unless the same was found before: a damaged file, for example, is found by several checks.
    fn push(&mut self, finding: Finding) {
        if self.report.findings.contains(&finding) {
            return;
        }
        (self.on_finding)(&finding);
        self.report.findings.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_of_an_error_is_not_repeated() {
        let what = "broker.stream: is bad".to_owned();
        let expected = |remedy| Finding { level: Level::Unknown, object: "settings", what: what.clone(), remedy };
        let error = Error::config("broker.stream", "is bad");
        assert_eq!(Finding::of_error("settings", &error), expected(None));
        let error = error.with_remedy("name another");
        assert_eq!(Finding::of_error("settings", &error), expected(Some("name another".into())));
    }

    #[test]
    fn a_finding_says_nothing_twice() {
        let error = Error::database(crate::error::DatabaseFault::Corrupt, "a.db", "is damaged");
        assert_eq!(Finding::of_error("database", &error).what, "a.db: is damaged");
        assert_eq!(Finding::of_error("routes", &error).what, "database a.db: is damaged");
        let mut passed_on = 0;
        let mut count = |_: &Finding| passed_on += 1;
        let mut report = ReportBuilder::new(&mut count);
        report.error("database", &error);
        report.error("database", &error);
        report.ok("database", "readable");
        assert_eq!(report.finish().findings.len(), 2);
        assert_eq!(passed_on, 2);
    }
}
