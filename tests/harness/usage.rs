//! What processes take of the machine, as Linux counts it.

use std::time::Duration;

/// Linux shows times in hundredths of a second, whatever its own clock's rate.
const TICK: Duration = Duration::from_millis(10);

/// Time on a processor, user's and system's, of a process that lives.
pub(crate) fn cpu(process: u32) -> Duration {
    ticks(&process.to_string(), 13)
}

/// The same of all children of this process that have ended.
pub(crate) fn cpu_of_ended_children() -> Duration {
    ticks("self", 15)
}

fn ticks(process: &str, field: usize) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is the program's name, in brackets, and may hold anything.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 2).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    TICK * (number(field) + number(field + 1))
}

/// The most memory that a process has had at a time, in MiB; 0 when it has ended.
pub(crate) fn peak_mib(process: u32) -> u64 {
    memory(process, "VmHWM:")
}

/// The memory that a process has now, in MiB.
pub(crate) fn resident_mib(process: u32) -> u64 {
    memory(process, "VmRSS:")
}

fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
