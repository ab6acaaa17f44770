//! Writing a batch.

use std::collections::HashMap;

use dramatis_events::Position;
use dramatis_projections::Write;
use mongodb::bson::{RawArrayBuf, RawBson, RawDocumentBuf, cstr, doc, rawdoc};

use super::builds::{BUILDS, Standing, found_one, standing};
use super::errors::{DUPLICATE_KEY, Trouble, Written};
use super::{Store, body};
use crate::read_models::names::{self, unfit};
use crate::read_models::{Batch, ReadModelError, text};

/// Bytes of one command, which may be 16 MiB at the most.
const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Documents of one command, of which servers take 100,000.
const COMMAND_DOCUMENTS_MAX: usize = 10_000;
/// Bytes of one document: servers take 16 MiB, and it stands in a command.
const DOCUMENT_BYTES_MAX: usize = 15 * 1024 * 1024;

impl Store {
    /// Documents first, then dead letters, then the checkpoint: cut off anywhere, the same batch
    /// made again has the effect of one.
    pub(super) async fn write(&self, collection: &str, batch: Batch) -> Result<(), Trouble> {
        let Standing { epoch: stored, text, .. } = self.standing(collection).await?;
        let got = batch.checkpoint.epoch;
        if stored != got {
            let collection = collection.to_owned();
            return Err(ReadModelError::OtherEpoch { collection, stored, got }.into());
        }
        let mut bulk = Bulk::new(collection);
        for write in &batch.writes {
            let update = guarded(write, &text)?;
            if bulk.is_full(&update) {
                self.write_bulk(std::mem::replace(&mut bulk, Bulk::new(collection))).await?;
            }
            bulk.push(write, update);
        }
        self.write_bulk(bulk).await?;
        self.park(collection, &batch.parked).await?;
        if let Some(position) = batch.checkpoint.position {
            let forward = doc! {"$max": {"position": names::to_stored(position)?}};
            let (found, _) = self.update(BUILDS, standing(collection), forward, false).await?;
            found_one(collection, found)?;
        }
        Ok(())
    }

    /// Servers in general try each write of an unordered command. One that stops at a duplicate
    /// is sent the others again, which changes nothing where they were applied.
    async fn write_bulk(&self, mut bulk: Bulk<'_>) -> Result<(), Trouble> {
        while !bulk.updates.is_empty() {
            let (written, _) = self.written(bulk.command()).await?;
            let all = tells_of_all(&written, bulk.updates.len())?;
            if written.doubtful {
                self.are_newer(bulk.collection, &bulk.writes, &written.duplicates).await?;
            }
            if all {
                return Ok(());
            }
            bulk.remove(&written.duplicates);
        }
        Ok(())
    }

    /// Checks that what was in the way of these writes are newer documents of the same keys, for
    /// servers that do not tell which unique index it was.
    async fn are_newer(&self, collection: &str, writes: &[&Write], which: &[usize]) -> Result<(), Trouble> {
        let writes: Vec<_> = which.iter().filter_map(|at| writes.get(*at)).collect();
        let stored = self.load(collection, writes.iter().map(|write| write.key.clone()).collect()).await?;
        let stored: HashMap<_, _> = stored.iter().map(|stored| (&stored.key, stored.position)).collect();
        match writes.iter().find(|write| stored.get(&write.key) < Some(&write.position)) {
            None => Ok(()),
            Some(write) => Err(Trouble::Refused {
                code: DUPLICATE_KEY,
                reason: format!("a unique index holds what {:?} is to hold", write.key),
            }),
        }
    }

    pub(super) async fn purge(&self, collection: &str, up_to: Position) -> Result<u64, Trouble> {
        let Some(checkpoint) = self.standing(collection).await?.position else { return Ok(0) };
        let up_to = names::to_stored(up_to)?.min(checkpoint);
        let (purged, _) =
            self.delete(collection, doc! {"deleted": true, "position": {"$lte": up_to}}).await?;
        Ok(purged)
    }
}

/// Whether a reply tells of all writes of a command. A server may stop at a duplicate; one that
/// leaves writes out for no reason has not answered.
fn tells_of_all(written: &Written, asked: usize) -> Result<bool, ReadModelError> {
    let duplicates = written.duplicates.len();
    let told = written.found.saturating_add(u64::try_from(duplicates).unwrap_or(0));
    let all = told >= u64::try_from(asked).unwrap_or(u64::MAX);
    if !all && duplicates == 0 {
        let reason = format!("of {asked} writes the server tells of {told}, and nothing of the others");
        return Err(ReadModelError::Failure { reason });
    }
    Ok(all)
}

/// One command of many guarded writes in any order.
struct Bulk<'a> {
    collection: &'a str,
    writes: Vec<&'a Write>,
    updates: Vec<RawDocumentBuf>,
    bytes: usize,
}

impl<'a> Bulk<'a> {
    fn new(collection: &'a str) -> Self {
        Self { collection, writes: Vec::new(), updates: Vec::new(), bytes: 0 }
    }

    fn is_full(&self, next: &RawDocumentBuf) -> bool {
        let (documents, bytes) = (self.updates.len(), self.bytes + next.as_bytes().len());
        documents > 0 && (documents >= COMMAND_DOCUMENTS_MAX || bytes > COMMAND_BYTES_MAX)
    }

    fn push(&mut self, write: &'a Write, update: RawDocumentBuf) {
        self.bytes += update.as_bytes().len();
        self.writes.push(write);
        self.updates.push(update);
    }

    fn remove(&mut self, which: &[usize]) {
        let (mut write, mut update) = (0.., 0..);
        let kept = |at: Option<usize>| at.is_some_and(|at| !which.contains(&at));
        self.writes.retain(|_| kept(write.next()));
        self.updates.retain(|_| kept(update.next()));
    }

    fn command(&self) -> RawDocumentBuf {
        let mut updates = RawArrayBuf::new();
        self.updates.iter().for_each(|update| updates.push(update.as_ref()));
        let mut command = rawdoc! {"update": self.collection, "ordered": false};
        command.append(cstr!("updates"), updates);
        command
    }
}

/// A replacement of an older document, or its insert. If a newer one is there, the insert finds
/// its key taken.
fn guarded(write: &Write, text: &[String]) -> Result<RawDocumentBuf, ReadModelError> {
    let (key, position) = (write.key.as_str(), names::to_stored(write.position)?);
    let mut document = rawdoc! {"_id": key, "position": position};
    match &write.body {
        None => document.append(cstr!("deleted"), true),
        Some(json) => {
            let body = body::to_bson(key, json)?;
            let words = words(&body, text)?;
            document.append(cstr!("body"), body);
            if let Some(words) = words {
                document.append(cstr!("words"), words);
            }
        }
    }
    let bytes = document.as_bytes().len();
    if bytes > DOCUMENT_BYTES_MAX {
        let got = format!("{bytes} bytes in {key:?}");
        return Err(unfit("a document", "at most 15 MiB as BSON", &got));
    }
    Ok(rawdoc! {"q": {"_id": key, "position": {"$lt": position}}, "u": document, "upsert": true})
}

/// The words of the fields that are searched, between blanks.
fn words(body: &RawBson, fields: &[String]) -> Result<Option<RawDocumentBuf>, ReadModelError> {
    let (Some(body), false) = (body.as_document(), fields.is_empty()) else { return Ok(None) };
    let mut words = RawDocumentBuf::new();
    for field in fields {
        let value = body.get(field).ok().flatten();
        let Some(value) = value.and_then(mongodb::bson::RawBsonRef::as_str) else { continue };
        let name = mongodb::bson::raw::CString::try_from(field.as_str());
        let name = name.map_err(|error| unfit("a field's name", "no NUL", &error.to_string()))?;
        words.append(name, format!(" {} ", text::words(value)));
    }
    Ok(Some(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_a_reply_leaves_out_are_not_taken_for_applied() {
        let told = |found, duplicates: &[usize]| {
            let written = Written { found, duplicates: duplicates.to_vec(), doubtful: false };
            tells_of_all(&written, 3)
        };
        assert_eq!(told(3, &[]), Ok(true));
        assert_eq!(told(2, &[1]), Ok(true));
        assert_eq!(told(0, &[0]), Ok(false), "it stopped there, and is sent the others again");
        let left_out = told(2, &[]);
        assert!(
            matches!(&left_out, Err(ReadModelError::Failure { reason }) if reason.contains("of 2")),
            "{left_out:?}"
        );
    }
}
