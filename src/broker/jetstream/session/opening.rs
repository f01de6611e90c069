//! Opens a session: finds the stream, compares it with the ledger, and creates a consumer at the position.

use std::sync::Arc;
use std::time::Duration;

use super::JetStreamSession;
use crate::broker::broker_error;
use crate::broker::connection::{Link, Liveness};
use crate::broker::jetstream::api::Api;
use crate::broker::jetstream::api_error::{ApiError, to_error};
use crate::broker::jetstream::api_types::{MAX_LISTED_DELETES, StreamInfo, StreamState};
use crate::broker::jetstream::backlog::Backlog;
use crate::broker::jetstream::claims::{Claims, LOOK_AGAIN, QUIET};
use crate::broker::jetstream::consumer;
use crate::broker::jetstream::consumer_request::{ConsumerRequest, CreatedConsumer};
use crate::broker::jetstream::consumer_watch::ConsumerWatch;
use crate::broker::jetstream::gaps::{GapWatch, SkippedSequences};
use crate::broker::jetstream::local_filter::LocalFilter;
use crate::broker::jetstream::partition;
use crate::broker::jetstream::pulls::Pulls;
use crate::broker::jetstream::resume_point::ResumePoint;
use crate::broker::jetstream::retention::Retention;
use crate::broker::jetstream::session_options::SessionOptions;
use crate::broker::jetstream::stored_subjects;
use crate::broker::jetstream::stream;
use crate::broker::jetstream::stream_comparison::find_resume_point;
use crate::broker::jetstream::stream_watch::StreamWatch;
use crate::broker::jetstream::unstored_deliveries::UnstoredDeliveries;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Gap, Gaps, Mark};
use crate::subject::Filter;

impl JetStreamSession {
    /// Connects and creates a consumer that begins after the position.
    pub(in crate::broker::jetstream) fn open(options: &SessionOptions<'_>) -> Result<Self, Error> {
        let config = options.cluster.config();
        let link = Link::open(options.cluster, options.stop)?;
        let api = Api { link: &link, prefix: config.api_prefix(), timeout: config.timeout, stop: Some(options.stop) };
        let explain = |failure: ApiError| to_error(&link, config, &failure);
        let stream = stream::find_or_create(&api, config, options.may_create, options.subjects)?;
        let mut resume = find_resume_point(&api, config, options.history, options.reported_to, &stream)?;
        let whole_stream = stream::takes_whole_stream(&partition::stored_filters(config), &stream.config);
        stream::check_contents(&api, config, &stream, resume.after.sequence)?;
        let retention = Retention::of(&stream, config, options.pipeline_holds);
        // A stream with interest retention never kept events without a consumer. What a filter omits is not a gap.
        if resume.lost_events > 0 && retention != Retention::Limits && !whole_stream {
            (resume.lost_events, resume.notice) = (0, None);
        }
        let ask_for_claims = |timeout| {
            let quiet = if options.is_contested { QUIET } else { LOOK_AGAIN };
            let claims = Claims::list(&api, &config.stream, options.owner, options.previous, timeout, quiet);
            let conflict = claims.contested().map(|claim| claim.conflict(&link.server().address, &config.stream));
            conflict.map_or(Ok(claims), Err)
        };
        let mut claims = ask_for_claims(config.timeout)?;
        let request = ConsumerRequest {
            config,
            owner: options.owner,
            stream: &stream,
            resume: &resume,
            retention,
            whole_stream,
            paused: options.paused,
        };
        let CreatedConsumer { name: consumer, info: created, unstored } =
            consumer::create(&api, &request, &mut claims)?;
        let local_filter = LocalFilter::for_consumer(&created, config);
        // The stream may have been created again between the two requests. Then this consumer starts at a wrong position.
        let again = api.stream(&config.stream).map_err(explain)?;
        if again.created != stream.created {
            let detail = format!("stream {} was just created again; trying again", config.stream);
            return Err(broker_error(&link.server().address, BrokerFault::Stream, detail));
        }
        if claims.list_error.is_some() {
            claims = ask_for_claims(Duration::ZERO)?;
        }
        consumer::delete_older(&api, &config.stream, &claims, &consumer, retention);
        if options.previous.is_none() {
            consumer::warn_operator(config, &created, &claims, retention);
        }
        let gaps = gap_watch(&api, options, &stream, &resume, retention, created.num_pending).map_err(explain)?;
        if let Some(notice) = &resume.notice {
            log::warn!(event = "stream.changed", stream = config.stream, notice:% = notice; "broker: {notice}");
        }
        let nothing_unstored = unstored.as_ref().is_none_or(UnstoredDeliveries::is_stored);
        let stored_up_to = unstored.as_ref().map_or(0, |_| resume.after.sequence);
        // Earlier deliveries that are not stored are requested on this link first.
        let backlog = if nothing_unstored { Some(Backlog::of(link.messages())) } else { None };
        let no_thread = |source| Error::Thread { name: Backlog::THREAD.into(), source };
        Ok(Self {
            config: config.clone(),
            consumer_watch: ConsumerWatch::new(&consumer, &created, config, &again),
            consumer,
            unstored,
            stored_up_to,
            consumer_sequence: created.delivered.consumer_seq,
            pulls: Pulls::new(config.prefetch.clone(), created.config.pulls),
            backlog: backlog.transpose().map_err(no_thread)?,
            liveness: Liveness::new(config.silence),
            received_any: false,
            since_look: 0,
            gaps,
            stream_watch: StreamWatch::new(&again, resume.after),
            retention,
            local_filter,
            exhausted: created.num_pending == 0 && nothing_unstored,
            missing: resume.inherited.iter().collect(),
            lost_events: resume.lost_events,
            epoch: Arc::new(resume.epoch),
            after: resume.after,
            pending: created.num_pending,
            ack_pending: created.num_ack_pending,
            redelivered: created.num_redelivered,
            subjects: stored_subjects::collected(config, &stream.config),
            last: stream.state.last_seq,
            passed: if created.num_pending == 0 && nothing_unstored { stream.state.last_seq } else { 0 },
            link,
        })
    }
}

/// The list of a stream's subjects is requested only up to this number.
const MAX_LISTED_SUBJECTS: u64 = 10_000;

/// Decides what skipped sequences mean in this session.
fn gap_watch(
    api: &Api<'_>,
    options: &SessionOptions<'_>,
    stream: &StreamInfo,
    resume: &ResumePoint,
    retention: Retention,
    pending: u64,
) -> Result<GapWatch, ApiError> {
    let config = options.cluster.config();
    let mut skipped = stream::skipped_sequences(config, stream, retention);
    // The consumer has filters. If the stream has no events that they omit, a skipped sequence is still a lost event.
    if skipped == SkippedSequences::MaybeFiltered
        && retention != Retention::Limits
        && stream.state.num_subjects <= MAX_LISTED_SUBJECTS
    {
        let filters: Vec<Filter> =
            partition::stored_filters(config).iter().filter_map(|subject| subject.parse().ok()).collect();
        let is_ours = |subject: &String| filters.iter().any(|filter| filter.matches(subject));
        if api.subjects(&config.stream, MAX_LISTED_SUBJECTS)?.is_some_and(|subjects| subjects.iter().all(is_ours)) {
            skipped = SkippedSequences::Lost;
        }
    }
    let StreamState { first_seq: first, last_seq: last, num_deleted, .. } = stream.state;
    let first_time = options.history.iter().all(|progress| progress.mark == Mark::START);
    let continues = resume.after != Mark::START;
    // Reports for another epoch of the stream do not apply to this one.
    let is_newest = options.history.last().is_some_and(|progress| progress.epoch.number == resume.epoch.number);
    let reported_to = if is_newest { options.reported_to } else { 0 };
    // Events that are missing before the first collection are not reported. When collection continues, the opening
    // reports them.
    let reported_to = if first_time || continues { reported_to.max(first.saturating_sub(1)) } else { reported_to };
    let watch = GapWatch::new(skipped, resume.after.sequence + 1, last, pending, reported_to);
    if !first_time {
        return Ok(watch.after_absence());
    }
    match num_deleted {
        0 => Ok(watch),
        few if few <= MAX_LISTED_DELETES => Ok(watch.with_known_gaps(api.deleted(&config.stream)?.1)),
        _ => Ok(watch.with_known_gaps(Gap::of(1, last).map(Gaps::from).unwrap_or_default())),
    }
}
