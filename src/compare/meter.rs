//! What a process used, from the kernel's `/proc`: <https://man7.org/linux/man-pages/man5/proc.5.html>.
//!
//! Read before the first event and after the last commit, so that starting and stopping do not count.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use super::Process;

/// The processes of a run with their roles. Several may have the same role.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(pub(super) Vec<(&'static str, u32)>);

/// What they had used at one moment, in the same order.
#[derive(Debug)]
pub(super) struct Reading(Vec<Usage>);

#[derive(Debug, Default)]
struct Usage {
    cpu: Duration,
    /// Clock ticks, user and system, for the share of each.
    ticks: (u64, u64),
    switches: Option<(u64, u64)>,
    written: Option<u64>,
    peak: Option<u64>,
}

impl Meters {
    pub(super) fn read(&self) -> Reading {
        Reading(self.0.iter().map(|(_, pid)| usage(*pid)).collect())
    }

    /// CPU seconds since an earlier reading, by role.
    pub(super) fn cpu_since(&self, before: &Reading) -> BTreeMap<String, f64> {
        self.since(before).into_iter().map(|(role, process)| (role, process.cpu_s)).collect()
    }

    /// What was used since an earlier reading, by role.
    pub(super) fn since(&self, before: &Reading) -> BTreeMap<String, Process> {
        let mut all: BTreeMap<String, Process> = BTreeMap::new();
        for (((role, _), before), now) in self.0.iter().zip(&before.0).zip(&self.read().0) {
            let used = process(before, now);
            match all.get_mut(*role) {
                Some(sum) => add(sum, &used),
                None => drop(all.insert((*role).to_owned(), used)),
            }
        }
        all
    }
}

/// Adds what a further process of the same role used. What was not measured for one of them is not known for all.
fn add(sum: &mut Process, other: &Process) {
    let both = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
    sum.cpu_s += other.cpu_s;
    sum.system_s += other.system_s;
    sum.voluntary_switches = both(sum.voluntary_switches, other.voluntary_switches);
    sum.involuntary_switches = both(sum.involuntary_switches, other.involuntary_switches);
    sum.written = both(sum.written, other.written);
    sum.peak_memory = both(sum.peak_memory, other.peak_memory);
}

fn process(before: &Usage, now: &Usage) -> Process {
    let less = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before.unwrap_or(0)));
    let cpu_s = now.cpu.saturating_sub(before.cpu).as_secs_f64();
    let (user, system) = (now.ticks.0.saturating_sub(before.ticks.0), now.ticks.1.saturating_sub(before.ticks.1));
    let share = if user + system == 0 { 0.0 } else { system as f64 / (user + system) as f64 };
    Process {
        cpu_s,
        system_s: cpu_s * share,
        voluntary_switches: less(now.switches.map(|of| of.0), before.switches.map(|of| of.0)),
        involuntary_switches: less(now.switches.map(|of| of.1), before.switches.map(|of| of.1)),
        written: less(now.written, before.written),
        peak_memory: now.peak,
        ..Process::default()
    }
}

fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Usage {
        cpu: cpu(pid),
        ticks: ticks(pid).unwrap_or_default(),
        switches: switches(pid),
        written: fs::read_to_string(format!("/proc/{pid}/io")).ok().and_then(|io| number(&io, "write_bytes:")),
        peak: number(&status, "VmHWM:").map(|kib| kib * 1024),
    }
}

/// CPU time of all threads, ended ones included, to the nanosecond.
fn cpu(pid: u32) -> Duration {
    let clock = i32::try_from(pid).ok().and_then(|pid| ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok());
    clock.and_then(|clock| clock.now().ok()).map_or(Duration::ZERO, Duration::from)
}

fn ticks(pid: u32) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain anything: utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Of all running threads: `/proc/PID/status` has only those of the first thread. An application, whose producer threads end,
/// counts its own.
fn switches(pid: u32) -> Option<(u64, u64)> {
    let mut sum = (0, 0);
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        sum.0 += number(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        sum.1 += number(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Some(sum)
}

fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_has_its_usage() {
        // Other tests of this process run meanwhile: what is read first before the work has used the most after it.
        let meters = Meters(vec![("other", std::process::id()), ("application", std::process::id()), ("other", 1)]);
        let before = meters.read();
        let until = std::time::Instant::now() + Duration::from_millis(60);
        let mut turns = 0_u64;
        while std::time::Instant::now() < until {
            turns = std::hint::black_box(turns + 1);
        }
        let used = &meters.since(&before)["application"];
        assert!(used.cpu_s > 0.0, "{used:?}");
        assert!(used.voluntary_switches.is_some() && used.involuntary_switches.is_some(), "{used:?}");
        assert!(used.peak_memory.is_some_and(|bytes| bytes > 1 << 20), "{used:?}");
        assert!(used.system_s <= used.cpu_s && used.syscalls.is_none(), "{used:?}");
        // Those of one role are added up.
        assert!(meters.since(&before)["other"].cpu_s >= used.cpu_s);
    }
}
