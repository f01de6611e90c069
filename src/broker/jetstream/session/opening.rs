//! How a session begins: the stream is found and compared with what is known of it, and a consumer is made at the position.

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link, Liveness};
use crate::broker::jetstream::api::{Api, Failure, Stream, StreamState};
use crate::broker::jetstream::backlog::Backlog;
use crate::broker::jetstream::claims::{Claims, Owner};
use crate::broker::jetstream::consumer::{self, Keeping, Made, Wish};
use crate::broker::jetstream::consumer_watch::ConsumerWatch;
use crate::broker::jetstream::epoch::Resume;
use crate::broker::jetstream::facts::{self, position_in};
use crate::broker::jetstream::gaps::{GapWatch, Steps};
use crate::broker::jetstream::pulls::Pulls;
use crate::broker::jetstream::selection::Selection;
use crate::broker::jetstream::stream;
use crate::broker::jetstream::stream_watch::StreamWatch;
use crate::broker::jetstream::takeover::Unread;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{EpochProgress, Gap, Gaps, Mark, Signal};
use crate::subject::Filter;

/// What a session is opened with.
pub(in crate::broker::jetstream) struct Setting<'a> {
    pub(in crate::broker::jetstream) cluster: &'a Arc<Cluster>,
    /// Whose the consumer is to be.
    pub(in crate::broker::jetstream) owner: &'a Owner,
    /// The consumer of the session before.
    pub(in crate::broker::jetstream) previous: Option<&'a str>,
    /// Until when somebody had that deliver nothing.
    pub(in crate::broker::jetstream) paused: Option<&'a str>,
    /// How far each epoch of the stream has been taken in, the latest last.
    pub(in crate::broker::jetstream) history: &'a [EpochProgress],
    /// Whether the stream may be made where it is missing.
    pub(in crate::broker::jetstream) may_create: bool,
    /// What the stream no longer has was said up to this sequence.
    pub(in crate::broker::jetstream) said_to: u64,
    /// How many events can be taken in and not committed yet.
    pub(in crate::broker::jetstream) under_way: usize,
    pub(in crate::broker::jetstream) stop: &'a Signal,
}

impl Session {
    /// Connects and makes a consumer behind the position.
    pub(in crate::broker::jetstream) fn open(setting: &Setting<'_>) -> Result<Self, Error> {
        let config = setting.cluster.config();
        let link = Link::open(setting.cluster, setting.stop)?;
        let api = Api { link: &link, prefix: config.api_prefix(), within: config.timeout, stop: Some(setting.stop) };
        let explain = |failure: Failure| stream::explain(&link, config, &failure);
        let stream = stream::find(&api, config, setting.may_create)?;
        let mut resume = position_in(&api, config, setting.history, setting.said_to, &stream)?;
        let whole = stream::is_whole(&config.subjects, &stream.config);
        stream::object(&api, config, &stream, resume.after.sequence)?;
        let keeping = Keeping::of(&stream, config, setting.under_way);
        // A stream with interest retention never kept what nobody wanted: what a filter leaves out is no gap.
        if resume.gone > 0 && keeping != Keeping::Limits && !whole {
            (resume.gone, resume.news) = (0, None);
        }
        let ask_for_claims = |patience| {
            let claims = Claims::ask(&api, &config.stream, setting.owner, setting.previous, patience);
            let conflict = claims.contested().map(|claim| claim.conflict(&config.stream));
            let error = |why| broker_error(&link.server().address, BrokerFault::Contested, why);
            conflict.map_or(Ok(claims), |why| Err(error(why)))
        };
        let mut claims = ask_for_claims(config.timeout)?;
        let wish = Wish {
            config,
            owner: setting.owner,
            stream: &stream,
            resume: &resume,
            keeping,
            whole,
            paused: setting.paused,
        };
        let Made { name: consumer, info: made, unread } = consumer::make(&api, &wish, &mut claims)?;
        let selection = Selection::beside(&made, config);
        // The stream may have been made anew between the two questions; then this consumer starts at the wrong place.
        let again = api.stream(&config.stream).map_err(explain)?;
        if again.created != stream.created {
            let detail = format!("stream {} was made anew just now; trying again", config.stream);
            return Err(broker_error(&link.server().address, BrokerFault::Stream, detail));
        }
        if claims.unasked.is_some() {
            claims = ask_for_claims(Duration::ZERO)?;
        }
        consumer::delete_older(&api, &config.stream, &claims, &consumer, keeping);
        if setting.previous.is_none() {
            consumer::tell(config, &made, &claims, keeping);
        }
        let gaps = gap_watch(&api, setting, &stream, &resume, keeping, made.num_pending).map_err(explain)?;
        if let Some(news) = &resume.news {
            log::warn!("broker: {news}");
        }
        let nothing_unread = unread.as_ref().is_none_or(Unread::is_read);
        let stored_to = unread.as_ref().map_or(0, |_| resume.after.sequence);
        // What a consumer has delivered to nobody is asked for on this link first.
        let backlog = if nothing_unread { Some(Backlog::of(link.messages())) } else { None };
        let no_thread = |source| Error::Thread { name: Backlog::THREAD.into(), source };
        Ok(Self {
            config: config.clone(),
            consumer_watch: ConsumerWatch::new(&consumer, &made, config, &again),
            consumer,
            unread,
            stored_to,
            consumer_sequence: made.delivered.consumer_seq,
            pulls: Pulls::new(config.prefetch.clone(), made.config.pulls),
            backlog: backlog.transpose().map_err(no_thread)?,
            liveness: Liveness::new(config.silence),
            hearing: false,
            since_look: 0,
            gaps,
            stream_watch: StreamWatch::new(&again, resume.after),
            keeping,
            selection,
            exhausted: made.num_pending == 0 && nothing_unread,
            missing: resume.inherited.iter().collect(),
            gone: resume.gone,
            epoch: Arc::new(resume.epoch),
            after: resume.after,
            pending: made.num_pending,
            last: stream.state.last_seq,
            link,
        })
    }
}

/// A stream's subjects are asked for only where there are no more.
const MOST_SUBJECTS: u64 = 10_000;

/// What to make of the steps in the sequences that come.
fn gap_watch(
    api: &Api<'_>,
    setting: &Setting<'_>,
    stream: &Stream,
    resume: &Resume,
    keeping: Keeping,
    pending: u64,
) -> Result<GapWatch, Failure> {
    let config = setting.cluster.config();
    let mut steps = stream::steps(config, stream, keeping);
    // Its consumer has filters. Where the stream has nothing that they leave out, a step is a loss all the same.
    if steps == Steps::Filtered && keeping != Keeping::Limits && stream.state.num_subjects <= MOST_SUBJECTS {
        let filters: Vec<Filter> = config.subjects.iter().filter_map(|subject| subject.parse().ok()).collect();
        let is_ours = |subject: &String| filters.iter().any(|filter| filter.matches(subject));
        if api.subjects(&config.stream, MOST_SUBJECTS)?.is_some_and(|subjects| subjects.iter().all(is_ours)) {
            steps = Steps::Lost;
        }
    }
    let StreamState { first_seq: first, last_seq: last, num_deleted, .. } = stream.state;
    let first_time = setting.history.iter().all(|life| life.mark == Mark::START);
    let goes_on = resume.after != Mark::START;
    // What was said of another life of the stream says nothing of this one.
    let is_newest = setting.history.last().is_some_and(|life| life.epoch.number == resume.epoch.number);
    let said_to = if is_newest { setting.said_to } else { 0 };
    // What the stream lacks when it is collected for the first time is nobody's loss. Where it goes on, the opening tells.
    let told_to = if first_time || goes_on { said_to.max(first.saturating_sub(1)) } else { said_to };
    let watch = GapWatch::new(steps, resume.after.sequence + 1, last, pending, told_to);
    if !first_time {
        return Ok(watch.was_away());
    }
    match num_deleted {
        0 => Ok(watch),
        few if few <= facts::MOST_DELETED => Ok(watch.besides(api.deleted(&config.stream)?.1)),
        _ => Ok(watch.besides(Gap::of(1, last).map(Gaps::from).unwrap_or_default())),
    }
}
