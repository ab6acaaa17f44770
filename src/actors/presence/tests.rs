//! Presence by the clock of the test: who is present when, and what followers are told of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::book::Listing;
use super::*;

const GRACE_MS: u64 = 5_000;
const DELAYS: Delays = Delays { small_ms: 250, large_ms: 2_000 };

fn den() -> StreamId {
    StreamId::parse("room-main.den").unwrap()
}

fn member(name: &str) -> MemberId {
    MemberId::parse(name).unwrap()
}

fn told(change: Option<&Change>) -> Option<(String, bool, Listing)> {
    change.map(|change| (change.member.to_string(), change.joined, change.listing))
}

#[test]
fn three_devices_are_one_presence_and_a_reload_is_not_seen() {
    let (mut book, den, alice) = (Book::new(GRACE_MS, 10), den(), member("alice"));
    let came = book.enter(&den, &alice);
    assert_eq!(told(came.as_ref()), Some(("alice".to_owned(), true, Listing::Names)));
    assert_eq!((book.enter(&den, &alice), book.enter(&den, &alice)), (None, None));
    assert_eq!(book.count(&den), 1);
    assert_eq!(book.leave(&den, &alice, 0, true), None);
    assert_eq!(book.leave(&den, &alice, 0, true), None);
    assert_eq!(book.next_expiry(), None, "a third device is there");

    // The last one reloads twice; only the last grace counts.
    assert_eq!(book.leave(&den, &alice, 1_000, true), None);
    assert_eq!(book.enter(&den, &alice), None);
    assert_eq!(book.leave(&den, &alice, 4_000, true), None);
    assert_eq!(book.expire(6_000), []);
    assert_eq!(book.count(&den), 1);
    let gone = book.expire(9_000);
    assert_eq!(told(gone.first()), Some(("alice".to_owned(), false, Listing::Names)));
    assert!(book.is_empty(), "a room that nobody is in costs nothing");
}

#[test]
fn who_says_that_they_leave_is_gone_at_once() {
    let (mut book, den, alice) = (Book::new(GRACE_MS, 10), den(), member("alice"));
    book.enter(&den, &alice);
    assert_eq!(
        told(book.leave(&den, &alice, 0, false).as_ref()),
        Some(("alice".to_owned(), false, Listing::Names))
    );
    assert!(book.is_empty());
}

#[test]
fn a_room_of_ten_thousand_is_told_by_number() {
    let (mut book, den) = (Book::new(GRACE_MS, 100), den());
    let all: Vec<_> = (0..10_000).map(|number| member(&format!("m{number}"))).collect();
    let listings: Vec<_> = all.iter().map(|member| book.enter(&den, member).unwrap().listing).collect();
    assert!(listings[..100].iter().all(|listing| *listing == Listing::Names));
    assert_eq!(listings[100], Listing::Anew);
    assert!(listings[101..].iter().all(|listing| *listing == Listing::Count));
    let whole = book.whole(&den);
    assert_eq!((whole.count, whole.members.len(), whole.complete), (10_000, 100, false));

    let mut back = Vec::new();
    for member in &all[70..] {
        back.push(book.leave(&den, member, 0, false).unwrap().listing);
    }
    // Named again at three quarters of the bound, not at the bound itself.
    assert_eq!(back.iter().position(|listing| *listing == Listing::Anew), Some(10_000 - 75 - 1));
    let whole = book.whole(&den);
    assert_eq!((whole.count, whole.members.len(), whole.complete), (70, 70, true));
}

#[test]
fn who_comes_and_goes_within_one_interval_is_not_told_of() {
    let (mut pending, den) = (Pending::default(), den());
    let change = |name: &str, joined| Change {
        stream: den.clone(),
        member: member(name),
        joined,
        listing: Listing::Names,
    };
    assert!(pending.note(&change("alice", true), 100, DELAYS));
    assert!(!pending.note(&change("bob", true), 200, DELAYS));
    assert!(!pending.note(&change("alice", false), 300, DELAYS));
    assert_eq!(pending.next_due(), Some(350));
    assert!(pending.take_due(349).is_empty());
    let due = pending.take_due(350);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].1.moves.keys().collect::<Vec<_>>(), [&member("bob")]);
    assert_eq!((pending.next_due(), pending.take_due(10_000).len()), (None, 0));
}

/// What one follower makes of what it is told.
#[derive(Default)]
struct Follower {
    knows: bool,
    count: u64,
    /// `None` while the list is not complete.
    members: Option<BTreeSet<String>>,
}

impl Follower {
    fn hear(&mut self, news: &News) {
        let message =
            if self.knows && !news.anew { news.encode_diff() } else { news.encode_whole(usize::MAX) };
        let Some(message) = message else { return };
        let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
        let names =
            |value: &serde_json::Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
        if let Some(full) = message.get("full") {
            self.knows = true;
            self.count = full["count"].as_u64().unwrap();
            self.members = (full["complete"] == true).then(|| names(&full["members"]).into_iter().collect());
            return;
        }
        assert!(self.knows, "the whole comes first");
        let diff = &message["diff"];
        self.count = diff["count"].as_u64().unwrap();
        if let Some(members) = &mut self.members {
            for name in names(&diff["joined"]) {
                assert!(members.insert(name), "joined twice: {message}");
            }
            for name in names(&diff["left"]) {
                assert!(members.remove(&name), "left without having been there: {message}");
            }
        }
    }
}

proptest! {
    /// Whatever happens, once all is told every follower knows exactly who is present.
    #[test]
    fn followers_know_who_is_present(steps in prop::collection::vec((0_u8..5, 0_usize..8, 1_u64..4_000), 1..80)) {
        let (den, mut now_ms) = (den(), 0);
        let mut book = Book::new(GRACE_MS, 4);
        let mut pending = Pending::default();
        let mut connections: BTreeMap<usize, u32> = BTreeMap::new();
        let mut followers = vec![Follower::default()];
        pending.need_whole(&den, 0);
        for (what, who, wait) in steps {
            let name = member(&format!("m{who}"));
            let open = connections.entry(who).or_default();
            let change = match what {
                0 | 1 => {
                    *open += 1;
                    book.enter(&den, &name)
                }
                2 | 3 if *open > 0 => {
                    *open -= 1;
                    book.leave(&den, &name, now_ms, what == 2)
                }
                4 => {
                    followers.push(Follower::default());
                    pending.need_whole(&den, now_ms);
                    None
                }
                _ => None,
            };
            if let Some(change) = change {
                pending.note(&change, now_ms, DELAYS);
            }
            now_ms += wait;
            pass(&mut book, &mut pending, &mut followers, now_ms);
        }
        for _ in 0..3 {
            now_ms += GRACE_MS;
            pass(&mut book, &mut pending, &mut followers, now_ms);
        }
        let present: BTreeSet<_> =
            connections.iter().filter(|(_, open)| **open > 0).map(|(who, _)| format!("m{who}")).collect();
        for follower in &followers {
            prop_assert_eq!(follower.count, u64::try_from(present.len()).unwrap());
            if let Some(members) = &follower.members {
                prop_assert_eq!(members, &present);
            }
        }
        prop_assert_eq!((book.next_expiry(), pending.next_due()), (None, None));
        prop_assert_eq!(book.is_empty(), present.is_empty());
    }
}

fn pass(book: &mut Book, pending: &mut Pending, followers: &mut [Follower], now_ms: u64) {
    for change in book.expire(now_ms) {
        pending.note(&change, now_ms, DELAYS);
    }
    for (stream, untold) in pending.take_due(now_ms) {
        let news = book.news(stream, untold).unwrap();
        for follower in &mut *followers {
            follower.hear(&news);
        }
    }
}

#[test]
fn who_has_little_room_is_told_of_fewer_names() {
    let mut book = Book::new(GRACE_MS, 150);
    for number in 0..150 {
        book.enter(&den(), &member(&format!("{number}-{}", "x".repeat(100))));
    }
    let mut untold = Untold::default();
    untold.whole = Some(Needs::All);
    let news = book.news(den(), untold).unwrap();
    let told = |bytes_max: usize| {
        let message = news.encode_whole(bytes_max).unwrap();
        assert!(message.len() <= bytes_max, "{} bytes, of {bytes_max}", message.len());
        let told: serde_json::Value = serde_json::from_slice(&message).unwrap();
        let named = told["full"]["members"].as_array().unwrap().len();
        (told["full"]["count"].as_u64().unwrap(), named, told["full"]["complete"] == true)
    };
    assert_eq!(
        (told(1 << 20), told(8 * 1_024), told(100)),
        ((150, 150, true), (150, 75, false), (150, 0, false))
    );
}
