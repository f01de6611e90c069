//! The messages of the stream, before they are committed.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{StreamBounds, StreamMessage, StreamReader};
use crate::cli::output::Output;
use crate::cli::settings::{BrokerArgs, DatabaseArgs, Settings};
use crate::cli::signals::Signals;
use crate::cli::stream_messages::{self, write_json, write_text};
use crate::error::Error;
use crate::subject::Filter;

/// How often to ask for new messages.
const POLL: Duration = Duration::from_millis(200);

/// How often to look for a signal, and whether the output still has a reader.
const STEP: Duration = Duration::from_millis(50);

/// How long to wait before the next attempt to reach a broker that was lost.
const RETRY: Duration = Duration::from_secs(1);

/// How many sequences are read at a time.
const PART: u64 = 256;

/// The most bytes of payloads of the existing messages.
const BYTES: usize = 64 << 20;

/// Reads on in a stream.
pub struct Incoming<'a> {
    open: Box<dyn Fn() -> Result<StreamReader, Error> + 'a>,
    reader: StreamReader,
    filters: Vec<Filter>,
    bounds: StreamBounds,
    /// The next sequence to read.
    next: u64,
    signals: &'a Signals,
}

impl<'a> Incoming<'a> {
    /// Connects to the broker. While the collector of the database is starting, waits for it.
    ///
    /// # Errors
    ///
    /// The broker cannot be reached, or has no such stream; the settings are for core NATS.
    pub fn open(
        settings: &'a Settings,
        database: &'a DatabaseArgs,
        broker: &'a BrokerArgs,
        subject: Option<&Filter>,
        signals: &'a Signals,
    ) -> anyhow::Result<Self> {
        let (reader, filters) = stream_messages::open(settings, database, broker, subject, signals)?;
        let bounds = reader.bounds()?;
        if !bounds.keeps_acknowledged {
            log::info!(
                "stream {} removes messages when they are acknowledged; those that are acknowledged at once may not be seen here",
                reader.stream()
            );
        }
        let again = filters.clone();
        let open = Box::new(move || StreamReader::open(&settings.for_broker(database, broker)?.broker, &again));
        Ok(Self { open, reader, filters, next: bounds.last + 1, bounds, signals })
    }

    /// Prints the last messages, at most `count`, of those that were stored at this time or later.
    pub fn print_existing(
        &mut self,
        output: &mut Output,
        since_us: Option<i64>,
        count: usize,
        json: bool,
    ) -> anyhow::Result<()> {
        let mut bounds = self.bounds.clone();
        if let Some(since) = since_us {
            bounds.first = self.reader.first_since(&bounds, since.saturating_mul(1_000))?;
        }
        if count == usize::MAX {
            self.next = bounds.first;
            return self.print_next(output, json);
        }
        let signals = self.signals;
        let found = self.reader.last(&self.filters, &bounds, (count, BYTES), &|| !signals.end_asked())?;
        print(output, &found, json)?;
        signals.interrupted().map_or(Ok(()), |status| Err(status.into()))
    }

    /// Prints new messages until interrupted. Connects again when the broker was lost.
    pub fn follow(&mut self, output: &mut Output, json: bool) -> anyhow::Result<()> {
        loop {
            self.pause(output, POLL)?;
            let asked = self.reader.bounds();
            let printed = asked.map_err(anyhow::Error::from).and_then(|bounds| {
                if bounds.created != self.bounds.created || bounds.last + 1 < self.next {
                    log::info!("stream {} was created again; printing it from its start", self.reader.stream());
                    self.next = bounds.first;
                }
                self.bounds = bounds;
                self.print_next(output, json)
            });
            match printed.map_err(anyhow::Error::downcast::<Error>) {
                Ok(()) => {}
                Err(Ok(error @ Error::Broker { .. })) => {
                    log::warn!("{error}; trying again");
                    let since = Instant::now();
                    self.reader = loop {
                        self.pause(output, RETRY)?;
                        if let Ok(reader) = (self.open)() {
                            break reader;
                        }
                    };
                    log::info!("reading stream {} again after {:.1?}", self.reader.stream(), since.elapsed());
                }
                Err(Ok(other)) => return Err(other.into()),
                Err(Err(other)) => return Err(other),
            }
        }
    }

    /// Prints the messages from the next one to the last one of the stream.
    fn print_next(&mut self, output: &mut Output, json: bool) -> anyhow::Result<()> {
        let signals = self.signals;
        self.next = self.next.max(self.bounds.first);
        while self.next <= self.bounds.last {
            let end = self.bounds.last.min(self.next + PART - 1);
            let found = self.reader.range(&self.filters, self.next..=end, &|| !signals.end_asked())?;
            if let Some(status) = signals.interrupted() {
                return Err(status.into());
            }
            print(output, &found, json)?;
            self.next = end + 1;
        }
        Ok(())
    }

    /// Waits. Ends at a signal, or when the output has lost its reader.
    fn pause(&self, output: &Output, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            if let Some(status) = self.signals.interrupted() {
                return Err(status.into());
            }
            output.check_open()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(STEP));
        }
    }
}

fn print(output: &mut Output, messages: &[StreamMessage], json: bool) -> anyhow::Result<()> {
    for message in messages {
        if json { write_json(output, message)? } else { write_text(output, message)? }
    }
    Ok(output.flush()?)
}
