//! One connection: reads a request, writes the answer, closes. It never blocks, and each step has an end.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::request::{BadRequest, Request};
use super::response::Response;
use super::stream::Stream;

/// The most bytes of a request.
const MAX_REQUEST: usize = 8 << 10;

/// The most time for a request, for the answer, and for the client's close.
const REQUEST: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
const CLOSE: Duration = Duration::from_secs(1);

/// The most bytes that are read and ignored before the close.
const MAX_IGNORED: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    is_of_owner: bool,
    state: State,
    /// When this state must be over.
    pub(super) until: Instant,
}

#[derive(Debug)]
enum State {
    Reading(Vec<u8>),
    Writing {
        bytes: Vec<u8>,
        written: usize,
    },
    /// The answer is sent. What the client still sends is ignored: a close before it is read would destroy the answer.
    Closing {
        ignored: usize,
    },
    Over,
}

impl Connection {
    pub(super) fn new(stream: Stream, is_of_owner: bool, now: Instant) -> Self {
        Self { stream, is_of_owner, state: State::Reading(Vec::new()), until: now + REQUEST }
    }

    /// What to wait for.
    pub(super) fn waits_for(&self) -> PollFlags {
        match self.state {
            State::Writing { .. } => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// Whether it has not sent its request.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Goes on as far as that is possible without waiting.
    pub(super) fn proceed(&mut self, now: Instant, answer: &mut dyn FnMut(&Request) -> Response) {
        if matches!(self.state, State::Reading(_)) {
            self.read(now, answer);
        }
        if matches!(self.state, State::Writing { .. }) {
            self.write(now);
        }
        if matches!(self.state, State::Closing { .. }) {
            self.close();
        }
    }

    /// Its time is over. A client that sent a part of a request gets an answer.
    pub(super) fn expire(&mut self, now: Instant) {
        match &self.state {
            State::Reading(bytes) if !bytes.is_empty() => {
                self.begin_answer(&Response::too_slow(), false, now);
                self.write(now);
                // This client gets no more time.
                self.state = State::Over;
            }
            _ => self.state = State::Over,
        }
    }

    fn read(&mut self, now: Instant, answer: &mut dyn FnMut(&Request) -> Response) {
        let State::Reading(bytes) = &mut self.state else { return };
        let is_first = bytes.is_empty();
        let mut part = [0; 2048];
        let mut has_end = false;
        let mut is_last = false;
        loop {
            match self.stream.read(&mut part) {
                // The client has sent everything. It may still wait for the answer.
                Ok(0) => {
                    is_last = true;
                    break;
                }
                Ok(read) => {
                    // A request ends with an empty line, whose last byte is a line feed.
                    has_end |= part[..read].contains(&b'\n');
                    bytes.extend_from_slice(&part[..read]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.state = State::Over;
                    return;
                }
            }
            if bytes.len() > MAX_REQUEST {
                break;
            }
        }
        let parsed = if bytes.len() > MAX_REQUEST {
            Err(BadRequest::TooLarge)
        } else if has_end || is_first {
            Request::parse(bytes)
        } else {
            Ok(None)
        };
        match parsed {
            Ok(None) if is_last => self.state = State::Over,
            Ok(None) => {}
            Ok(Some(mut request)) => {
                request.is_of_owner = self.is_of_owner;
                let response = answer(&request);
                self.begin_answer(&response, request.is_head, now);
            }
            Err(why) => self.begin_answer(&Response::refused(why), false, now),
        }
    }

    fn begin_answer(&mut self, response: &Response, is_head: bool, now: Instant) {
        self.state = State::Writing { bytes: response.bytes(is_head), written: 0 };
        self.until = now + ANSWER;
    }

    fn write(&mut self, now: Instant) {
        let State::Writing { bytes, written } = &mut self.state else { return };
        while *written < bytes.len() {
            match self.stream.write(&bytes[*written..]) {
                Ok(0) => break,
                Ok(more) => *written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.state = State::Over;
                    return;
                }
            }
        }
        self.state = if self.stream.end().is_ok() { State::Closing { ignored: 0 } } else { State::Over };
        self.until = now + CLOSE;
    }

    fn close(&mut self) {
        let State::Closing { ignored } = &mut self.state else { return };
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(read) if read > 0 && *ignored < MAX_IGNORED => *ignored += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.state = State::Over;
                    return;
                }
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
