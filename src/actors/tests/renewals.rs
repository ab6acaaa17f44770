//! A token that is renewed over and over: what was to come of those before it is forgotten, and all of it
//! with the connection.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::stream::unfold;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::{limits, stage_over, start_session};
use crate::actors::hub::Hub;
use crate::actors::session::Inbound;
use crate::auth::{Claims, Keys};
use crate::clock::{Clock as _, SystemClock};
use crate::log::memory::MemoryLog;

const RENEWALS: u64 = 1_000;

#[test]
fn renewals_leave_nothing_behind() {
    System::new().block_on(async {
        let stage = stage_over(Arc::new(MemoryLog::new(Arc::new(SystemClock))), limits());
        let mut stage = Arc::into_inner(stage).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [b'k'; 64]).unwrap();
        let keys = Keys::read(file.path()).unwrap();
        let now = u64::try_from(SystemClock.now().get()).unwrap() / 1_000;
        // Each of them is due at a time of its own.
        let token = |number: u64| {
            let exp = now + 3_600 + number;
            keys.mint(&Claims {
                sub: dramatis_events::MemberId::parse("alice").unwrap(),
                exp,
                kind: None,
                rooms: None,
            })
            .unwrap()
        };
        let hello = format!(r#"{{"type":"hello","token":"{}","session":"s","rooms":[]}}"#, token(0));
        let renewals = (1..=RENEWALS).map(|number| {
            format!(r#"{{"type":"authenticate","id":"a{number}","token":"{}"}}"#, token(number))
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        for said in std::iter::once(hello).chain(renewals) {
            sender.send(Inbound::Text(said)).unwrap();
        }
        let inbound =
            unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        stage.keys = Some(Keys::read(file.path()).unwrap());
        let stage = Arc::new(stage);
        let rooms = Hub::start_here(&stage);
        let outbox = rooms.outbox();
        start_session(&stage, &rooms, &outbox, Box::pin(inbound));
        let last = format!("\"id\":\"a{RENEWALS}\"");
        let mut heard = String::new();
        while !heard.contains(&last) {
            yield_now().await;
            while let Some(next) = outbox.next(usize::MAX) {
                let crate::actors::outbox::Next::Write(messages) = next else { panic!("{heard}") };
                outbox.drained(messages.iter().map(bytes::Bytes::len).sum());
                messages.iter().for_each(|message| heard += &String::from_utf8_lossy(message));
            }
        }
        assert_eq!(heard.matches("authenticated").count(), 1_000, "{heard}");
        assert_eq!(rooms.token_looks(), (1, 1));
        drop(sender);
        while rooms.token_looks() != (0, 0) {
            yield_now().await;
        }
    });
}
