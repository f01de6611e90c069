//! Where connections come from: a port or a unix socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use super::stream::Stream;
use crate::observe::socket::OwnSocket;

/// Accepts connections without blocking.
#[derive(Debug)]
pub(in crate::observe) enum Listener {
    Tcp(TcpListener),
    Unix(OwnSocket),
}

impl Listener {
    /// Listens on a port.
    pub(in crate::observe) fn tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// Listens on this socket.
    pub(in crate::observe) fn unix(socket: OwnSocket) -> io::Result<Self> {
        socket.listener.set_nonblocking(true)?;
        Ok(Self::Unix(socket))
    }

    /// Where it listens, for people: `http://127.0.0.1:9464` or `unix:/run/a.sock`.
    pub(in crate::observe) fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |address| format!("http://{address}"))
            }
            Self::Unix(socket) => format!("unix:{}", socket.path.display()),
        }
    }

    /// The next connection that waits, and whether only the owner of a socket can have made it.
    pub(super) fn accept(&self) -> io::Result<(Stream, bool)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Tcp(stream), false))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Unix(stream), true))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(socket) => socket.listener.as_fd(),
        }
    }
}
