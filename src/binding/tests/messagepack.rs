//! Tests of the rules that only MessagePack has.

use super::packed;

#[test]
fn messagepack_is_bound_by_the_same_rules() {
    for (value, bound) in [
        (&b"\xa1a"[..], r#"Text("a")"#),
        (b"\xd9\x01a", r#"Text("a")"#),
        (b"\xda\0\x01a", r#"Text("a")"#),
        (b"\xdb\0\0\0\x01a", r#"Text("a")"#),
        (b"\xa1\xff", "Blob([255])"),
        (b"\xc4\x02ab", "Blob([97, 98])"),
        (b"\xc5\0\x01a", "Blob([97])"),
        (b"\xc6\0\0\0\x01a", "Blob([97])"),
        (b"\xc7\x03\x05abc", "Blob([97, 98, 99])"),
        (b"\xc8\0\x01\x05a", "Blob([97])"),
        (b"\xc9\0\0\0\x01\x05a", "Blob([97])"),
        (b"\xd4\x05a", "Blob([97])"),
        (b"\x7f", "Integer(127)"),
        (b"\xe0", "Integer(-32)"),
        (b"\xcc\xff", "Integer(255)"),
        (b"\xcd\xff\xff", "Integer(65535)"),
        (b"\xce\xff\xff\xff\xff", "Integer(4294967295)"),
        (b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", "Integer(9223372036854775807)"),
        (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", r#"Text("18446744073709551615")"#),
        (b"\xd0\x80", "Integer(-128)"),
        (b"\xd1\x80\0", "Integer(-32768)"),
        (b"\xd2\x80\0\0\0", "Integer(-2147483648)"),
        (b"\xd3\x80\0\0\0\0\0\0\0", "Integer(-9223372036854775808)"),
        (b"\xca\x3f\xc0\0\0", "Real(1.5)"),
        (b"\xcb\x3f\xf8\0\0\0\0\0\0", "Real(1.5)"),
        (b"\xca\x7f\xc0\0\0", "Null"),
        (b"\xcb\x7f\xf0\0\0\0\0\0\0", "Real(inf)"),
        (b"\xc0", "Null"),
        (b"\xc2", "Integer(0)"),
        (b"\xc3", "Integer(1)"),
    ] {
        let payload = [b"\x82\xa1b\xc0\xa1a", value].concat();
        assert_eq!(packed("/a", &payload), bound, "{value:x?}");
        assert_eq!(packed("", value), bound, "{value:x?}");
    }
}

#[test]
fn a_timestamp_of_messagepack_is_seconds_since_1970() {
    for (value, bound) in [
        (&b"\xd6\xff\0\0\0\x07"[..], "Integer(7)"),
        (b"\xd7\xff\0\0\0\0\0\0\0\x07", "Integer(7)"),
        (b"\xd7\xff\x77\x35\x94\0\0\0\0\x07", "Real(7.5)"),
        (b"\xc7\x0c\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xfe", "Integer(-2)"),
        (b"\xc7\x0c\xff\x1d\xcd\x65\0\xff\xff\xff\xff\xff\xff\xff\xfe", "Real(-1.5)"),
        // Not timestamps: a full second of nanoseconds, and an invalid length.
        (b"\xc7\x0c\xff\x3b\x9a\xca\0\0\0\0\0\0\0\0\0", "Blob([59, 154, 202, 0, 0, 0, 0, 0, 0, 0, 0, 0])"),
        (b"\xd4\xff\x01", "Blob([1])"),
    ] {
        assert_eq!(packed("", value), bound, "{value:x?}");
    }
}

#[test]
fn maps_and_arrays_of_messagepack_are_bound_as_json() {
    for (value, text) in [
        (&b"\x90"[..], "[]"),
        (b"\x80", "{}"),
        (b"\x93\x01\xc0\x92\xc3\xa1a", r#"[1,null,[true,"a"]]"#),
        (b"\x82\xa1a\x80\xa1b\x90", r#"{"a":{},"b":[]}"#),
        (b"\xdc\0\x01\xde\0\x01\xa0\xdd\0\0\0\x01\xdf\0\0\0\0", r#"[{"":[{}]}]"#),
        (b"\x91\xa6\"\\\n\x1f\xc3\xa9", r#"["\"\\\u000a\u001fé"]"#),
        (b"\x92\xcb\x7f\xf8\0\0\0\0\0\0\xca\x3f\xc0\0\0", "[null,1.5]"),
        (b"\x91\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "[18446744073709551615]"),
        (b"\x94\xc4\x02ab\xa1\xff\xd4\x05a\xd6\xff\0\0\0\x07", r#"["YWI=","/w==","YQ==",7]"#),
        // Numbers and bytes are names too. Other names are left out with their values.
        (b"\x86\x01\x02\xff\x03\xc0\x04\x91\x90\x05\xa1a\x06\xc4\x01b\x07", r#"{"1":2,"-1":3,"a":6,"b":7}"#),
    ] {
        let read = packed("", value);
        assert_eq!(read, format!("Text({text:?})"), "{value:x?}");
    }
}

#[test]
fn names_in_messagepack_are_texts_bytes_and_integers() {
    let payload = b"\x85\x01\x02\xc4\x01a\x03\x81\xa1b\x04\x05\xff\x92\x06\x07\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x08";
    for (pointer, bound) in
        [("/1", "Integer(2)"), ("/a", "Integer(3)"), ("/b", "Null"), ("/18446744073709551615", "Integer(8)")]
    {
        assert_eq!(packed(pointer, payload), bound, "{pointer}");
    }
    assert_eq!(packed("/-1/1", b"\x81\xff\x92\x06\x07"), "Integer(7)");
    assert_eq!(packed("/é", b"\x81\xc4\x02\xc3\xa9\x09"), "Integer(9)");
}

#[test]
fn a_name_that_is_not_utf_8_is_refused() {
    let refused =
        |offset| format!("the payload cannot be read as MessagePack: a name that is not UTF-8, at offset {offset}");
    for name in [&b"\xa4caf\xe9"[..], b"\xc4\x04caf\xe9"] {
        let length = name.len();
        let payload = [b"\x82", name, b"\x01\xa1a\x02"].concat();
        assert_eq!(packed("/a", &payload), refused(length - 3), "an object that is looked at");
        assert_eq!(packed("", &payload), refused(length - 3), "an object that becomes JSON");
        let within = [b"\x82\xa1b\x81", name, b"\x01\xa1a\x02"].concat();
        assert_eq!(packed("/a", &within), "Integer(2)", "nothing in it is needed");
        assert_eq!(packed("/b", &within), refused(length));
    }
}

#[test]
fn invalid_messagepack_is_refused_with_its_offset() {
    for (payload, reason) in [
        (&b""[..], "it is empty"),
        (b"\x81\xa1a", "it ends too early, at offset 3"),
        (b"\xa5abc", "it ends too early, at offset 4"),
        (b"\xcd\x01", "it ends too early, at offset 2"),
        (b"\xdd\xff\xff\xff\xff", "it ends too early, at offset 5"),
        (b"\xc6\xff\xff\xff\xff", "it ends too early, at offset 5"),
        (b"\x80\x80", "extra data after its end, at offset 1"),
        (b"\x91\xc1", "byte c1, which is never used, at offset 1"),
    ] {
        let refused = format!("the payload cannot be read as MessagePack: {reason}");
        assert_eq!(packed("/a", payload), refused, "{payload:x?}");
        assert_eq!(packed("", payload), refused, "{payload:x?}");
    }
}
