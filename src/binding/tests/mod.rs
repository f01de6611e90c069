//! A test for each rule of `RouteConfig`.

mod generated;
mod messagepack;
mod oracle;
mod request;

use std::thread;

use super::*;
use crate::pipeline::{Epoch, Mark, SingleEvent};

/// An event with this payload.
struct Message {
    event: SingleEvent,
    epoch: Option<Epoch>,
}

impl Message {
    fn new(payload: &[u8], headers: &[(&str, &str)]) -> Self {
        let mark = Mark { sequence: 7, published_ns: 1_500_000_999 };
        let event = SingleEvent::new(mark, "rooms.north.door", headers.iter().copied(), payload);
        Self { event, epoch: None }
    }

    fn of_stream(name: &str, published_ns: i64) -> Self {
        let event = SingleEvent::new(Mark { sequence: 7, published_ns }, "a", [], b"");
        Self { event, epoch: Some(Epoch::new(name, 1, "")) }
    }

    fn bound(&self, parameters: &Parameters) -> Result<Vec<String>, String> {
        let envelope = Envelope::of(&self.event.delivery(), self.epoch.as_ref());
        let mut fields = Fields::default();
        let row = parameters.read(&envelope, &mut fields).map_err(|e| e.to_string())?;
        Ok((0..parameters.len()).map(|at| format!("{:?}", parameters.value(at, &envelope, &fields, row))).collect())
    }

    /// The values of parameters with these names.
    fn named<const N: usize>(&self, names: [&str; N]) -> [String; N] {
        let parameters = Parameters::new(names, &BTreeMap::new(), None).expect("good names");
        self.bound(&parameters).expect("a good payload").try_into().expect("as many")
    }
}

fn parameters(names: &[&str], bind: &[(&str, &str)], codec: Option<Codec>) -> Result<Parameters, String> {
    let bind = bind.iter().map(|(name, pointer)| ((*name).to_owned(), (*pointer).to_owned())).collect();
    Parameters::new(names.iter().copied(), &bind, codec)
}

/// The value at this pointer, or the error.
fn at(codec: Codec, pointer: &str, payload: &[u8]) -> String {
    let parameters = parameters(&["x"], &[("x", pointer)], Some(codec)).expect("a good pointer");
    Message::new(payload, &[]).bound(&parameters).map_or_else(|e| e, |mut values| values.remove(0))
}

fn json(pointer: &str, payload: impl AsRef<[u8]>) -> String {
    at(Codec::Json, pointer, payload.as_ref())
}

fn packed(pointer: &str, payload: &[u8]) -> String {
    at(Codec::Messagepack, pointer, payload)
}

#[test]
fn a_field_is_bound_as_what_it_is() {
    for (value, bound) in [
        (r#""text""#, r#"Text("text")"#),
        (r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\uDE00é""#, r#"Text("\"\\/\u{8}\u{c}\n\r\té😀é")"#),
        (r#""\u0000""#, r#"Text("\0")"#),
        ("7", "Integer(7)"),
        ("-0", "Integer(0)"),
        ("9223372036854775807", "Integer(9223372036854775807)"),
        ("-9223372036854775808", "Integer(-9223372036854775808)"),
        ("9223372036854775808", r#"Text("9223372036854775808")"#),
        ("18446744073709551615", r#"Text("18446744073709551615")"#),
        ("-123456789012345678901234567890", r#"Text("-123456789012345678901234567890")"#),
        ("1e999", r#"Text("1e999")"#),
        ("-1.50E+400", r#"Text("-1.50E+400")"#),
        ("1.5", "Real(1.5)"),
        ("1e2", "Real(100.0)"),
        ("1e-999", "Real(0.0)"),
        ("true", "Integer(1)"),
        ("false", "Integer(0)"),
        ("null", "Null"),
        ("[]", r#"Text("[]")"#),
        (r#"{ "b" : [ 1 , "\ud800" ] }"#, r#"Text("{ \"b\" : [ 1 , \"\\ud800\" ] }")"#),
    ] {
        assert_eq!(json("/a", format!("{{\"a\":{value}}}")), bound, "{value}");
        assert_eq!(json("", format!("\n {value}\t")), bound, "{value}");
    }
}

#[test]
fn a_missing_value_is_null() {
    for payload in ["{}", r#"{"b":1,"A":2}"#, r#"{"b":{"a":1}}"#, "[1]", "7", r#""a""#, "null"] {
        assert_eq!(Message::new(payload.as_bytes(), &[]).named(["a"]), ["Null"], "{payload}");
    }
}

#[test]
fn the_first_field_of_a_name_counts() {
    for (pointer, payload, bound) in [
        ("/a", r#"{"a":1,"a":"two"}"#, "Integer(1)"),
        ("/a", r#"{"a":null,"a":2}"#, "Null"),
        ("/a", r#"{"a":1,"a":"\ud800"}"#, "Integer(1)"),
        ("/a/b", r#"{"a":{"b":1},"a":{"c":2}}"#, "Integer(1)"),
        ("/a/c", r#"{"a":{"b":1},"a":{"c":2}}"#, "Null"),
        ("/a/b", r#"{"a":3,"a":{"b":1}}"#, "Null"),
        ("/a/b/0", r#"{"\u0061":{"b":[1],"b":[2]},"a":{"b":[3]}}"#, "Integer(1)"),
        ("/0/a", r#"[{"a":1,"a":2}]"#, "Integer(1)"),
    ] {
        assert_eq!(json(pointer, payload), bound, "{payload}");
    }
    let both = parameters(&["x", "y"], &[("x", "/a"), ("y", "/a/b")], None).expect("good pointers");
    let message = Message::new(br#"{"a":[1],"a":{"b":"\udc00"}}"#, &[]);
    assert_eq!(message.bound(&both).expect("good"), [r#"Text("[1]")"#, "Null"]);
    // A str, a bin and an integer may be one name.
    assert_eq!(packed("/7", b"\x83\x07\x01\xa1\x37\x02\xc4\x01\x37\x03"), "Integer(1)");
    assert_eq!(packed("/a/b", b"\x82\xa1a\x81\xa1b\x01\xc4\x01a\x81\xa1b\x02"), "Integer(1)");
}

#[test]
fn the_first_of_many_fields_counts_too() {
    let names: Vec<String> = (0..200).map(|number| format!("f{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let parameters = parameters(&names, &[], None).expect("good names");
    let fields = |offset: usize| {
        let fields: Vec<String> =
            names.iter().zip(offset..).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        fields.join(",")
    };
    let payload = format!("{{{},{}}}", fields(0), fields(1_000));
    let bound = Message::new(payload.as_bytes(), &[]).bound(&parameters).expect("a good payload");
    assert_eq!(bound, (0..200).map(|value| format!("Integer({value})")).collect::<Vec<_>>());
}

#[test]
fn a_byte_order_mark_before_json_is_skipped() {
    assert_eq!(json("/a", "\u{feff}{\"a\":1}"), "Integer(1)");
    assert_eq!(json("", "\u{feff} [1]"), r#"Text("[1]")"#);
    assert_eq!(json("/a", "\u{feff}{\"a\":\"\u{feff}b\"}"), r#"Text("\u{feff}b")"#);
    for (payload, reason) in [
        ("\u{feff}", "it ends too early, at offset 3"),
        ("\u{feff}\u{feff}{}", "a missing value at offset 3"),
        (" \u{feff}{}", "a missing value at offset 1"),
        ("\u{feff}{\"a\":}", "a missing value at offset 8"),
    ] {
        assert_eq!(json("/a", payload), format!("the payload cannot be read as JSON: {reason}"));
    }
    let verbatim = Message::new("\u{feff}{}".as_bytes(), &[]).named(["payload"]);
    assert_eq!(verbatim, [r#"Text("\u{feff}{}")"#]);
}

#[test]
fn pointers_reach_into_objects_and_arrays() {
    let payload = r#"{"a":{"b":[10,{"c":11}],"/":12,"~":13,"":14,"~1":16},"0":15}"#;
    for (pointer, bound) in [
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
        ("/a/~01", "Integer(16)"),
        ("/a/b", r#"Text("[10,{\"c\":11}]")"#),
    ] {
        assert_eq!(json(pointer, payload), bound, "{pointer}");
    }
    assert_eq!(json("/1/0", "[1, [2]]"), "Integer(2)");
}

#[test]
fn pointers_to_a_value_and_within_it_work_together() {
    let names = ["whole", "inner", "again", "a"];
    let bind = [("whole", ""), ("inner", "/a/b"), ("again", "/a/b")];
    let parameters = parameters(&names, &bind, None).expect("good pointers");
    let bound = Message::new(br#"{"a":{"b":1}}"#, &[]).bound(&parameters).expect("good");
    assert_eq!(bound, [r#"Text("{\"a\":{\"b\":1}}")"#, "Integer(1)", "Integer(1)", r#"Text("{\"b\":1}")"#]);
}

#[test]
fn a_name_finds_fields_and_no_elements() {
    let both = parameters(&["0", "x"], &[("x", "/0")], None).expect("good pointers");
    assert_eq!(Message::new(b"[5]", &[]).bound(&both).expect("good"), ["Null", "Integer(5)"]);
    assert_eq!(Message::new(br#"{"0":6}"#, &[]).bound(&both).expect("good"), ["Integer(6)", "Integer(6)"]);
}

#[test]
fn invalid_json_is_refused_with_its_offset() {
    for (payload, reason) in [
        ("", "it is empty"),
        (" ", "it ends too early, at offset 1"),
        (r#"{"a":1"#, "it ends too early, at offset 6"),
        (r#"{"a":"#, "it ends too early, at offset 5"),
        (r#"{"a"#, "it ends too early, at offset 3"),
        (r#"{"a":1,}"#, "a missing name at offset 7"),
        ("{a:1}", "a missing name at offset 1"),
        (r#"{"a" 1}"#, "a missing colon at offset 5"),
        (r#"{"a":1 "b":2}"#, "neither , nor } at offset 7"),
        ("[1 2]", "neither , nor ] at offset 3"),
        ("[1}", "neither , nor ] at offset 2"),
        ("[1,]", "a missing value at offset 3"),
        ("nul", "a missing value at offset 0"),
        ("NaN", "a missing value at offset 0"),
        ("+1", "a missing value at offset 0"),
        ("01", "extra data after its end, at offset 1"),
        ("1.", "it ends too early, at offset 2"),
        ("1.e5", "a missing digit at offset 2"),
        ("-a", "a missing digit at offset 1"),
        ("{} {}", "extra data after its end, at offset 3"),
        (r#""\x""#, "an unknown escape at offset 2"),
        (r#""\u12g4""#, "a missing hexadecimal digit at offset 5"),
        ("\"a\nb\"", "a control character at offset 2"),
    ] {
        let refused = format!("the payload cannot be read as JSON: {reason}");
        assert_eq!(json("/a", payload), refused, "{payload}");
        assert_eq!(json("", payload), refused, "{payload}");
    }
    let broken = "the payload cannot be read as JSON: bytes that are not UTF-8, at offset 6";
    assert_eq!(json("/a", b"{\"b\":\"\xff\"}"), broken);
}

#[test]
fn half_a_surrogate_pair_is_refused_only_if_it_is_bound() {
    for half in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800\ue000", r"\ud800\n", r"\ud800A", r"x\ud83d"] {
        let offset = if half.starts_with('x') { 7 } else { 6 };
        let refused = format!("half a surrogate pair, which is not a character, at offset {offset}");
        let payload = format!(r#"{{"a":"{half}","{half}":1,"b":2}}"#);
        assert!(json("/a", &payload).ends_with(&refused), "{half}: {}", json("/a", &payload));
        assert_eq!(json("/b", &payload), "Integer(2)", "{half}");
        assert_eq!(json("", &payload), format!("Text({payload:?})"));
    }
}

#[test]
fn a_payload_without_needed_values_is_not_read() {
    let message = Message::new(b"\xff", &[]);
    assert_eq!(message.named(["subject", "payload"]), [r#"Text("rooms.north.door")"#, "Blob([255])"]);
}

#[test]
fn an_empty_request_has_no_fields() {
    let parameters = parameters(&["a", "subject"], &[], None).expect("good names");
    let message = Message::new(b"", &[]);
    let envelope = Envelope::of(&message.event.delivery(), None);
    let mut fields = Fields::default();
    let row = parameters.without_fields(&mut fields);
    assert_eq!(parameters.value(0, &envelope, &fields, row), Value::Null);
    assert_eq!(parameters.value(1, &envelope, &fields, row), Value::Text("rooms.north.door"));
    let refused = parameters.read(&envelope, &mut fields).expect_err("an event's payload is not empty");
    assert_eq!(refused.to_string(), "the payload cannot be read as JSON: it is empty");
}

#[test]
fn rows_are_kept_apart_and_a_refused_payload_leaves_none() {
    let parameters = parameters(&["a", "b"], &[], None).expect("good names");
    let messages = [r#"{"a":"one","b":1}"#, r#"{"a":"no","b":2"#, r#"{"b":"two","a":2}"#];
    let messages = messages.map(|payload| Message::new(payload.as_bytes(), &[]));
    let mut fields = Fields::default();
    for _ in 0..2 {
        fields.clear();
        let rows = messages.each_ref().map(|message| {
            let envelope = Envelope::of(&message.event.delivery(), None);
            parameters.read(&envelope, &mut fields)
        });
        let bound = |at: usize| {
            let envelope = Envelope::of(&messages[at].event.delivery(), None);
            let row = *rows[at].as_ref().expect("good");
            [0, 1].map(|parameter| format!("{:?}", parameters.value(parameter, &envelope, &fields, row)))
        };
        assert_eq!(bound(0), [r#"Text("one")"#, "Integer(1)"]);
        assert!(rows[1].is_err());
        assert_eq!(bound(2), ["Integer(2)", r#"Text("two")"#]);
    }
}

#[test]
fn nesting_of_any_depth_takes_no_stack() {
    const DEEP: usize = 1_000_000;
    let checks = || {
        for depth in [1_000, DEEP] {
            let objects = r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
            let arrays = "[".repeat(depth) + &"]".repeat(depth);
            assert_eq!(json("/a/a", &objects), format!("Text({:?})", &objects[10..objects.len() - 2]));
            assert_eq!(json("/0/0", &arrays), format!("Text({:?})", &arrays[2..arrays.len() - 2]));
            assert_eq!([json("/b", &objects), json("/a", &arrays)], ["Null", "Null"]);
            let half = "[".repeat(depth);
            assert!(json("/0", &half).ends_with(&format!("it ends too early, at offset {depth}")));
            let crossed = half.clone() + "0}";
            assert!(json("/a", &crossed).ends_with(&format!("neither , nor ] at offset {}", depth + 1)));

            let mut packed_arrays = vec![0x91; depth];
            assert!(packed("", &packed_arrays).ends_with(&format!("it ends too early, at offset {depth}")));
            packed_arrays.push(0xc0);
            let text = "[".repeat(depth) + "null" + &"]".repeat(depth);
            assert_eq!(packed("", &packed_arrays), format!("Text({text:?})"));
            assert_eq!(packed("/a", &packed_arrays), "Null");
            let maps_as_names = [vec![0x81; depth], vec![0xc0; depth + 1]].concat();
            assert_eq!(packed("", &maps_as_names), "Text(\"{}\")");
            assert_eq!(packed("/a", &maps_as_names), "Null");
        }
        let pointer = "/0".repeat(128);
        assert!(json(&pointer, "[".repeat(DEEP) + &"]".repeat(DEEP)).starts_with("Text("));
    };
    // A reader that recursed for each container would overflow this stack.
    let thread = thread::Builder::new().stack_size(512 << 10).spawn(checks).expect("a thread");
    thread.join().expect("no overflow");
}

#[test]
fn the_codec_is_the_routes_the_content_types_or_json() {
    let payload = b"\x81\xa1a\x05";
    let read = |codec, content_type: &str| {
        let parameters = parameters(&["a"], &[], codec).expect("a good name");
        let headers = [("content-TYPE", content_type)];
        let headers = if content_type.is_empty() { &[][..] } else { &headers };
        Message::new(payload, headers).bound(&parameters)
    };
    for content_type in
        ["application/msgpack", "Application/X-MsgPack; charset=binary", " application/vnd.msgpack ;a=b"]
    {
        assert_eq!(read(None, content_type), Ok(vec!["Integer(5)".to_owned()]), "{content_type}");
        assert!(read(Some(Codec::Json), content_type).is_err());
    }
    for content_type in ["", "application/json", "application/msgpack2", "text/plain; a=application/msgpack"] {
        assert!(read(None, content_type).is_err(), "{content_type}");
        assert_eq!(read(Some(Codec::Messagepack), content_type), Ok(vec!["Integer(5)".to_owned()]), "{content_type}");
    }
}

#[test]
fn reserved_names_stand_for_the_envelope() {
    let headers = [
        ("nats-msg-id", "not this"),
        ("Nats-Msg-Id", "id"),
        ("Trace-Id", "t2"),
        ("TRACE-id", "t1"),
        ("under_score", "u"),
    ];
    let message = Message::new(b"{\"subject\":1,\"header_\":2,\"token_x\":3}", &headers);
    assert_eq!(
        message.named(["subject", "token_1", "token_3", "token_03", "token_4"]),
        [r#"Text("rooms.north.door")"#, r#"Text("rooms")"#, r#"Text("door")"#, r#"Text("door")"#, "Null"]
    );
    assert_eq!(
        message.named(["message_id", "header_trace_id", "header_Trace_Id", "header_under_score", "header_none"]),
        [r#"Text("id")"#, r#"Text("t1")"#, r#"Text("t2")"#, r#"Text("u")"#, "Null"]
    );
    assert_eq!(message.named(["header_", "token_x"]), ["Integer(2)", "Integer(3)"]);
    assert_eq!(message.named(["stream", "sequence"]), ["Null", "Null"]);
    assert_eq!(message.named(["published_s", "published_us"]), ["Integer(1)", "Integer(1500000)"]);
    let bound = parameters(&["subject"], &[("subject", "/subject")], None).expect("good names");
    assert_eq!(message.bound(&bound), Ok(vec!["Integer(1)".to_owned()]));
}

#[test]
fn an_event_of_a_stream_has_its_sequence_and_time() {
    let names = ["stream", "sequence", "published_s", "published_us"];
    let bound = Message::of_stream("ROOMS", 1_999_999_999).named(names);
    assert_eq!(bound, [r#"Text("ROOMS")"#, "Integer(7)", "Integer(1)", "Integer(1999999)"]);
    let bound = Message::of_stream("ROOMS", -1).named(names);
    assert_eq!(bound[2..], ["Integer(-1)", "Integer(-1)"]);
    let mut local = Message::of_stream("", 0);
    local.epoch = Some(Epoch::local(1, String::new()));
    assert_eq!(local.named(names)[..2], ["Null", "Null"]);
}

#[test]
fn parameters_that_cannot_be_bound_are_refused() {
    for name in ["token_0", "token_", "token_99999999999999999999"] {
        let refused = parameters(&[name], &[], None).expect_err(name);
        assert_eq!(refused, format!(":{name} is not a token; the first is :token_1"));
    }
    for (names, bound, said) in [
        (&["a"][..], "other", "bind.other is used by no statement; remove it, or write :other in one"),
        #[cfg(feature = "toml")]
        (&["room", "username"], "usernme", "bind.usernme is used by no statement; did you mean username?"),
    ] {
        assert_eq!(parameters(names, &[(bound, "/b")], None).expect_err("it is unused"), said);
    }
    let refused = parameters(&["a"], &[("a", "b")], None).expect_err("not a pointer");
    assert!(refused.starts_with("bind.a is \"b\", which is not a JSON Pointer"), "{refused}");
}
