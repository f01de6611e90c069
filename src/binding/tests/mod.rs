mod generated;
mod oracle;

use super::*;
use crate::pipeline::{Batch, Limits, Mark};

/// What the parameters are bound to in an event with this payload.
fn bound(names: &[&str], bind: &[(&str, &str)], payload: &[u8]) -> Result<Vec<String>, String> {
    let bind = bind.iter().map(|(name, pointer)| ((*name).to_owned(), (*pointer).to_owned())).collect();
    let parameters = Parameters::new(names.iter().copied(), &bind, None)?;
    let mut batch = Batch::new(Limits { events: 1, bytes: 1 });
    batch.push(Mark { sequence: 7, published_ns: 1_500_000_000 }, "a.b", [("Trace-Id", "t1")], payload);
    let envelope = Envelope::of(&batch.delivery(0), None);
    let mut fields = Fields::default();
    let row = parameters.read(&envelope, &mut fields).map_err(|e| e.to_string())?;
    Ok((0..names.len()).map(|at| format!("{:?}", parameters.value(at, &envelope, &fields, row))).collect())
}

/// What `:a` is bound to.
fn field(payload: &str) -> String {
    bound(&["a"], &[], payload.as_bytes()).map_or_else(|e| e, |mut values| values.remove(0))
}

/// What stands at this pointer.
fn at(pointer: &str, payload: &str) -> String {
    bound(&["x"], &[("x", pointer)], payload.as_bytes()).map_or_else(|e| e, |mut values| values.remove(0))
}

#[test]
fn a_field_is_bound_as_what_it_is() {
    for (payload, value) in [
        (r#"{"a":"text"}"#, r#"Text("text")"#),
        (r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"}"#, r#"Text("\"\\/\u{8}\u{c}\n\r\té😀é")"#),
        (r#"{"a":"\u0000"}"#, r#"Text("\0")"#),
        (r#"{"a":7}"#, "Integer(7)"),
        (r#"{"a":-0}"#, "Integer(0)"),
        (r#"{"a":9223372036854775807}"#, "Integer(9223372036854775807)"),
        (r#"{"a":-9223372036854775808}"#, "Integer(-9223372036854775808)"),
        (r#"{"a":9223372036854775808}"#, r#"Text("9223372036854775808")"#),
        (r#"{"a":18446744073709551615}"#, r#"Text("18446744073709551615")"#),
        (r#"{"a":123456789012345678901234567890}"#, r#"Text("123456789012345678901234567890")"#),
        (r#"{"a":1e999}"#, r#"Text("1e999")"#),
        (r#"{"a":-1.5E+400}"#, r#"Text("-1.5E+400")"#),
        (r#"{"a":1.5}"#, "Real(1.5)"),
        (r#"{"a":1e2}"#, "Real(100.0)"),
        (r#"{"a":1e-999}"#, "Real(0.0)"),
        (r#"{"a":true}"#, "Integer(1)"),
        (r#"{"a":false}"#, "Integer(0)"),
        (r#"{"a":null}"#, "Null"),
        (r#"{"b":1}"#, "Null"),
        ("{}", "Null"),
        (r#" { "a" : { "b" : [ 1 , "\ud800" ] } } "#, r#"Text("{ \"b\" : [ 1 , \"\\ud800\" ] }")"#),
        (r#"{"a":[]}"#, r#"Text("[]")"#),
        (r#"{"a":1,"a":"two"}"#, r#"Text("two")"#),
        (r#"{"\u0061":1}"#, "Integer(1)"),
        (r#"{"\ud800":1,"a":2}"#, "Integer(2)"),
    ] {
        assert_eq!(field(payload), value, "{payload}");
    }
}

#[test]
fn pointers_reach_into_objects_and_arrays() {
    let payload = r#"{"a":{"b":[10,{"c":11}],"/":12,"~":13,"":14},"0":15}"#;
    for (pointer, value) in [
        ("/a/b/0", "Integer(10)"),
        ("/a/b/1/c", "Integer(11)"),
        ("/a/b/2", "Null"),
        ("/a/b/00", "Null"),
        ("/a/b/-", "Null"),
        ("/a/b/c", "Null"),
        ("/a/~1", "Integer(12)"),
        ("/a/~0", "Integer(13)"),
        ("/a/", "Integer(14)"),
        ("/0", "Integer(15)"),
        ("/a/b", r#"Text("[10,{\"c\":11}]")"#),
    ] {
        assert_eq!(at(pointer, payload), value, "{pointer}");
    }
    assert_eq!(at("", "  [1, 2] "), r#"Text("[1, 2]")"#);
    assert_eq!(at("", " 1 "), "Integer(1)");
    assert_eq!(at("/1", "[1, 2]"), "Integer(2)");
}
