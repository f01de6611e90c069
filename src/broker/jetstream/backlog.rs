//! Deliveries that wait for the intake, with their headers packed.
//!
//! A pull request is limited in bytes as the server counts them. The client's map of headers takes up to sixty times
//! that memory. So a thread reads the deliveries that wait in the client and packs those with many headers. It keeps
//! those with few as they are.
//!
//! Everything that is sent to the link's inbox may pass through here. So no request may be made on that link until
//! [`Backlog::stop`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, TryRecvError};
use nats::Message;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::broker::headers::{Packed, are_more_than};

/// How often the thread checks while deliveries are received. The client reads less than half a megabyte of headers
/// meanwhile. After deliveries with many headers it does not wait for the next check, but for the next delivery.
const TICK: Duration = Duration::from_millis(10);

/// A delivery with at most this many headers is not packed.
const MAX_UNPACKED_HEADERS: usize = 4;

/// After this many deliveries in a row without many headers, the thread leaves the others in the client.
const MAX_UNPACKED_IN_A_ROW: usize = 64;

/// The deliveries of one connection, in order.
pub(super) struct Backlog(Arc<Shared>);

struct Shared {
    messages: Receiver<Message>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Locked while a delivery is taken from the client: that keeps the order.
#[derive(Default)]
struct State {
    /// The deliveries that the thread has taken from the client.
    buffered: VecDeque<Buffered>,
    /// The intake waits for the next delivery and takes it from the client itself.
    intake_waits: bool,
    /// The thread sleeps until that wait ends.
    idle: bool,
    stopped: bool,
}

/// A waiting delivery.
enum Buffered {
    Unpacked(Message),
    Packed { subject: String, reply: Option<String>, headers: Packed, data: Vec<u8> },
}

impl Backlog {
    /// The name of its thread.
    pub(super) const THREAD: &str = "catchment-backlog";

    /// Starts the thread for the deliveries on this channel.
    pub(super) fn of(messages: &Receiver<Message>) -> std::io::Result<Self> {
        let shared = Shared { messages: messages.clone(), state: Mutex::default(), changed: Condvar::new() };
        let backlog = Self(Arc::new(shared));
        let shared = Arc::clone(&backlog.0);
        thread::Builder::new().name(Self::THREAD.into()).spawn(move || shared.run())?;
        Ok(backlog)
    }

    /// The next delivery.
    pub(super) fn try_next(&self) -> Result<Message, TryRecvError> {
        let mut state = self.0.state.lock();
        let Some(next) = state.buffered.pop_front() else { return self.0.messages.try_recv() };
        if state.buffered.is_empty() {
            state.buffered.shrink_to(MAX_UNPACKED_IN_A_ROW);
        }
        drop(state);
        Ok(next.unpack())
    }

    /// The caller is about to wait for the next delivery and will take it from the client itself. `false` if one is
    /// buffered already. End the wait with [`Backlog::end_wait`].
    pub(super) fn begin_wait(&self) -> bool {
        let mut state = self.0.state.lock();
        state.intake_waits = state.buffered.is_empty();
        state.intake_waits
    }

    /// The wait has ended.
    pub(super) fn end_wait(&self) {
        let mut state = self.0.state.lock();
        state.intake_waits = false;
        if state.idle {
            self.0.changed.notify_one();
        }
    }

    /// Stops the thread.
    pub(super) fn stop(&self) {
        self.0.state.lock().stopped = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        let mut has_packed = false;
        loop {
            state.idle = true;
            self.changed.wait_while(&mut state, |state| state.intake_waits && !state.stopped);
            state.idle = false;
            if has_packed {
                MutexGuard::unlocked(&mut state, || self.await_delivery());
            } else {
                let _ = self.changed.wait_while_for(&mut state, |state| !state.stopped, TICK);
            }
            if state.stopped {
                return;
            }
            MutexGuard::unlocked(&mut state, || has_packed = self.pack_waiting());
        }
    }

    /// Waits until the client has a delivery, at most for a tick, and leaves it there.
    fn await_delivery(&self) {
        let mut deliveries = Select::new();
        deliveries.recv(&self.messages);
        let _ = deliveries.ready_timeout(TICK);
    }

    /// Returns whether there were deliveries with many headers.
    fn pack_waiting(&self) -> bool {
        let (mut unpacked, mut has_packed) = (0, false);
        while unpacked < MAX_UNPACKED_IN_A_ROW {
            let mut state = self.state.lock();
            if state.intake_waits || state.stopped {
                return has_packed;
            }
            let Ok(message) = self.messages.try_recv() else { return has_packed };
            let next = Buffered::of(message);
            let is_packed = matches!(next, Buffered::Packed { .. });
            has_packed |= is_packed;
            unpacked = if is_packed { 0 } else { unpacked + 1 };
            state.buffered.push_back(next);
        }
        has_packed
    }
}

impl Buffered {
    fn of(message: Message) -> Self {
        if !are_more_than(MAX_UNPACKED_HEADERS, message.headers.as_ref()) {
            return Self::Unpacked(message);
        }
        let Message { subject, reply, headers, data, .. } = message;
        Self::Packed { subject, reply, headers: Packed::of(headers.as_ref()), data }
    }

    fn unpack(self) -> Message {
        match self {
            Self::Unpacked(message) => message,
            Self::Packed { subject, reply, headers, data } => {
                Message { subject, reply, headers: headers.map(), data, ..Message::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nats::HeaderMap;

    use super::*;

    fn message(number: usize, headers: usize) -> Message {
        let map = (0..headers).map(|header| (format!("{header}"), format!("{number}"))).collect::<HeaderMap>();
        Message::new("a", Some(&number.to_string()), "payload", (headers > 0).then_some(map))
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < until, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn many_headers_are_packed_and_few_are_left_where_they_are() {
        let (client, messages) = crossbeam_channel::unbounded();
        let backlog = Backlog::of(&messages).expect("a thread");
        let packed = || {
            backlog
                .0
                .state
                .lock()
                .buffered
                .iter()
                .filter(|buffered| matches!(buffered, Buffered::Packed { .. }))
                .count()
        };
        (0..1_000).for_each(|number| client.send(message(number, 5)).expect("taken"));
        until("all to be packed", || packed() == 1_000 && messages.is_empty());
        (0..1_000).for_each(|number| client.send(message(1_000 + number, 4)).expect("taken"));
        for number in 0..2_000 {
            let next = backlog.try_next().expect("all are there");
            assert_eq!(next.reply, Some(number.to_string()));
            assert_eq!(next.headers, message(number, if number < 1_000 { 5 } else { 4 }).headers);
            assert_eq!((next.subject.as_str(), next.data.as_slice()), ("a", b"payload".as_slice()));
        }
        assert_eq!(backlog.try_next().expect_err("no more"), TryRecvError::Empty);
        drop(client);
        assert_eq!(backlog.try_next().expect_err("the client was dropped"), TryRecvError::Disconnected);
    }

    #[test]
    fn deliveries_come_in_order_whichever_thread_packs() {
        const MESSAGES: usize = 20_000;
        let (client, messages) = crossbeam_channel::unbounded();
        let backlog = Backlog::of(&messages).expect("a thread");
        let sender = thread::spawn(move || {
            for number in 0..MESSAGES {
                client.send(message(number, number % 9)).expect("taken");
                if number % 100 == 0 {
                    thread::sleep(Duration::from_micros(500));
                }
            }
            client
        });
        for number in 0..MESSAGES {
            let next = loop {
                if let Ok(next) = backlog.try_next() {
                    break next;
                }
                if backlog.begin_wait() {
                    let next = messages.recv_timeout(Duration::from_secs(20)).expect("the next one is sent here");
                    backlog.end_wait();
                    break next;
                }
            };
            assert_eq!(next.reply, Some(number.to_string()));
            if number % 5_000 == 0 {
                thread::sleep(TICK * 3);
            }
        }
        drop(sender.join().expect("no panic"));
    }

    #[test]
    fn once_stopped_it_takes_nothing_out() {
        let (client, messages) = crossbeam_channel::unbounded();
        let backlog = Backlog::of(&messages).expect("a thread");
        client.send(message(0, 9)).expect("taken");
        backlog.stop();
        let left = messages.len();
        client.send(message(1, 9)).expect("taken");
        until("the thread to end", || Arc::strong_count(&backlog.0) == 1);
        assert_eq!(messages.len(), left + 1);
    }
}
