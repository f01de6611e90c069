//! Unix sockets that only their owner can use, at paths of any length.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::new_file::folder_of;
use crate::store::file_beside;

/// The longest path that every system takes for a socket, in bytes: <https://man7.org/linux/man-pages/man7/unix.7.html>.
const LONGEST: usize = 100;

/// The socket of the collector of a database: beside the file that the path leads to.
#[must_use]
pub fn socket_path(database: &Path) -> PathBuf {
    file_beside(database, ".sock")
}

/// A socket that listens. Dropping this removes its file.
#[derive(Debug)]
pub(super) struct OwnSocket {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    /// Device and inode number.
    id: (u64, u64),
}

impl OwnSocket {
    /// As [`OwnSocket::bind`], where another process may use the socket: then it is refused.
    pub(super) fn bind_unused(path: &Path) -> io::Result<Self> {
        match connect(path) {
            Ok(_) => Err(ErrorKind::AddrInUse.into()),
            Err(_) => Self::bind(path),
        }
    }

    /// Makes a socket that only this user can connect to. Replaces a socket that a killed process has left behind. The caller makes sure
    /// that no other process uses it.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file of this name that is no socket"));
            }
            _ => {}
        }
        // Made in a folder that nobody else may enter, so that it has its permissions before anybody can connect. The move replaces a
        // left-behind one in one step.
        let folder = folder_of(path);
        let private = tempfile::Builder::new()
            .prefix(".catchment-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)
            .map_err(|error| io::Error::new(error.kind(), format!("folder {}: {}", folder.display(), error.kind())))?;
        let made = private.path().join("sock");
        let listener = with_short(&made, UnixListener::bind)?;
        std::fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        let id = id(&made)?;
        std::fs::rename(&made, path)?;
        Ok(Self { listener, path: path.to_owned(), id })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        // Not that of a collector that has taken this one's place.
        if id(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::debug!("observe: the socket {} stays: {error}", self.path.display());
        }
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Connects to a socket.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= LONGEST || !Path::new("/proc/self/fd").exists() {
        return UnixStream::connect(path);
    }
    connect_by_descriptor(path)
}

/// Linux leads from here to the socket, however long its name is.
#[cfg(target_os = "linux")]
fn connect_by_descriptor(path: &Path) -> io::Result<UnixStream> {
    use rustix::fs::{Mode, OFlags};
    let socket = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(Path::new("/proc/self/fd").join(socket.as_raw_fd().to_string()))
}

#[cfg(not(target_os = "linux"))]
fn connect_by_descriptor(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

/// Calls `act` with a path to this socket that is short enough for one. On Linux a longer path is reached through its open folder.
fn with_short<T>(path: &Path, act: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= LONGEST {
        return act(path.to_owned());
    }
    let too_long = || {
        let detail = format!("the path {} is too long for a socket", path.display());
        io::Error::new(ErrorKind::InvalidFilename, detail)
    };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(too_long()) };
    let folder = File::open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    if short.as_os_str().len() > LONGEST || !Path::new("/proc/self/fd").exists() {
        return Err(too_long());
    }
    act(short)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn talks(socket: &OwnSocket) {
        let mut client = connect(&socket.path).expect("connects");
        let (mut server, _) = socket.listener.accept().expect("accepts");
        client.write_all(b"x").expect("writes");
        drop(client);
        let mut text = String::new();
        server.read_to_string(&mut text).expect("reads");
        assert_eq!(text, "x");
    }

    #[test]
    fn only_the_owner_may_connect_and_the_file_goes_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = socket_path(&folder.path().join("a.db"));
        assert_eq!(path, folder.path().canonicalize().expect("is there").join("a.db.sock"));
        let socket = OwnSocket::bind(&path).expect("binds");
        let mode = std::fs::symlink_metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        talks(&socket);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_left_behind_socket_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        let first = OwnSocket::bind(&path).expect("binds");
        assert_eq!(OwnSocket::bind_unused(&path).expect_err("is refused").kind(), ErrorKind::AddrInUse);
        let second = OwnSocket::bind(&path).expect("replaces it");
        drop(first);
        talks(&second);
        drop(second);
        drop(UnixListener::bind(&path).expect("binds"));
        drop(OwnSocket::bind_unused(&path).expect("nobody listens"));
        std::fs::write(&path, "mine").expect("writes");
        assert_eq!(OwnSocket::bind(&path).expect_err("is refused").kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).expect("is there"), "mine");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_path_may_be_longer_than_a_socket_takes() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("d".repeat(200));
        std::fs::create_dir(&deep).expect("a folder");
        talks(&OwnSocket::bind(&deep.join("n".repeat(250))).expect("binds"));
        let socket = OwnSocket::bind(&deep.join("a.db.sock")).expect("binds");
        talks(&socket);
        let path = socket.path.clone();
        drop(socket);
        assert!(!path.exists());
        let error = OwnSocket::bind(&folder.path().join(format!("{}.sock", "n".repeat(200)))).map(drop);
        // Its name alone is too long to connect to.
        assert!(error.is_ok() || error.is_err_and(|error| error.to_string().contains("too long")));
    }
}
