//! Dead letters and leases.

use std::time::Duration;

use dramatis_events::Position;
use dramatis_projections::DeadLetter;
use mongodb::bson::{DateTime, RawArrayBuf, RawDocument, RawDocumentBuf, cstr, doc, rawdoc};
use mongodb::options::FindOptions;

use super::Store;
use super::builds::raw;
use super::errors::Trouble;
use super::read::damaged;
use super::write::COMMAND_BYTES_MAX;
use crate::read_models::{Lease, ReadModelError, names};

pub(super) const LETTERS: &str = "meta.dead_letters";
const LEASES: &str = "meta.leases";
const CLOCK: &str = "meta.clock";

/// Dead letters that one command keeps: each takes a server a part of a millisecond, or, where a guarded write
/// looks through a whole collection, many.
const PARKED_TOGETHER_MAX: usize = 100;

impl Store {
    /// Keeps dead letters, guarded by their positions as documents are.
    pub(super) async fn park(&self, collection: &str, letters: &[DeadLetter]) -> Result<(), Trouble> {
        for statements in statements(collection, letters)? {
            // A key that is taken is parked from a later event on.
            let (written, _) = self.written(parking(statements.iter().cloned()), true).await?;
            if written.found + written.duplicates >= u64::try_from(statements.len()).unwrap_or(u64::MAX) {
                continue;
            }
            // Some servers stop at such a key.
            for statement in statements {
                self.change(parking([statement])).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn dead_letters(&self, collection: &str) -> Result<Vec<DeadLetter>, Trouble> {
        let options = FindOptions::builder().sort(doc! {"position": 1, "key": 1}).build();
        let found = self.found(LETTERS, doc! {"collection": collection}, options).await?;
        found.iter().map(|found| letter(collection, found).map_err(Trouble::from)).collect()
    }

    pub(super) async fn remove_dead_letter(
        &self,
        collection: &str,
        key: &str,
        position: Position,
    ) -> Result<bool, Trouble> {
        let letter = doc! {"_id": id(collection, key), "position": names::to_stored(position)?};
        // Tried again, the first try may have been the one that found it.
        Ok(matches!(self.delete(LETTERS, letter).await?, (1.., _) | (_, 2..)))
    }

    /// Takes, renews or reads a lease. The server's time is asked for first, as not every server
    /// computes with it in an update: it is never later than the update's own time, so a lease is
    /// never taken before its end, at the most granted shorter by that much.
    pub(super) async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, Trouble> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2);
        loop {
            let now = self.now_ms().await?;
            let until = DateTime::from_millis(now.saturating_add(ttl_ms));
            let keep = doc! {"$set": {"until": until}};
            let (kept, _) = self.update(LEASES, doc! {"_id": name, "holder": holder}, keep, false).await?;
            if kept == 0 {
                let ended = doc! {"_id": name, "until": {"$lte": DateTime::from_millis(now)}};
                let take = doc! {"$set": {"holder": holder, "until": until}, "$inc": {"token": 1_i64}};
                // If it has not ended, the insert finds its key taken, which counts as nothing done.
                self.update(LEASES, ended, take, true).await?;
            }
            let found = self.found(LEASES, doc! {"_id": name}, FindOptions::default()).await?;
            if let Some(found) = found.first() {
                return Ok(read_lease(name, found, now)?);
            }
        }
    }

    pub(super) async fn release(&self, name: &str, holder: &str) -> Result<(), Trouble> {
        // The document stays, so that its tokens go on rising.
        let free = doc! {"$set": {"holder": "", "until": DateTime::from_millis(0)}};
        self.update(LEASES, doc! {"_id": name, "holder": holder}, free, false).await.map(drop)
    }

    async fn now_ms(&self) -> Result<i64, Trouble> {
        let clock = self
            .command(doc! {
                "findAndModify": CLOCK, "query": {"_id": "now"}, "upsert": true, "new": true,
                "update": {"$currentDate": {"now": true}},
            })
            .await?;
        let now = clock.get_document("value").and_then(|value| value.get_datetime("now"));
        let now = now.map_err(|error| damaged(CLOCK, "now", &error))?;
        Ok(now.timestamp_millis())
    }
}

/// The statements that keep dead letters, as many as one command takes together. A release that cannot fold
/// anything parks all keys of a page.
fn statements(collection: &str, letters: &[DeadLetter]) -> Result<Vec<Vec<RawDocumentBuf>>, Trouble> {
    let (mut all, mut some, mut bytes) = (Vec::new(), Vec::new(), 0);
    for letter in letters {
        let position = names::to_stored(letter.position)?;
        let older = doc! {"_id": id(collection, &letter.key), "position": {"$lt": position}};
        let kept = doc! {"$set": {
            "collection": collection, "key": &letter.key, "position": position,
            "event": &letter.event, "error": &letter.error,
        }};
        let statement = raw(&doc! {"q": older, "u": kept, "upsert": true})?;
        let length = statement.as_bytes().len();
        if some.len() >= PARKED_TOGETHER_MAX || (bytes + length > COMMAND_BYTES_MAX && !some.is_empty()) {
            all.push(std::mem::take(&mut some));
            bytes = 0;
        }
        bytes += length;
        some.push(statement);
    }
    all.extend((!some.is_empty()).then_some(some));
    Ok(all)
}

/// A command that keeps dead letters, in any order.
fn parking(statements: impl IntoIterator<Item = RawDocumentBuf>) -> RawDocumentBuf {
    let mut updates = RawArrayBuf::new();
    statements.into_iter().for_each(|statement| updates.push(statement));
    let mut parking = rawdoc! {"update": LETTERS, "ordered": false};
    parking.append(cstr!("updates"), updates);
    parking
}

fn id(collection: &str, key: &str) -> String {
    format!("{collection}/{key}")
}

fn letter(collection: &str, found: &RawDocument) -> Result<DeadLetter, ReadModelError> {
    let text =
        |field: &str| found.get_str(field).map(str::to_owned).map_err(|e| damaged(LETTERS, collection, &e));
    let position = found.get_i64("position").map_err(|e| damaged(LETTERS, collection, &e))?;
    Ok(DeadLetter {
        key: text("key")?,
        position: names::from_stored(LETTERS, position)?,
        event: text("event")?,
        error: text("error")?,
    })
}

fn read_lease(name: &str, found: &RawDocument, now_ms: i64) -> Result<Lease, ReadModelError> {
    let damaged = |error: &dyn std::fmt::Display| damaged(LEASES, name, error);
    let holder = found.get_str("holder").map_err(|error| damaged(&error))?.to_owned();
    let token = found.get_i64("token").map_err(|error| damaged(&error))?.unsigned_abs();
    let until = found.get_datetime("until").map_err(|error| damaged(&error))?.timestamp_millis();
    let left = Duration::from_millis(u64::try_from(until.saturating_sub(now_ms)).unwrap_or(0));
    Ok(Lease { holder, token, left })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    fn letters(number: u64, error: &str) -> Vec<DeadLetter> {
        let letter = |at| DeadLetter {
            key: format!("room-main.{at}"),
            position: Position::from_engine(at),
            event: "Happened".to_owned(),
            error: error.to_owned(),
        };
        (0..number).map(letter).collect()
    }

    #[test]
    fn many_dead_letters_take_few_commands_of_a_bounded_size() {
        let many = |error: &str, number| {
            let together = statements("rooms@1", &letters(number, error)).unwrap();
            let length = |some: &Vec<RawDocumentBuf>| parking(some.iter().cloned()).as_bytes().len();
            assert!(together.iter().all(|some| length(some) < 16 * 1024 * 1024));
            together.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert!(many("it cannot have", 0).is_empty());
        assert_eq!(many("it cannot have", 250), [100, 100, 50]);
        assert_eq!(many(&"x".repeat(3 * 1024 * 1024), 5), [2, 2, 1]);
    }
}
