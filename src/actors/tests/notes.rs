//! Very many hellos of new sessions: they are noted in rounds, and all in the end.

use std::sync::Arc;

use actix::prelude::*;
use dramatis_events::{CommandId, MemberId, Position, UserId};
use tokio::task::yield_now;

use super::race::scripted::{Holds, ScriptedLog};
use super::{limits, stage_over};
use crate::actors::session_notes::ROUND;
use crate::log::EventLog as _;

const SESSIONS: u64 = 200;

#[test]
fn they_are_noted_in_rounds_and_all_in_the_end() {
    System::new().block_on(async {
        let log = Arc::new(ScriptedLog::new(Holds::Before));
        let stage = stage_over(log.clone(), limits());
        for number in 0..SESSIONS {
            let user = MemberId::from(UserId::parse(&format!("user-{number}")).unwrap());
            stage.note_session(&user, &CommandId::parse("tab").unwrap(), None);
        }
        for _ in 0..1_000 {
            yield_now().await;
        }
        assert_eq!(log.gate().waiting(), ROUND, "others wait until these are noted");
        log.gate().open();
        let last = Position::from_engine(SESSIONS - 1);
        while *log.head().borrow() != Some(last) {
            yield_now().await;
        }
        // Whoever comes now finds nobody in hand, and is noted too.
        let late = MemberId::from(UserId::parse("late").unwrap());
        stage.note_session(&late, &CommandId::parse("tab").unwrap(), None);
        while *log.head().borrow() != Some(Position::from_engine(SESSIONS)) {
            yield_now().await;
        }
    });
}
