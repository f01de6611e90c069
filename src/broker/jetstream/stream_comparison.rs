//! What a stream says of itself that decides where to go on in it: whether it still has the messages that the ledger knows,
//! and whether it has some again that were missing.

use super::api::Api;
use super::api_error::ApiError;
use super::api_error::to_error;
use super::api_types::MAX_LISTED_DELETES;
use super::api_types::{MessageQuery, StoredMessage, StreamInfo, StreamState};
use super::resume_point::{ResumePoint, StreamContent, StreamFacts, resume};
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::pipeline::{EpochProgress, Gap, Gaps, Mark};

/// Where the server cannot list what is deleted, so many gaps are looked at one by one.
const MOST_LOOKS: usize = 256;

/// Where to go on in the stream; what it no longer has was said up to `reported_to`.
pub(super) fn find_resume_point(
    api: &Api<'_>,
    config: &BrokerConfig,
    history: &[EpochProgress],
    reported_to: u64,
    stream: &StreamInfo,
) -> Result<ResumePoint, Error> {
    let facts = look(api, &config.stream, history, reported_to, stream)
        .map_err(|failure| to_error(api.link, config, &failure))?;
    Ok(resume(&config.stream, history, &facts))
}

/// Asks.
fn look(
    api: &Api<'_>,
    name: &str,
    history: &[EpochProgress],
    reported_to: u64,
    stream: &StreamInfo,
) -> Result<StreamFacts, ApiError> {
    let StreamState { first_seq: first, last_seq: last, .. } = stream.state;
    let mut life = history.iter().rev().find(|life| life.epoch.created == stream.created);
    // An old server may change the time of creation when it restarts. The same message at the same place, to the nanosecond, is
    // the same stream all the same.
    if let (None, Some(newest)) = (life, history.last().filter(|newest| newest.mark != Mark::START)) {
        let content = api.message(name, &MessageQuery::Sequence(newest.mark.sequence))?;
        life = content.is_some_and(|stored| stored.mark == newest.mark).then_some(newest);
    }
    let content = match life {
        // One that ends before the position went back, whatever it has.
        Some(life) if life.mark != Mark::START && last >= life.mark.sequence => compare(api, name, life, stream)?,
        _ => StreamContent::Same,
    };
    let known_as = life.map(|life| life.epoch.number);
    // What was said of the newest epoch says nothing of an older one.
    let reported_to = if known_as == history.last().map(|life| life.epoch.number) { reported_to } else { 0 };
    Ok(StreamFacts { created: stream.created.clone(), first, last, known_as, content, reported_to })
}

fn compare(api: &Api<'_>, name: &str, life: &EpochProgress, stream: &StreamInfo) -> Result<StreamContent, ApiError> {
    let Mark { sequence, published_ns } = life.mark;
    match api.message(name, &MessageQuery::Sequence(sequence))? {
        Some(stored) if stored.mark.published_ns != published_ns => {
            return Ok(StreamContent::Changed(format!("it has another message at {sequence}")));
        }
        Some(_) => {}
        // That the message is gone proves nothing. In a stream that goes on, times ascend with the sequences: one before the
        // position that is younger than what was read content came after a rollback.
        None => {
            let before = last_before(api, name, sequence, stream.state.first_seq)?;
            if let Some(stored) = before.filter(|stored| stored.mark.published_ns > published_ns) {
                let at = stored.mark.sequence;
                return Ok(StreamContent::Changed(format!(
                    "its message {at} is younger than the one that was read at {sequence}"
                )));
            }
        }
    }
    let back = back(api, name, &life.gaps, &stream.state)?;
    Ok(if back.is_empty() { StreamContent::Same } else { StreamContent::Restored(back) })
}

/// The last message before a sequence. The server only finds the next one behind a sequence, so this steps back in strides
/// that double until something lies between, then halves them.
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
    // Nothing lies from `high` on; `best` lies before.
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

/// Which of these gaps the stream has messages in by now.
fn back(api: &Api<'_>, name: &str, gaps: &Gaps, state: &StreamState) -> Result<Gaps, ApiError> {
    let among = |state: &StreamState| -> Gaps {
        gaps.iter().filter_map(|gap| gap.within(state.first_seq, state.last_seq)).collect()
    };
    if among(state).is_empty() {
        return Ok(Gaps::default());
    }
    if state.num_deleted <= MAX_LISTED_DELETES {
        // The stream may have dropped its first messages meanwhile: what it lists belongs to the state in the same answer.
        let (state, missing) = api.deleted(name)?;
        let is_back = |gap: &Gap| missing.missing_between(gap.first, gap.last) < gap.missing;
        return Ok(among(&state).iter().filter(is_back).collect());
    }
    let among = among(state);
    // Too many to list. The largest gaps are what a restored copy fills first.
    let mut largest: Vec<Gap> = among.iter().filter(|gap| gap.is_exact()).collect();
    largest.sort_by_key(|gap| std::cmp::Reverse(gap.missing));
    let mut back = Gaps::default();
    for gap in largest.into_iter().take(MOST_LOOKS) {
        let next = api.message(name, &MessageQuery::NextBySubject(">", gap.first))?;
        if next.is_some_and(|stored| stored.mark.sequence <= gap.last) {
            back.insert(gap);
        }
    }
    Ok(back)
}
