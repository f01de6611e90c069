//! The thread that serves all connections.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::Connection;
use super::listener::Listener;
use super::request::Request;
use super::response::Response;
use crate::error::Error;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 128;

/// How many connections are accepted before those that are there are served.
const ACCEPTED_AT_ONCE: usize = 32;

/// How long no connection is accepted after the system refused one: it has no more file descriptors, for instance.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How long the thread sleeps after it received no complete request. So clients that send their requests byte by byte cost a few
/// hundred wake-ups a second together, however many they are.
const PAUSE: Duration = Duration::from_millis(5);

const THREAD: &str = "catchment-http";

/// A server that runs. Dropping this ends it, and closes all connections.
#[derive(Debug)]
pub(in crate::observe) struct HttpThread {
    wake: UnixStream,
    /// Further listeners; the thread ends when this is dropped.
    further: Option<Sender<Listener>>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's side.
struct Serving<A> {
    listeners: Vec<Listener>,
    /// Has a byte when there are further listeners, or the server is to end.
    woken: UnixStream,
    further: Receiver<Listener>,
    connections: Vec<Connection>,
    answer: A,
    refused_until: Option<Instant>,
}

/// What there is to do after connections were served.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Poll,
    /// Sleep first.
    Pause,
    End,
}

impl HttpThread {
    /// Serves connections of these listeners. `answer` is called on the thread and must not block.
    pub(in crate::observe) fn start(
        listeners: Vec<Listener>,
        answer: impl FnMut(&Request) -> Response + Send + 'static,
    ) -> Result<Self, Error> {
        let no_thread = |source| Error::Thread { name: THREAD.into(), source };
        let (wake, woken) = UnixStream::pair().map_err(no_thread)?;
        woken.set_nonblocking(true).map_err(no_thread)?;
        let (add, further) = crossbeam_channel::unbounded();
        let serving = Serving { listeners, woken, further, connections: Vec::new(), answer, refused_until: None };
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(move || serving.run());
        Ok(Self { wake, further: Some(add), thread: Some(thread.map_err(no_thread)?) })
    }

    /// Serves connections of this listener too.
    pub(in crate::observe) fn add(&self, listener: Listener) {
        let _ = self.further.as_ref().map(|further| further.send(listener));
        self.wake();
    }

    fn wake(&self) {
        // If it is full of such bytes, the thread wakes anyway.
        let _ = (&self.wake).write(b"x");
    }
}

impl Drop for HttpThread {
    fn drop(&mut self) {
        self.further = None;
        self.wake();
        // A panic is on standard error already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<A: FnMut(&Request) -> Response> Serving<A> {
    fn run(mut self) {
        loop {
            match self.wait() {
                Ok(Next::Poll) => {}
                Ok(Next::Pause) => std::thread::sleep(PAUSE),
                Ok(Next::End) => return,
                Err(error) => {
                    log::warn!(event = "observe.ended", error:% = error; "observe: the HTTP server has ended: {error}");
                    return;
                }
            }
        }
    }

    /// Waits for something to do and does it.
    fn wait(&mut self) -> std::io::Result<Next> {
        let now = Instant::now();
        let accepts = self.refused_until.is_none_or(|until| now >= until);
        let mut polled = vec![PollFd::new(&self.woken, PollFlags::IN)];
        if accepts {
            polled.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        let first = polled.len();
        polled.extend(self.connections.iter().map(|one| PollFd::from_borrowed_fd(one.as_fd(), one.waits_for())));
        let ends = self.connections.iter().map(|connection| connection.until);
        let next = ends.chain(self.refused_until.filter(|_| !accepts)).min();
        match poll(&mut polled, next.map(|next| timespec(next.saturating_duration_since(now))).as_ref()) {
            Err(error) if error == rustix::io::Errno::INTR => return Ok(Next::Poll),
            polled => polled?,
        };
        let is_woken = !polled[0].revents().is_empty();
        let arrived = polled[1..first].iter().any(|fd| !fd.revents().is_empty());
        let ready: Vec<bool> = polled[first..].iter().map(|fd| !fd.revents().is_empty()).collect();
        if is_woken && self.add_listeners() {
            return Ok(Next::End);
        }
        let now = Instant::now();
        let mut is_incomplete = false;
        for (connection, is_ready) in self.connections.iter_mut().zip(ready) {
            if is_ready {
                connection.proceed(now, &mut self.answer);
                is_incomplete |= connection.is_reading();
            }
            if now >= connection.until {
                connection.expire(now);
            }
        }
        self.connections.retain(|connection| !connection.is_over());
        if arrived {
            is_incomplete |= self.accept(now);
        }
        Ok(if is_incomplete { Next::Pause } else { Next::Poll })
    }

    /// Takes further listeners. Returns whether the server is to end.
    fn add_listeners(&mut self) -> bool {
        let _ = (&self.woken).read(&mut [0; 64]);
        loop {
            match self.further.try_recv() {
                Ok(listener) => self.listeners.push(listener),
                Err(error) => return error == TryRecvError::Disconnected,
            }
        }
    }

    /// Returns whether a client has not sent its request yet.
    fn accept(&mut self, now: Instant) -> bool {
        let mut is_incomplete = false;
        for listener in &self.listeners {
            for _ in 0..ACCEPTED_AT_ONCE {
                let (stream, is_of_owner) = match listener.accept() {
                    Ok(accepted) => accepted,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The client is gone already.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                    Err(error) => {
                        log::debug!("observe: no connection is accepted for {REFUSED_PAUSE:?}: {error}");
                        self.refused_until = Some(now + REFUSED_PAUSE);
                        return is_incomplete;
                    }
                };
                let mut connection = Connection::new(stream, is_of_owner, now);
                // Most clients have sent their request by now.
                connection.proceed(now, &mut self.answer);
                if connection.is_over() {
                    continue;
                }
                is_incomplete |= connection.is_reading();
                if self.connections.len() >= MAX_CONNECTIONS {
                    // They are in the order in which they came.
                    let oldest = self.connections.iter().position(Connection::is_reading).unwrap_or(0);
                    self.connections.remove(oldest);
                }
                self.connections.push(connection);
            }
        }
        is_incomplete
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that what is waited for is over then.
    let duration = duration + Duration::from_millis(1);
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_thread_pauses_only_after_incomplete_requests() {
        let listener = Listener::tcp("127.0.0.1:0".parse().expect("an address")).expect("listens");
        let Listener::Tcp(tcp) = &listener else { unreachable!() };
        let address = tcp.local_addr().expect("has an address");
        let (_wake, woken) = UnixStream::pair().expect("a pair");
        woken.set_nonblocking(true).expect("is set");
        let (_add, further) = crossbeam_channel::unbounded();
        let answer = |_: &Request| Response::text(200, "yes");
        let mut serving =
            Serving { listeners: vec![listener], woken, further, connections: Vec::new(), answer, refused_until: None };

        let mut slow = TcpStream::connect(address).expect("connects");
        assert_eq!(serving.wait().expect("polls"), Next::Pause, "a connection without a request");
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r" {
            slow.write_all(&[*byte]).expect("is sent");
            assert_eq!(serving.wait().expect("polls"), Next::Pause, "a part of a request");
        }
        slow.write_all(b"\n").expect("is sent");
        assert_eq!(serving.wait().expect("polls"), Next::Poll, "the last byte");
        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("is answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(slow);
        assert_eq!(serving.wait().expect("polls"), Next::Poll, "the client's close");
    }
}
