//! What waits for one client, and for all together.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use futures_util::task::noop_waker;
use prometheus_client::metrics::gauge::Gauge;

use super::*;
use crate::actors::share::LEAST_BYTES;

fn den() -> StreamId {
    StreamId::parse("room-main.den").unwrap()
}

fn message(bytes: usize) -> Bytes {
    Bytes::from(vec![b'x'; bytes])
}

/// What the writer takes next.
fn taken(outbox: &Outbox, bytes: usize) -> Option<Messages> {
    match outbox.poll_next(&Context::from_waker(&noop_waker()), bytes) {
        Poll::Ready(Next::Write(messages)) => Some(messages),
        Poll::Ready(_) => panic!("neither control nor close was asked for"),
        Poll::Pending => None,
    }
}

fn all_drained(outbox: &Outbox) {
    while let Some(messages) = taken(outbox, 64 * 1024) {
        outbox.drained(messages.bytes());
    }
}

#[test]
fn what_is_fleeting_goes_behind_events_and_takes_no_room_from_them() {
    let share = Rc::new(Share::new(Gauge::default(), Gauge::default(), 1 << 20));
    let outbox = Outbox::new(share, 1_000, 1);
    outbox.push_newest(&den(), 1, Bytes::from("typing"));
    outbox.push_presence(&den(), Bytes::from("presence"));
    for text in ["event 1", "event 2"] {
        outbox.push(Bytes::from(text));
    }
    // A quarter is kept for answers, and for what is fleeting.
    assert!(outbox.takes(750 - 14) && !outbox.takes(750 - 13));
    // One event a write: what is fleeting waits until no event does.
    assert_eq!(*taken(&outbox, 7).unwrap(), ["event 1"]);
    outbox.push_newest(&den(), 1, Bytes::from("typing no more"));
    assert_eq!(*taken(&outbox, 7).unwrap(), ["event 2"]);
    outbox.drained(14);
    assert_eq!(*taken(&outbox, 1_000).unwrap(), ["typing no more", "presence"]);
    assert!(taken(&outbox, 1_000).is_none() && outbox.takes(750));
}

#[test]
fn a_client_that_does_not_read_holds_no_more_than_its_bound_of_ephemerals() {
    let share = Rc::new(Share::new(Gauge::default(), Gauge::default(), 1 << 30));
    let outbox = Outbox::new(share, 256 * 1024, 1);
    for key in 0..10_000 {
        outbox.push_newest(&den(), key, message(1_000));
    }
    let waiting: usize =
        std::iter::from_fn(|| taken(&outbox, 64 * 1024)).map(|messages| messages.bytes()).sum();
    assert_eq!(waiting, 16_000);
}

#[test]
fn over_the_budget_of_all_who_drains_gets_on_and_who_does_not_waits() {
    let held = Gauge::default();
    let share = Rc::new(Share::new(held.clone(), Gauge::default(), 1 << 20));
    let outboxes: Vec<_> = (0..8).map(|_| Outbox::new(share.clone(), 256 * 1024, 1)).collect();
    // Two do not read, and a third one pushes all over the budget.
    for _ in 0..5 {
        outboxes.iter().take(5).for_each(|outbox| outbox.push(message(50_000)));
    }
    assert!(outboxes.iter().take(5).all(Outbox::is_full), "each has less than its own bound");
    let reader = outboxes.last().unwrap();
    assert_eq!(reader.push_newest(&den(), 1, message(10)), Fate::Refused, "ephemerals give way first");
    assert!(reader.takes(LEAST_BYTES) && !reader.takes(LEAST_BYTES + 1) && !reader.is_full());
    reader.push(message(LEAST_BYTES));
    assert!(reader.is_full());
    all_drained(reader);
    assert!(reader.takes(LEAST_BYTES), "who drains gets on");
    // The others drain or go: all have their own bound again, and all is given back.
    all_drained(outboxes.first().unwrap());
    outboxes.iter().skip(1).take(4).for_each(Outbox::finish);
    assert!(outboxes.first().unwrap().takes(192 * 1024), "all that rooms may take");
    drop(outboxes);
    assert!(held.get().abs() < (1 << 20) / 64, "{}", held.get());
}

#[test]
fn what_the_writer_had_when_the_end_came_is_given_back_once() {
    let held = Gauge::default();
    let share = Rc::new(Share::new(held.clone(), Gauge::default(), 1 << 20));
    for _ in 0..100 {
        let outbox = Outbox::new(share.clone(), 256 * 1024, 1);
        outbox.push(message(20_000));
        outbox.push_presence(&den(), message(20_000));
        let size = taken(&outbox, 64 * 1024).unwrap().bytes();
        outbox.finish();
        outbox.drained(size);
        outbox.push(message(20_000));
    }
    assert!(held.get().abs() < (1 << 20) / 64, "{}", held.get());
}

/// Every connection has one of these, from its first to its last moment.
#[test]
fn an_outbox_in_which_nothing_waits_is_small() {
    let counts_of_rc = 2 * size_of::<usize>();
    let size = size_of::<Outbox>() + counts_of_rc;
    assert!(size <= 256, "{size} bytes");
}
