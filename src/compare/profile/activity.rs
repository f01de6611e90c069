//! What a thread was doing, from the names of the functions on its stack.

/// What the shares of a profile are by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Activity {
    Nats,
    Sqlite,
    Json,
    Channel,
    Kernel,
    Other,
}

/// System calls of libc without their prefixes: `__libc_recv` and `recv` are the same.
const CALLS: [&str; 52] = [
    "accept",
    "accept4",
    "access",
    "clock_gettime",
    "clock_nanosleep",
    "clone",
    "clone3",
    "close",
    "connect",
    "epoll_wait",
    "fallocate",
    "fchmod",
    "fchown",
    "fcntl",
    "fcntl64",
    "fdatasync",
    "fstat",
    "fstat64",
    "fsync",
    "ftruncate",
    "ftruncate64",
    "getpid",
    "getrandom",
    "lseek",
    "lseek64",
    "lstat64",
    "madvise",
    "mmap",
    "mmap64",
    "munmap",
    "nanosleep",
    "open",
    "open64",
    "openat",
    "poll",
    "ppoll",
    "pread",
    "pread64",
    "pwrite",
    "pwrite64",
    "read",
    "readv",
    "recv",
    "recvfrom",
    "sched_yield",
    "send",
    "sendto",
    "stat64",
    "syscall",
    "unlink",
    "write",
    "writev",
];

impl Activity {
    pub(super) const ALL: [Self; 6] = [Self::Nats, Self::Sqlite, Self::Json, Self::Channel, Self::Kernel, Self::Other];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Sqlite => "sqlite",
            Self::Json => "json",
            Self::Channel => "channel",
            Self::Kernel => "kernel",
            Self::Other => "other",
        }
    }

    /// The activity of a stack; the running function is the last frame. See [`Findings::shares`](super::Findings::shares).
    pub(super) fn of(frames: &[String]) -> Self {
        if frames.last().is_some_and(|running| is_call(running)) {
            return Self::Kernel;
        }
        frames.iter().rev().find_map(|frame| Self::of_function(frame)).unwrap_or(Self::Other)
    }

    /// The activity that a function belongs to, if its name tells.
    fn of_function(name: &str) -> Option<Self> {
        let mut path = path(name).split("::");
        match (path.next()?, path.next()) {
            ("nats" | "nkeys" | "rustls" | "webpki" | "ring", _) | ("catchment", Some("broker")) => Some(Self::Nats),
            ("rusqlite" | "r2d2" | "r2d2_sqlite" | "libsqlite3_sys", _) | ("catchment", Some("store")) => {
                Some(Self::Sqlite)
            }
            ("serde_json" | "json", _) => Some(Self::Json),
            ("crossbeam_channel" | "crossbeam_utils" | "parking_lot" | "parking_lot_core", _)
            | ("std", Some("sync")) => Some(Self::Channel),
            // SQLite's functions without this prefix are called only by those that have it.
            (function, None) if function.starts_with("sqlite3") => Some(Self::Sqlite),
            _ => None,
        }
    }
}

fn is_call(name: &str) -> bool {
    let bare = ["GI_", "libc_"].iter().fold(name.trim_start_matches('_'), |bare, prefix| {
        bare.strip_prefix(prefix).unwrap_or(bare).trim_start_matches('_')
    });
    CALLS.binary_search(&bare.trim_end_matches("_nocancel")).is_ok()
}

/// The name from the start of its path: `<nats::client::Client as core::ops::Drop>::drop` belongs to `nats`.
fn path(name: &str) -> &str {
    let mut path = name;
    loop {
        let shorter = path.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
        let shorter =
            ["mut ", "dyn ", "const ", "impl "].iter().find_map(|word| shorter.strip_prefix(word)).unwrap_or(shorter);
        if shorter.len() == path.len() {
            return path;
        }
        path = shorter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: &[&str]) -> Activity {
        Activity::of(&frames.iter().map(|&frame| frame.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn system_calls_are_sorted() {
        assert!(CALLS.is_sorted());
    }

    #[test]
    fn the_running_function_decides_then_its_callers() {
        assert_eq!(of(&["main", "catchment::store::writer::commit", "sqlite3_step", "pwrite64"]), Activity::Kernel);
        assert_eq!(of(&["catchment::store::writer::commit", "sqlite3_step", "balance_nonroot"]), Activity::Sqlite);
        assert_eq!(of(&["nats::client::Client::run", "nats::proto::decode", "malloc"]), Activity::Nats);
        assert_eq!(of(&["nats::client::Client::run", "crossbeam_channel::flavors::list::send"]), Activity::Channel);
        assert_eq!(of(&["catchment::store::columns::headers", "serde_json::ser::to_string", "memcpy"]), Activity::Json);
        assert_eq!(of(&["catchment::broker::jetstream::intake::fill", "core::str::from_utf8"]), Activity::Nats);
        assert_eq!(of(&["catchment::cli::run::Run::run", "std::thread::sleep"]), Activity::Other);
        assert_eq!(of(&[]), Activity::Other);
    }

    #[test]
    fn the_first_type_of_a_name_tells_the_crate() {
        assert_eq!(of(&["<nats::message::Message as core::ops::drop::Drop>::drop"]), Activity::Nats);
        assert_eq!(
            of(&["<&mut serde_json::ser::Serializer<W,F> as serde::ser::Serializer>::serialize_str"]),
            Activity::Json
        );
        assert_eq!(of(&["core::ptr::drop_in_place<nats::message::Message>"]), Activity::Other);
        assert_eq!(of(&["natsuki::run", "sqlite::open"]), Activity::Other);
    }

    #[test]
    fn a_system_call_is_known_under_all_its_names() {
        for name in ["recv", "__libc_recv", "__GI___libc_write", "__pwrite64", "fdatasync", "__read_nocancel"] {
            assert_eq!(of(&["nats::client::Client::run", name]), Activity::Kernel, "{name}");
        }
        assert_eq!(of(&["nats::client::Client::run", "reader"]), Activity::Nats);
        assert_eq!(of(&["std::io::Write::write"]), Activity::Other);
    }
}
