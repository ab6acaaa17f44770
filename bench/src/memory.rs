//! What a process occupies, as the system tells it.

use anyhow::Context as _;

/// A figure of a process's memory, KiB: `VmRSS` what is resident, `VmHWM` the most that ever was.
/// The process is named by its number, or `self`.
pub(crate) fn kib(process: &str, figure: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("expected {path}"))?;
    parse(&status, figure).with_context(|| format!("expected a line {figure} in {path}"))
}

fn parse(status: &str, figure: &str) -> Option<f64> {
    let of = |line: &str| Some(line.strip_prefix(figure)?.strip_prefix(':')?.trim().to_owned());
    status.lines().find_map(of)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let status = "Name:\tserver\nVmRSSX:\t 1 kB\nVmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(parse(status, "VmRSS"), Some(8_192.0));
        assert_eq!(parse(status, "VmHWM"), Some(9_000.0));
        assert_eq!(parse(status, "VmSwap"), None);
    }
}
