//! The parts of the schema for values that are no plain TOML types. Structs of settings name them in the place of their own types.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A schema without a name of its own.
macro_rules! inline_schema {
    ($type:ident, $generator:ident, $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

/// A duration as text.
pub(super) struct Time;

inline_schema!(Time, _generator, {
    let unit = "(ns(ec)?|us(ec)?|ms(ec)?|millis|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?|M|months?|y|years?)";
    json_schema!({
        "type": "string",
        "pattern": format!("^ *([0-9]+ *{unit} *)+$"),
        "examples": ["500ms", "5s", "2m"],
    })
});

/// A size as text, or a number of bytes.
pub(super) struct Size;

inline_schema!(Size, _generator, {
    json_schema!({
        "type": ["string", "integer"],
        "minimum": 0,
        "pattern": "^ *[0-9]+([.][0-9]+)? *([kKmMgGtTpP]([iI]?[bB])?|[bB])? *$",
        "examples": ["64KiB", "4MiB"],
    })
});

/// Permissions of a file, in octal.
pub(super) struct Permissions;

inline_schema!(Permissions, _generator, {
    json_schema!({ "type": "string", "pattern": "^(0o)?0*6[0246][0246]$", "examples": ["0600", "0640"] })
});

/// A text, or a list of texts.
pub(super) struct OneOrSeveral;

inline_schema!(OneOrSeveral, _generator, {
    json_schema!({ "type": ["string", "array"], "items": { "type": "string" }, "minItems": 1 })
});
