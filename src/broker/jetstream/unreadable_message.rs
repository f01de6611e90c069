//! Reads a message raw that the client cannot parse. It ended the session, and the next session begins after it.

use super::api::Api;
use super::api_error::{ApiError, code, to_error};
use super::api_types::{MessageQuery, StoredMessage};
use super::gaps::SkippedSequences;
use super::retention::Retention;
use super::session_options::SessionOptions;
use super::stream_comparison::find_resume_point;
use super::{partition, poison, stream};
use crate::broker::connection::Link;
use crate::error::Error;
use crate::event_id::in_payload;
use crate::pipeline::{EpochProgress, Gap};

/// A message that the client cannot parse.
pub(super) struct UnreadableMessage {
    pub(super) stored: StoredMessage,
    /// Why the client cannot parse it.
    pub(super) defect: &'static str,
    /// The missing sequences directly before it.
    pub(super) missing: Option<Gap>,
    /// Whether these are lost events.
    pub(super) is_loss: bool,
}

/// Reads the message after the position raw. If the client cannot parse it, it ended the last session.
pub(super) fn read_unreadable_message(options: &SessionOptions<'_>) -> Result<Option<UnreadableMessage>, Error> {
    let Some(EpochProgress { epoch, mark, .. }) = options.history.last() else { return Ok(None) };
    let config = options.cluster.config();
    let link = Link::open(options.cluster, options.stop)?;
    let api = Api { link: &link, prefix: config.api_prefix(), timeout: config.timeout, stop: Some(options.stop) };
    let explain = |failure: ApiError| to_error(&link, config, &failure);
    let stream = match api.stream(&config.stream) {
        Err(failure) if failure.is_code(code::NO_STREAM) => return Ok(None),
        found => found.map_err(explain)?,
    };
    // In another epoch of the stream this position means nothing.
    if find_resume_point(&api, config, options.history, options.reported_to, &stream)?.epoch != *epoch {
        return Ok(None);
    }
    let due = mark.sequence + 1;
    let filters = partition::stored_filters(config);
    let Some(mut stored) = api.next_message(&config.stream, &filters, due).map_err(explain)? else {
        return Ok(None);
    };
    let Some(defect) = poison::defect(&stored.subject, &stored.headers) else { return Ok(None) };
    // If there are other messages in between, it is not known what is missing beside them.
    let first = api.message(&config.stream, &MessageQuery::NextBySubject(">", due)).map_err(explain)?;
    let is_next = first.is_some_and(|first| first.mark == stored.mark);
    let missing = Gap::of(due, stored.mark.sequence - 1).filter(|_| is_next);
    let is_loss = stream::skipped_sequences(config, &stream, Retention::of(&stream, config, options.pipeline_holds))
        != SkippedSequences::Expected;
    partition::remove_from(&mut stored.subject, config);
    if stored.headers.is_empty() {
        in_payload::remove(&stored.subject, &mut stored.payload);
    }
    Ok(Some(UnreadableMessage { stored, defect, missing, is_loss }))
}
