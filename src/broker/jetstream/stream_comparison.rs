//! Compares the stream with the ledger: whether it still has the messages that were collected, and whether it has
//! messages again that were missing. This decides where a session begins to read.

use super::api::Api;
use super::api_error::{ApiError, to_error};
use super::api_types::{MAX_LISTED_DELETES, MessageQuery, StoredMessage, StreamInfo, StreamState};
use super::resume_point::{ResumePoint, StreamContent, StreamFacts, resume};
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::pipeline::{EpochProgress, Gap, Gaps, Mark};

/// If the server cannot list the deleted sequences, this many gaps are checked one by one.
const MAX_CHECKED_GAPS: usize = 256;

/// Where to begin to read the stream. Lost events were reported up to `reported_to`.
pub(super) fn find_resume_point(
    api: &Api<'_>,
    config: &BrokerConfig,
    history: &[EpochProgress],
    reported_to: u64,
    stream: &StreamInfo,
) -> Result<ResumePoint, Error> {
    let facts = stream_facts(api, &config.stream, history, reported_to, stream)
        .map_err(|failure| to_error(api.link, config, &failure))?;
    Ok(resume(&config.stream, history, &facts))
}

/// Requests what the decision depends on.
fn stream_facts(
    api: &Api<'_>,
    name: &str,
    history: &[EpochProgress],
    reported_to: u64,
    stream: &StreamInfo,
) -> Result<StreamFacts, ApiError> {
    let StreamState { first_seq: first, last_seq: last, .. } = stream.state;
    let mut progress = history.iter().rev().find(|progress| progress.epoch.created == stream.created);
    // An old server may change the creation time when it restarts. If it has the same message at the same sequence,
    // published at the same nanosecond, it is the same stream.
    if let (None, Some(newest)) = (progress, history.last().filter(|newest| newest.mark != Mark::START)) {
        let content = api.message(name, &MessageQuery::Sequence(newest.mark.sequence))?;
        progress = content.is_some_and(|stored| stored.mark == newest.mark).then_some(newest);
    }
    let content = match progress {
        // A stream that ends before the position went back, whatever its messages are.
        Some(progress) if progress.mark != Mark::START && last >= progress.mark.sequence => {
            compare(api, name, progress, stream)?
        }
        _ => StreamContent::Same,
    };
    let epoch_number = progress.map(|progress| progress.epoch.number);
    // The reports for the newest epoch do not apply to an older one.
    let reported_to =
        if epoch_number == history.last().map(|progress| progress.epoch.number) { reported_to } else { 0 };
    Ok(StreamFacts { created: stream.created.clone(), first, last, epoch_number, content, reported_to })
}

fn compare(
    api: &Api<'_>,
    name: &str,
    progress: &EpochProgress,
    stream: &StreamInfo,
) -> Result<StreamContent, ApiError> {
    let Mark { sequence, published_ns } = progress.mark;
    match api.message(name, &MessageQuery::Sequence(sequence))? {
        Some(stored) if stored.mark.published_ns != published_ns => {
            return Ok(StreamContent::Changed(format!("it has another message at {sequence}")));
        }
        Some(_) => {}
        // A missing message proves nothing. Without a rollback, publish times ascend with the sequences. So a younger
        // message before the position was published after a rollback.
        None => {
            let before = last_before(api, name, sequence, stream.state.first_seq)?;
            if let Some(stored) = before.filter(|stored| stored.mark.published_ns > published_ns) {
                let at = stored.mark.sequence;
                return Ok(StreamContent::Changed(format!(
                    "its message {at} is younger than the message that was collected at {sequence}"
                )));
            }
        }
    }
    let restored = restored_gaps(api, name, &progress.gaps, &stream.state)?;
    Ok(if restored.is_empty() { StreamContent::Same } else { StreamContent::Restored(restored) })
}

/// The last message before a sequence. The server can only find the next one after a sequence. So this steps back,
/// doubling the distance, until it finds a message, and then searches by bisection.
fn last_before(api: &Api<'_>, name: &str, sequence: u64, first: u64) -> Result<Option<StoredMessage>, ApiError> {
    let next = |from: u64| -> Result<Option<StoredMessage>, ApiError> {
        let found = api.message(name, &MessageQuery::NextBySubject(">", from))?;
        Ok(found.filter(|stored| stored.mark.sequence < sequence))
    };
    let (mut found, mut low, mut stride) = (None, sequence, 1);
    while found.is_none() && low > first {
        low = sequence.saturating_sub(stride).max(first);
        found = next(low)?;
        stride *= 2;
    }
    let Some(mut best) = found else { return Ok(None) };
    // There is no message from `high` on. `best` is before it.
    let mut high = sequence;
    while best.mark.sequence + 1 < high {
        let middle = best.mark.sequence + 1 + (high - best.mark.sequence - 1) / 2;
        match next(middle)? {
            Some(stored) => best = stored,
            None if middle == best.mark.sequence + 1 => break,
            None => high = middle,
        }
    }
    Ok(Some(best))
}

/// The gaps in which the stream has messages now.
fn restored_gaps(api: &Api<'_>, name: &str, gaps: &Gaps, state: &StreamState) -> Result<Gaps, ApiError> {
    let among = |state: &StreamState| -> Gaps {
        gaps.iter().filter_map(|gap| gap.within(state.first_seq, state.last_seq)).collect()
    };
    if among(state).is_empty() {
        return Ok(Gaps::default());
    }
    if state.num_deleted <= MAX_LISTED_DELETES {
        // The stream may have dropped its first messages meanwhile. The list belongs to the state in the same answer.
        let (state, missing) = api.deleted(name)?;
        let is_restored = |gap: &Gap| missing.missing_between(gap.first, gap.last) < gap.missing;
        return Ok(among(&state).iter().filter(is_restored).collect());
    }
    let among = among(state);
    // Too many to list. A restored copy most likely has messages in the largest gaps.
    let mut largest: Vec<Gap> = among.iter().filter(|gap| gap.is_exact()).collect();
    largest.sort_by_key(|gap| std::cmp::Reverse(gap.missing));
    let mut restored = Gaps::default();
    for gap in largest.into_iter().take(MAX_CHECKED_GAPS) {
        let next = api.message(name, &MessageQuery::NextBySubject(">", gap.first))?;
        if next.is_some_and(|stored| stored.mark.sequence <= gap.last) {
            restored.insert(gap);
        }
    }
    Ok(restored)
}
