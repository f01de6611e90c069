//! Records events durably in SQLite from programs that use threads, not an async runtime.
//!
//! An application hands over an event in one line. It travels through a NATS JetStream stream, and a *collector*, in the
//! same program or another, brings the stream into a SQLite database: nothing lost, nothing twice, in stream order.
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
//! Without a broker, the first line is another and nothing else changes: `DirectRecorder::create("events.db")?`.
//!
//! On the other side, settings in code (or from TOML, as the `catchment run` command reads them):
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
//! # What is promised
//!
//! * **Recorded** means acknowledged by the stream; a [`Receipt`] tells when. What JetStream itself may lose, at a power
//!   cut with its default sync interval for instance, is JetStream's.
//! * **From stream to database exactly once**: an event's row and the ledger's new position are one SQLite transaction,
//!   with `synchronous = full` by default. After a crash of anything, collecting goes on behind the ledger.
//! * **In order**: rows are in stream order, whatever the number of writers.
//! * **Bounded**: in events and bytes, on both sides. A database that is locked or full holds the intake up; it does not
//!   grow the process, and collecting resumes by itself.
//! * **An event that cannot be stored** goes to table `catchment_dead_letters`, whole and with the reason, and costs no
//!   other event anything. Module [`dead_letters`] finds it there and tries it again.
//! * **Stopping is bounded**: every blocking call has a deadline; a thread that hangs in the NATS client is left behind
//!   and named.
//!
//! With [`Mode::Core`](config::Mode::Core) there is no stream: a collector stores what it hears, **at most once**, and counts
//! what it has no room for; a recorder's word is that the server has read an event. See [`CoreConfig`](config::CoreConfig) and
//! [`NatsRecorder`].
//!
//! A publisher's own repetition is recognised by its [`Event::id`] within the stream's duplicate window only.
//!
//! # Threads
//!
//! No runtime is started. A collector has an intake thread (`catchment-intake`), writers (`catchment-writer-0`, …), the
//! threads of its connection (`catchment-link` and two of the NATS client) and r2d2's three. Collecting from core NATS has
//! `catchment-listener` besides, and with `overflow = block` a second connection. Queries have `catchment-requests`,
//! `catchment-query-0`, …, a connection of their own and its `catchment-flush`; routes that reply have the same without the
//! threads that answer, and `catchment-replies`. A recorder has
//! `catchment-courier`, `catchment-flush` and those of its connection. Over TLS each connection has a `catchment-flush` and a
//! `catchment-watch` besides.
//!
//! # Access
//!
//! [`config::BrokerConfig`] has every way in: TLS with private authorities and client certificates, user and password,
//! tokens, credentials files, nkeys, JWTs. Files are read anew for each connection. No secret is in a log line, an error or
//! a `Debug`.
//!
//! # Logging
//!
//! Through the [`log`] crate. `warn`: a part does not do its work, or something was found that an operator wants to know
//! (a stream made anew, events it no longer has). `info`: it works again, a stream was made. `debug`: the rest.

// `check` and `compare` are the features that use all of the library; both enable `cli`. A build without one of them has code
// that only the missing command uses.
#![cfg_attr(not(all(feature = "check", feature = "compare")), allow(dead_code, unused_imports))]

#[cfg(not(unix))]
compile_error!("catchment needs Unix: file identities, file locks and signals");

mod binding;
mod broker;
#[cfg(feature = "check")]
mod check;
#[cfg(feature = "cli")]
mod cli;
mod collect;
#[cfg(feature = "compare")]
mod compare;
pub mod config;
pub mod dead_letters;
mod deadline;
pub mod error;
mod event;
mod pipeline;
mod printable;
mod query;
pub mod record;
mod store;
mod subject;
pub mod testing;

pub use collect::{Collector, Status, Until};
pub use config::Config;
pub use error::Error;
pub use event::Event;
pub use pipeline::{Health, Trouble};
pub use record::{DirectRecorder, DirectRecorderConfig, NatsRecorder, NatsRecorderConfig, Receipt, Recorder};
pub use subject::Filter;

use printable::printable;

#[doc(hidden)]
pub mod unversioned {
    //! For the command, tests, benches and fuzz targets of this package, which are crates of their own. Does not follow semantic
    //! versioning: any release may change or remove what is here.

    #[cfg(feature = "cli")]
    pub use crate::cli::run_command;

    pub mod binding {
        pub use crate::binding::{Envelope, Fields, Parameters, Value};
    }
    pub mod broker {
        pub use crate::broker::{Beginning, Cluster, JetStreamIntake, Owner, Reports, Server};
    }
    pub mod pipeline {
        pub use crate::pipeline::{
            Batch, Committed, Condition, Epoch, Intake, IntakeState, Limits, Mark, Pipeline, Refusal, Settings, Shared,
            Sink,
        };
    }
    pub mod store {
        pub use crate::store::{Database, Editor, Lock, Routes, Writer};
    }
}
