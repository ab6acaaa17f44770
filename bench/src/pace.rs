//! Commands sent at a fixed rate, whether or not anybody answers, on a thread of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::link::Link;
use crate::report::Latencies;
use crate::stage::{Composer, Stopwatch};

/// Sends each command when it is due, rooms in turn.
pub(crate) fn send_on_time(
    mut posters: Vec<(Link, Composer)>,
    watch: Stopwatch,
    rate: u32,
    from_nanos: u64,
    stop: &AtomicBool,
) -> anyhow::Result<Latencies> {
    let (mut sent, mut frame) = (Latencies::new()?, Vec::new());
    let start = watch.nanos();
    let count = posters.len();
    for number in 0_u64.. {
        let due = start + number * 1_000_000_000 / u64::from(rate);
        let now = watch.nanos();
        if now < due {
            std::thread::sleep(Duration::from_nanos(due - now));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let turn = usize::try_from(number)? % count;
        let (link, composer) = posters.get_mut(turn).context("a poster")?;
        frame.clear();
        composer.post(&mut frame, due);
        ensure!(link.try_send(&frame)?, "a socket had no room for a command: try a lower --rate");
        if due >= from_nanos {
            sent.record(watch.nanos() - due);
        }
    }
    Ok(sent)
}
