//! Records events durably in SQLite, for programs that use threads instead of an async runtime.
//!
//! An application hands over an event in one line. With a [`NatsRecorder`], the event goes through a NATS JetStream stream. A
//! *collector*, in the same program or another, stores the stream's events in a SQLite database: each exactly once, in stream
//! order. A [`DirectRecorder`] needs no broker: it writes the events into the database itself.
//!
//! ```no_run
//! use catchment::{Event, NatsRecorder, Recorder};
//! use std::time::Duration;
//!
//! let recorder = NatsRecorder::connect("nats://127.0.0.1:4222")?;
//! recorder.record(Event::new("events.door", r#"{"open": true}"#))?;   // hands over, returns at once
//! recorder.flush(Duration::from_secs(5))?;                            // all of it is in the stream
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With a direct recorder, only the first line differs: `DirectRecorder::create("events.db")?`. So with a [`SpooledRecorder`], which keeps
//! events in a file until the stream has them: `SpooledRecorder::connect("events.spool", "nats://127.0.0.1:4222")?`.
//!
//! A collector takes its settings from code, or with the feature `toml` from TOML as the `catchment run` command does:
//!
//! ```no_run
//! use catchment::{Collector, Config};
//! use std::time::Duration;
//!
//! let mut config = Config::default();
//! config.broker.stream = "EVENTS".into();
//! config.database.path = "events.db".into();
//! let collector = Collector::start(&config)?;
//! // ... and when the program ends:
//! let status = collector.stop(Duration::from_secs(10))?;
//! println!("{} events committed", status.committed);
//! # Ok::<(), catchment::Error>(())
//! ```
//!
//! Recorders and collectors are shared between threads, by reference or in an `Arc`; any of the threads can close or stop them.
//! A database has one collector or grouped direct recorder at a time, in this program or another: share the one that you have.
//! [`Collector::wait_for`] waits until an event that was recorded through NATS is in the database. For tests of your own code,
//! [`testing`] has a recorder without a broker and a database that runs your routes.
//!
//! # Guarantees
//!
//! * **Recorded** means acknowledged by the stream, with a [`DirectRecorder`] committed to the database, or with a
//!   [`SpooledRecorder`] committed to its spool; a [`Receipt`] reports it. JetStream itself may lose acknowledged events, at a power cut with its default sync interval for instance.
//! * **Exactly once from stream to database**: an event's rows and the new position in the ledger are one SQLite transaction, with
//!   `synchronous = full` by default. After a crash, collecting continues from the ledger's position.
//! * **In order**: rows are in stream order, with any number of writers.
//! * **Bounded memory**: in events and bytes, on both sides. A locked or full database pauses the intake. The process does not
//!   grow, and collecting resumes by itself.
//! * **An event that cannot be stored** goes to table `catchment_dead_letters`, complete and with the reason. Other events are
//!   not affected. Module [`dead_letters`] finds it and tries it again.
//! * **Stopping is bounded**: stopping, flushing and waiting have deadlines. A thread that hangs in the NATS client is left running,
//!   and the error names it.
//!
//! With [`Mode::Core`](config::Mode::Core) there is no stream. A collector stores the events that it receives, **at most once**,
//! and counts those that it drops for lack of room. A receipt then means that the server has read the event. See
//! [`CoreConfig`](config::CoreConfig) and [`NatsRecorder`].
//!
//! The stream recognises an event that is published twice by its [`Event::id`], within the stream's duplicate window only.
//!
//! # Threads
//!
//! No async runtime is started, and none is in the dependency tree. The crate `nats` depends on the helper crate `blocking`, and
//! that one on `async-channel`, `async-task` and `futures-lite`. They are for the client's async interface, which this crate never
//! calls, so no thread of theirs is ever started.
//!
//! | thread | when | what |
//! |---|---|---|
//! | `catchment-intake` | collector, grouped direct recorder, spooled recorder | makes batches |
//! | `catchment-writer-0`, … | the same; one for each of `database.writers` | commits batches |
//! | three of r2d2 | collector, direct recorder | the pool of database connections |
//! | `catchment-checkpointer` | the same, from the first checkpoint on | copies committed pages from the WAL into the database |
//! | `catchment-link`, two of the NATS client | each connection | the only caller of the client; reads and writes |
//! | `catchment-backlog` | collector of a stream | takes waiting deliveries out of the client |
//! | `catchment-listener` | collector in mode `core` | receives events; with `overflow = block` there is a second connection |
//! | `catchment-requests` | queries or confirmations; with a connection of their own | receives requests, sends replies |
//! | `catchment-query-0`, … | queries; one for each of `service.threads` | runs statements |
//! | `catchment-timeouts` | queries | interrupts statements at their time-out |
//! | `catchment-replies` | routes with `reply` | sends confirmations |
//! | `catchment-sender` | NATS recorder, spooled recorder | publishes events, processes acknowledgements |
//! | `catchment-forwarder` | spooled recorder, the command `forward` | reads events from the spool for the sender, removes those that are in the stream |
//! | `catchment-flush` | each connection | flushes what was written |
//! | `catchment-watch` | over TLS, each connection | watches for flushes that hang |
//! | `catchment-open` | while a database is opened that may be interrupted | opens it, and applies migrations; checks a backup |
//! | `catchment-export` | an export | reads the rows |
//! | `catchment-retain` | [`maintenance::retain`] | deletes rows |
//! | `catchment-compact` | [`maintenance::compact`] | writes the database anew |
//! | `catchment-observer`, `catchment-http` | the command `run` alone | samples the collector; serves metrics, health and a page |
//! | `catchment-reload` | the command, during a reload | takes over other settings |
//! | `catchment-input`, `catchment-stdin`, `catchment-opening`, `catchment-signals`, `catchment-top` | other commands alone | read input and signals, connect, look at a collector |
//! | `catchment-upkeep` | collector, if it has such work | does what is due from time to time: retention, backups, checks of the database |
//! | `catchment-probe` | before threads of other crates start | ends at once: shows that the system allows the threads |
//!
//! # Authentication
//!
//! [`config::BrokerConfig`] has every way: TLS with private authorities and client certificates, user and password,
//! tokens, credentials files, nkeys, JWTs. Files are read again for each connection. No secret is in a log line, an error or
//! a `Debug`.
//!
//! # SQLite
//!
//! SQLite 3.53 is built in, by rusqlite 0.40 and its feature `bundled`. A program can link SQLite once only: another version of
//! rusqlite in the same program does not link. So it is exported as [`rusqlite`], for your own connections to the database: to
//! read what was committed, or to write in tables of your own. A new major version of rusqlite is a breaking change of this crate.
//!
//! ```no_run
//! use catchment::rusqlite::{Connection, OpenFlags};
//! use catchment::{DirectRecorder, Event, Recorder};
//! use std::time::Duration;
//!
//! let recorder = DirectRecorder::create("events.db")?;
//! recorder.record(Event::new("events.door", "open"))?;
//! recorder.flush(Duration::from_secs(5))?;
//!
//! let database = Connection::open_with_flags("events.db", OpenFlags::SQLITE_OPEN_READ_ONLY)?;
//! let payload: String = database.query_row("SELECT payload FROM events", [], |row| row.get(0))?;
//! assert_eq!(payload, "open");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Logging
//!
//! Through the [`log`] crate. `warn`: something does not work, or an operator should know of it (a recreated stream, events that
//! the stream no longer has). `info`: it works again, a stream was created. `debug`: everything else. Each line but those of `debug` has
//! an event and fields as key-value pairs, with stable names: docs/logs.md lists them.
//!
//! # Features
//!
//! `toml` adds `Config::from_toml` and `Config::from_toml_file`. The other features add only the command: `cli` is the `catchment`
//! command, `check` and `compare` are its larger subcommands. All are on by default; `cli` enables `toml`. An application turns them off with
//! `default-features = false`, and may choose `features = ["toml"]`.

// `check` and `compare` are the features that use all of the library; both enable `cli`. A build without one of them has code
// that only the missing command uses.
#![cfg_attr(not(all(feature = "check", feature = "compare")), allow(dead_code, unused_imports))]

#[cfg(not(unix))]
compile_error!("catchment needs Unix: it uses file identities, file locks and signals that this system does not have");

mod binding;
mod broker;
#[cfg(feature = "check")]
mod check;
#[cfg(feature = "cli")]
mod cli;
mod closest;
mod collect;
#[cfg(feature = "compare")]
mod compare;
pub mod config;
mod counted;
pub mod dead_letters;
mod deadline;
pub mod error;
mod event;
mod event_id;
mod hint;
mod input_format;
pub mod maintenance;
#[cfg(any(feature = "cli", feature = "compare"))]
mod markup;
mod new_file;
#[cfg(feature = "cli")]
mod observe;
mod pipeline;
mod printable;
mod query;
pub mod record;
mod store;
mod subject;
mod task;
pub mod testing;
mod time_stamp;
#[cfg(feature = "cli")]
mod timer_slack;
mod unix_time;
mod upkeep;

pub use collect::{Collector, Reloaded, Status, Until};
pub use config::Config;
pub use error::Error;
pub use event::{Event, InvalidEvent};
pub use pipeline::{Connected, Distribution, Health, Incident, Position, Trouble};
pub use query::{QueryStatus, RequestCounts};
pub use record::{
    DirectRecorder, DirectRecorderConfig, NatsRecorder, NatsRecorderConfig, Receipt, Recorder, SpooledRecorder,
    SpooledRecorderConfig,
};
#[doc(no_inline)]
pub use store::rusqlite;
pub use store::{RetentionStatus, RouteStatus};
pub use subject::{Filter, InvalidSubject};
pub use upkeep::JobStatus;

use counted::counted;
use printable::printable;

/// The programs of README.md, compiled by `cargo test`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// The program of docs/spool.md, compiled by `cargo test`.
#[cfg(doctest)]
#[doc = include_str!("../docs/spool.md")]
mod spool_page {}

#[doc(hidden)]
pub mod unversioned {
    //! For the command, tests, benches and fuzz targets of this package, which are crates of their own. Does not follow semantic
    //! versioning: any release may change or remove what is here.

    #[cfg(feature = "cli")]
    pub use crate::cli::run_command;
    #[cfg(feature = "cli")]
    pub use crate::timer_slack::wake_on_time;

    pub mod binding {
        pub use crate::binding::{Envelope, Fields, Parameters, Value};
    }
    pub mod broker {
        pub use crate::broker::{Cluster, IntakeOptions, JetStreamIntake, Owner, Reports, Server};
    }
    pub mod in_payload {
        pub use crate::event_id::in_payload::{add, take};
    }
    pub mod pipeline {
        pub use crate::pipeline::{
            Batch, Committed, Condition, Epoch, Intake, IntakeState, Limits, Mark, Peer, Pipeline, Refusal, Settings,
            Shared, SingleEvent, Sink,
        };
    }
    pub mod store {
        pub use crate::store::{Database, Editor, Lock, Routes, StartPhase, Writer};
    }
}
