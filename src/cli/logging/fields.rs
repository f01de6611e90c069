//! The event of a log line and its fields: what the library attaches with the key-value pairs of the crate `log`.

use log::Record;
use log::kv::{Error, Key, VisitSource, VisitValue};
use serde_json::{Map, Value};

/// The key of the event's name.
const EVENT: &str = "event";

/// Event and fields, in their order.
pub fn of(record: &Record<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    // Only the visitor could fail.
    let _ = record.key_values().visit(&mut Fields(&mut fields));
    fields
}

/// The name of the event and its part, if the line has an event.
pub fn name_of(record: &Record<'_>) -> Option<String> {
    let source = record.key_values();
    let event = source.get(Key::from_str(EVENT))?;
    Some(source.get(Key::from_str("part")).map_or_else(|| event.to_string(), |part| format!("{event} ({part})")))
}

struct Fields<'m>(&'m mut Map<String, Value>);

impl<'k> VisitSource<'k> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'k>, value: log::kv::Value<'k>) -> Result<(), Error> {
        let mut field = Value::Null;
        value.visit(Field(&mut field))?;
        self.0.insert(key.to_string(), field);
        Ok(())
    }
}

struct Field<'f>(&'f mut Value);

impl VisitValue<'_> for Field<'_> {
    fn visit_any(&mut self, value: log::kv::Value<'_>) -> Result<(), Error> {
        *self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        *self.0 = Value::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        *self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        *self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        *self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        *self.0 = value.into();
        Ok(())
    }
}
