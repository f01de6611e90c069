//! Reads a stream by its sequences, without a consumer, as a pipeline's intake.
//!
//! For replays of streams on which a consumer would change something: an interest stream keeps messages for each of its consumers, and a
//! work queue gives each message to one. It is slower than a consumer: each message is a request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::epoch_history::EpochHistory;
use super::stream_reader::{RawHeaders, Step, StreamMessage, StreamReader};
use crate::broker::Reports;
use crate::broker::connection::Reconnect;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::{Batch, Defect, Epoch, EpochProgress, Gap, Gaps, Intake, IntakeState, Mark, Signal};
use crate::subject::Filter;

/// Reads a stream up to a sequence.
pub struct SequenceIntake {
    config: BrokerConfig,
    filters: Vec<Filter>,
    /// `None` while the connection is lost.
    reader: Option<StreamReader>,
    history: EpochHistory,
    epoch: Arc<Epoch>,
    /// The last event that was handed over, or the position at the start.
    handed: Mark,
    /// The next sequence to read.
    next: u64,
    /// The next sequence that was neither a message nor a gap yet.
    seen: u64,
    last: u64,
    /// The filters match the whole stream: a sequence without a message is a gap.
    is_whole: bool,
    /// What the stream lacked at the start, if the filters match only a part of it.
    absent: Gaps,
    /// Messages that are in no batch yet.
    waiting: VecDeque<StreamMessage>,
    /// Gaps that are in no batch yet.
    missing: Vec<Gap>,
    /// How many sequences to read at a time.
    step: Step,
    stop: Signal,
    reports: Reports,
    reconnect: Reconnect,
}

impl SequenceIntake {
    /// Connects, and finds where a database with this progress continues. It ends with the stream's last message now, or with the
    /// sequence `until`. Blocks for some tens of answers.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn open(
        config: &BrokerConfig,
        history: Vec<EpochProgress>,
        until: u64,
        stop: &Signal,
        reports: &Reports,
    ) -> Result<Self, Error> {
        let filters: Vec<Filter> = config.filters().iter().filter_map(|filter| filter.parse().ok()).collect();
        let reader = StreamReader::open(config, &filters)?;
        let last = reader.bounds()?.last.min(until);
        let mut intake = Self {
            config: config.clone(),
            filters,
            reader: None,
            history: EpochHistory::new(history),
            epoch: Arc::new(Epoch::new(&config.stream, 0, "")),
            handed: Mark::START,
            next: 1,
            seen: 1,
            last,
            is_whole: false,
            absent: Gaps::default(),
            waiting: VecDeque::new(),
            missing: Vec::new(),
            step: Step::INITIAL,
            stop: stop.clone(),
            reports: reports.clone(),
            reconnect: Reconnect::new(config, &reports.condition, stop),
        };
        intake.adopt(reader)?;
        Ok(intake)
    }

    /// Continues with this connection, where the database is.
    fn adopt(&mut self, reader: StreamReader) -> Result<(), Error> {
        let (resume, is_whole) = reader.resume(self.history.epochs())?;
        let holes = reader.holes()?;
        if let Some(notice) = &resume.notice {
            log::warn!(event = "stream.changed", stream = self.config.stream, notice:% = notice; "broker: {notice}");
        }
        let first = holes.bounds.first;
        if *self.epoch != resume.epoch {
            self.handed = resume.after;
            self.next = (resume.after.sequence + 1).max(first);
            self.seen = resume.after.sequence + 1;
            self.missing = resume.inherited.iter().collect();
            self.waiting.clear();
            self.history.continue_epoch(&resume.epoch, resume.after);
            self.reports.progress.begin(resume.epoch.number, resume.after);
            self.epoch = Arc::new(resume.epoch);
        }
        self.is_whole = is_whole;
        self.absent = holes.absent.unwrap_or_default();
        self.reports.peer.connected(reader.server());
        self.reader = Some(reader);
        self.reconnect.opened();
        self.reports.condition.recover();
        Ok(())
    }

    /// Reads the next sequences. Only while no message waits for a batch.
    fn read(&mut self) -> Result<(), Error> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let range = self.step.range(self.next, self.last);
        let end = *range.end();
        let stop = &self.stop;
        let messages = reader.range(&self.filters, range, &|| !stop.is_raised())?;
        if self.stop.is_raised() {
            return Ok(());
        }
        self.step.adapt(&messages);
        self.waiting.extend(messages);
        self.next = end + 1;
        self.reconnect.productive();
        Ok(())
    }

    /// What the stream lacks of these sequences.
    fn pass(&mut self, first: u64, last: u64) {
        let Some(gap) = Gap::of(first, last) else { return };
        let missing = if self.is_whole { Gaps::from(gap) } else { Gaps::from(gap).common(&self.absent) };
        for gap in missing.iter() {
            self.history.add_gap(gap);
            self.missing.push(gap);
        }
    }

    /// Adds what was read to the batch, as far as there is room.
    fn hand_over(&mut self, batch: &mut Batch) {
        while let Some(message) = self.waiting.front() {
            let mark = Mark { sequence: message.sequence, published_ns: message.published_ns };
            if !batch.has_room_for(message.size()) {
                batch.seal();
                return;
            }
            self.pass(self.seen, mark.sequence - 1);
            self.seen = mark.sequence + 1;
            let Some(message) = self.waiting.pop_front() else { return };
            let is_stored = self.history.is_stored(mark);
            self.history.reached(mark);
            if is_stored {
                self.reports.counters.duplicates.add(1);
                continue;
            }
            if batch.is_empty() {
                batch.begin(Arc::clone(&self.epoch), self.handed);
            }
            self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
            message.push_to(batch);
            self.handed = mark;
        }
    }

    /// Adds the gaps after the last message. A batch may consist of them alone, once the ledger has the epoch.
    fn finish(&mut self, batch: &mut Batch) {
        let is_known = self.handed != self.epoch.begins || !batch.is_empty();
        self.pass(self.seen, self.last);
        self.seen = self.last + 1;
        if is_known && !self.missing.is_empty() {
            if batch.is_empty() {
                batch.begin(Arc::clone(&self.epoch), self.handed);
            }
            self.missing.drain(..).for_each(|gap| batch.push_gap(gap));
        }
    }

    fn reopen(&mut self, wait: Duration) -> Result<(), Error> {
        let (config, filters) = (self.config.clone(), self.filters.clone());
        match self.reconnect.attempt(wait, || StreamReader::open(&config, &filters)) {
            Ok(Some(reader)) => match self.adopt(reader) {
                Ok(()) => self.reports.counters.reconnects.add(1),
                Err(error) => self.lost(error)?,
            },
            Ok(None) => {}
            Err(error) => self.lost(error)?,
        }
        Ok(())
    }

    /// Goes on without a connection, if this error may pass.
    fn lost(&mut self, error: Error) -> Result<(), Error> {
        let may_pass = matches!(error, Error::Broker { fault: BrokerFault::Unreachable | BrokerFault::Silent, .. });
        if !may_pass {
            return Err(error);
        }
        if self.reader.take().is_some() {
            self.reconnect.ended(error.to_string());
            self.reports.peer.lost();
        }
        Ok(())
    }
}

impl Intake for SequenceIntake {
    fn fill(&mut self, batch: &mut Batch, wait: Duration) -> Result<IntakeState, Error> {
        if self.reader.is_none() {
            if batch.is_empty() {
                self.reopen(wait)?;
            }
            return Ok(IntakeState::Open);
        }
        if self.waiting.is_empty()
            && self.next <= self.last
            && batch.is_empty()
            && let Err(error) = self.read()
        {
            self.lost(error)?;
            return Ok(IntakeState::Open);
        }
        self.hand_over(batch);
        let is_read = self.waiting.is_empty() && self.next > self.last && !self.stop.is_raised();
        if is_read {
            self.finish(batch);
        }
        let seen = self.seen.saturating_sub(1);
        self.reports.progress.received(self.handed.sequence, seen);
        Ok(if is_read { IntakeState::Drained } else { IntakeState::Open })
    }
}

impl StreamMessage {
    /// The bytes that it takes in a batch.
    pub(crate) fn size(&self) -> usize {
        let headers = match &self.headers {
            Ok(headers) => headers.iter().map(|(name, value)| name.len() + value.len() + Batch::HEADER).sum(),
            Err(raw) => raw.bytes.len() + Batch::HEADER,
        };
        self.subject.len() + self.payload.len() + headers
    }

    /// Adds it to a batch.
    pub(crate) fn push_to(&self, batch: &mut Batch) {
        let mark = Mark { sequence: self.sequence, published_ns: self.published_ns };
        match &self.headers {
            Ok(headers) => {
                let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                batch.push(mark, &self.subject, pairs, &self.payload);
            }
            Err(RawHeaders { bytes, defect }) => {
                batch.push_defect(mark, &self.subject, Defect { reason: defect, raw_headers: bytes }, &self.payload);
            }
        }
    }
}
