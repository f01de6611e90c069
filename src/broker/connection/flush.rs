//! Flushing what was published.
//!
//! The client writes at most every 5 ms unless it is flushed, and a flush waits for the server. So a thread of its own flushes, once for
//! everything that was written while it waited; the publishing thread never does.
//!
//! Over TLS the client has three faults of its own:
//!
//! - It takes no more than its TLS buffer holds, 64 KiB, when the server does not keep up: a write beyond that ends the connection. So no
//!   more than a window is written before a flush.
//! - What is in that buffer stays there until the next call. So every write is followed by a flush.
//! - A call that writes also reads. What it has read, the reading thread finds only when the server next sends something; the answer to a
//!   flush is such a thing. A slow flush may have had its own answer read that way, so other flushes follow it. The same goes for the
//!   last flush, because the client's own flushing, up to 5 ms after a write, reads too.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nats::Connection;

use crate::pipeline::Signal;

/// How long one flush may take to be written.
const FLUSH: Duration = Duration::from_secs(5);

/// How long a few events wait, at most, for the answer to an earlier flush.
const GATHERING: Duration = Duration::from_millis(1);

/// What may be written over TLS before a flush: less than its buffer holds, with room for pings.
const WINDOW: usize = 48 << 10;

/// The first pause before another flush follows a flush, and how often the pause is doubled. After that the server is silent, not
/// slow: the client's own pings, which every flush puts off, will detect that.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const FOLLOWERS: u32 = 10;

/// Pauses over TLS after the last write, before each of the flushes that follow the client's own. The client's thread may be late.
const LATE_FLUSHES: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(160)];

/// Observes a connection's flushes, on their thread.
pub(in crate::broker) trait FlushObserver: Send + 'static {
    /// A flush begins.
    fn begins(&mut self);

    /// The server has answered it: it has read everything that was published before the flush began.
    fn answered(&mut self);
}

/// For connections whose streams acknowledge each event.
struct NoObserver;

impl FlushObserver for NoObserver {
    fn begins(&mut self) {}

    fn answered(&mut self) {}
}

/// Flushes one connection. Where a flush hangs, its thread is left behind with the connection.
pub(in crate::broker) struct Flusher {
    kicker: FlushKicker,
    done: Receiver<()>,
    /// Over TLS: bytes written since the last flush.
    unflushed: Option<usize>,
    lost: Signal,
}

/// Makes a [`Flusher`] flush in the background.
#[derive(Clone)]
pub(super) struct FlushKicker(Sender<()>);

impl FlushKicker {
    pub(super) fn kick(&self) {
        // Full: a flush is due already.
        let _ = self.0.try_send(());
    }
}

impl Flusher {
    /// Starts the thread.
    pub(in crate::broker) fn start(connection: &Connection, tls: bool, lost: &Signal) -> Self {
        let flush = |connection: &Connection| connection.flush_timeout(FLUSH).is_ok();
        Self::start_with(connection, tls, lost, flush, NoObserver)
    }

    /// Starts the thread, with an observer of each flush; each may take at least this long to be written.
    ///
    /// A flush that fails ends the connection: its ping may have been written and may still be answered, and then each later answer
    /// would be taken for the answer to the ping before. A flush that succeeds on a connection which has ended was not answered: the
    /// client reports success when it has connected again.
    pub(in crate::broker) fn start_before(
        connection: &Connection,
        tls: bool,
        lost: &Signal,
        timeout: Duration,
        observer: impl FlushObserver,
    ) -> Self {
        let ends = lost.clone();
        let flush = move |connection: &Connection| {
            let flushed = connection.flush_timeout(FLUSH.max(timeout)).is_ok();
            if !flushed {
                ends.raise();
            }
            flushed && !ends.is_raised()
        };
        Self::start_with(connection, tls, lost, flush, observer)
    }

    fn start_with(
        connection: &Connection,
        tls: bool,
        lost: &Signal,
        flush: impl Fn(&Connection) -> bool + Clone + Send + 'static,
        mut observer: impl FlushObserver,
    ) -> Self {
        let (kick, kicks) = crossbeam_channel::bounded(1);
        let (done_in, done) = crossbeam_channel::bounded(1);
        let watch = tls.then(|| FlushWatch::start(connection.clone(), lost.clone(), flush.clone()));
        let connection = connection.clone();
        let spawned = thread::Builder::new().name("catchment-flush".into()).spawn(move || {
            let mut late_flushes = [].iter();
            loop {
                let kicked = match late_flushes.next() {
                    Some(pause) => kicks.recv_timeout(*pause),
                    None => kicks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match kicked {
                    Ok(()) if tls => late_flushes = LATE_FLUSHES.iter(),
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                let _under_way = watch.as_ref().map(FlushWatch::begin);
                observer.begins();
                if !flush(&connection) {
                    return;
                }
                observer.answered();
                // Nothing waits for a late flush.
                if kicked.is_ok() {
                    let _ = done_in.try_send(());
                }
            }
        });
        if let Err(e) = spawned {
            // Without it the client writes by itself, every 5 ms.
            log::warn!(event = "thread.refused", error:% = e; "broker: no thread to flush with: {e}");
        }
        Self { kicker: FlushKicker(kick), done, unflushed: tls.then_some(0), lost: lost.clone() }
    }

    /// To be called before so many bytes are written. Over TLS it may block until the bytes before them are written.
    pub(in crate::broker) fn before(&mut self, bytes: usize) {
        if let Some(unflushed) = self.unflushed {
            if unflushed > 0 && unflushed + bytes > WINDOW {
                self.flush();
            }
            self.unflushed = self.unflushed.map(|unflushed| unflushed + bytes);
        }
    }

    /// Writes everything that was published: in the background, or over TLS before it returns.
    pub(in crate::broker) fn flush(&mut self) {
        if self.unflushed.is_none() {
            // An earlier answer must not end the next wait.
            let _ = self.done.try_recv();
            self.kick();
            return;
        }
        self.unflushed = Some(0);
        crossbeam_channel::select! {
            send(self.kicker.0, ()) -> _ => {}
            recv(self.lost.channel()) -> _ => return,
        }
        crossbeam_channel::select! {
            recv(self.done) -> _ => {}
            recv(self.lost.channel()) -> _ => {}
        }
    }

    /// Waits for the answer to the flush that was started at this time, but not long, so that what comes meanwhile is written together, as TCP
    /// does with small writes: <https://www.rfc-editor.org/rfc/rfc896>. Over TLS each flush has waited already.
    pub(in crate::broker) fn gather(&self, flushed: Instant) {
        if self.unflushed.is_none() {
            crossbeam_channel::select! {
                recv(self.done) -> _ => {}
                recv(self.lost.channel()) -> _ => {}
                default(GATHERING.saturating_sub(flushed.elapsed())) => {}
            }
        }
    }

    /// Flushes in the background.
    pub(in crate::broker) fn kick(&self) {
        self.kicker.kick();
    }

    /// For other threads.
    pub(super) fn kicker(&self) -> FlushKicker {
        self.kicker.clone()
    }
}

/// A thread that watches each flush and starts others behind a slow one.
struct FlushWatch {
    flushes: Sender<Receiver<()>>,
}

impl FlushWatch {
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
                    // It ends with the flush that it follows: one answer brings up the others.
                    let _ = follower.spawn(move || flush(&connection));
                }
            }
        });
        if let Err(e) = spawned {
            log::warn!(event = "thread.refused", error:% = e; "broker: no thread to watch flushes with: {e}");
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
