//! Serves what an observer sees: on the socket beside the database, and where the settings say.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use super::http::{HttpThread, Listener};
use super::observer::Observer;
use super::site::{Access, Site};
use super::socket::{OwnSocket, socket_path};
use crate::config::{Config, ListenAddress};
use crate::error::Error;

/// What the settings ask for, ready to serve.
#[derive(Debug)]
pub struct Server {
    listener: Option<Listener>,
    access: Access,
}

/// A server that runs. Dropping this ends it, closes all connections and removes its sockets.
#[derive(Debug)]
pub struct Serving {
    thread: HttpThread,
    shown: Option<String>,
}

impl Server {
    /// Listens where the settings say, and nowhere if they name no address. Connections wait until [`Server::start`] is called.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the address cannot be used, or the token cannot be read.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let access = Access::new(config.observe.secret()?);
        let listener = config.observe.address()?.map(|address| listen(&address)).transpose()?;
        Ok(Self { listener, access })
    }

    /// Serves on a thread until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub fn start(self, observer: &Observer) -> Result<Serving, Error> {
        let shown = self.listener.as_ref().map(Listener::shown);
        let mut site = Site::new(observer.clone(), self.access);
        let listeners = self.listener.into_iter().collect();
        let thread = HttpThread::start(listeners, move |request| site.answer(request))?;
        Ok(Serving { thread, shown })
    }
}

impl Serving {
    /// Also serves on the socket beside the database. The caller holds the database's lock. A socket that cannot be made is reported and
    /// is no error: the collector works without it.
    pub fn add_socket(&self, database: &Path) {
        let path = socket_path(database);
        match OwnSocket::bind(&path).and_then(Listener::unix) {
            Ok(listener) => self.thread.add(listener),
            Err(error) => log::warn!(
                event = "observe.no_socket", path:% = path.display(), error:% = error;
                "observe: no socket {}: {error}; catchment status, top and health cannot ask this collector",
                path.display()
            ),
        }
    }

    /// Where it serves beside that socket, for people: `http://127.0.0.1:9464`.
    #[must_use]
    pub fn shown(&self) -> Option<&str> {
        self.shown.as_deref()
    }
}

fn listen(address: &ListenAddress) -> Result<Listener, Error> {
    let (shown, listener) = match address {
        ListenAddress::Tcp(address) => (SocketAddr::to_string(address), Listener::tcp(*address)),
        ListenAddress::Unix(path) => {
            (path.display().to_string(), OwnSocket::bind_unused(path).and_then(Listener::unix))
        }
    };
    listener.map_err(|error| {
        let detail = format!("cannot listen on {shown}: {error}");
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => "end the program that uses it, or give another address",
            _ => "give an address that this user may listen on",
        };
        Error::config("observe.listen", detail).with_remedy(remedy)
    })
}
