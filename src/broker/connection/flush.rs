//! Seeing to it that what was published is written.
//!
//! The client writes at most every 5 ms unless it is flushed, and flushing waits for the server. So a thread of its own
//! flushes, once for all that was written while it waited; the publishing thread never does.
//!
//! Over TLS the client has three faults of its own. It takes no more than its TLS can buffer, 64 KiB, when the server does
//! not keep up: a write behind that ends the connection. What is in that buffer stays there until the next call. And a call
//! that writes also reads; what it has read, the reading thread only finds with the next word of the server. So there no more
//! than a window is written before a flush; every write is followed by one, for its answer is that next word; a flush that
//! takes long, for its own answer may have been read so, is followed by others; and so is the last one, for the client's own
//! flushing, which comes up to 5 ms behind a write, reads too.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nats::Connection;

use crate::pipeline::Signal;

/// How long one flush may take to be written.
const FLUSH: Duration = Duration::from_secs(5);

/// How long a few events wait, at most, for the answer to a flush of those before them.
const GATHERING: Duration = Duration::from_millis(1);

/// What may be written over TLS before a flush: less than what its buffer takes, with room for a ping and nudges.
const WINDOW: usize = 48 << 10;

/// The first pause before a flush is followed by another, and how often the pause is doubled. Then the server is silent, not
/// slow; the client's own pings, which others put off, find out.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const FOLLOWERS: u32 = 10;

/// Pauses over TLS behind the last write, before each of the flushes that come behind the client's own. That one's thread may
/// be late.
const AFTERTHOUGHTS: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(160)];

/// Hears of a connection's flushes, on their thread.
pub(in crate::broker) trait Witness: Send + 'static {
    /// One begins.
    fn begins(&mut self);

    /// The server has answered it: it has read all that was published before it began.
    fn answered(&mut self);
}

/// Whoever asks the stream instead.
struct Nobody;

impl Witness for Nobody {
    fn begins(&mut self) {}

    fn answered(&mut self) {}
}

/// The flushing of one connection. Where a flush hangs, its thread is left behind with the connection.
pub(in crate::broker) struct Flusher {
    kick: Sender<()>,
    done: Receiver<()>,
    /// Over TLS: what was written since the last flush.
    unflushed: Option<usize>,
    lost: Signal,
}

impl Flusher {
    /// Starts the thread.
    pub(in crate::broker) fn start(connection: &Connection, tls: bool, lost: &Signal) -> Self {
        let flush = |connection: &Connection| connection.flush_timeout(FLUSH).is_ok();
        Self::start_with(connection, tls, lost, flush, Nobody)
    }

    /// Starts the thread, with somebody who hears of each flush; each may take this long to be written, at least.
    ///
    /// A flush that fails is the end of the connection: what it has written of its question may still be answered, and
    /// each later answer would be taken for that to the question before. One that succeeds on a connection which has
    /// ended was not answered: the client says so when it has connected anew.
    pub(in crate::broker) fn start_before(
        connection: &Connection,
        tls: bool,
        lost: &Signal,
        patience: Duration,
        witness: impl Witness,
    ) -> Self {
        let ends = lost.clone();
        let flush = move |connection: &Connection| {
            let flushed = connection.flush_timeout(FLUSH.max(patience)).is_ok();
            if !flushed {
                ends.raise();
            }
            flushed && !ends.is_raised()
        };
        Self::start_with(connection, tls, lost, flush, witness)
    }

    fn start_with(
        connection: &Connection,
        tls: bool,
        lost: &Signal,
        flush: impl Fn(&Connection) -> bool + Clone + Send + 'static,
        mut witness: impl Witness,
    ) -> Self {
        let (kick, kicks) = crossbeam_channel::bounded(1);
        let (done_in, done) = crossbeam_channel::bounded(1);
        let watch = tls.then(|| Watch::start(connection.clone(), lost.clone(), flush.clone()));
        let connection = connection.clone();
        let spawned = thread::Builder::new().name("catchment-flush".into()).spawn(move || {
            let mut afterthoughts = [].iter();
            loop {
                let kicked = match afterthoughts.next() {
                    Some(pause) => kicks.recv_timeout(*pause),
                    None => kicks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match kicked {
                    Ok(()) if tls => afterthoughts = AFTERTHOUGHTS.iter(),
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                let _under_way = watch.as_ref().map(Watch::begin);
                witness.begins();
                if !flush(&connection) {
                    return;
                }
                witness.answered();
                // Nobody waits for an afterthought.
                if kicked.is_ok() {
                    let _ = done_in.try_send(());
                }
            }
        });
        if let Err(e) = spawned {
            // Without it the client writes by itself, every 5 ms.
            log::warn!("broker: no thread to flush with: {e}");
        }
        Self { kick, done, unflushed: tls.then_some(0), lost: lost.clone() }
    }

    /// Hears that so many bytes are about to be written. Over TLS it may block until those before them are.
    pub(in crate::broker) fn before(&mut self, bytes: usize) {
        if let Some(unflushed) = self.unflushed {
            if unflushed > 0 && unflushed + bytes > WINDOW {
                self.flush();
            }
            self.unflushed = self.unflushed.map(|unflushed| unflushed + bytes);
        }
    }

    /// Has all that was published written: in the background, or over TLS before it returns.
    pub(in crate::broker) fn flush(&mut self) {
        if self.unflushed.is_none() {
            // What was answered before is not waited for.
            let _ = self.done.try_recv();
            self.kick();
            return;
        }
        self.unflushed = Some(0);
        crossbeam_channel::select! {
            send(self.kick, ()) -> _ => {}
            recv(self.lost.channel()) -> _ => return,
        }
        crossbeam_channel::select! {
            recv(self.done) -> _ => {}
            recv(self.lost.channel()) -> _ => {}
        }
    }

    /// Waits for the next answer, to the last flush or one under way, at most for a moment, so that what comes meanwhile is written together, as TCP
    /// does with small writes: <https://www.rfc-editor.org/rfc/rfc896>. Over TLS each flush has waited already.
    pub(in crate::broker) fn gather(&self) {
        if self.unflushed.is_none() {
            crossbeam_channel::select! {
                recv(self.done) -> _ => {}
                recv(self.lost.channel()) -> _ => {}
                default(GATHERING) => {}
            }
        }
    }

    /// Has all that was written flushed in the background.
    pub(in crate::broker) fn kick(&self) {
        // Full: a flush is wanted already.
        let _ = self.kick.try_send(());
    }
}

/// A thread that looks on while a flush is under way, and has others follow it.
struct Watch {
    flushes: Sender<Receiver<()>>,
}

impl Watch {
    fn start(
        connection: Connection,
        lost: Signal,
        flush: impl Fn(&Connection) -> bool + Clone + Send + 'static,
    ) -> Self {
        let (flushes, begun) = crossbeam_channel::bounded::<Receiver<()>>(1);
        let spawned = thread::Builder::new().name("catchment-watch".into()).spawn(move || {
            for over in begun {
                for number in 0..FOLLOWERS {
                    crossbeam_channel::select! {
                        recv(over) -> _ => break,
                        recv(lost.channel()) -> _ => return,
                        default(FIRST_PAUSE * (1 << number)) => {}
                    }
                    let (connection, flush) = (connection.clone(), flush.clone());
                    let follower = thread::Builder::new().name("catchment-flush".into());
                    // It ends with the one that it follows: one answer brings the others to light.
                    let _ = follower.spawn(move || flush(&connection));
                }
            }
        });
        if let Err(e) = spawned {
            log::warn!("broker: no thread to watch flushes with: {e}");
        }
        Self { flushes }
    }

    /// A flush is under way until what this returns is dropped.
    fn begin(&self) -> Sender<()> {
        let (under_way, over) = crossbeam_channel::bounded(1);
        let _ = self.flushes.send(over);
        under_way
    }
}
