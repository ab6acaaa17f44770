//! Leases: one holder at a time, by the store's clock.

use std::time::{Duration, Instant};

use super::{Lease, ReadModels};

const LONG: Duration = Duration::from_mins(10);
const SHORT: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn run(store: &dyn ReadModels) {
    let take = async |name: &str, holder: &str, ttl| store.lease(name, holder, ttl).await.unwrap();
    let first = take("things", "anna", LONG).await;
    assert_eq!((first.holder.as_str(), first.token), ("anna", 1));
    assert!(first.left <= LONG && first.left > LONG / 2, "{first:?}");
    let other = take("things", "bert", LONG).await;
    assert_eq!((other.holder.as_str(), other.token), ("anna", 1), "it is taken");
    assert!(other.left > LONG / 2, "{other:?}");
    assert_eq!(take("others", "bert", LONG).await.holder, "bert", "another lease is free");

    // Renewed it is as long as asked now, under the same token.
    let renewed = take("things", "anna", SHORT).await;
    assert_eq!((renewed.holder.as_str(), renewed.token), ("anna", 1));
    assert!(renewed.left <= SHORT, "{renewed:?}");
    let won = until_held(store, "bert").await;
    assert_eq!(won.token, 2, "another holder, another token");

    store.release("things", "anna").await.unwrap();
    assert_eq!(take("things", "anna", LONG).await.holder, "bert", "who lost it gives nothing back");
    store.release("things", "bert").await.unwrap();
    store.release("nothing", "bert").await.unwrap();
    let again = take("things", "bert", LONG).await;
    assert_eq!((again.holder.as_str(), again.token), ("bert", 3));

    races(store).await;
}

async fn until_held(store: &dyn ReadModels, holder: &str) -> Lease {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let lease = store.lease("things", holder, LONG).await.unwrap();
        if lease.holder == holder {
            return lease;
        }
        assert!(Instant::now() < deadline, "{lease:?} never ended");
        tokio::task::yield_now().await;
    }
}

/// Of many who ask for a free lease at once, one gets it and all are told who.
async fn races(store: &dyn ReadModels) {
    let names: Vec<_> = (0..20).map(|number| format!("racer {number}")).collect();
    let asked = names.iter().map(|name| store.lease("race", name, LONG));
    let answers: Vec<_> = futures_util::future::join_all(asked).await;
    let holders: Vec<_> = answers.into_iter().map(|lease| lease.unwrap().holder).collect();
    assert!(names.contains(&holders[0]), "{holders:?}");
    assert!(holders.iter().all(|holder| *holder == holders[0]), "{holders:?}");
}
