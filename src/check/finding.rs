//! What was found, and how bad it is.

/// How bad it is: the exit statuses of monitoring plug-ins,
/// <https://www.monitoring-plugins.org/doc/guidelines.html#AEN78>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not yet bad, but somebody should look.
    Warning,
    /// It cannot be told: a setting cannot be used.
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

    /// In a word.
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

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at: `database`, `stream`.
    pub object: &'static str,
    /// What there is to say of it, in one line.
    pub what: String,
    /// What to do about it, where that is not said yet.
    pub way_out: Option<String>,
}

/// A number that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What it counts, with its unit where it has one: `dead_letters`, `disk_free_bytes`.
    pub name: &'static str,
    /// In words.
    pub help: &'static str,
    /// How many.
    pub value: u64,
}

/// All that was found, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was looked at.
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

/// Hears of findings as they are made, and keeps them.
pub(super) struct Notebook<'a> {
    pub(super) report: Report,
    pub(super) hear: &'a mut dyn FnMut(&Finding),
}

impl Notebook<'_> {
    pub(super) fn ok(&mut self, object: &'static str, what: impl Into<String>) {
        self.add(Level::Ok, object, what.into(), None);
    }

    pub(super) fn warning(&mut self, object: &'static str, what: impl Into<String>, way_out: impl Into<String>) {
        self.add(Level::Warning, object, what.into(), Some(way_out.into()));
    }

    pub(super) fn critical(&mut self, object: &'static str, what: impl Into<String>, way_out: impl Into<String>) {
        self.add(Level::Critical, object, what.into(), Some(way_out.into()));
    }

    /// An error that says itself what to do about it.
    pub(super) fn error(&mut self, object: &'static str, error: &crate::Error) {
        let level = if matches!(error, crate::Error::Config { .. }) { Level::Unknown } else { Level::Critical };
        self.add(level, object, error.to_string(), None);
    }

    pub(super) fn measure(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.report.measures.push(Measure { name, help, value });
    }

    fn add(&mut self, level: Level, object: &'static str, what: String, way_out: Option<String>) {
        let finding = Finding { level, object, what, way_out };
        (self.hear)(&finding);
        self.report.findings.push(finding);
    }
}
