//! When events were recorded, and what that says of the clock: recorded times never run backwards, so
//! after a clock that ran ahead all later events carry the time that it showed.

use std::sync::Arc;
use std::time::Duration;

use dramatis_events::{Position, UnixMillis};

use crate::clock::{Clock as _, SystemClock, parse_time, time_text};
use crate::log::{EventLog, Filter, LogError, ReadLimit};

/// The log's last event may be this much ahead of the clock before it is told, milliseconds.
const AHEAD_MS_MAX: i64 = 60_000;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Reads a parameter that is a time, if it is given; the error names it.
pub(super) fn given(parameter: &str, text: Option<&str>) -> Result<Option<UnixMillis>, String> {
    text.map(parse_time).transpose().map_err(|why| format!("{parameter}: {why}"))
}

/// When the event at this position was recorded; `None` if there is none.
pub(super) async fn recorded_at(
    log: &dyn EventLog,
    position: Position,
) -> Result<Option<UnixMillis>, LogError> {
    let after = position.to_engine().checked_sub(1).map(Position::from_engine);
    let page = log.read_all(after, Filter::default(), ReadLimit::events(1)).await?;
    Ok(page.events.first().map(|event| event.recorded_at))
}

/// When the log's last event was recorded. Why a log cannot be read is told elsewhere.
pub(super) async fn last_recorded(log: &dyn EventLog) -> Option<UnixMillis> {
    let head = (*log.head().borrow())?;
    recorded_at(log, head).await.ok()?
}

/// What operators are to know if the log is ahead of the clock.
pub(super) async fn ahead_of(log: &dyn EventLog, now: UnixMillis) -> Option<String> {
    let last = last_recorded(log).await?;
    let ahead_ms = last.get().saturating_sub(now.get());
    (ahead_ms > AHEAD_MS_MAX).then(|| {
        format!(
            "the last event was recorded at {}, {} s ahead of the clock: all others carry that time until the \
             clock gets there",
            time_text(last),
            ahead_ms / 1_000
        )
    })
}

/// Logs once whenever the log has come to be ahead of the clock. It never ends.
pub(crate) async fn watch(log: Arc<dyn EventLog>) {
    let (mut looks, mut told) = (tokio::time::interval(LOOK_EVERY), false);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let ahead = ahead_of(&*log, SystemClock.now()).await;
        if let (Some(why), false) = (&ahead, told) {
            tracing::warn!("{why}");
        }
        told = ahead.is_some();
    }
}
