//! What a stream lacks, which of its settings may be the reason, and where a database continues in it.

use std::time::Duration;

use super::{StreamBounds, StreamReader};
use crate::broker::jetstream::api_types::{MAX_LISTED_DELETES, MessageQuery, StreamConfig, StreamInfo};
use crate::broker::jetstream::partition::stored_filters;
use crate::broker::jetstream::resume_point::ResumePoint;
use crate::broker::jetstream::stream::takes_whole_stream;
use crate::broker::jetstream::stream_comparison::find_resume_point;
use crate::error::Error;
use crate::pipeline::{EpochProgress, Gap, Gaps, Mark};

/// What a stream lacks at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHoles {
    /// What it holds.
    pub bounds: StreamBounds,
    /// The sequences up to its last that have no message; `None` if there are too many to list.
    pub absent: Option<Gaps>,
    /// How many sequences between its first and its last message have none.
    pub deleted: u64,
    /// Whether the filters of the settings match everything that it stores.
    pub is_whole: bool,
    /// Which settings may have removed messages at its beginning, and which between others.
    pub reasons: Reasons,
}

/// Why a stream may have removed messages: its settings, and what its users may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasons {
    /// At its beginning: limits of age and size, purges.
    pub at_start: String,
    /// Between other messages: limits for each subject, times to live, deletes.
    pub between: String,
}

impl StreamReader {
    /// What the stream lacks now. Blocks for a few times `broker.timeout` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn holes(&self) -> Result<StreamHoles, Error> {
        let stream = self.info()?;
        let (mut state, mut listed) = (stream.state.clone(), Some(Gaps::default()));
        if state.num_deleted > MAX_LISTED_DELETES {
            listed = None;
        } else if state.num_deleted > 0 {
            let (now, deleted) = self.api().deleted(&self.config.stream).map_err(|failure| self.explain(&failure))?;
            (state, listed) = (now, Some(deleted));
        }
        let bounds = StreamBounds::of(&stream, &state);
        let before = Gap::of(1, bounds.first - 1);
        let absent = listed.map(|mut listed| {
            if let Some(gap) = before {
                listed.insert(gap);
            }
            listed
        });
        Ok(StreamHoles {
            bounds,
            absent,
            deleted: state.num_deleted,
            is_whole: self.is_whole(&stream),
            reasons: reasons(&stream.config),
        })
    }

    /// The message at this sequence: when it was published. `None` if the stream does not have it.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn mark_at(&self, sequence: u64) -> Result<Option<Mark>, Error> {
        self.mark(&MessageQuery::Sequence(sequence))
    }

    /// The first message from this sequence on, on any subject.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn mark_from(&self, sequence: u64) -> Result<Option<Mark>, Error> {
        self.mark(&MessageQuery::NextBySubject(">", sequence))
    }

    fn mark(&self, which: &MessageQuery<'_>) -> Result<Option<Mark>, Error> {
        let found = self.api().message(&self.config.stream, which);
        Ok(found.map_err(|failure| self.explain(&failure))?.map(|stored| stored.mark))
    }

    /// Where a database with this progress continues, and whether the filters match the whole stream. Blocks for some tens of answers.
    pub(in crate::broker::jetstream) fn resume(&self, history: &[EpochProgress]) -> Result<(ResumePoint, bool), Error> {
        let stream = self.info()?;
        let resume = find_resume_point(&self.api(), &self.config, history, 0, &stream)?;
        Ok((resume, self.is_whole(&stream)))
    }

    fn is_whole(&self, stream: &StreamInfo) -> bool {
        takes_whole_stream(&stored_filters(&self.config), &stream.config)
    }
}

fn reasons(config: &StreamConfig) -> Reasons {
    let mut at_start = Vec::new();
    let mut between = Vec::new();
    if !config.keeps_acknowledged() {
        let removed = format!("its {} retention removes acknowledged messages", config.retention);
        at_start.push(removed.clone());
        between.push(removed);
    }
    if config.max_age > 0 {
        at_start.push(format!("its max_age of {:?}", Duration::from_nanos(config.max_age)));
    }
    if config.max_msgs > 0 {
        at_start.push(format!("its max_msgs of {}", config.max_msgs));
    }
    if config.max_bytes > 0 {
        at_start.push(format!("its max_bytes of {}", config.max_bytes));
    }
    if config.max_msgs_per_subject > 0 {
        let limit = format!("its max_msgs_per_subject of {}", config.max_msgs_per_subject);
        at_start.push(limit.clone());
        between.push(limit);
    }
    if config.allow_msg_ttl {
        between.push("the time to live of messages".into());
    }
    if config.allow_rollup_hdrs {
        between.push("a rollup".into());
    }
    if !config.deny_purge {
        at_start.push("a purge".into());
        between.push("a purge of a subject".into());
    }
    if !config.deny_delete {
        at_start.push("a delete".into());
        between.push("a delete".into());
    }
    between.push("damage of its store".into());
    at_start.push("damage of its store".into());
    Reasons { at_start: at_start.join(", "), between: between.join(", ") }
}
