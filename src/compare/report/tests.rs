//! Reports of an invented comparison, of one with missing parts, and of an empty one.

mod fixture;

use self::fixture::comparison;
use super::*;
use crate::compare::{Arm, ArmReport, Comparison, Options, statistics};

/// The counterparts of the rows of the earlier study.
const ROWS: [&str; 14] = [
    "Total time for 10,000 events, s",
    "Throughput, events/s",
    "Instructions an event",
    "System calls an event",
    "Voluntary switches an event",
    "Involuntary switches an event",
    "CPU an event, all processes, µs",
    "CPU percent",
    "Idle CPU",
    "Bytes written an event",
    "Syncs a thousand events",
    "Peak memory",
    "Commit latency, p99.9, ms",
    "Events lost",
];

fn again(mut comparison: Comparison) -> Comparison {
    comparison.ratios = statistics::ratios(&comparison.arms, comparison.settings.seed);
    comparison.verdict = verdict(&comparison);
    comparison
}

fn arm(comparison: &mut Comparison, which: Arm) -> &mut ArmReport {
    comparison.arms.iter_mut().find(|arm| arm.arm == which).expect("in the fixture")
}

fn skip(comparison: &mut Comparison, which: Arm) {
    let arm = arm(comparison, which);
    (arm.runs, arm.again, arm.latency, arm.idle) = (Vec::new(), Vec::new(), None, None);
    arm.skipped = Some("not asked for".into());
}

/// A comparison without runs.
fn bare() -> Comparison {
    let mut bare = comparison();
    bare.arms.clear();
    (bare.costs, bare.axes, bare.stalls, bare.isolations, bare.hotspots) = Default::default();
    bare.outages.clear();
    again(bare)
}

fn all_of(verdict: &crate::compare::Verdict) -> String {
    let lists = [&verdict.direct_when, &verdict.nats_when, &verdict.caveats];
    let sentences = lists.into_iter().flatten().cloned();
    std::iter::once(verdict.headline.clone()).chain(sentences).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_row_of_the_study_is_everywhere() {
    let comparison = comparison();
    for text in [terminal(&comparison, 200), terminal(&comparison, 80), markdown(&comparison), html(&comparison)] {
        for row in ROWS {
            assert!(text.contains(row), "{row} is missing in:\n{text}");
        }
    }
}

#[test]
fn an_absent_figure_has_its_reason() {
    let comparison = comparison();
    for text in [terminal(&comparison, 200), markdown(&comparison), html(&comparison)] {
        assert!(text.contains("not measured"), "{text}");
        assert!(text.contains("perf_event_paranoid") || text.contains("perf\\_event"), "{text}");
        assert!(text.contains("2.9 has no"), "why an arm was skipped: {text}");
    }
    let overview = overview::overview(&comparison);
    let instructions = overview.rows.iter().find(|row| row.name.starts_with("Instructions")).unwrap();
    assert!(instructions.values.iter().all(|value| value == "not measured [1]"));
    assert_eq!(overview.notes[0], "Not measured: instructions: perf_event_paranoid is 4 here.");
    let collector = overview.rows.iter().find(|row| row.measure == "- collector").unwrap();
    assert_eq!(collector.values[0], "–", "this arm has no collector");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [60, 80, 120, 200] {
        let text = terminal(&comparison(), width);
        let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() <= width, "{width}: {longest}");
    }
}

#[test]
fn an_empty_comparison_has_a_report() {
    let bare = bare();
    for text in [terminal(&bare, 80), markdown(&bare), html(&bare)] {
        assert!(text.contains("direct and NATS cannot be compared"), "{text}");
    }
    well_formed(&html(&bare));
}

#[test]
fn json_is_read_again_without_loss() {
    let comparison = comparison();
    let text = json(&comparison);
    assert!(json(&from_json(&text).unwrap()) == text);
    let other = text.replacen("\"format\": 2", "\"format\": 7", 1);
    assert!(from_json(&other).unwrap_err().to_string().contains("format 7"));
    assert!(from_json("[]").is_err());
}

#[test]
fn markdown_has_the_order_of_the_study() {
    let text = markdown(&comparison());
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let expected = [
        "Summary",
        "Method",
        "Results",
        "When the database fails",
        "When the broker is away",
        "Top hotspots",
        "Breakdown of the NATS-specific work",
        "Why CPU percent and CPU seconds disagree",
        "Recommendation",
        "Raw data",
    ];
    assert_eq!(headings, expected);
    assert!(text.contains("&lt;virtual&gt; &amp;"), "escaped");
    assert!(text.contains("](flamegraphs/direct%20grouped.svg)"));
    for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        assert!(table.lines().all(|line| columns(line) == columns(table.lines().next().unwrap())), "{table}");
    }
}

#[test]
fn the_page_is_well_formed_and_fetches_nothing() {
    let page = html(&comparison());
    well_formed(&page);
    for reference in ["http:", "https:", "src=", "url(", "@import", "<script", "<link", "href=\"/"] {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(page.contains("href=\"flamegraphs/direct%20grouped.svg\""));
    assert!(page.contains("&lt;virtual&gt; &amp; &quot;shared&quot;"));
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
    // Throughput, CPU, latency, stored over time, two of short and long runs, three settings varied.
    assert_eq!(page.matches("<figure>").count(), 9);
    assert_eq!(page.matches("<desc id=").count(), 9);
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn a_flamegraph_elsewhere_is_not_linked() {
    let mut comparison = comparison();
    comparison.hotspots[0].flamegraph = Some("/tmp/a.svg".into());
    comparison.hotspots[1].flamegraph = Some("javascript:alert(1)".into());
    let page = html(&comparison);
    assert!(!page.contains("href=\"/tmp") && !page.contains("href=\"javascript:"));
    assert!(page.contains("href=\"javascript%3Aalert%281%29\""), "a file name, not a script");
}

/// Every element that is opened is closed in its order, and every `&` begins an entity.
fn well_formed(page: &str) {
    let without_style = {
        let (before, rest) = page.split_once("<style>").unwrap();
        format!("{before}{}", rest.split_once("</style>").unwrap().1)
    };
    let mut open: Vec<&str> = Vec::new();
    let mut rest = without_style.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some((text, tag)) = rest.split_once('<') {
        for entity in text.split('&').skip(1) {
            assert!(entity.split(';').next().is_some_and(|name| name.len() < 6) && entity.contains(';'), "&{entity}");
        }
        assert!(!text.contains('>'), "{text}");
        let (tag, after) = tag.split_once('>').unwrap();
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed");
        } else if !tag.ends_with('/') && !tag.starts_with("meta") {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            open.push(tag.split([' ', '\n']).next().unwrap());
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn the_verdict_has_the_figures_of_the_tables() {
    let comparison = comparison();
    let verdict = &comparison.verdict;
    assert!(verdict.headline.starts_with("For speed, stay direct"), "{}", verdict.headline);
    let overview = overview::overview(&comparison);
    let throughput = overview.rows.iter().find(|row| row.name.starts_with("Throughput")).unwrap();
    for arm in [1, 3] {
        assert!(verdict.headline.contains(&throughput.values[arm]), "{}", verdict.headline);
    }
    // Faster than one by one, slower than in groups: the verdict has both, each in its list.
    assert!(
        verdict.nats_when.iter().any(|sentence| sentence.starts_with("JetStream is faster than committing one by one"))
    );
    assert!(
        verdict
            .direct_when
            .iter()
            .any(|sentence| sentence.starts_with("JetStream is slower than committing in groups"))
    );
    assert!(
        verdict
            .nats_when
            .iter()
            .any(|sentence| sentence.contains("database was locked") && sentence.contains("410 µs")),
        "{verdict:?}"
    );
    assert!(
        verdict
            .nats_when
            .iter()
            .any(|sentence| sentence.contains("database side was dead") && sentence.contains("6,000 of 6,000 live"))
    );
    let caveats = verdict.caveats.join("\n");
    assert!(caveats.contains("Core NATS lost 84 of 140,000 events"), "{caveats}");
    for words in
        ["different promises", "series of the same arm", "perf_event_paranoid", "sync always was not run", "2 cores"]
    {
        assert!(caveats.contains(words), "{words}: {caveats}");
    }
}

#[test]
fn the_verdict_follows_the_numbers() {
    let mut turned = comparison();
    for run in &mut arm(&mut turned, Arm::Jetstream).runs {
        run.total_s /= 10.0;
    }
    let turned = again(turned);
    assert!(turned.verdict.headline.starts_with("NATS was faster"), "{}", turned.verdict.headline);
    assert!(!turned.verdict.direct_when.iter().any(|sentence| sentence.contains("JetStream is slower")));

    let mut same = comparison();
    let grouped = arm(&mut same, Arm::DirectGrouped).runs.clone();
    for (run, direct) in arm(&mut same, Arm::Jetstream).runs.iter_mut().zip(&grouped) {
        run.total_s = direct.total_s;
    }
    let same = again(same);
    assert!(same.verdict.headline.contains("no difference is shown"), "{}", same.verdict.headline);
    assert!(same.verdict.caveats.iter().any(|sentence| sentence.contains("JetStream against committing in groups")));
}

#[test]
fn the_verdict_copes_with_missing_arms() {
    for missing in [Arm::DirectPerEvent, Arm::DirectGrouped, Arm::CoreNats, Arm::Jetstream] {
        let mut comparison = comparison();
        skip(&mut comparison, missing);
        let text = all_of(&again(comparison).verdict);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    let mut only_direct = comparison();
    for nats in [Arm::CoreNats, Arm::Jetstream] {
        skip(&mut only_direct, nats);
    }
    let only_direct = again(only_direct);
    assert!(only_direct.verdict.headline.starts_with("No arm through NATS was measured"));
    assert!(!all_of(&only_direct.verdict).contains("is slower than"));
}

#[test]
fn there_is_no_sum_without_the_broker() {
    let mut comparison = comparison();
    for run in &mut arm(&mut comparison, Arm::Jetstream).runs {
        run.processes.remove("broker");
    }
    let comparison = again(comparison);
    assert!(!comparison.verdict.headline.contains("of CPU"), "{}", comparison.verdict.headline);
    assert!(
        comparison
            .verdict
            .caveats
            .iter()
            .any(|sentence| sentence.contains("The CPU of a process of JetStream was not measured"))
    );
    assert!(html(&comparison).contains("without broker"), "the bar shows it");
}

#[test]
fn an_outage_has_its_table_and_its_sentences() {
    let comparison = comparison();
    let table = tables::outages(&comparison).expect("was measured");
    let row = |name: &str| {
        let found = table.rows.iter().find(|row| row[0] == name);
        found.unwrap_or_else(|| panic!("{name} in {:?}", table.rows))[1..].to_vec()
    };
    assert_eq!(table.head[1..], ["direct, per event", "direct, grouped", "core NATS", "JetStream", "spooled"]);
    assert_eq!(row("Broker away, s"), ["no broker", "no broker", "10.1", "10.1", "10.1"]);
    assert_eq!(row("Events a second"), ["210", "1,000", "1,000", "1,000", "1,000"]);
    assert_eq!(row("Recorded meanwhile")[0], "2,100");
    assert_eq!(row("record(), p50, µs")[2..], ["4.00", "4.00", "4.00"]);
    assert_eq!(row("record(), max, µs"), ["9,100", "310", "402", "415", "280"]);
    assert_eq!(row("Only in memory at its return"), ["0", "0", "9,990", "10,001", "0"]);
    assert_eq!(row("Reported as failed"), ["0", "0", "3", "0", "0"]);
    assert_eq!(row("Lost"), ["0", "0", "118", "0", "0"]);
    assert_eq!(row("Last row after its return, s"), ["0.00400", "0.00400", "0.310", "0.620", "1.25"]);
    for text in [terminal(&comparison, 200), markdown(&comparison), html(&comparison)] {
        assert!(text.contains("When the broker is away") && text.contains("9,990"), "{text}");
    }
    let caveats = &comparison.verdict.caveats;
    for sentence in [
        "The broker was away for 10.1 s (core NATS): the longest call of record() took 402 µs, 9,990 events were only in the \
         application's memory when the broker was back, and 0.310 s after its return the last row was in the database, and 118 of \
         10,500 were missing.",
        "The broker was away for 10.1 s (a spool): the longest call of record() took 280 µs, every event had its receipt when the broker \
         was back, and 1.25 s after its return all 10,500 were in the database.",
    ] {
        assert!(caveats.iter().any(|caveat| caveat == sentence), "{sentence}\n{caveats:#?}");
    }
    assert!(!caveats.iter().any(|caveat| caveat.contains("away for 10.1 s (committing")), "{caveats:#?}");
    let mut without = comparison.clone();
    without.outages.clear();
    let without = again(without);
    assert!(markdown(&without).contains("had no run with an absent broker (--outage 10s)"));
    assert!(without.verdict.caveats.iter().any(|caveat| caveat.contains("while the broker is away was not measured")));
    // A report of an earlier version has no such runs.
    let text = json(&without).replacen("\"outages\": [],", "", 1);
    assert!(from_json(&text).unwrap().outages.is_empty());
}

#[test]
fn few_pairs_are_a_caveat() {
    let mut comparison = comparison();
    for arm in &mut comparison.arms {
        arm.runs.truncate(2);
    }
    let comparison = again(comparison);
    let verdict = &comparison.verdict;
    assert!(
        verdict.headline.starts_with("Too few runs to decide (2 of each arm; 6 are needed)"),
        "{}",
        verdict.headline
    );
    assert!(verdict.caveats.iter().any(|it| it.contains("With 2 runs of an arm nothing is concluded")), "{verdict:?}");
    assert!(!all_of(verdict).contains("is faster than"), "{verdict:?}");
    let text = markdown(&comparison);
    assert!(text.contains("| Range |") && text.contains("too few pairs") && text.contains("(range "), "{text}");
}

#[test]
fn a_comparison_is_no_regression_of_itself() {
    assert_eq!(regressions(&comparison(), &comparison()).unwrap(), Vec::<String>::new());
    assert_eq!(notes(&comparison(), &comparison()), Vec::<String>::new());
}

#[test]
fn a_slower_arm_is_named_and_a_faster_one_is_not() {
    let mut slower = comparison();
    for run in &mut arm(&mut slower, Arm::Jetstream).runs {
        run.total_s *= 1.4;
    }
    for run in &mut arm(&mut slower, Arm::DirectGrouped).runs {
        run.total_s *= 0.5;
    }
    let found = regressions(&slower, &comparison()).unwrap();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("JetStream: throughput was 3") && found[0].contains("noise floor"), "{}", found[0]);
}

#[test]
fn a_difference_within_the_noise_is_no_regression() {
    let mut slightly = comparison();
    for run in &mut arm(&mut slightly, Arm::Jetstream).runs {
        run.total_s *= 1.03;
    }
    assert_eq!(regressions(&slightly, &comparison()).unwrap(), Vec::<String>::new());
}

#[test]
fn other_settings_are_refused_and_other_machines_are_noted() {
    let mut other = comparison();
    arm(&mut other, Arm::Jetstream).events *= 2;
    let refused = regressions(&other, &comparison()).unwrap_err().to_string();
    assert!(refused.contains("its runs of JetStream have 20,000 events, and these have 40,000"), "{refused}");
    let mut other = comparison();
    other.settings.payload *= 2.0;
    assert!(regressions(&other, &comparison()).is_err());
    let mut other = comparison();
    other.format += 1;
    assert!(regressions(&other, &comparison()).is_err());
    let mut other = comparison();
    other.environment.cores = 4;
    skip(&mut other, Arm::Jetstream);
    assert!(regressions(&other, &comparison()).is_ok());
    let notes = notes(&other, &comparison());
    assert_eq!(notes[0], "the cores changed since the baseline: 2 then, 4 now");
    assert!(notes[1].starts_with("JetStream ran in the baseline but not now"));
}

#[test]
fn a_baseline_that_does_not_fit_is_refused_before_anything_is_measured() {
    let baseline = comparison();
    let fitting = Options { seed: baseline.settings.seed, ..Options::default() };
    let mut fits = baseline.clone();
    fits.settings.payload = fitting.settings().payload;
    assert!(check_baseline(&fitting, &fits).is_ok());
    let refused = |options: Options, baseline: &Comparison| check_baseline(&options, baseline).unwrap_err().to_string();
    let other = refused(Options { writers: 3, ..fitting.clone() }, &fits);
    assert!(other.contains("writers is 1 there and 3 here"), "{other}");
    let other = refused(Options { events: Some(7), ..fitting.clone() }, &fits);
    assert!(other.contains("have 20,000 events, and these have 7") && other.contains("leave out --events"), "{other}");
    let other = refused(Options { arms: vec![Arm::JetstreamSyncAlways], ..fitting.clone() }, &fits);
    assert!(other.contains("it has no runs of these arms"), "{other}");
    assert!(refused(fitting, &baseline).contains("payload is 112.4 bytes there"));
}

#[test]
fn every_row_has_one_unit_and_every_label_is_words() {
    let comparison = comparison();
    for row in &overview::overview(&comparison).rows {
        for value in row.values.iter().filter(|value| !value.starts_with("not measured")) {
            assert!(
                !["µs", "ms", " s", "KiB", "MiB", "%"].iter().any(|unit| value.ends_with(unit)),
                "{}: {value}",
                row.name
            );
        }
        let forms = ["%", "×"].map(|form| row.differences.iter().any(|difference| difference.contains(form)));
        assert_ne!(forms, [true, true], "{}: {:?}", row.name, row.differences);
    }
    for text in [terminal(&comparison, 200), markdown(&comparison), html(&comparison)] {
        for key in ["total_s", "cpu_s", "cpu_us", "insert+stats", "messagepack", "sync_interval,"] {
            assert!(!text.contains(key), "{key}");
        }
        assert!(text.contains("Most events of a transaction, JetStream"), "{text}");
    }
}

#[test]
fn the_cost_of_an_event_is_shown_by_the_length_of_the_run() {
    let comparison = comparison();
    let tables = variations::costs(&comparison);
    assert_eq!(tables[0].title, "Time an event, µs");
    assert_eq!(tables[0].head, ["Events of the run", "direct, grouped", "direct, per event"]);
    assert!(
        tables[0].rows[0][1].starts_with("9.95 (9.90 to 10.3)")
            && tables[0].rows[0][2].starts_with("1,990 (1,980 to 2,052)"),
        "{:?}",
        tables[0].rows
    );
    // One run has no range.
    assert_eq!(tables[0].rows[1][2], "1,990");
    let growth = variations::growth(&comparison);
    assert_eq!(
        growth[0],
        "Direct, grouped: with 1,000 events an event takes 9.95 µs (9.95 µs of CPU), with 100,000 events 3.98 µs (3.98 µs of CPU)."
    );
    assert!(html(&comparison).contains("id=\"cost-time-desc\""));
}

#[test]
fn controls_that_disagree_are_said_in_words() {
    let quiet = comparison();
    assert!(variations::agreement(&quiet).unwrap().contains("their intervals overlap"));
    assert_eq!(variations::disagreement(&quiet), None);
    let mut moved = comparison();
    for run in moved.axes.iter_mut().flat_map(|axis| &mut axis.points).flat_map(|point| &mut point.runs) {
        run.total_s *= 1.4;
    }
    let moved = again(moved);
    let caveats = moved.verdict.caveats.join("\n");
    assert!(caveats.contains("another speed here than in the first rounds: JetStream, 31,"), "{caveats}");
    assert!(markdown(&moved).contains("Compare figures of this part only with each other"));
}

#[test]
fn a_profile_of_few_samples_has_no_table() {
    let mut comparison = comparison();
    comparison.hotspots[1].samples = 28;
    for text in [terminal(&comparison, 200), markdown(&comparison), html(&comparison)] {
        assert!(text.contains("at least 200 samples") && text.contains("JetStream, collector: 28 samples"), "{text}");
        assert!(!text.contains("nats::proto::decode"), "{text}");
        assert!(text.contains("direct, grouped, application (512 samples)"), "{text}");
    }
}

#[test]
fn short_runs_and_a_stop_are_said() {
    let comparison = comparison();
    let caveats = comparison.verdict.caveats.join("\n");
    // The fixture's runs take 0.4 s.
    assert!(
        caveats.contains("In runs shorter than a second") && caveats.contains("committing in groups 0.40"),
        "{caveats}"
    );
    assert!(!caveats.contains("committing one by one 4"), "{caveats}");
    let stopped = Comparison { stopped: true, ..comparison };
    assert!(markdown(&stopped).contains("It was stopped before it was done"));
}
