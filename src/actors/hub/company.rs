//! What those in a room see of each other besides events: ephemerals and presence. Both are
//! paced, so that they never take a thread's time from events, and give way first.

use std::rc::Rc;
use std::time::Duration;

use dramatis_events::MemberKind;

use super::Follow;
use super::rooms::{CHUNK, Rooms};
use crate::actors::outbox::Fate;
use crate::actors::presence::{Leaving, News};
use crate::actors::relay::Shout;

/// Ephemerals that come within this go out together, in milliseconds.
const PAUSE_MS: u64 = 10;
/// So many are handed to followers before a pause.
const PASS_DELIVERIES: u64 = 1_000;

/// Hands ephemerals to all who follow their rooms, as long as the hub lives.
pub(super) async fn pass_on(rooms: Rc<Rooms>) {
    let inbox = rooms.stage.relay.join();
    let per_second = u64::from(rooms.stage.limits.ephemeral.deliveries_per_second_max).max(1);
    loop {
        inbox.filled().await;
        let mut handed = 0;
        while handed < PASS_DELIVERIES
            && let Some(shout) = inbox.pop()
        {
            handed += rooms.pass_on(&shout).await;
        }
        let pause_ms = (handed.saturating_mul(1_000) / per_second).max(PAUSE_MS);
        actix_rt::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// Tells followers who comes and goes, as long as the hub lives. Where very many come and go this
/// would be most of what is written: what it may cost is bounded, and changes wait together.
pub(super) async fn tell_presence(rooms: Rc<Rooms>) {
    let presence = &rooms.stage.presence;
    let mut pace = Pace::new(rooms.stage.limits.presence.deliveries_per_second_max);
    loop {
        presence.due(rooms.hub).await;
        for news in presence.take(rooms.hub) {
            rooms.tell(&news, &mut pace).await;
        }
        pace.rest().await;
        tokio::task::yield_now().await;
    }
}

/// Rests for as long as what was handed on may take at the most.
struct Pace {
    per_second: u64,
    handed: u64,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { per_second: u64::from(per_second).max(1), handed: 0 }
    }

    /// So many more were handed on.
    async fn hand(&mut self, count: u64) {
        self.handed = self.handed.saturating_add(count);
        if self.handed >= PASS_DELIVERIES {
            self.rest().await;
        }
    }

    async fn rest(&mut self) {
        let pause_ms = self.handed.saturating_mul(1_000) / self.per_second;
        self.handed = 0;
        if pause_ms > 0 {
            actix_rt::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }
}

impl Rooms {
    /// A follower is live, so that nothing of its right is unknown: it is company, and its reader present if
    /// that counts. One that is behind stays so, until the hub sees its right end.
    pub(super) fn enter_company(&self, follow: &Follow) {
        if !follow.in_company.replace(true) && shows_presence(follow) {
            self.stage.presence.enter(self.hub, &follow.stream, &follow.reader, counts(follow));
        }
    }

    /// A follower is company no longer.
    pub(super) fn leave_company(&self, follow: &Follow, leaving: Leaving) {
        follow.knows_presence.set(false);
        if follow.in_company.replace(false) && shows_presence(follow) && counts(follow) {
            self.stage.presence.leave(&follow.stream, &follow.reader, leaving);
        }
    }

    /// Who has not heard yet that history is done is not in company, and does not hear this either.
    async fn pass_on(&self, shout: &Shout) -> u64 {
        let metrics = &self.stage.metrics.ephemerals;
        let mut handed = 0;
        for chunk in self.followers(&shout.stream).chunks(CHUNK) {
            for follow in chunk {
                let outbox = &follow.outbox;
                if !follow.may_hear() || outbox.connection() == shout.from {
                    continue;
                }
                let count = match outbox.push_newest(&shout.stream, shout.key, shout.message.clone()) {
                    Fate::Waits => &metrics.delivered,
                    Fate::Replaced => &metrics.collapsed,
                    Fate::Refused => &metrics.dropped,
                };
                count.inc();
                handed += 1;
            }
            tokio::task::yield_now().await;
        }
        handed
    }

    async fn tell(&self, news: &News, pace: &mut Pace) {
        // Beside it something else may wait.
        let bytes_max = self.stage.limits.outbox_bytes_max / 2;
        let (diff, whole) = (news.encode_diff(), news.encode_whole(bytes_max));
        let mut refused = false;
        for chunk in self.followers(&news.stream).chunks(CHUNK) {
            let mut told = 0;
            for follow in chunk.iter().filter(|follow| follow.may_hear()) {
                let knows = follow.knows_presence.get() && !news.anew;
                let Some(message) = (if knows { &diff } else { &whole }) else { continue };
                let taken = follow.outbox.push_presence(&news.stream, message.clone()) != Fate::Refused;
                follow.knows_presence.set(taken);
                refused |= !taken && !follow.outbox.is_closing();
                told += u64::from(taken);
            }
            self.stage.metrics.presence_deliveries.inc_by(told);
            pace.hand(told).await;
            tokio::task::yield_now().await;
        }
        if refused {
            self.stage.presence.retell(self.hub, &news.stream);
        }
    }
}

/// Rooms have presence, other streams have not.
fn shows_presence(follow: &Follow) -> bool {
    follow.stream.category() == "room"
}

/// People and personas are present; programs that look on are not.
fn counts(follow: &Follow) -> bool {
    matches!(follow.reader.kind(), MemberKind::User | MemberKind::Persona)
}
