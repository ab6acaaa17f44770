//! The entity when its log fails it: what is answered, and what it knows afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

mod careless;
mod leaving;
mod snapshots;

use std::sync::Mutex;

use dramatis_events::room::Visibility;
use tokio::sync::oneshot;

use super::*;
use crate::actors::registry::{EntityOptions, Registry};
use crate::clock::SystemClock;
use crate::domain::room::{OpenRoom, Room, RoomCommand, RoomLimits};
use crate::log::memory::MemoryLog;
use crate::snapshots::NoSnapshots;
use crate::telemetry::metrics::Metrics;

/// Rooms over this log and these snapshots, and what they count.
fn rooms_over(
    log: Arc<dyn EventLog>,
    snapshots: Arc<dyn Snapshots>,
    snapshot_every_events: u64,
    idle_timeout: Duration,
) -> (Registry<Room>, EntityMetrics) {
    let metrics = Metrics::default().entity();
    let around = Surroundings {
        log,
        snapshots,
        snapshot_every_events,
        limits: RoomLimits::default(),
        metrics: metrics.clone(),
    };
    let options = EntityOptions { pending_max: 16, idle_timeout };
    (Registry::new(around, options, Vec::new()), metrics)
}

fn room(id: &str) -> StreamId {
    StreamId::parse(&format!("room-main.{id}")).unwrap()
}

/// Hands a command to a room; the answer is to come.
fn submit(
    rooms: &Registry<Room>,
    stream: &StreamId,
    author: &str,
    id: &str,
    command: RoomCommand,
) -> oneshot::Receiver<Answer> {
    let (caller, answer) = oneshot::channel();
    let request = Request {
        id: CommandId::parse(id).unwrap(),
        hash: command.content_hash(stream),
        author: MemberId::parse(author).unwrap(),
        occurred_at: None,
        expected: None,
        cause: None,
        command,
    };
    let pending = Pending { request, reply: ReplyTo::Caller(caller) };
    assert!(rooms.submit(stream, vec![pending]).is_ok());
    answer
}

fn open_room() -> RoomCommand {
    OpenRoom { title: "Lobby".to_owned(), visibility: Visibility::Open }.into()
}

/// Opens a room so many times; each answer's code, or whether it was a duplicate.
fn asked(script: Vec<(bool, AppendError)>, times: usize) -> Vec<Result<bool, ErrorCode>> {
    System::new().block_on(async move {
        // The next appends end as scripted.
        let script = Mutex::new(VecDeque::from(script));
        let log = MemoryLog::new(Arc::new(SystemClock)).failing(move |_| script.lock().unwrap().pop_front());
        let (rooms, _) = rooms_over(Arc::new(log), Arc::new(NoSnapshots), 0, Duration::from_mins(1));
        let mut answers = Vec::new();
        for _ in 0..times {
            let answer = submit(&rooms, &room("lobby"), "alice", "open", open_room());
            let outcome = answer.await.unwrap().outcome;
            answers.push(outcome.map(|accepted| accepted.duplicate).map_err(|refused| refused.code));
        }
        answers
    })
}

fn failure() -> AppendError {
    AppendError::Failure { reason: "the disk broke".to_owned() }
}

#[test]
fn after_an_unknown_outcome_a_retry_finds_what_was_recorded() {
    assert_eq!(asked(vec![(true, failure())], 2), [Err(ErrorCode::UnknownOutcome), Ok(true)]);
}

#[test]
fn after_an_unknown_outcome_a_retry_records_what_was_not() {
    assert_eq!(asked(vec![(false, failure())], 3), [Err(ErrorCode::UnknownOutcome), Ok(false), Ok(true)]);
}

#[test]
fn a_log_that_takes_nothing_is_unavailable_and_nothing_is_remembered() {
    let closed = AppendError::Unavailable { reason: "full".to_owned() };
    assert_eq!(asked(vec![(false, closed)], 2), [Err(ErrorCode::Unavailable), Ok(false)]);
}

#[test]
fn an_append_the_log_should_not_refuse_is_a_fault_of_ours() {
    assert_eq!(asked(vec![(false, AppendError::Empty)], 2), [Err(ErrorCode::Internal), Ok(false)]);
}

#[test]
fn a_conflict_is_decided_again_on_what_the_stream_says_now() {
    let conflict = || AppendError::Conflict { expected: Expected::NoStream, actual: None };
    assert_eq!(asked(vec![(false, conflict()), (false, conflict())], 1), [Ok(false)]);
    assert_eq!(asked(vec![(true, conflict())], 1), [Ok(true)], "another node recorded the same command");
    let always = (0..=CONFLICT_RETRIES_MAX).map(|_| (false, conflict())).collect();
    assert_eq!(asked(always, 1), [Err(ErrorCode::Unavailable)]);
}
