//! What a process occupies, as the system tells it.

use std::time::Duration;

use anyhow::Context as _;

/// A figure of a process's memory, KiB: `VmRSS` what is resident, `VmHWM` the most that ever was.
/// The process is named by its number, or `self`.
pub(crate) fn kib(process: &str, figure: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("expected {path}"))?;
    parse(&status, figure).with_context(|| format!("expected a line {figure} in {path}"))
}

/// Time that a process spent on processors, in user and system mode; in steps of 10 ms.
pub(crate) fn busy(process: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("expected {path}"))?;
    let ticks = ticks(&stat).with_context(|| format!("expected times in {path}"))?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// A tick of the system's clock, milliseconds.
const TICK_MS: u64 = 10;

/// The 14th and 15th field; the second is a name in brackets that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn parse(status: &str, figure: &str) -> Option<f64> {
    let of = |line: &str| Some(line.strip_prefix(figure)?.strip_prefix(':')?.trim().to_owned());
    status.lines().find_map(of)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        assert_eq!(ticks("7 (a) b) S 1 7 7 0 -1 4194560 90 0 0 0 12 30 0 0 20 0"), Some(42));
    }

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let status = "Name:\tserver\nVmRSSX:\t 1 kB\nVmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(parse(status, "VmRSS"), Some(8_192.0));
        assert_eq!(parse(status, "VmHWM"), Some(9_000.0));
        assert_eq!(parse(status, "VmSwap"), None);
    }
}
