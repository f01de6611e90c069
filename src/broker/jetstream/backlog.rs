//! Deliveries that wait for the intake.
//!
//! A pull is bounded in bytes as the server counts them, and the client's map of headers takes up to sixty times that. So a thread
//! looks at what waits in the client, and packs deliveries with many headers. Those with few stay where they are, as they came.
//!
//! Whatever comes to the link's inbox may pass through here. So no request is made on that link until [`Backlog::stop`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use nats::Message;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::broker::headers::{Packed, pairs};

/// How often the thread looks while deliveries come. The client reads less than half a megabyte of headers meanwhile.
const TICK: Duration = Duration::from_millis(10);

/// The most headers with which a delivery is kept as it came.
const FEW: usize = 4;

/// So many deliveries without many headers in a row, and the thread leaves the others where they are.
const GLANCE: usize = 64;

/// The deliveries of one connection, in order.
pub(super) struct Backlog(Arc<Shared>);

struct Shared {
    messages: Receiver<Message>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Whoever takes something out of the client has this locked: that keeps the order.
#[derive(Default)]
struct State {
    /// What the thread has taken out.
    kept: VecDeque<Kept>,
    /// The intake waits for the next delivery: it is taken out as it comes.
    attended: bool,
    /// The thread sleeps until that wait is over.
    idle: bool,
    over: bool,
}

/// A delivery that waits.
enum Kept {
    AsItCame(Message),
    Packed { subject: String, reply: Option<String>, headers: Packed, data: Vec<u8> },
}

impl Backlog {
    /// The name of its thread.
    pub(super) const THREAD: &str = "catchment-backlog";

    /// Looks after what comes here from now on.
    pub(super) fn of(messages: &Receiver<Message>) -> std::io::Result<Self> {
        let shared = Shared { messages: messages.clone(), state: Mutex::default(), changed: Condvar::new() };
        let backlog = Self(Arc::new(shared));
        let shared = Arc::clone(&backlog.0);
        thread::Builder::new().name(Self::THREAD.into()).spawn(move || shared.look_after())?;
        Ok(backlog)
    }

    /// The next delivery.
    pub(super) fn try_next(&self) -> Result<Message, TryRecvError> {
        let mut state = self.0.state.lock();
        let Some(next) = state.kept.pop_front() else { return self.0.messages.try_recv() };
        if state.kept.is_empty() {
            state.kept.shrink_to(GLANCE);
        }
        drop(state);
        Ok(next.unpack())
    }

    /// The caller waits for the next delivery, and takes it from the client itself. `false` where one is here already. Ends with
    /// [`Backlog::leave`].
    pub(super) fn attend(&self) -> bool {
        let mut state = self.0.state.lock();
        state.attended = state.kept.is_empty();
        state.attended
    }

    /// The wait is over.
    pub(super) fn leave(&self) {
        let mut state = self.0.state.lock();
        state.attended = false;
        if state.idle {
            self.0.changed.notify_one();
        }
    }

    /// Looks after them no longer.
    pub(super) fn stop(&self) {
        self.0.state.lock().over = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn look_after(&self) {
        let mut state = self.state.lock();
        loop {
            state.idle = true;
            self.changed.wait_while(&mut state, |state| state.attended && !state.over);
            state.idle = false;
            let _ = self.changed.wait_while_for(&mut state, |state| !state.over, TICK);
            if state.over {
                return;
            }
            MutexGuard::unlocked(&mut state, || self.take_out());
        }
    }

    fn take_out(&self) {
        let mut glances = 0;
        while glances < GLANCE {
            let mut state = self.state.lock();
            if state.attended || state.over {
                return;
            }
            let Ok(message) = self.messages.try_recv() else { return };
            let next = Kept::of(message);
            glances = if matches!(next, Kept::Packed { .. }) { 0 } else { glances + 1 };
            state.kept.push_back(next);
        }
    }
}

impl Kept {
    fn of(message: Message) -> Self {
        if pairs(message.headers.as_ref()).nth(FEW).is_none() {
            return Self::AsItCame(message);
        }
        let Message { subject, reply, headers, data, .. } = message;
        Self::Packed { subject, reply, headers: Packed::of(headers.as_ref()), data }
    }

    fn unpack(self) -> Message {
        match self {
            Self::AsItCame(message) => message,
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
        let packed = || backlog.0.state.lock().kept.iter().filter(|kept| matches!(kept, Kept::Packed { .. })).count();
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
        assert_eq!(backlog.try_next().expect_err("the client is gone"), TryRecvError::Disconnected);
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
                if backlog.attend() {
                    let next = messages.recv_timeout(Duration::from_secs(20)).expect("the next one comes here");
                    backlog.leave();
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
