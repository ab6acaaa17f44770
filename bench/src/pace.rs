//! Commands sent at a fixed rate, whether or not anybody answers, on a thread of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;

use crate::link::Link;
use crate::report::Latencies;
use crate::stage::{Composer, Stopwatch};

/// Who posts, and when.
pub(crate) struct Load {
    pub(crate) posters: Vec<(Link, Composer)>,
    pub(crate) watch: Stopwatch,
    /// Commands a second.
    pub(crate) rate: u32,
    /// Commands due before this moment are not counted.
    pub(crate) from_nanos: u64,
}

/// Sends for so long, while these tasks read; none of them may end before. How late each command
/// that counts was sent.
pub(crate) async fn send_for<T: 'static>(
    load: Load,
    time: Duration,
    readers: &mut JoinSet<anyhow::Result<T>>,
) -> anyhow::Result<Latencies> {
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let stop = stop.clone();
        std::thread::spawn(move || send_on_time(load, &stop))
    };
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        ended = readers.join_next() => {
            ended.context("expected readers")???;
            bail!("a client ended before the round did");
        }
    }
    stop.store(true, Ordering::Relaxed);
    sender.join().map_err(|_| anyhow::anyhow!("the sending thread broke"))?
}

/// Sends each command when it is due, rooms in turn.
fn send_on_time(load: Load, stop: &AtomicBool) -> anyhow::Result<Latencies> {
    let Load { mut posters, watch, rate, from_nanos } = load;
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
