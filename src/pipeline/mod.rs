//! From an intake to a sink: one thread makes batches of deliveries, several writers commit the batches in order.
//!
//! Nothing here depends on NATS or SQL. Memory is bounded by construction: there are two batches more than writers, and they are
//! used again. A free writer exchanges its empty batch for one with deliveries. Until a writer is free, the intake thread goes on
//! filling its batch. So batches grow while the database is busy and stay small while it is not. A full batch is queued, so
//! the next free writer starts at once, and the intake thread fills another. When that one is full too, the intake thread waits
//! for a writer.

mod batch;
mod batcher;
mod condition;
mod confirmation;
mod counters;
mod delivery;
mod epoch;
mod gaps;
mod histogram;
mod incidents;
mod intake;
mod peer;
#[allow(clippy::module_inception, reason = "the file has the name of its type")]
mod pipeline;
mod progress;
mod settings;
mod shared;
mod signal;
mod single_event;
mod sink;
mod thread_group;
mod ticket;
mod writer;

pub use batch::{Batch, Limits};
pub use condition::{Condition, Health, Trouble};
pub use confirmation::Confirmation;
pub use counters::{Counter, Counters};
pub use delivery::{Defect, Delivery, Headers};
pub use epoch::{Epoch, EpochProgress, Mark};
pub use gaps::{Gap, Gaps};
pub use histogram::{Distribution, Histogram};
pub use incidents::Incident;
pub use intake::{Intake, IntakeState};
pub use peer::{Connected, Peer};
pub use pipeline::Pipeline;
pub(crate) use pipeline::holds;
pub use progress::{Position, Progress};
pub use settings::Settings;
pub use shared::Shared;
pub use signal::Signal;
pub use single_event::SingleEvent;
pub use sink::{Committed, Problem, Refusal, Sink};
pub(crate) use thread_group::panic_message;
pub use thread_group::{ThreadGroup, room_for_threads};
