//! The parameters of a query that come from the request: their types, limits and defaults.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a query accepts for one of its parameters. A request with any other value gets error 400, which says what is accepted.
///
/// ```toml
/// [[query]]
/// subject = "weather.latest"
/// sql = "SELECT at, celsius FROM readings WHERE station = :station ORDER BY at DESC LIMIT :limit"
/// parameters.station = { type = "text", required = true }
/// parameters.limit = { type = "integer", default = 10, min = 1, max = 1000 }
/// ```
///
/// In TOML, `"text"` alone is short for `{ type = "text" }`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ParameterConfig {
    /// The type of its value. Default `any`.
    pub kind: ParameterType,
    /// Refuse a request without it. A null counts as absent. Default false.
    pub required: bool,
    /// Its value if the request does not have it. Default NULL.
    pub default: Option<ParameterValue>,
    /// The least value of an `integer` or `real`. Default none.
    pub min: Option<ParameterValue>,
    /// The greatest value of an `integer` or `real`. Default none.
    pub max: Option<ParameterValue>,
}

/// The type of a parameter. Values are converted only where nothing is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ParameterType {
    /// Every value, bound as a route binds it.
    #[default]
    Any,
    /// An integer of 64 bits. `2.0`, `1e3` and the text `"5"` are integers too.
    Integer,
    /// A finite number. The text `"1.5"` is one too.
    Real,
    /// Text. An integer counts as its digits.
    Text,
    /// A time, bound as seconds since 1970: an integer if they are whole, else a real. A number has these seconds; a text is as
    /// `2026-01-31`, `2026-01-31T12:00:00Z`, `2026-01-31T12:00:00.5+01:00`, or has the number. A text without a zone is UTC.
    Time,
    /// `true` and `false`, bound as 1 and 0. The numbers and texts `1`, `0`, `"true"` and `"false"` are booleans too.
    Boolean,
}

/// A value in the settings of a parameter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number, a text, true or false")]
#[non_exhaustive]
pub enum ParameterValue {
    /// `true` or `false`.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
}

impl ParameterConfig {
    /// A parameter of this type, without limits and without a default.
    #[must_use]
    pub fn new(kind: ParameterType) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Whether a number is within `min` and `max`.
    pub(crate) fn admits(&self, number: &ParameterValue) -> bool {
        let at_least = |min: &ParameterValue| number.is_at_least(min);
        let at_most = |max: &ParameterValue| max.is_at_least(number);
        self.min.as_ref().is_none_or(at_least) && self.max.as_ref().is_none_or(at_most)
    }

    /// Checks it. The error begins with the key in question.
    pub(super) fn validate(&self) -> Result<(), String> {
        let is_number = matches!(self.kind, ParameterType::Integer | ParameterType::Real);
        for (key, value) in [("min", &self.min), ("max", &self.max), ("default", &self.default)] {
            let Some(value) = value else { continue };
            if key != "default" && !is_number {
                return Err(format!("{key} is for the types integer and real"));
            }
            if !value.is_of(self.kind) {
                return Err(format!("{key} is {value}, which is not of its type"));
            }
        }
        if let (Some(min), Some(max)) = (&self.min, &self.max)
            && !max.is_at_least(min)
        {
            return Err(format!("min is {min}, which is more than max, {max}"));
        }
        match &self.default {
            Some(default) if is_number && !self.admits(default) => {
                Err(format!("default is {default}, but it must be {self}"))
            }
            Some(_) if self.required => Err("required and default exclude each other".into()),
            _ => Ok(()),
        }
    }
}

/// What it accepts, as the end of "it must be".
impl fmt::Display for ParameterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ParameterType::Any => "a value",
            ParameterType::Integer => "an integer",
            ParameterType::Real => "a number",
            ParameterType::Text => "text",
            ParameterType::Time => "a time, as 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970",
            ParameterType::Boolean => "true or false",
        })?;
        match (&self.min, &self.max) {
            (None, None) => Ok(()),
            (Some(min), None) => write!(f, " of at least {min}"),
            (None, Some(max)) => write!(f, " of at most {max}"),
            (Some(min), Some(max)) => write!(f, " from {min} to {max}"),
        }
    }
}

impl ParameterValue {
    fn is_of(&self, kind: ParameterType) -> bool {
        match (self, kind) {
            (Self::Real(value), ParameterType::Any | ParameterType::Real | ParameterType::Time) => value.is_finite(),
            (Self::Text(text), ParameterType::Time) => seconds_of(text).is_some(),
            (_, ParameterType::Any)
            | (Self::Integer(_), ParameterType::Integer | ParameterType::Real | ParameterType::Time)
            | (Self::Text(_), ParameterType::Text)
            | (Self::Boolean(_), ParameterType::Boolean) => true,
            _ => false,
        }
    }

    /// Whether this number is not less than another. Exact, also for an integer that no double is equal to.
    fn is_at_least(&self, other: &Self) -> bool {
        let order = match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => Some(one.cmp(other)),
            (Self::Real(one), Self::Real(other)) => one.partial_cmp(other),
            (Self::Integer(one), Self::Real(other)) => compare(*one, *other),
            (Self::Real(one), Self::Integer(other)) => compare(*other, *one).map(Ordering::reverse),
            _ => None,
        };
        order.is_some_and(Ordering::is_ge)
    }
}

/// How an integer compares to a real; `None` for NaN.
fn compare(integer: i64, real: f64) -> Option<Ordering> {
    /// 2^63, the first that no integer reaches.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if real >= END {
        return Some(Ordering::Less);
    }
    if real < -END {
        return Some(Ordering::Greater);
    }
    #[allow(clippy::cast_possible_truncation, reason = "it is in the range")]
    let whole = integer.cmp(&(real.trunc() as i64));
    0.0.partial_cmp(&real.fract()).map(|fraction| whole.then(fraction))
}

/// The seconds since 1970 of a time that is written as text.
pub(crate) fn seconds_of(text: &str) -> Option<f64> {
    let with_t = text.replacen(' ', "T", 1);
    let written = [format!("{text}T00:00:00Z"), format!("{with_t}Z"), with_t];
    let time = written.iter().find_map(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    #[allow(clippy::cast_precision_loss, reason = "a double has the microseconds of every year with four digits")]
    let seconds = time.map(|time| time.unix_timestamp() as f64 + f64::from(time.microsecond()) / 1e6);
    seconds.or_else(|| text.parse().ok()).filter(|seconds| seconds.is_finite())
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Real(value) => {
                // With an exponent if it is huge or tiny.
                let shown = format!("{value:?}");
                f.write_str(shown.strip_suffix(".0").unwrap_or(&shown))
            }
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl From<bool> for ParameterValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for ParameterValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for ParameterValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for ParameterValue {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for ParameterValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<'de> Deserialize<'de> for ParameterConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Table {
            #[serde(rename = "type")]
            kind: ParameterType,
            required: bool,
            default: Option<ParameterValue>,
            min: Option<ParameterValue>,
            max: Option<ParameterValue>,
        }
        struct TypeOrTable;
        impl<'de> serde::de::Visitor<'de> for TypeOrTable {
            type Value = ParameterConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type, as \"integer\", or a table, as { type = \"integer\", default = 50, min = 1 }")
            }

            fn visit_str<E: serde::de::Error>(self, kind: &str) -> Result<ParameterConfig, E> {
                ParameterType::deserialize(serde::de::value::StrDeserializer::new(kind)).map(ParameterConfig::new)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<ParameterConfig, A::Error> {
                let Table { kind, required, default, min, max } =
                    Table::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(ParameterConfig { kind, required, default, min, max })
            }
        }
        deserializer.deserialize_any(TypeOrTable)
    }
}

/// A type, or a table.
#[cfg(feature = "cli")]
impl schemars::JsonSchema for ParameterConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ParameterConfig".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let kind = generator.subschema_for::<ParameterType>();
        let value = generator.subschema_for::<ParameterValue>();
        schemars::json_schema!({
            "anyOf": [
                kind,
                {
                    "type": "object",
                    "properties": {
                        "type": kind,
                        "required": { "type": "boolean", "default": false },
                        "default": value,
                        "min": value,
                        "max": value,
                    },
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<ParameterConfig, String> {
        #[derive(Deserialize)]
        struct Holder {
            p: ParameterConfig,
        }
        toml::from_str(&format!("p = {toml}")).map(|Holder { p }| p).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn a_type_is_short_for_a_table() {
        assert_eq!(read("\"integer\""), read("{ type = \"integer\" }"));
        assert_eq!(read("{}"), Ok(ParameterConfig::default()));
        let limit = read("{ type = \"integer\", default = 50, min = 0, max = 1000 }").expect("a parameter");
        assert_eq!((&limit.default, limit.kind), (&Some(50.into()), ParameterType::Integer));
        assert_eq!(limit.to_string(), "an integer from 0 to 1000");
        assert_eq!(limit.validate(), Ok(()));
        for (toml, words) in [
            ("\"int\"", "unknown variant `int`, expected one of `any`, `integer`, `real`, `text`, `time`, `boolean`"),
            ("{ type = \"integer\", mim = 1 }", "unknown field `mim`"),
            ("7", "expected a type, as \"integer\", or a table"),
            ("{ default = [1] }", "expected a number, a text, true or false"),
        ] {
            let refused = read(toml).expect_err(toml);
            assert!(refused.contains(words), "{toml}: {refused}");
        }
    }

    #[test]
    fn limits_and_defaults_must_fit_the_type() {
        for (toml, said) in [
            ("{ type = \"integer\", default = 1.5 }", "default is 1.5, which is not of its type"),
            ("{ type = \"integer\", min = \"1\" }", "min is \"1\", which is not of its type"),
            ("{ type = \"real\", max = nan }", "max is NaN, which is not of its type"),
            ("{ type = \"text\", max = 3 }", "max is for the types integer and real"),
            ("{ min = 1 }", "min is for the types integer and real"),
            ("{ type = \"real\", min = 2, max = 1.5 }", "min is 2, which is more than max, 1.5"),
            ("{ type = \"integer\", default = 0, min = 1 }", "default is 0, but it must be an integer of at least 1"),
            ("{ type = \"boolean\", default = \"true\" }", "default is \"true\", which is not of its type"),
            ("{ type = \"text\", default = \"a\", required = true }", "required and default exclude each other"),
        ] {
            assert_eq!(read(toml).expect("a parameter").validate(), Err(said.to_owned()), "{toml}");
        }
        for toml in [
            "{ default = 1 }",
            "{ type = \"real\", default = 1, min = 0.5 }",
            "{ type = \"boolean\", default = false }",
        ] {
            assert_eq!(read(toml).expect("a parameter").validate(), Ok(()), "{toml}");
        }
    }

    #[test]
    fn integers_and_reals_are_compared_exactly() {
        const EXACT: i64 = 1 << 53;
        let mut parameter = ParameterConfig::new(ParameterType::Real);
        parameter.min = Some((EXACT + 1).into());
        assert!(!parameter.admits(&9_007_199_254_740_992.0.into()), "the least is one more");
        assert!(parameter.admits(&9_007_199_254_740_994.0.into()));
        for (integer, real, order) in [
            (1, 1.5, Ordering::Less),
            (2, 1.5, Ordering::Greater),
            (-1, -1.5, Ordering::Greater),
            (-2, -1.5, Ordering::Less),
            (0, -0.0, Ordering::Equal),
            (i64::MAX, 9_223_372_036_854_775_808.0, Ordering::Less),
            (i64::MIN, -9_223_372_036_854_775_808.0, Ordering::Equal),
            (i64::MIN, f64::NEG_INFINITY, Ordering::Greater),
        ] {
            assert_eq!(compare(integer, real), Some(order), "{integer} {real}");
        }
        assert_eq!(compare(0, f64::NAN), None);
    }

    #[test]
    fn a_huge_limit_is_shown_with_an_exponent() {
        for (value, shown) in
            [(1e308, "1e308"), (2.0, "2"), (1.5, "1.5"), (100.0, "100"), (1e-9, "1e-9"), (-0.5, "-0.5")]
        {
            assert_eq!(ParameterValue::Real(value).to_string(), shown);
        }
    }

    #[test]
    fn a_time_is_a_date_or_a_time_of_day_or_seconds() {
        for (text, seconds) in [
            ("1970-01-02", 86_400.0),
            ("1970-01-01T00:01:00Z", 60.0),
            ("1970-01-01T00:01:00", 60.0),
            ("1970-01-01 00:01:00.25", 60.25),
            ("1970-01-01T01:00:00+01:00", 0.0),
            ("1969-12-31T23:59:59.5Z", -0.5),
            ("1700000000.5", 1_700_000_000.5),
        ] {
            assert_eq!(seconds_of(text), Some(seconds), "{text}");
        }
        for text in ["yesterday", "", "2026-13-01", "12:00", "nan", "inf"] {
            assert_eq!(seconds_of(text), None, "{text}");
        }
        assert_eq!(read("{ type = \"time\", default = \"2026-01-31\" }").expect("a time").validate(), Ok(()));
        let soon = read("{ type = \"time\", default = \"soon\" }").expect("a parameter").validate();
        assert_eq!(soon, Err("default is \"soon\", which is not of its type".to_owned()));
    }

    #[test]
    fn large_integers_are_compared_exactly() {
        let mut parameter = ParameterConfig::new(ParameterType::Integer);
        parameter.max = Some((i64::MAX - 1).into());
        assert!(parameter.admits(&(i64::MAX - 1).into()) && !parameter.admits(&i64::MAX.into()));
    }
}
