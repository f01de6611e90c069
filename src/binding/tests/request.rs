//! Tests of the rules that only requests have.

use super::*;
use crate::config::{ParameterConfig, ParameterType};

const MESSAGEPACK: &[(&str, &str)] = &[("Content-Type", "application/msgpack")];

fn requests(
    names: &[&str],
    bind: &[(&str, &str)],
    types: &[(&str, ParameterConfig)],
) -> Result<RequestParameters, String> {
    let bind = bind.iter().map(|(name, pointer)| ((*name).to_owned(), (*pointer).to_owned())).collect();
    let types = types.iter().map(|(name, config)| ((*name).to_owned(), config.clone())).collect();
    RequestParameters::new(names.iter().copied(), &bind, None, &types)
}

/// What a request binds, or its error.
fn ask(parameters: &RequestParameters, payload: &[u8], headers: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let message = Message::new(payload, headers);
    let envelope = Envelope::of(&message.event.delivery(), None);
    let mut fields = Fields::default();
    // Another row before, so that offsets count.
    let before = parameters.read(&Envelope { payload: b"", ..envelope }, &mut fields);
    let row = parameters.read(&envelope, &mut fields).map_err(|e| e.to_string())?;
    assert!(
        before.is_ok_and(|before| parameters.values(&envelope, &fields, before).count() > 0) || !payload.is_empty()
    );
    Ok(parameters.values(&envelope, &fields, row).map(|value| format!("{value:?}")).collect())
}

/// What a single parameter with this type binds for a value.
fn typed(config: &ParameterConfig, value: &str) -> Result<String, String> {
    let parameters = requests(&["x"], &[], &[("x", config.clone())]).expect("a parameter");
    let payload = if value.is_empty() { "{}".to_owned() } else { format!("{{\"x\":{value}}}") };
    ask(&parameters, payload.as_bytes(), &[]).map(|mut values| values.remove(0))
}

#[test]
fn a_name_that_no_parameter_has_is_refused() {
    let two = requests(&["limit", "user", "token_2"], &[], &[]).expect("parameters");
    assert_eq!(two.names(), ["limit", "user"]);
    for (payload, name) in [
        (r#"{"limt":1}"#, "limt"),
        (r#"{"limit":1,"LIMIT":2}"#, "LIMIT"),
        (r#"{"token_2":"x"}"#, "token_2"),
        (r#"{"\u006cim\u000a":1}"#, "lim\\n"),
        (r#"{"\ud800":1}"#, "\\ud800"),
    ] {
        let refused = ask(&two, payload.as_bytes(), &[]).expect_err(payload);
        assert_eq!(refused, format!("\"{name}\" is not a parameter; the parameters are limit, user"));
    }
    let long = format!("{{\"{}\":1}}", "é".repeat(100));
    let refused = ask(&two, long.as_bytes(), &[]).expect_err("refused");
    assert!(refused.starts_with(&format!("\"{}…\" is not", "é".repeat(40))), "{refused}");
    let one = requests(&["limit"], &[], &[]).expect("parameters");
    let refused = ask(&one, b"{\"a\":1}", &[]).expect_err("refused");
    assert_eq!(refused, "\"a\" is not a parameter; the only parameter is limit");
    let none = requests(&["subject"], &[], &[]).expect("parameters");
    let refused = ask(&none, b"{\"a\":1}", &[]).expect_err("refused");
    assert_eq!(refused, "\"a\" is not a parameter; the query has no parameters");
    assert!(ask(&none, b"{}", &[]).is_ok() && ask(&none, b" null\n", &[]).is_ok() && ask(&none, b"{", &[]).is_err());
    // A later field of a known name is not an unknown one.
    assert_eq!(ask(&one, br#"{"limit":1,"limit":2}"#, &[]), Ok(vec!["Integer(1)".to_owned()]));
}

#[test]
fn unknown_names_are_refused_within_objects_too() {
    let parameters =
        requests(&["least", "tags"], &[("least", "/at/least"), ("tags", "/tags")], &[]).expect("parameters");
    assert_eq!(parameters.names(), ["/at/least", "tags"]);
    let bound = ask(&parameters, br#"{"at":{"least":5},"tags":{"any":1}}"#, &[]);
    assert_eq!(bound, Ok(vec!["Integer(5)".to_owned(), r#"Text("{\"any\":1}")"#.to_owned()]));
    let refused = ask(&parameters, br#"{"at":{"leest":5}}"#, &[]).expect_err("refused");
    assert_eq!(refused, "\"leest\" is not a parameter; the parameters are /at/least, tags");
}

#[test]
fn a_value_that_is_no_object_is_refused_where_a_parameter_needs_a_value_within() {
    let bind = [("user", "/filter/user"), ("deep", "/a/b~1c/d")];
    let parameters = requests(&["user", "deep"], &bind, &[]).expect("parameters");
    let known = "the parameters are /filter/user, /a/b~1c/d";
    for value in ["5", "\"a\"", "true", "false", "[]", "[{\"user\":1}]", "-1.5", "{\"user\":1}x"] {
        let said = ask(&parameters, format!("{{\"filter\":{value}}}").as_bytes(), &[]).expect_err(value);
        let expected = if value.ends_with('x') { "the payload cannot be read as JSON" } else { "filter is not an obj" };
        assert!(said.starts_with(expected), "{said}");
        let said = ask(&parameters, format!("{{\"a\":{{\"b/c\":{value}}}}}").as_bytes(), &[]).expect_err(value);
        assert!(value.contains("user") || said == format!("/a/b~1c is not an object; {known}"), "{said}");
    }
    for payload in [&br#"{"filter":nul}"#[..], br#"{"filter":[1}"#, br#"{"filter":tru}"#, br#"{"filter":"#] {
        let said = ask(&parameters, payload, &[]).expect_err("no JSON");
        assert!(said.starts_with("the payload cannot be read as JSON"), "{said}");
    }
    let absent = Ok(vec!["Null".to_owned(); 2]);
    for payload in [&br#"{"filter":null}"#[..], br#"{"filter":{}}"#, br#"{"a":{"b/c":null}}"#, b"{}"] {
        assert_eq!(ask(&parameters, payload, &[]), absent);
    }
    for value in [&b"\x05"[..], b"\xa1a", b"\xc3", b"\x90", b"\xc4\x01a", b"\xca\x7f\xc0\0\0", b"\xd6\xff\0\0\0\0"] {
        let payload = [b"\x81\xa6filter", value].concat();
        let said = ask(&parameters, &payload, MESSAGEPACK).expect_err("refused");
        assert_eq!(said, format!("filter is not an object; {known}"));
        let payload = [b"\x81\xa1a\x81\xa3b/c", value].concat();
        let said = ask(&parameters, &payload, MESSAGEPACK).expect_err("refused");
        assert_eq!(said, format!("/a/b~1c is not an object; {known}"));
    }
    for payload in [&b"\x81\xa6filter\xc0"[..], b"\x81\xa6filter\x80"] {
        assert_eq!(ask(&parameters, payload, MESSAGEPACK), absent);
    }
    // This holds beside a parameter that takes the same value, or all of the payload.
    for (names, bind) in [
        (&["all", "user"][..], &[("all", "/filter"), ("user", "/filter/user")][..]),
        (&["payload", "user"], &[("user", "/filter/user")]),
    ] {
        let both = requests(names, bind, &[]).expect("parameters");
        let said = ask(&both, br#"{"filter":"a"}"#, &[]).expect_err("refused");
        assert!(said.starts_with("filter is not an object; "), "{said}");
        assert_eq!(ask(&both, br#"{"filter":{"user":"a"}}"#, &[]).expect("bound")[1], r#"Text("a")"#);
    }
    // An array has elements, and no names.
    let element = requests(&["first"], &[("first", "/tags/0")], &[]).expect("parameters");
    assert_eq!(ask(&element, br#"{"tags":[7]}"#, &[]), Ok(vec!["Integer(7)".to_owned()]));
    assert_eq!(ask(&element, b"\x81\xa4tags\x91\x07", MESSAGEPACK), Ok(vec!["Integer(7)".to_owned()]));
    let said = ask(&element, br#"{"tags":7}"#, &[]).expect_err("refused");
    assert_eq!(said, "tags is not an object or array; the only parameter is /tags/0");
}

#[test]
fn a_request_is_an_object_unless_a_parameter_takes_the_whole() {
    let named = requests(&["x"], &[], &[]).expect("parameters");
    for payload in [&b"[]"[..], b"5", b"\"x\"", b"true", b" [{\"x\":1}]"] {
        let refused = ask(&named, payload, &[]).expect_err("refused");
        assert_eq!(refused, "the request is not an object; the only parameter is x");
    }
    for payload in [&b""[..], b"null", b" null ", b"{}", b" ", b"\r\n\t "] {
        assert_eq!(ask(&named, payload, &[]), Ok(vec!["Null".to_owned()]));
    }
    let payload = requests(&["payload"], &[], &[]).expect("parameters");
    for (request, bound) in [(&b"[1"[..], r#"Text("[1")"#), (b"null", r#"Text("null")"#), (b"\xff", "Blob([255])")] {
        assert_eq!(ask(&payload, request, &[]), Ok(vec![bound.to_owned()]));
    }
    let both = requests(&["payload", "x"], &[], &[]).expect("parameters");
    let bound = ask(&both, br#"{"y":1}"#, &[]);
    assert_eq!(bound, Ok(vec![r#"Text("{\"y\":1}")"#.to_owned(), "Null".to_owned()]), "it may use any name itself");
    let whole = requests(&["all"], &[("all", "")], &[]).expect("parameters");
    assert_eq!(ask(&whole, br#"{"y":1}"#, &[]), Ok(vec![r#"Text("{\"y\":1}")"#.to_owned()]));
    assert_eq!(ask(&whole, b"7", &[]), Ok(vec!["Integer(7)".to_owned()]));
    let element = requests(&["first"], &[("first", "/0")], &[]).expect("parameters");
    assert_eq!(ask(&element, b"[7, 8]", &[]), Ok(vec!["Integer(7)".to_owned()]));
}

#[test]
fn a_value_has_the_type_of_its_parameter() {
    use ParameterType::{Any, Boolean, Integer, Real, Text, Time};
    for (kind, value, bound) in [
        (Any, "[1]", r#"Text("[1]")"#),
        (Any, "true", "Integer(1)"),
        (Integer, "5", "Integer(5)"),
        (Integer, "\"5\"", "Integer(5)"),
        (Integer, "\"-5\"", "Integer(-5)"),
        (Integer, "2.0", "Integer(2)"),
        (Integer, "1e1", "Integer(10)"),
        (Integer, "9007199254740991.0", "Integer(9007199254740991)"),
        (Integer, "9223372036854775807", "Integer(9223372036854775807)"),
        (Real, "1", "Real(1.0)"),
        (Real, "1.5", "Real(1.5)"),
        (Real, "\"1.5e3\"", "Real(1500.0)"),
        (Real, "18446744073709551616", "Real(1.8446744073709552e19)"),
        (Text, "\"a\"", r#"Text("a")"#),
        (Text, "\"\"", r#"Text("")"#),
        (Text, "20", r#"Text("20")"#),
        (Text, "-0", r#"Text("0")"#),
        (Text, "-18446744073709551616", r#"Text("-18446744073709551616")"#),
        (Text, "\"1e400\"", r#"Text("1e400")"#),
        (Any, "1e400", r#"Text("1e400")"#),
        (Time, "1.5", "Real(1.5)"),
        (Time, "7", "Integer(7)"),
        (Time, "\"1970-01-02\"", "Integer(86400)"),
        (Time, "\"1970-01-01T00:00:01.5Z\"", "Real(1.5)"),
        (Text, "18446744073709551616", r#"Text("18446744073709551616")"#),
        (Boolean, "true", "Integer(1)"),
        (Boolean, "false", "Integer(0)"),
        (Boolean, "1", "Integer(1)"),
        (Boolean, "\"false\"", "Integer(0)"),
        (Integer, "null", "Null"),
        (Text, "", "Null"),
    ] {
        assert_eq!(typed(&ParameterConfig::new(kind), value), Ok(bound.to_owned()), "{kind:?} {value}");
    }
    for (kind, value, said) in [
        (Integer, "2.5", "x is 2.5; it must be an integer"),
        (Integer, "true", "x is true; it must be an integer"),
        (Integer, "\"\"", "x is \"\"; it must be an integer"),
        (Integer, "\" 5\"", "x is \" 5\"; it must be an integer"),
        (Integer, "\"many\"", "x is \"many\"; it must be an integer"),
        (Integer, "[1]", "x is an array; it must be an integer"),
        (Integer, "{}", "x is an object; it must be an integer"),
        (Integer, "9223372036854775808", "x is 9223372036854775808; it must be an integer"),
        (Integer, "9007199254740993.0", "x is 9007199254740993.0; it must be an integer"),
        (Integer, "9223372036854775808.0", "x is 9223372036854775808.0; it must be an integer"),
        (Real, "\"nan\"", "x is \"nan\"; it must be a number"),
        (Real, "1e999", "x is 1e999; it must be a number"),
        (Real, "false", "x is false; it must be a number"),
        (Text, "1.10", "x is 1.10; it must be text"),
        (Text, "-0.0", "x is -0.0; it must be text"),
        (Integer, "1.50e0", "x is 1.50e0; it must be an integer"),
        (Text, "1e400", "x is 1e400; it must be text"),
        (
            Time,
            "\"yesterday\"",
            "x is \"yesterday\"; it must be a time, as 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970",
        ),
        (Time, "true", "x is true; it must be a time, as 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970"),
        (Text, "true", "x is true; it must be text"),
        (Text, "[\"a\"]", "x is an array; it must be text"),
        (Boolean, "2", "x is 2; it must be true or false"),
        (Boolean, "\"yes\"", "x is \"yes\"; it must be true or false"),
    ] {
        assert_eq!(typed(&ParameterConfig::new(kind), value), Err(said.to_owned()), "{kind:?} {value}");
    }
}

#[test]
fn limits_defaults_and_required_parameters() {
    let mut limit = ParameterConfig::new(ParameterType::Integer);
    (limit.default, limit.min, limit.max) = (Some(50.into()), Some(0.into()), Some(1_000.into()));
    for (value, bound) in
        [("", "Integer(50)"), ("null", "Integer(50)"), ("0", "Integer(0)"), ("\"1000\"", "Integer(1000)")]
    {
        assert_eq!(typed(&limit, value), Ok(bound.to_owned()), "{value}");
    }
    for value in ["-1", "1001", "1e9"] {
        let refused = typed(&limit, value).expect_err(value);
        assert!(refused.ends_with("; it must be an integer from 0 to 1000"), "{refused}");
    }
    let mut share = ParameterConfig::new(ParameterType::Real);
    (share.default, share.max) = (Some(1.into()), Some(1.into()));
    assert_eq!(typed(&share, ""), Ok("Real(1.0)".to_owned()));
    assert_eq!(typed(&share, "1.1"), Err("x is 1.1; it must be a number of at most 1".to_owned()));
    let mut name = ParameterConfig::new(ParameterType::Text);
    name.default = Some("ann".into());
    assert_eq!(typed(&name, ""), Ok(r#"Text("ann")"#.to_owned()));
    (name.default, name.required) = (None, true);
    for value in ["", "null"] {
        assert_eq!(typed(&name, value), Err("x is missing; it must be text".to_owned()));
    }
    // An empty request and a null have the defaults too.
    let parameters = requests(&["x"], &[], &[("x", limit)]).expect("a parameter");
    for payload in [&b""[..], b"null", b"{}"] {
        assert_eq!(ask(&parameters, payload, &[]), Ok(vec!["Integer(50)".to_owned()]));
    }
}

#[test]
fn a_value_deep_inside_is_refused_by_its_pointer() {
    let mut deep = ParameterConfig::new(ParameterType::Integer);
    deep.required = true;
    let parameters = requests(&["deep"], &[("deep", "/at/most")], &[("deep", deep)]).expect("a parameter");
    for (payload, said) in [
        (&b"{}"[..], "/at/most is missing; it must be an integer"),
        (b"{\"at\":{\"most\":\"x\"}}", "/at/most is \"x\"; it must be an integer"),
    ] {
        assert_eq!(ask(&parameters, payload, &[]).expect_err("refused"), said);
    }
    let mut time = ParameterConfig::new(ParameterType::Time);
    time.default = Some("1970-01-01T00:01:00Z".into());
    assert_eq!(typed(&time, ""), Ok("Integer(60)".to_owned()));
}

#[test]
fn a_json_object_is_read_where_messagepack_is_expected() {
    let parameters = requests(&["x"], &[], &[]).expect("a parameter");
    for payload in [&b"{\"x\":5}"[..], b" {\"x\":5}"] {
        assert_eq!(ask(&parameters, payload, MESSAGEPACK), Ok(vec!["Integer(5)".to_owned()]));
    }
    let refused = ask(&parameters, b"{", MESSAGEPACK).expect_err("it is the number 123");
    assert_eq!(refused, "the request is not an object; the only parameter is x");
    assert!(ask(&parameters, b"{\"x\"", MESSAGEPACK).expect_err("no JSON").contains("JSON"));
}

#[test]
fn messagepack_requests_have_the_same_rules() {
    let integer = ParameterConfig::new(ParameterType::Integer);
    let parameters = requests(&["x"], &[], &[("x", integer)]).expect("a parameter");
    let ask = |payload: &[u8]| ask(&parameters, payload, MESSAGEPACK);
    assert_eq!(ask(b"\x81\xa1x\xa15"), Ok(vec!["Integer(5)".to_owned()]));
    for payload in [&b""[..], b"\xc0", b"\x80"] {
        assert_eq!(ask(payload), Ok(vec!["Null".to_owned()]));
    }
    for (payload, said) in [
        (&b"\x81\xa1y\x05"[..], "\"y\" is not a parameter; the only parameter is x"),
        (b"\x81\xc4\x01y\x05", "\"y\" is not a parameter; the only parameter is x"),
        (b"\x81\x07\x05", "\"7\" is not a parameter; the only parameter is x"),
        (b"\x81\xc0\x05", "\"a key that is no text\" is not a parameter; the only parameter is x"),
        (b"\x90", "the request is not an object; the only parameter is x"),
        (b"\x81\xa1x\xc4\x015", "x is a blob; it must be an integer"),
        (b"\x81\xa1x\xc3", "x is true; it must be an integer"),
    ] {
        assert_eq!(ask(payload), Err(said.to_owned()), "{payload:x?}");
    }
}

#[test]
fn types_that_have_no_field_are_refused() {
    let integer = || ParameterConfig::new(ParameterType::Integer);
    for (names, name, said) in [
        (&["limit"][..], "room", "parameters.room is used by no statement; remove it, or write :room in one"),
        #[cfg(feature = "toml")]
        (&["limit"], "limt", "parameters.limt is used by no statement; did you mean limit?"),
        (&["token_2"], "token_2", "parameters.token_2 is not bound from the request's fields, so it has no type"),
    ] {
        assert_eq!(requests(names, &[], &[(name, integer())]).expect_err("refused"), said);
    }
    let bind = [("a", "/x"), ("b", "/x")];
    let text = ParameterConfig::new(ParameterType::Text);
    let refused = requests(&["a", "b"], &bind, &[("a", integer()), ("b", text)]).expect_err("refused");
    assert_eq!(refused, "parameters.b and a are the same field; give both the same type");
    assert!(requests(&["a", "b"], &bind, &[("a", integer()), ("b", integer())]).is_ok());
}
