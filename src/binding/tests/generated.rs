//! Generated payloads, valid and broken: the readers must agree with the oracle.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{Envelope, Fields, Parameters, Value};
use super::oracle::{self, Bound};
use crate::config::Codec;
use crate::pipeline::{Mark, SingleEvent};

const NAMES: [&str; 9] = ["b", "c", "", "0", "1", "01", "~/", "é", "a long name of more than eight bytes"];

/// Few names, often the same, so that payloads contain the pointers' values, also twice.
fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => Just("a"), 3 => select(&NAMES[..])]
}

fn paths() -> impl Strategy<Value = Vec<Vec<String>>> {
    vec(vec(name().prop_map(str::to_owned), 0..4), 1..5)
}

/// The values of parameters with pointers to these paths. Other rows use the same memory before and after.
fn read(codec: Codec, payload: &[u8], paths: &[Vec<String>]) -> Result<Vec<Bound>, String> {
    let bind: BTreeMap<String, String> =
        paths.iter().enumerate().map(|(at, path)| (format!("p{at:03}"), oracle::pointer(path))).collect();
    let parameters = Parameters::new(bind.keys().map(String::as_str), &bind, Some(codec)).expect("good pointers");
    let event = SingleEvent::new(Mark::START, "a", [], payload);
    let envelope = Envelope::of(&event.delivery(), None);
    let mut fields = Fields::default();
    let before = parameters.without_fields(&mut fields);
    let row = parameters.read(&envelope, &mut fields);
    for at in 0..paths.len() {
        assert_eq!(parameters.value(at, &envelope, &fields, before), Value::Null);
    }
    let row = row.map_err(|e| e.to_string())?;
    let bound = |at| parameters.value(at, &envelope, &fields, row).into();
    Ok((0..paths.len()).map(bound).collect())
}

fn check(codec: Codec, payload: &[u8], paths: &[Vec<String>]) -> Result<(), TestCaseError> {
    let expected = match codec {
        Codec::Json => oracle::json(payload, paths),
        Codec::Messagepack => oracle::messagepack(payload, paths),
    };
    let difference = oracle::difference(&expected, &read(codec, payload, paths));
    prop_assert_eq!(difference, None, "{}", String::from_utf8_lossy(payload));
    Ok(())
}

/// Changes to the bytes of a payload: offset, operation and new byte.
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let structural = select(&b"{}[]\",:\\u0-+.eE \n\0\x1f\x7f\x80\xc0\xc1\xcf\xd9\xed\xff"[..]);
    vec((any::<prop::sample::Index>(), 0..4_u8, prop_oneof![structural, any::<u8>()]), 0..4)
}

fn mutate(mut payload: Vec<u8>, mutations: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (at, how, byte) in mutations {
        let at = at.index(payload.len() + 1);
        match how {
            0 => payload.insert(at, *byte),
            1 if at < payload.len() => payload[at] = *byte,
            2 if at < payload.len() => drop(payload.remove(at)),
            3 if *byte < 0x40 => payload.truncate(at),
            _ => {}
        }
    }
    payload
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \n\r\t]{1,9}"]
}

fn json_string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ -!#-\\[\\]-~é😀]{0,12}",
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u00[0-9a-fA-F]{2}",
        1 => "\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9a-f]{2}",
        1 => "\\\\u[0-9a-c][0-9a-fA-F]{3}",
    ];
    let half = "\\\\u[dD][89abAB][0-9a-f]{2}";
    let piece = prop_oneof![20 => piece, 1 => half];
    vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn json_name() -> impl Strategy<Value = String> {
    let name = name().prop_map(|name| format!("\"{name}\""));
    prop_oneof![8 => name, 1 => Just("\"\\u0061\"".to_owned()), 1 => json_string()]
}

fn json_number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("JSON has it", |number| number.is_finite()).prop_map(|number| format!("{number:?}")),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,4})?",
    ]
}

fn json_document() -> impl Strategy<Value = String> {
    let mark = prop_oneof![9 => Just(""), 1 => Just("\u{feff}")];
    (mark, json_value()).prop_map(|(mark, value)| format!("{mark}{value}"))
}

fn json_value() -> impl Strategy<Value = String> {
    let word = select(&["true", "false", "null"][..]).prop_map(str::to_owned);
    let scalar = prop_oneof![3 => json_string(), 3 => json_number(), 1 => word];
    let scalar = (space(), scalar, space()).prop_map(|(before, value, behind)| before + &value + &behind);
    scalar.prop_recursive(5, 60, 6, |value| {
        let pair = (space(), json_name(), space(), value.clone());
        let pair = pair.prop_map(|(before, name, behind, value)| format!("{before}{name}{behind}:{value}"));
        let around = |[open, close]: [char; 2], inner: &[String]| format!("{open}{}{close}", inner.join(","));
        let twice = (json_name(), value.clone(), value.clone());
        prop_oneof![
            twice.prop_map(|(name, one, other)| format!("{{{name}:{one},{name}:{other}}}")),
            vec(pair, 0..6).prop_map(move |pairs| around(['{', '}'], &pairs)),
            vec(value, 0..6).prop_map(move |values| around(['[', ']'], &values)),
            space().prop_map(|space| format!("{{{space}}}")),
            space().prop_map(|space| format!("[{space}]")),
        ]
    })
}

fn packed_document() -> impl Strategy<Value = rmpv::Value> {
    use rmpv::Value as Packed;
    let text = prop_oneof!["[ -~é😀\\x00-\\x1f]{0,40}".prop_map(Packed::from), name().prop_map(Packed::from)];
    let data =
        || prop_oneof![vec(any::<u8>(), 0..20), (0..3_usize).prop_flat_map(|at| vec(any::<u8>(), [4, 8, 12][at]))];
    let scalar = prop_oneof![
        Just(Packed::Nil),
        any::<bool>().prop_map(Packed::from),
        any::<i64>().prop_map(Packed::from),
        any::<u64>().prop_map(Packed::from),
        (-200..300_i64).prop_map(Packed::from),
        any::<f32>().prop_map(Packed::from),
        any::<f64>().prop_map(Packed::from),
        text.boxed(),
        data().prop_map(Packed::from),
        (prop_oneof![Just(-1_i8), any::<i8>()], data()).prop_map(|(kind, data)| Packed::Ext(kind, data)),
    ]
    .boxed();
    let key = prop_oneof![
        6 => name().prop_map(Packed::from),
        1 => (-1..2_i64).prop_map(Packed::from),
        1 => name().prop_map(|name| Packed::from(name.as_bytes())),
        1 => scalar.clone(),
    ]
    .boxed();
    scalar.prop_recursive(5, 60, 20, move |value| {
        let key = prop_oneof![20 => key.clone(), 1 => value.clone()];
        prop_oneof![vec((key, value.clone()), 0..20).prop_map(Packed::Map), vec(value, 0..20).prop_map(Packed::Array),]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn json_is_read_as_the_oracle_reads_it(payload in json_document(), paths in paths()) {
        check(Codec::Json, payload.as_bytes(), &paths)?;
    }

    #[test]
    fn broken_json_is_refused_where_the_oracle_refuses_it(
        payload in json_document(), mutations in mutations(), paths in paths()
    ) {
        check(Codec::Json, &mutate(payload.into_bytes(), &mutations), &paths)?;
    }

    #[test]
    fn messagepack_is_read_as_the_oracle_reads_it(payload in packed_document(), paths in paths()) {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &payload).expect("written");
        check(Codec::Messagepack, &bytes, &paths)?;
    }

    #[test]
    fn broken_messagepack_is_refused_where_the_oracle_refuses_it(
        payload in packed_document(), mutations in mutations(), paths in paths()
    ) {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &payload).expect("written");
        check(Codec::Messagepack, &mutate(bytes, &mutations), &paths)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(payload in vec(any::<u8>(), 0..60), paths in paths()) {
        check(Codec::Json, &payload, &paths)?;
        check(Codec::Messagepack, &payload, &paths)?;
    }
}
