//! `catchment query`: run a named query over NATS.

mod merge;
mod row;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use crate::Config;
use crate::broker::{self, AnsweringPartition, PartitionReplies, Reply, ServiceError};
use crate::closest::did_you_mean;
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::subject;
use clap::Args;
use serde::de::IgnoredAny;

use super::failure::UsageError;
use super::output::Output;
use super::quantities::whole;
use super::row_writers::{Csv, JsonLines, RowWriter, Tables};
use super::settings::{BrokerArgs, DatabaseArgs, Settings};
use super::starting::{self, Failure};
use row::Row;

/// Run a query of a running collector over NATS, and print the rows
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
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

    /// Ask the collectors of all partitions, and print all rows
    #[arg(long, conflicts_with = "partition")]
    all: bool,

    /// Sort all rows by this column, as SQLite does, instead of printing one partition after the other
    #[arg(long, value_name = "COLUMN", requires = "all")]
    order: Option<String>,

    /// The greatest value first
    #[arg(long, requires = "order")]
    descending: bool,

    /// Print so many rows at most
    #[arg(long, value_name = "ROWS", requires = "all", value_parser = whole::<usize>(0..=u64::MAX, 20))]
    limit: Option<usize>,

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
With broker.partition (--partition) only the collector of that partition is asked.
--all prints the rows of partition 0 first, then those of 1, and so on, unless --order says otherwise. If a partition does not answer \
within --timeout, or with an error, the other rows are printed, and the exit status is 1.

Examples:
  catchment query chat.messages.recent limit=20
  catchment query chat.users.stats username=ann --json
  catchment query --all --order at --descending --limit 20 chat.messages.recent
  catchment query chat.users.stats 'username=\"20\"'";

impl Query {
    /// Sends the request and prints the reply.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        subject::validate(&self.subject).map_err(|error| UsageError(error.to_string()))?;
        let request = request(&self.parameters)?;
        let config = settings.for_broker(&self.database, &self.broker)?;
        let only = config.broker.partition.filter(|_| !self.all);
        if self.all || only.is_some() {
            return self.run_partitions(settings, &config, &request, only);
        }
        let reply = self.ask(settings, &config, |broker| broker::ask(broker, &self.subject, request.clone()))?;
        if let Some(AnsweringPartition { number, of }) = reply.partition.filter(|partition| partition.of > 1) {
            anyhow::bail!(
                "{}: {of} partitions answer, and one reply is of one of them; ask all with --all, or one with --partition {number}",
                self.subject
            );
        }
        match self.answer(reply)? {
            Answer::Rows(rows) => self.print(&rows),
            Answer::Other(body) => {
                let mut output = Output::new();
                output.write_all(&body)?;
                output.write_all(b"\n")?;
                Ok(output.flush()?)
            }
        }
    }

    /// The same with all partitions, or with one of them. Prints the rows that came also if some are missing.
    fn run_partitions(
        &self,
        settings: &Settings,
        config: &Config,
        request: &[u8],
        only: Option<u32>,
    ) -> anyhow::Result<()> {
        let ask = |broker: &BrokerConfig| broker::ask_partitions(broker, &self.subject, request.to_vec(), only);
        let PartitionReplies { partitions, mut of_partitions, of_whole } = self.ask(settings, config, ask)?;
        let (mut rows, mut silent, mut errors) = (Vec::new(), Vec::new(), BTreeMap::<String, Vec<u32>>::new());
        let wanted = match (of_whole, only) {
            (Some(_), Some(_)) => anyhow::bail!("{}: the collector that answers has no partitions", self.subject),
            (Some(reply), None) => {
                match self.answer(reply)? {
                    Answer::Rows(all) => rows = all,
                    Answer::Other(_) => anyhow::bail!("{}: the reply has no rows", self.subject),
                }
                0..0
            }
            (None, Some(number)) => number..number + 1,
            (None, None) => 0..partitions,
        };
        for number in wanted {
            match of_partitions.remove(&number).map(|reply| self.answer(reply)) {
                None => silent.push(number),
                Some(Ok(Answer::Rows(more))) => rows.extend(more),
                Some(Ok(Answer::Other(_))) => errors.entry("its reply has no rows".into()).or_default().push(number),
                Some(Err(error)) => errors.entry(error.to_string()).or_default().push(number),
            }
        }
        if let Some(column) = &self.order {
            merge::sort(&mut rows, column, self.descending)?;
        }
        rows.truncate(self.limit.unwrap_or(usize::MAX));
        let mut failed = merge::failures(errors);
        if !silent.is_empty() {
            let within = humantime::format_duration(config.broker.timeout);
            failed.insert(0, format!("no answer of {} within {within}", merge::shown(&silent)));
        }
        if failed.is_empty() || !rows.is_empty() {
            self.print(&rows)?;
        }
        anyhow::ensure!(failed.is_empty(), "{}: rows are missing: {}", self.subject, failed.join("; "));
        Ok(())
    }

    /// Sends the request with `send`. While the collector of the database is starting, tries again.
    fn ask<T>(
        &self,
        settings: &Settings,
        config: &Config,
        send: impl Fn(&BrokerConfig) -> Result<Option<T>, Error>,
    ) -> anyhow::Result<T> {
        let is_named = settings.names_servers(&self.broker)?;
        let subject = &self.subject;
        let nobody = Cell::new(None);
        let reply = starting::connect(&config.database.path, config.broker.timeout, is_named, &|| true, || {
            nobody.set(None);
            let broker = settings.for_broker(&self.database, &self.broker)?.broker;
            send(&broker)?.ok_or_else(|| {
                let failure = Failure::passing(nobody_answers(subject, &broker));
                nobody.set(Some(broker));
                failure
            })
        });
        if let (Err(_), Some(broker)) = (&reply, nobody.take())
            && let Some(meant) = meant(subject, &broker, config)
        {
            anyhow::bail!("no collector answers on {subject} at {}{meant}", broker.shown_servers());
        }
        reply.map_err(|error| starting::with_way_out(error, config))
    }

    /// What a reply has. An error of the collector is one here.
    fn answer(&self, reply: Reply) -> anyhow::Result<Answer> {
        let (subject, Reply { body, failure, .. }) = (&self.subject, reply);
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
        Ok(serde_json::from_slice(&body).map_or(Answer::Other(body), Answer::Rows))
    }

    fn print(&self, rows: &[Row]) -> anyhow::Result<()> {
        let mut output = Output::new();
        if rows.is_empty() {
            log::info!("no rows");
        } else if self.json {
            print(rows, JsonLines::new(&mut output))?;
        } else if self.csv {
            print(rows, Csv::new(&mut output))?;
        } else {
            output.allow_styles();
            print(rows, Tables::new(&mut output))?;
        }
        Ok(output.flush()?)
    }
}

/// What a reply has.
enum Answer {
    Rows(Vec<Row>),
    /// Anything else, unchanged.
    Other(Vec<u8>),
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
    // Then it is not misspelt.
    if known.iter().any(|known| known == subject) {
        return None;
    }
    known.sort();
    known.dedup();
    let meant = did_you_mean(subject, known.iter().map(String::as_str));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Value;

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
