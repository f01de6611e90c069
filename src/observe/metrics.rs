//! The figures as metrics, in the text formats of OpenMetrics and of Prometheus.
//!
//! Names have one prefix and base units. Counters begin at the start of the collector. `docs/monitoring.md` lists them.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::snapshot::{Snapshot, State};
use crate::config::NO_ROUTE;
use crate::pipeline::Distribution;

/// The content type of OpenMetrics, and that of the older text format of Prometheus.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a client reads only the older format: it accepts `text/plain` and says nothing of OpenMetrics.
pub(super) fn wants_old(accept: &str) -> bool {
    accept.contains("text/plain") && !accept.contains("openmetrics")
}

/// The text of OpenMetrics.
pub(super) fn text(snapshot: Snapshot) -> String {
    let mut to = String::with_capacity(16 << 10);
    // Writing to a string does not fail.
    let _ = text::encode(&mut to, &registry(snapshot));
    to
}

/// The older format, and its content type.
pub(super) fn old_text(snapshot: Snapshot) -> (&'static str, String) {
    let mut to = String::with_capacity(16 << 10);
    let _ = prometheus_text::encode(&mut to, &registry(snapshot));
    (PROMETHEUS, to)
}

fn registry(snapshot: Snapshot) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(snapshot)));
    registry
}

#[derive(Debug)]
struct Exposition(Snapshot);

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        let snapshot = &self.0;
        families.program(snapshot)?;
        families.health(snapshot)?;
        families.events(snapshot)?;
        families.lag(snapshot)?;
        families.sizes(snapshot)?;
        families.database(snapshot)?;
        families.routes(snapshot)?;
        families.queries(snapshot)?;
        families.upkeep(snapshot)?;
        families.process(snapshot)
    }
}

/// Writes families of metrics.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: &impl EncodeGaugeValue,
    ) -> Result<(), Error> {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(value)
    }

    fn histogram(&mut self, name: &str, help: &str, unit: Option<&Unit>, values: &Distribution) -> Result<(), Error> {
        encode(self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?, values)
    }

    /// A counter for each of these label values.
    fn counters<'l, V: EncodeCounterValue>(
        &mut self,
        (name, help, unit, label): (&str, &str, Option<&Unit>, &str),
        values: impl Iterator<Item = (&'l str, V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (of, value) in values {
            family.encode_family(&[(label, of)])?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn program(&mut self, Snapshot { program, source, .. }: &Snapshot) -> Result<(), Error> {
        let labels = [
            ("version", program.version.as_str()),
            ("sqlite", program.sqlite.as_str()),
            ("mode", source.mode.as_str()),
            ("stream", source.stream.as_deref().unwrap_or_default()),
        ];
        let help = "The program, and what it collects";
        self.0.encode_descriptor("catchment_build", help, None, MetricType::Info)?.encode_info(&labels)?;
        self.gauge("catchment_uptime", "How long the collector runs", Some(&Unit::Seconds), &program.up_seconds)
    }

    fn health(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let number = |is_so: bool| u64::from(is_so);
        self.gauge(
            "catchment_ready",
            "1 if the collector makes progress, as /readyz answers",
            None,
            &number(snapshot.ready),
        )?;
        let is_degraded = !matches!(snapshot.state, State::Well);
        self.gauge(
            "catchment_degraded",
            "1 if something is wrong, also if it is still ready",
            None,
            &number(is_degraded),
        )?;
        let is_connected = snapshot.source.connected.is_some();
        self.gauge("catchment_connected", "1 while there is a connection to the broker", None, &number(is_connected))?;
        let reconnects = snapshot.source.reconnects;
        self.counter("catchment_reconnects", "Connections or consumers that were made again", reconnects)
    }

    fn events(&mut self, Snapshot { totals, .. }: &Snapshot) -> Result<(), Error> {
        for (name, help, value) in [
            ("catchment_events_received", "Events received", totals.received),
            ("catchment_received_bytes", "Bytes of subjects, headers and payloads received", totals.received_bytes),
            ("catchment_rows_committed", "Events committed, dead letters included", totals.committed),
            ("catchment_committed_bytes", "Bytes of subjects, headers and payloads committed", totals.committed_bytes),
            ("catchment_batches_committed", "Batches committed, each in one transaction", totals.batches),
            ("catchment_commit_failures", "Attempts to commit that failed and were made again", totals.commit_failures),
            ("catchment_duplicates", "Events skipped because they are stored already", totals.duplicates),
            ("catchment_dead_letters", "Events committed as dead letters", totals.dead_letters),
            ("catchment_dropped", "Events of core NATS dropped because the buffer was full", totals.dropped),
            ("catchment_unmatched_dropped", "Events dropped because no route takes them", totals.unmatched_dropped),
            ("catchment_delete_markers_skipped", "Delete markers skipped", totals.markers_skipped),
            (
                "catchment_confirmations_dropped",
                "Requested confirmations that were not sent",
                totals.confirmations_dropped,
            ),
            ("catchment_lost_events", "Events that the stream deleted before they were collected", totals.lost),
        ] {
            self.counter(name, help, value)?;
        }
        Ok(())
    }

    fn lag(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let Snapshot { lag, queue, .. } = snapshot;
        for (name, help, value) in [
            (
                "catchment_consumer_num_pending",
                "Events still to be delivered, as the broker last reported",
                lag.pending,
            ),
            ("catchment_consumer_num_ack_pending", "Deliveries that are not acknowledged", lag.ack_pending),
            ("catchment_consumer_num_redelivered", "Deliveries that were sent again", lag.redelivered),
            ("catchment_queue_events", "Events received and not committed", queue.events),
        ] {
            self.gauge(name, help, None, &value)?;
        }
        let bytes = Some(&Unit::Bytes);
        self.gauge("catchment_queue", "Bytes of the events received and not committed", bytes, &queue.bytes)?;
        let seconds = Some(&Unit::Seconds);
        if let Some(behind) = lag.behind_seconds {
            let help = "Age of the last committed event while events wait; 0 while none do";
            self.gauge("catchment_lag", help, seconds, &behind)?;
        }
        if let Some(position) = &snapshot.position {
            self.gauge(
                "catchment_stream_epoch",
                "The stream's epoch in this database",
                None,
                &u64::from(position.epoch),
            )?;
            self.gauge("catchment_stream_sequence", "Sequence of the last committed event", None, &position.sequence)?;
        }
        let last = snapshot.last_commit_unix_seconds.unwrap_or(0.0);
        self.gauge(
            "catchment_last_commit_timestamp",
            "When the last batch was committed; 0 before the first",
            seconds,
            &last,
        )
    }

    fn sizes(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let seconds = Some(&Unit::Seconds);
        let values = &snapshot.commit_seconds.all;
        self.histogram("catchment_commit_duration", "How long the successful commits took", seconds, values)?;
        let values = &snapshot.batch_events.all;
        self.histogram("catchment_batch_events", "How many events the committed batches had", None, values)?;
        let values = &snapshot.publish_to_commit_seconds.all;
        self.histogram(
            "catchment_publish_to_commit",
            "How long after its publishing each event was committed",
            seconds,
            values,
        )
    }

    fn database(&mut self, Snapshot { database, dead_letters, .. }: &Snapshot) -> Result<(), Error> {
        let bytes = Some(&Unit::Bytes);
        self.gauge("catchment_database_size", "Size of the database file", bytes, &database.file_bytes)?;
        self.gauge("catchment_wal_size", "Size of the file -wal", bytes, &database.wal_bytes)?;
        for (name, help, value) in [
            ("catchment_wal_pages", "Pages in the WAL after the last commit", u64::from(database.wal_pages)),
            (
                "catchment_wal_pages_copied",
                "Pages of the WAL that are copied into the database",
                database.wal_pages_copied.into(),
            ),
            ("catchment_database_pages", "Pages of the database", database.pages),
            ("catchment_database_free_pages", "Pages of the database that are in use for nothing", database.free_pages),
        ] {
            self.gauge(name, help, None, &value)?;
        }
        if let Some(free) = database.disk_free_bytes {
            self.gauge("catchment_disk_free", "Free space on the disk of the database", bytes, &free)?;
        }
        match dead_letters.stored {
            Some(stored) => {
                let help = "Dead letters that are stored; at most 100,000 are counted";
                self.gauge("catchment_stored_dead_letters", help, None, &stored)
            }
            None => Ok(()),
        }
    }

    fn routes(&mut self, Snapshot { routes, .. }: &Snapshot) -> Result<(), Error> {
        let named = || routes.iter().map(|route| (route.name.as_deref().unwrap_or(NO_ROUTE), route));
        let family = ("catchment_route_events", "Events committed, dead letters included", None, "route");
        self.counters(family, named().map(|(name, route)| (name, route.events)))?;
        let family = ("catchment_route_dead_letters", "Events committed as dead letters", None, "route");
        self.counters(family, named().map(|(name, route)| (name, route.dead_letters)))?;
        let family = ("catchment_route", "Time spent in the route's statements", Some(&Unit::Seconds), "route");
        self.counters(family, named().map(|(name, route)| (name, route.spent_seconds)))
    }

    fn queries(&mut self, Snapshot { queries, .. }: &Snapshot) -> Result<(), Error> {
        if queries.is_empty() {
            return Ok(());
        }
        let named = || queries.iter().map(|query| (query.name.as_str(), query));
        let family = ("catchment_query_requests", "Requests answered, errors included", None, "query");
        self.counters(family, named().map(|(name, query)| (name, query.requests)))?;
        let family = ("catchment_query_errors", "Requests answered with an error", None, "query");
        self.counters(family, named().map(|(name, query)| (name, query.errors)))?;
        let help = "How long answers took, without the time in the queue";
        let kind = MetricType::Histogram;
        let mut family = self.0.encode_descriptor("catchment_query_duration", help, Some(&Unit::Seconds), kind)?;
        for (name, query) in named() {
            encode(family.encode_family(&[("query", name)])?, &query.duration_seconds)?;
        }
        Ok(())
    }

    fn upkeep(&mut self, Snapshot { upkeep, retention, .. }: &Snapshot) -> Result<(), Error> {
        let seconds = Some(&Unit::Seconds);
        let named = || upkeep.iter().map(|job| (job.name.as_str(), job));
        let family = ("catchment_upkeep_runs", "Runs of the task without an error", None, "task");
        self.counters(family, named().map(|(name, job)| (name, job.runs)))?;
        let family = ("catchment_upkeep_failures", "Runs of the task that failed", None, "task");
        self.counters(family, named().map(|(name, job)| (name, job.failures)))?;
        let help = "1 if the task's last run failed";
        let mut family = self.0.encode_descriptor("catchment_upkeep_failing", help, None, MetricType::Gauge)?;
        for (name, job) in named() {
            family.encode_family(&[("task", name)])?.encode_gauge(&u64::from(job.error.is_some()))?;
        }
        let help = "When the task's last run without an error ended; 0 before the first";
        let mut family =
            self.0.encode_descriptor("catchment_upkeep_last_run_timestamp", help, seconds, MetricType::Gauge)?;
        for (name, job) in named() {
            family.encode_family(&[("task", name)])?.encode_gauge(&job.last_unix_seconds.unwrap_or(0.0))?;
        }
        let family = ("catchment_retention_rows", "Rows that retention deleted", None, "table");
        self.counters(family, retention.rows.iter().map(|(table, rows)| (table.as_str(), *rows)))?;
        let help = "Rows that were added to an archive before they were deleted";
        self.counter("catchment_retention_archived_rows", help, retention.archived_rows)?;
        let help = "Bytes of pages that became free";
        self.counter("catchment_retention_freed_bytes", help, retention.freed_bytes)?;
        let help = "Bytes of pages that were given back to the file system";
        self.counter("catchment_retention_returned_bytes", help, retention.returned_bytes)?;
        let help = "The longest transaction of retention";
        let longest = &retention.longest_transaction_seconds;
        self.gauge("catchment_retention_longest_transaction", help, seconds, longest)
    }

    /// The names that the client libraries of Prometheus have for a process.
    fn process(&mut self, Snapshot { process, .. }: &Snapshot) -> Result<(), Error> {
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        let mut cpu = self.0.encode_descriptor(
            "process_cpu",
            "CPU time in user and system mode",
            seconds,
            MetricType::Counter,
        )?;
        cpu.encode_counter::<NoLabelSet, _, u64>(&process.cpu_seconds, None)?;
        self.gauge("process_resident_memory", "Resident memory", bytes, &process.resident_bytes)?;
        self.gauge("process_virtual_memory", "Virtual memory", bytes, &process.virtual_bytes)?;
        self.gauge("process_threads", "Threads", None, &process.threads)?;
        self.gauge("process_open_fds", "Open file descriptors", None, &process.open_files)?;
        if let Some(most) = process.max_open_files {
            self.gauge("process_max_fds", "The most file descriptors that may be open", None, &most)?;
        }
        self.gauge("process_start_time", "When the process started", seconds, &process.started_unix_seconds)
    }
}

fn encode(mut metric: MetricEncoder<'_>, values: &Distribution) -> Result<(), Error> {
    let buckets: Vec<(f64, u64)> = values.buckets().collect();
    metric.encode_histogram::<NoLabelSet>(values.sum(), values.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::observe::Observer;
    use crate::observe::snapshot::{QueryFigures, RouteFigures};
    use crate::pipeline::Histogram;

    fn snapshot() -> Snapshot {
        let mut snapshot = Observer::new(&Config::default()).snapshot();
        snapshot.totals.committed = 1_234;
        let histogram = Histogram::of_commits();
        histogram.add(3_000_000);
        snapshot.commit_seconds.all = histogram.distribution();
        let route = |name: Option<&str>| RouteFigures {
            name: name.map(str::to_owned),
            events: 7,
            dead_letters: 1,
            spent_seconds: 0.5,
        };
        snapshot.routes = vec![route(Some("a \"b\"\n")), route(None)];
        let duration_seconds = Histogram::of_queries().distribution();
        snapshot.queries =
            vec![QueryFigures { name: "q".into(), requests: 3, errors: 1, last_error: None, duration_seconds }];
        snapshot
    }

    #[test]
    fn names_have_units_and_counters_their_ending() {
        let text = text(snapshot());
        for line in [
            "catchment_rows_committed_total 1234",
            "# TYPE catchment_commit_duration_seconds histogram",
            "# UNIT catchment_commit_duration_seconds seconds",
            "catchment_commit_duration_seconds_bucket{le=\"0.0025\"} 0",
            "catchment_commit_duration_seconds_bucket{le=\"0.005\"} 1",
            "catchment_commit_duration_seconds_bucket{le=\"+Inf\"} 1",
            "catchment_commit_duration_seconds_sum 0.003",
            "catchment_route_events_total{route=\"a \\\"b\\\"\\n\"} 7",
            "catchment_route_seconds_total{route=\"(none)\"} 0.5",
            "catchment_query_errors_total{query=\"q\"} 1",
            "catchment_queue_bytes 0",
            "catchment_queue_events 0",
            "catchment_ready 0",
            "process_cpu_seconds_total 0.0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in:\n{text}");
        }
        assert!(text.contains("catchment_build_info{version=\"") && text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_client_of_the_older_format_gets_that() {
        let (kind, older) = old_text(snapshot());
        assert_eq!(kind, PROMETHEUS);
        assert!(older.contains("# TYPE catchment_rows_committed_total counter") && !older.contains("# EOF"), "{older}");
        assert!(wants_old("text/plain;version=0.0.4") && !wants_old("") && !wants_old("*/*"));
        assert!(!wants_old("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"));
    }
}
