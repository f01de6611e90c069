//! The formats of a report: text, JSON, a monitoring plug-in, Prometheus.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::check::{CheckOptions, Finding, Level, Report};
use serde_json::json;

use crate::cli::flags;
use crate::cli::values::printable;

/// A line of text, flushed at once: the next finding may take a while.
pub fn line(to: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    writeln!(to, "{:<9} {:<12} {}", finding.level.name(), finding.object, sentence(finding))?;
    to.flush()
}

/// The last line of text.
pub fn summary(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(to, "\n{}: {}", report.level().name(), counts(report))
}

/// The number of findings of each level, the worst first.
fn counts(report: &Report) -> String {
    let of = |level| report.findings.iter().filter(|finding| finding.level == level).count();
    let levels = [Level::Critical, Level::Unknown, Level::Warning, Level::Ok].map(|level| (of(level), level.name()));
    let some = levels.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

/// One JSON object, with the permissions if they were checked.
pub fn json(to: &mut dyn Write, report: &Report, permissions: Option<serde_json::Value>) -> io::Result<()> {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            let (what, remedy) = parts(finding);
            json!({ "level": finding.level.name(), "object": finding.object, "what": what, "way_out": remedy })
        })
        .collect();
    let measures: serde_json::Map<_, _> =
        report.measures.iter().map(|measure| (measure.name.to_owned(), measure.value.into())).collect();
    let mut object = json!({ "status": report.level().name(), "findings": findings, "measures": measures });
    if let Some(permissions) = permissions {
        object["permissions"] = permissions;
    }
    writeln!(to, "{object}")
}

/// <https://www.monitoring-plugins.org/doc/guidelines.html>: the worst finding, the measures with their limits, and then the other
/// findings. `|` begins the measures, so it is replaced in text.
pub fn nagios(to: &mut dyn Write, report: &Report, options: &CheckOptions) -> io::Result<()> {
    let plain = |finding: &Finding| format!("{}: {}", finding.object, sentence(finding)).replace('|', "/");
    let level = report.level();
    let worst = report.findings.iter().position(|finding| finding.level == level && level != Level::Ok);
    let first = worst.map_or_else(|| counts(report), |at| plain(&report.findings[at]));
    let numbers: Vec<String> = report
        .measures
        .iter()
        .map(|measure| {
            let (unit, limits) = match measure.name {
                "lag_events" => ("", format!("{};{}", options.lag_warning, options.lag_critical)),
                "disk_free_bytes" => {
                    ("B", format!("{}:;{}:", options.disk_warning.as_u64(), options.disk_critical.as_u64()))
                }
                "dead_letters" => ("", "0;".into()),
                name if name.ends_with("_bytes") => ("B", ";".into()),
                _ => ("", ";".into()),
            };
            format!("{}={}{unit};{limits};0", measure.name, measure.value)
        })
        .collect();
    let numbers = if numbers.is_empty() { String::new() } else { format!(" | {}", numbers.join(" ")) };
    writeln!(to, "CATCHMENT {} - {first}{numbers}", level.name().to_uppercase())?;
    let others = report.findings.iter().enumerate().filter(|(at, _)| Some(*at) != worst);
    others
        .map(|(_, finding)| finding)
        .try_for_each(|finding| writeln!(to, "{}: {}", finding.level.name(), plain(finding)))
}

/// <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub fn prometheus(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut gauge = |name: &str, help: &str, samples: &[(String, u64)]| {
        writeln!(to, "# HELP catchment_check_{name} {help}\n# TYPE catchment_check_{name} gauge")?;
        samples.iter().try_for_each(|(labels, value)| writeln!(to, "catchment_check_{name}{labels} {value}"))
    };
    let statuses = "0 ok, 1 warning, 2 critical, 3 unknown.";
    gauge("status", &format!("The worst status: {statuses}"), &[(String::new(), report.level().status().into())])?;
    let mut objects: BTreeMap<&str, Level> = BTreeMap::new();
    for finding in &report.findings {
        let worst = objects.entry(finding.object).or_insert(Level::Ok);
        *worst = (*worst).max(finding.level);
    }
    let objects =
        objects.into_iter().map(|(object, level)| (format!("{{object=\"{object}\"}}"), level.status().into()));
    gauge("object_status", &format!("The worst status of each object: {statuses}"), &objects.collect::<Vec<_>>())?;
    report.measures.iter().try_for_each(|measure| gauge(measure.name, measure.help, &[(String::new(), measure.value)]))
}

/// A finding in one line, without its level.
fn sentence(finding: &Finding) -> String {
    let (what, remedy) = parts(finding);
    let words = remedy.map_or_else(|| what.clone(), |remedy| format!("{what}; {remedy}"));
    printable(&words.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// What was found and what to do about it, with flags instead of settings in the remedy.
fn parts(finding: &Finding) -> (String, Option<String>) {
    // The remedy of a broker's error may be part of its text.
    let what = if finding.object == "broker" { flags::in_message(&finding.what) } else { finding.what.clone() };
    (what, finding.remedy.as_deref().map(flags::in_remedy))
}

#[cfg(test)]
mod tests {
    use crate::check::finding::Measure;

    use super::*;

    fn report() -> Report {
        let finding = |level, object, what: &str, remedy: Option<&str>| Finding {
            level,
            object,
            what: what.into(),
            remedy: remedy.map(Into::into),
        };
        Report {
            findings: vec![
                finding(Level::Ok, "settings", "valid", None),
                finding(Level::Warning, "dead letters", "3; the newest: a|b", Some("list\nthem")),
                finding(Level::Ok, "dead letters", "x", None),
            ],
            measures: vec![
                Measure { name: "dead_letters", help: "Lost.", value: 3 },
                Measure { name: "disk_free_bytes", help: "Room.", value: 5 },
                Measure { name: "lag_events", help: "Behind.", value: 7 },
            ],
        }
    }

    fn output_of(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut to = Vec::new();
        write(&mut to).expect("writes to memory");
        String::from_utf8(to).expect("UTF-8")
    }

    #[test]
    fn a_finding_is_a_line() {
        let report = report();
        let text = output_of(|to| line(to, &report.findings[1]));
        assert_eq!(text, "warning   dead letters 3; the newest: a|b; list them\n");
        assert_eq!(output_of(|to| summary(to, &report)), "\nwarning: 1 warning, 2 ok\n");
    }

    #[test]
    fn json_has_every_part() {
        let value: serde_json::Value = serde_json::from_str(&output_of(|to| json(to, &report(), None))).expect("JSON");
        assert_eq!((&value["status"], &value["measures"]["lag_events"]), (&json!("warning"), &json!(7)));
        assert_eq!(value["findings"][1]["way_out"], "list\nthem");
        assert_eq!(value["findings"][0]["way_out"], serde_json::Value::Null);
    }

    #[test]
    fn monitoring_reads_the_first_line() {
        let options = CheckOptions::default();
        let text = output_of(|to| nagios(to, &report(), &options));
        let expected = "CATCHMENT WARNING - dead letters: 3; the newest: a/b; list them | dead_letters=3;0;;0 \
                        disk_free_bytes=5B;1073741824:;104857600:;0 lag_events=7;100000;10000000;0\n\
                        ok: settings: valid\nok: dead letters: x\n";
        assert_eq!(text, expected);
        let nothing = output_of(|to| nagios(to, &Report::default(), &options));
        assert_eq!(nothing, "CATCHMENT OK - \n");
    }

    #[test]
    fn the_worst_of_an_object_is_its_status() {
        let text = output_of(|to| prometheus(to, &report()));
        for line in [
            "catchment_check_status 1\n",
            "catchment_check_object_status{object=\"dead letters\"} 1\n",
            "catchment_check_object_status{object=\"settings\"} 0\n",
            "# HELP catchment_check_lag_events Behind.\n# TYPE catchment_check_lag_events gauge\ncatchment_check_lag_events 7\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in:\n{text}");
        }
    }
}
