//! Arguments that may begin with a hyphen: `-3.5`, `-- a comment\nSELECT 1`. A misspelt flag is none of them.

use std::ffi::OsString;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// The parser of an argument with `allow_hyphen_values`, which otherwise takes every unknown flag.
pub fn parser() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|given| match given.as_encoded_bytes() {
        given if looks_like_a_flag(given) => Err("no such option; to use it as a value, write -- before it"),
        _ => Ok(given),
    })
}

/// The same for an argument that is text.
pub fn text_parser() -> impl TypedValueParser<Value = String> {
    parser().try_map(|given| given.into_string().map_err(|_| "not UTF-8"))
}

/// Whether it has the form of a flag: one or two hyphens and a letter, without white space, and not a number such as `-inf`.
fn looks_like_a_flag(given: &[u8]) -> bool {
    let Some(rest) = given.strip_prefix(b"-") else { return false };
    let name = rest.strip_prefix(b"-").unwrap_or(rest);
    let is_number = std::str::from_utf8(rest).is_ok_and(|rest| rest.parse::<f64>().is_ok());
    name.first().is_some_and(u8::is_ascii_alphabetic) && !name.iter().any(u8::is_ascii_whitespace) && !is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_are_no_flags() {
        for value in ["", "-", "-3.5", "-10", "-1e-05", "-.5", "-5,3", "-inf", "-NaN", "-12°C", "-- x\nSELECT 1", "- a", "--", "---"] {
            assert!(!looks_like_a_flag(value.as_bytes()), "{value:?}");
        }
        for flag in ["--jsn", "-x", "-jx", "--id=7", "-infx"] {
            assert!(looks_like_a_flag(flag.as_bytes()), "{flag:?}");
        }
    }
}
