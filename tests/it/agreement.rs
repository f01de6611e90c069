//! Reads a payload and compares with the oracle of catchment's own tests.

#[path = "../../src/binding/tests/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;

use catchment::config::Codec;
use catchment::unversioned::binding::{Envelope, Fields, Parameters, Value};
use catchment::unversioned::pipeline::{Mark, SingleEvent};
use oracle::Bound;

/// Each bit of the first byte asks for one of them.
const PLACES: [&[&str]; 8] = [&[], &["a"], &["a", "b"], &["a", "0"], &["0"], &["0", "a", "1"], &["1"], &["~/"]];

/// The first byte says what is asked for, the rest is the payload.
///
/// # Panics
///
/// Where reader and oracle differ.
pub fn check(codec: Codec, data: &[u8]) {
    let Some((asked, payload)) = data.split_first() else { return };
    let asked = (0..8).filter(|bit| asked >> bit & 1 == 1).map(|bit| PLACES[bit]);
    let places: Vec<Vec<String>> = asked.map(|place| place.iter().copied().map(str::to_owned).collect()).collect();
    if places.is_empty() {
        return;
    }
    let expected = match codec {
        Codec::Json => oracle::json(payload, &places),
        Codec::Messagepack => oracle::messagepack(payload, &places),
        codec => panic!("{codec:?} has no oracle"),
    };
    if let Some(difference) = oracle::difference(&expected, &read(codec, payload, &places)) {
        panic!("{places:?}: {difference}");
    }
}

fn read(codec: Codec, payload: &[u8], places: &[Vec<String>]) -> Result<Vec<Bound>, String> {
    let pointers = places.iter().enumerate().map(|(at, place)| (format!("p{at}"), oracle::pointer(place)));
    let bind: BTreeMap<String, String> = pointers.collect();
    let parameters = Parameters::new(bind.keys().map(String::as_str), &bind, Some(codec)).expect("good pointers");
    let event = SingleEvent::new(Mark::START, "a", [], payload);
    let envelope = Envelope::of(&event.delivery(), None);
    let mut fields = Fields::default();
    let row = parameters.read(&envelope, &mut fields).map_err(|e| e.to_string())?;
    let bound = |at| parameters.value(at, &envelope, &fields, row).into();
    Ok((0..places.len()).map(bound).collect())
}

/// Seeds of the fuzz targets, which include this file: so they are compiled too.
#[test]
fn readers_and_oracle_agree_on_the_seeds() {
    for seed in
        [&b"\xff{\"a\":1,\"a\":{\"b\":2}}"[..], b"\x0f{\"a\":{\"b\":[1],\"0\":2}}", b"\x70[{\"a\":[0,1]},2]", b"\x02{"]
    {
        check(Codec::Json, seed);
    }
    for seed in [
        &b"\xff\x82\xa1a\x01\xc4\x01a\x02"[..],
        b"\x0f\x81\xc4\x01a\x81\x00\x07",
        b"\x02\x81\xc4\x01\xff\x01",
        b"\x01\xc1",
    ] {
        check(Codec::Messagepack, seed);
    }
}
