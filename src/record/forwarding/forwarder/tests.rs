//! A model of the numbering: the real recorders' side, with its spools, and the real writers of a database. Only the network, the stream
//! and the time between them are the model's. Whatever is lost, repeated, delayed, killed, copied or restored, the database has every
//! event exactly once, and counts every repetition.

mod collector;
mod site;
mod world;

use proptest::prelude::*;

use self::site::Kind;
use self::world::{World, step};
use super::*;
use crate::event_id::{Identity, narrowed};
use crate::store::SpoolLimits;

/// `PROPTEST_CASES`, or few: each case makes several databases.
fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { given } else { ProptestConfig { cases: 24, ..given } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn each_event_is_stored_once_whatever_happens(
        width in prop::sample::select(&[64_u64, 128, 192][..]),
        identity in prop::sample::select(&[Identity::Both, Identity::Database][..]),
        limits in prop::option::of(Just(SpoolLimits { events: 150, bytes: u64::MAX })),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        narrowed::within(width, || {
            let mut world = World::new(Kind { identity, limits });
            for step in &steps {
                world.take(step);
            }
            world.finish();
        });
    }
}
