//! Which sequences of a stream a database does not have, or the stream does not have any more.

use std::ops::ControlFlow;
use std::path::Path;

use crate::broker::{StreamHoles, StreamReader};
use crate::config::{BrokerConfig, Config, Mode};
use crate::error::Error;
use crate::pipeline::{EpochProgress, Gap, Gaps, Mark};
use crate::store::Inspection;
use crate::subject::Filter;
use crate::task::{Progress, Task};

/// For so many ranges the stream is asked when its messages around them were published.
const MOST_TIMED: usize = 100;

/// What [`gaps()`] asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GapsOptions {
    /// Do not ask the stream: report only what the ledger has. Default false.
    pub offline: bool,
}

/// What is known of a range of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapState {
    /// The stream no longer had them when they were due. They are not in the database.
    Lost,
    /// The stream dropped them after the database's position: the collector cannot store them any more.
    Uncollected,
    /// They were gone before the first event was collected.
    BeforeFirst,
    /// They were missing once, and were stored when the stream had them again.
    StoredLater,
    /// They were missing when they were due, and the stream has them again. The next start of the collector stores them.
    Returned,
    /// They are in the database. The stream no longer has them.
    Stored,
}

impl GapState {
    /// Its name in JSON: `lost`, `uncollected`, `before_first`, `stored_later`, `returned`, `stored`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Uncollected => "uncollected",
            Self::BeforeFirst => "before_first",
            Self::StoredLater => "stored_later",
            Self::Returned => "returned",
            Self::Stored => "stored",
        }
    }

    /// Whether its events are neither in the database nor can be stored any more.
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Lost | Self::Uncollected)
    }
}

/// A range of sequences that the stream or the database lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GapRange {
    /// The number of the stream's epoch in the database.
    pub epoch: u32,
    /// The first sequence.
    pub first: u64,
    /// The last sequence.
    pub last: u64,
    /// How many of them. Less than the length of the range if the ledger has joined ranges: then any of them may be missing.
    pub missing: u64,
    /// What is known of them.
    pub state: GapState,
    /// When the message before the range was published, in microseconds since 1970, if the stream has it.
    pub after_us: Option<i64>,
    /// When the message after it was published.
    pub before_us: Option<i64>,
    /// What may have removed them: the stream's settings, and what its users may do. `None` if the stream was not asked.
    pub why: Option<String>,
}

/// An epoch of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EpochPosition {
    /// Its number.
    pub number: u32,
    /// When the stream was created, as the server writes it.
    pub created: String,
    /// The last sequence that was collected.
    pub position: u64,
    /// Whether the stream is in this epoch now; `None` if it was not asked.
    pub is_current: Option<bool>,
}

/// What [`gaps()`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GapsReport {
    /// The stream.
    pub stream: String,
    /// The epochs of the stream in the database, the latest last.
    pub epochs: Vec<EpochPosition>,
    /// The ranges, by epoch and sequence.
    pub ranges: Vec<GapRange>,
    /// How many events were lost: neither in the database nor in the stream any more.
    pub lost: u64,
    /// How many events the stream no longer has that are in the database.
    pub stored: u64,
    /// What is not known, and why.
    pub unknown: Vec<String>,
}

/// Lists the sequences of the stream of `config` that its database lacks, and those that the stream no longer has, by the database's
/// ledger and by the stream's state. Reads no events. A collector may run at the same time. Blocks for a few times `broker.timeout`, and
/// longer with many ranges.
///
/// # Errors
///
/// [`Error::Config`]; [`Error::Database`]: there is none, or it cannot be read; [`Error::Broker`] unless `offline`: the stream cannot be
/// asked. [`Error::Cancelled`] if `progress` returned [`ControlFlow::Break`].
pub fn gaps(
    config: &Config,
    options: &GapsOptions,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<GapsReport, Error> {
    let task = Task::new("the search for gaps", progress);
    let config = config.resolved()?;
    config.validate()?;
    if config.broker.mode == Mode::Core {
        return Err(Error::config("broker.mode", "is core: events have no sequences, so there are no gaps to list"));
    }
    let stream = &config.broker.stream;
    let inspection = Inspection::open(&config.database.path)?;
    inspection.must_have_partition(&config.broker)?;
    let (history, first) = (inspection.history(stream)?, inspection.first_sequence(stream)?);
    drop(inspection);
    let mut found = GapsReport { stream: stream.clone(), ..GapsReport::default() };
    found.ranges = of_ledger(&history, first);
    let mut current = None;
    if options.offline {
        found
            .unknown
            .push("the stream was not asked: what it has dropped since, and when and why, is not known".into());
    } else {
        task.report("connecting", 0, None, "ranges")?;
        let filters: Vec<Filter> = config.broker.filters().iter().filter_map(|filter| filter.parse().ok()).collect();
        let reader = StreamReader::open(&config.broker, &filters)?;
        let holes = reader.holes()?;
        current = find_current(&reader, &history, &holes.bounds.created)?;
        add_stream(&mut found, &history, current, first, &holes);
        add_times(&mut found, current, &reader, &holes, task)?;
    }
    let position = |progress: &EpochProgress| EpochPosition {
        number: progress.epoch.number,
        created: progress.epoch.created.clone(),
        position: progress.mark.sequence,
        is_current: (!options.offline).then_some(Some(progress.epoch.number) == current),
    };
    found.epochs = history.iter().map(position).collect();
    found.ranges.sort_by_key(|range| (range.epoch, range.first));
    let sum = |is: &dyn Fn(GapState) -> bool| {
        found.ranges.iter().filter(|range| is(range.state)).map(|range| range.missing).sum::<u64>()
    };
    let (lost, stored) = (sum(&GapState::is_loss), sum(&|state| state == GapState::Stored));
    (found.lost, found.stored) = (lost, stored);
    if let Some(newest) = history.last() {
        let ended = history.iter().any(|progress| progress.epoch.created != newest.epoch.created);
        if ended {
            found.unknown.push(format!(
                "stream {stream} was created again: what an earlier one had after the last event that was collected is not known"
            ));
        }
    }
    if history.iter().any(|progress| progress.gaps.iter().any(|gap| !gap.is_exact())) {
        found
            .unknown
            .push("the ledger has joined some ranges: which of their sequences are missing is not known".into());
    }
    Ok(found)
}

/// The ranges of the ledger.
fn of_ledger(history: &[EpochProgress], first: u64) -> Vec<GapRange> {
    let mut ranges = Vec::new();
    for progress in history {
        let others = history.iter().filter(|other| {
            other.epoch.number != progress.epoch.number && other.epoch.created == progress.epoch.created
        });
        let stored_later: Gaps = others.flat_map(|other| had(other, first).iter().collect::<Vec<_>>()).collect();
        let lost = progress.gaps.without(&stored_later, 0);
        let later = progress.gaps.common(&stored_later);
        let range = |gap: Gap, state| range_of(progress.epoch.number, gap, state);
        ranges.extend(
            lost.iter().map(|gap| range(gap, if gap.first <= first { GapState::BeforeFirst } else { GapState::Lost })),
        );
        ranges.extend(later.iter().map(|gap| range(gap, GapState::StoredLater)));
    }
    ranges
}

fn range_of(epoch: u32, gap: Gap, state: GapState) -> GapRange {
    let Gap { first, last, missing } = gap;
    GapRange { epoch, first, last, missing, state, after_us: None, before_us: None, why: None }
}

/// The sequences that an epoch has.
fn had(progress: &EpochProgress, first: u64) -> Gaps {
    let all: Gaps = Gap::of(first, progress.mark.sequence).into_iter().collect();
    let gaps: Gaps = progress.gaps.iter().filter_map(|gap| Gap::of(gap.first, gap.last)).collect();
    all.without(&gaps, 0)
}

/// The number of the latest epoch that belongs to the stream as it is now.
fn find_current(reader: &StreamReader, history: &[EpochProgress], created: &str) -> Result<Option<u32>, Error> {
    if let Some(progress) = history.iter().rev().find(|progress| progress.epoch.created == created) {
        return Ok(Some(progress.epoch.number));
    }
    // An old server may change the creation time when it restarts.
    let newest = history.last().filter(|newest| newest.mark != Mark::START);
    let Some(newest) = newest else { return Ok(None) };
    let is_same = reader.mark_at(newest.mark.sequence)? == Some(newest.mark);
    Ok(is_same.then_some(newest.epoch.number))
}

/// What the stream no longer has of what the database is still to collect, beyond its position; and what is not known of that. Reads the
/// ledger and the state of the stream. Nothing if the stream is another one than that of the database.
///
/// # Errors
///
/// As [`gaps()`].
pub(super) fn uncollected(database: &Path, broker: &BrokerConfig) -> Result<(Gaps, Vec<String>), Error> {
    let inspection = Inspection::open(database)?;
    let (history, first) = (inspection.history(&broker.stream)?, inspection.first_sequence(&broker.stream)?);
    let filters: Vec<Filter> = broker.filters().iter().filter_map(|filter| filter.parse().ok()).collect();
    let reader = StreamReader::open(broker, &filters)?;
    let holes = reader.holes()?;
    let current = find_current(&reader, &history, &holes.bounds.created)?;
    if current.is_none() {
        return Ok((Gaps::default(), Vec::new()));
    }
    let mut found = GapsReport { stream: broker.stream.clone(), ..GapsReport::default() };
    add_stream(&mut found, &history, current, first, &holes);
    let ahead = found.ranges.iter().filter(|range| range.state == GapState::Uncollected);
    Ok((ahead.filter_map(|range| Gap::of(range.first, range.last)).collect(), found.unknown))
}

/// Adds what the stream lacks now.
fn add_stream(
    found: &mut GapsReport,
    history: &[EpochProgress],
    current: Option<u32>,
    first: u64,
    holes: &StreamHoles,
) {
    let stream = found.stream.clone();
    let Some(number) = current else {
        let what = if history.is_empty() { "nothing of it was collected" } else { "it was created again since" };
        found.unknown.push(format!("stream {stream}: {what}, so what it lacks is not compared"));
        return;
    };
    let Some(progress) = history.iter().find(|progress| progress.epoch.number == number) else { return };
    let Some(absent) = &holes.absent else {
        let deleted = crate::counted(holes.deleted, "message");
        found.unknown.push(format!(
            "stream {stream} lacks {deleted} between others, too many to list: which of them are in the database is not listed"
        ));
        return;
    };
    let mut returned = Vec::new();
    for range in &mut found.ranges {
        let gap = Gap { first: range.first, last: range.last, missing: range.missing };
        if range.epoch != number || !gap.is_exact() || !matches!(range.state, GapState::Lost | GapState::BeforeFirst) {
            continue;
        }
        let here: Gaps = gap.within(1, holes.bounds.last).into_iter().collect();
        let here = here.without(absent, 0);
        let (gone, state) = (Gaps::from(gap).without(&here, 0), range.state);
        if !here.is_empty() {
            range.missing = 0;
            returned.extend(here.iter().map(|gap| range_of(number, gap, GapState::Returned)));
            returned.extend(gone.iter().map(|gap| range_of(number, gap, state)));
        }
    }
    found.ranges.retain(|range| range.missing > 0 || range.epoch != number);
    found.ranges.append(&mut returned);
    let epochs = history.iter().filter(|other| other.epoch.created == progress.epoch.created);
    let stored: Gaps = epochs.flat_map(|other| had(other, first).iter().collect::<Vec<_>>()).collect();
    found.ranges.extend(absent.common(&stored).iter().map(|gap| range_of(number, gap, GapState::Stored)));
    let ahead: Gaps = Gap::of(progress.mark.sequence + 1, holes.bounds.last).into_iter().collect();
    let uncollected = absent.common(&ahead);
    if !holes.is_whole || !holes.bounds.keeps_acknowledged {
        if !uncollected.is_empty() {
            found.unknown.push(format!(
                "stream {stream} no longer has {uncollected}: whether they were on the collected subjects, and not collected yet, is \
                 not known"
            ));
        }
        return;
    }
    found.ranges.extend(uncollected.iter().map(|gap| range_of(number, gap, GapState::Uncollected)));
}

/// Adds when the ranges of the current epoch were published, and what may have removed them.
fn add_times(
    found: &mut GapsReport,
    current: Option<u32>,
    reader: &StreamReader,
    holes: &StreamHoles,
    task: Task<'_>,
) -> Result<(), Error> {
    let mut timed = 0;
    for range in found.ranges.iter_mut().filter(|range| Some(range.epoch) == current) {
        let is_at_start = range.last < holes.bounds.first;
        let reasons = &holes.reasons;
        range.why = Some(if is_at_start { reasons.at_start.clone() } else { reasons.between.clone() });
        if timed == MOST_TIMED || range.state == GapState::Stored {
            continue;
        }
        timed += 1;
        task.report("asking", timed as u64, None, "ranges")?;
        let us = |mark: Option<Mark>| mark.map(|mark| mark.published_ns.div_euclid(1_000));
        if range.first > holes.bounds.first {
            range.after_us = us(reader.mark_at(range.first - 1)?);
        }
        range.before_us = us(reader.mark_from(range.last + 1)?);
    }
    Ok(())
}
