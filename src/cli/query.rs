//! `catchment query`: run a named query over NATS.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{Read, Write};

use crate::Config;
use crate::broker::{self, Reply, ServiceError};
use crate::closest::did_you_mean;
use crate::config::BrokerConfig;
use crate::store::Value;
use crate::subject;
use clap::Args;
use data_encoding::BASE64;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::failure::UsageError;
use super::output::Output;
use super::row_writers::{Csv, JsonLines, RowWriter, Tables};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::starting::{self, Failure};

/// Run a query of a running collector over NATS, and print the rows
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Query {
    #[command(flatten)]
    broker: BrokerArgs,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Subject of the query
    subject: String,

    /// Parameters of the query; a single - sends standard input unchanged as the request
    #[arg(value_name = "KEY=VALUE")]
    parameters: Vec<String>,

    /// Print one JSON object a line for each row
    #[arg(short, long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV with a header line
    #[arg(long)]
    csv: bool,
}

const AFTER_HELP: &str = "\
A value is JSON if it parses as JSON (20, true, null, {\"a\":1}, \"20\" in quotes), else text. A name that the query does not have, \
and a value that it does not accept, are refused with those that it does.
A reply that does not consist of rows is printed unchanged.

Examples:
  catchment query chat.messages.recent limit=20
  catchment query chat.users.stats username=ann --json
  catchment query chat.users.stats 'username=\"20\"'";

impl Query {
    /// Sends the request and prints the reply.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        subject::validate(&self.subject).map_err(|error| UsageError(error.to_string()))?;
        let request = request(&self.parameters)?;
        let config = settings.for_broker(&self.database, &self.broker)?;
        let is_named = settings.names_servers(&self.broker)?;
        let subject = &self.subject;
        let nobody = Cell::new(None);
        let reply = starting::connect(&config.database.path, config.broker.timeout, is_named, &|| true, || {
            nobody.set(None);
            let broker = settings.for_broker(&self.database, &self.broker)?.broker;
            broker::ask(&broker, subject, request.clone())?.ok_or_else(|| {
                let failure = Failure::passing(nobody_answers(subject, &broker));
                nobody.set(Some(broker));
                failure
            })
        });
        if let (Err(_), Some(broker)) = (&reply, nobody.take())
            && let Some(meant) = meant(subject, &broker, &config)
        {
            anyhow::bail!("no collector answers on {subject} at {}{meant}", broker.shown_servers());
        }
        let reply = reply.map_err(|error| starting::with_way_out(error, &config))?;
        let Reply { body, failure } = reply;
        if let Some(ServiceError { code, reason }) = failure {
            // Most reasons contain the name of the query, which is its subject by default.
            let whose = if reason.contains(subject) { String::new() } else { format!("{subject}: ") };
            anyhow::bail!("{whose}{reason} (error {code})");
        }
        if let Some(stream) = acknowledging_stream(&body) {
            anyhow::bail!(
                "{subject}: stream {stream} stored the request as an event; give queries subjects that the stream does not take"
            );
        }
        let mut output = Output::new();
        match serde_json::from_slice::<Vec<Row>>(&body) {
            Ok(rows) if rows.is_empty() => log::info!("no rows"),
            Ok(rows) if self.json => print(&rows, JsonLines::new(&mut output))?,
            Ok(rows) if self.csv => print(&rows, Csv::new(&mut output))?,
            Ok(rows) => {
                output.allow_styles();
                print(&rows, Tables::new(&mut output))?;
            }
            Err(_) => {
                output.write_all(&body)?;
                output.write_all(b"\n")?;
            }
        }
        Ok(output.flush()?)
    }
}

fn nobody_answers(subject: &str, broker: &BrokerConfig) -> anyhow::Error {
    let servers = broker.shown_servers();
    anyhow::anyhow!(
        "no collector answers on {subject} at {servers}; start one whose settings have a [[query]] with that subject, or list the \
         services there with: nats micro ls"
    )
}

/// The query that was probably meant, of those at this broker and those of the settings.
fn meant(subject: &str, broker: &BrokerConfig, config: &Config) -> Option<String> {
    let mut known = broker::query_subjects(broker).unwrap_or_default();
    known.extend(config.queries.iter().map(|query| query.subject.clone()));
    known.sort();
    known.dedup();
    let meant = did_you_mean(subject, known.iter().map(String::as_str).filter(|known| *known != subject));
    (!meant.is_empty()).then_some(meant)
}

/// The request's payload.
fn request(parameters: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut request = Vec::new();
    if parameters == ["-"] {
        std::io::stdin().read_to_end(&mut request).map_err(|e| anyhow::anyhow!("standard input: {e}"))?;
        return Ok(request);
    }
    let mut keys = BTreeSet::new();
    for parameter in parameters {
        let Some((key, value)) = parameter.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            let example = "an example is limit=20";
            return Err(UsageError(format!("{parameter:?} is not a parameter; {example}")).into());
        };
        if !keys.insert(key) {
            return Err(UsageError(format!("the parameter {key} is given twice")).into());
        }
        request.push(if request.is_empty() { b'{' } else { b',' });
        serde_json::to_writer(&mut request, key)?;
        request.push(b':');
        // Written unchanged, so that long numbers keep their digits.
        match serde_json::from_str::<IgnoredAny>(value) {
            Ok(_) => request.extend_from_slice(value.as_bytes()),
            Err(_) => serde_json::to_writer(&mut request, value)?,
        }
    }
    if !request.is_empty() {
        request.push(b'}');
    }
    Ok(request)
}

/// The stream, if the reply is its acknowledgement.
fn acknowledging_stream(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Acknowledgement {
        stream: String,
        #[serde(rename = "seq")]
        _sequence: u64,
    }
    serde_json::from_slice(body).ok().map(|Acknowledgement { stream, .. }| stream)
}

fn print(rows: &[Row], mut writer: impl RowWriter) -> anyhow::Result<()> {
    let mut names = None;
    for row in rows {
        if names != Some(&row.names) {
            writer.columns(&row.names)?;
            names = Some(&row.names);
        }
        writer.row(row.values.clone())?;
    }
    writer.finish()
}

/// A row of a reply: its columns in their order.
#[derive(Debug, PartialEq)]
struct Row {
    names: Vec<String>,
    values: Vec<Value>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = Row;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = Row { names: Vec::new(), values: Vec::new() };
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    row.names.push(name);
                    row.values.push(column(value));
                }
                Ok(row)
            }
        }
        deserializer.deserialize_map(RowVisitor)
    }
}

/// The value that SQLite had in this column.
fn column(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let blob = value.get("$blob").and_then(Json::as_str).and_then(|text| BASE64.decode(text.as_bytes()).ok());
    match (value, blob) {
        (_, Some(bytes)) => Value::Blob(bytes),
        (Json::Null, None) => Value::Null,
        (Json::String(text), None) => Value::Text(text),
        (Json::Number(number), None) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Value::Integer(value),
            (None, Some(value)) => Value::Real(value),
            (None, None) => Value::Text(number.to_string()),
        },
        (other, None) => Value::Text(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_of(parameters: &[&str]) -> String {
        let parameters: Vec<String> = parameters.iter().map(|&parameter| parameter.to_owned()).collect();
        String::from_utf8(request(&parameters).expect("a request")).expect("UTF-8")
    }

    #[test]
    fn values_are_json_if_they_parse_and_else_text() {
        let given =
            ["limit=20", "name=ann b", "big=123456789012345678901", "ok=true", "none=null", "id=\"20\"", "e=", "a=b=c"];
        let expected = r#"{"limit":20,"name":"ann b","big":123456789012345678901,"ok":true,"none":null,"id":"20","e":"","a":"b=c"}"#;
        assert_eq!(request_of(&given), expected);
        assert_eq!(request_of(&["zip=007", "list=[1, 2]"]), r#"{"zip":"007","list":[1, 2]}"#);
        assert_eq!(request_of(&[]), "");
    }

    #[test]
    fn an_invalid_parameter_is_wrong_usage() {
        for given in [&["limit"][..], &["=1"], &["a=1", "a=2"], &["-", "a=1"]] {
            let given: Vec<String> = given.iter().map(|&parameter| parameter.to_owned()).collect();
            assert!(request(&given).expect_err("must be refused").is::<UsageError>(), "{given:?}");
        }
    }

    #[test]
    fn rows_keep_their_values_and_order() {
        let body = br#"[{"b":9223372036854775807,"a":1.0,"c":"x","d":null,"e":{"$blob":"AP8="}}]"#;
        let rows: Vec<Row> = serde_json::from_slice(body).expect("rows");
        assert_eq!(rows[0].names, ["b", "a", "c", "d", "e"]);
        let values = [
            Value::Integer(i64::MAX),
            Value::Real(1.0),
            Value::Text("x".into()),
            Value::Null,
            Value::Blob(vec![0, 255]),
        ];
        assert_eq!(rows[0].values, values);
        let mut to = Vec::new();
        print(&rows, JsonLines::new(&mut to)).expect("prints");
        assert_eq!(to, [&body[1..body.len() - 1], b"\n"].concat());
        let mut to = Vec::new();
        print(&rows, Csv::new(&mut to)).expect("prints");
        assert_eq!(String::from_utf8(to).expect("UTF-8"), "b,a,c,d,e\n9223372036854775807,1.0,x,,x'00ff'\n");
    }

    #[test]
    fn a_streams_acknowledgement_is_not_a_reply() {
        assert_eq!(acknowledging_stream(br#"{"stream":"CHAT","seq":7}"#).as_deref(), Some("CHAT"));
        assert_eq!(acknowledging_stream(b"[]"), None);
        assert_eq!(acknowledging_stream(br#"{"stream":"CHAT"}"#), None);
    }
}
