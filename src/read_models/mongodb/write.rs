//! Writing a batch.

use std::collections::HashMap;
use std::sync::Arc;

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
/// Batches of so many documents are put into BSON beside what runs on the caller's thread.
const BESIDE_DOCUMENTS_MIN: usize = 500;
/// Bytes of one document: servers take 16 MiB, and it stands in a command.
const DOCUMENT_BYTES_MAX: usize = 15 * 1024 * 1024;

impl Store {
    /// Documents first, then dead letters, then the checkpoint: cut off anywhere, the same batch
    /// made again has the effect of one.
    pub(super) async fn write(&self, collection: &str, batch: Arc<Batch>) -> Result<(), Trouble> {
        let Standing { epoch: stored, text, .. } = self.standing(collection).await?;
        let got = batch.checkpoint.epoch;
        if stored != got {
            let collection = collection.to_owned();
            return Err(ReadModelError::OtherEpoch { collection, stored, got }.into());
        }
        for bulk in bulks(batch.clone(), text).await? {
            let bulk = match bulk.is_new {
                true if self.insert(collection, &bulk).await? => continue,
                true => bulk.guarded(&batch.writes)?,
                false => bulk,
            };
            self.update_all(collection, &batch.writes, bulk).await?;
        }
        self.park(collection, &batch.parked).await?;
        if let Some(position) = batch.checkpoint.position {
            let forward = doc! {"$max": {"position": names::to_stored(position)?}};
            let (found, _) = self.update(BUILDS, standing(collection), forward, false).await?;
            found_one(collection, found)?;
        }
        Ok(())
    }

    /// Inserts documents that are new, which costs a server a tenth of a guarded write; tells
    /// whether all of them were.
    async fn insert(&self, collection: &str, bulk: &Bulk) -> Result<bool, Trouble> {
        let (written, _) = self.written(bulk.command(collection)).await?;
        Ok(written.found >= u64::try_from(bulk.statements.len()).unwrap_or(u64::MAX))
    }

    /// Servers in general try each write of an unordered command. One that stops at a duplicate
    /// is sent the others again, which changes nothing where they were applied.
    async fn update_all(&self, collection: &str, writes: &[Write], mut bulk: Bulk) -> Result<(), Trouble> {
        while !bulk.statements.is_empty() {
            let (written, _) = self.written(bulk.command(collection)).await?;
            let all = tells_of_all(&written, bulk.statements.len())?;
            if written.doubtful {
                let doubtful = written.duplicates.iter().filter_map(|at| writes.get(*bulk.which.get(*at)?));
                self.are_newer(collection, doubtful.collect()).await?;
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
    async fn are_newer(&self, collection: &str, writes: Vec<&Write>) -> Result<(), Trouble> {
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

/// The commands of a batch.
async fn bulks(batch: Arc<Batch>, text: Vec<String>) -> Result<Vec<Bulk>, Trouble> {
    if batch.writes.len() < BESIDE_DOCUMENTS_MIN {
        return Ok(Bulk::all(&batch.writes, &text)?);
    }
    let bulks = tokio::task::spawn_blocking(move || Bulk::all(&batch.writes, &text)).await;
    let broke = |error: tokio::task::JoinError| ReadModelError::Failure { reason: error.to_string() };
    Ok(bulks.map_err(broke)??)
}

/// One command of many writes in any order.
#[derive(Default)]
struct Bulk {
    /// Whether it inserts what is not known to be there; or else it writes under guards.
    is_new: bool,
    /// Which of the batch's writes.
    which: Vec<usize>,
    /// The documents, or the guarded writes of them.
    statements: Vec<RawDocumentBuf>,
    bytes: usize,
}

impl Bulk {
    fn all(writes: &[Write], text: &[String]) -> Result<Vec<Self>, ReadModelError> {
        let (mut full, mut new) = (Vec::new(), Self { is_new: true, ..Self::default() });
        let mut known = Self::default();
        for (at, write) in writes.iter().enumerate() {
            let document = document(write, text)?;
            let (bulk, statement) =
                if write.is_new { (&mut new, document) } else { (&mut known, guarded(write, document)?) };
            if bulk.is_full(&statement) {
                let is_new = bulk.is_new;
                full.push(std::mem::replace(bulk, Self { is_new, ..Self::default() }));
            }
            bulk.push(at, statement);
        }
        full.extend([new, known].into_iter().filter(|bulk| !bulk.statements.is_empty()));
        Ok(full)
    }

    /// Writes of the same documents under guards.
    fn guarded(self, writes: &[Write]) -> Result<Self, ReadModelError> {
        let mut known = Self::default();
        for (at, document) in self.which.into_iter().zip(self.statements) {
            let Some(write) = writes.get(at) else { continue };
            known.push(at, guarded(write, document)?);
        }
        Ok(known)
    }

    fn push(&mut self, at: usize, statement: RawDocumentBuf) {
        self.bytes += statement.as_bytes().len();
        self.which.push(at);
        self.statements.push(statement);
    }

    fn is_full(&self, next: &RawDocumentBuf) -> bool {
        let (documents, bytes) = (self.statements.len(), self.bytes + next.as_bytes().len());
        documents > 0 && (documents >= COMMAND_DOCUMENTS_MAX || bytes > COMMAND_BYTES_MAX)
    }

    fn remove(&mut self, which: &[usize]) {
        let (mut first, mut second) = (0.., 0..);
        let kept = |at: Option<usize>| at.is_some_and(|at| !which.contains(&at));
        self.which.retain(|_| kept(first.next()));
        self.statements.retain(|_| kept(second.next()));
    }

    fn command(&self, collection: &str) -> RawDocumentBuf {
        let mut statements = RawArrayBuf::new();
        self.statements.iter().for_each(|statement| statements.push(statement.as_ref()));
        let (mut command, field) = if self.is_new {
            (rawdoc! {"insert": collection}, cstr!("documents"))
        } else {
            (rawdoc! {"update": collection}, cstr!("updates"))
        };
        command.append(cstr!("ordered"), false);
        command.append(field, statements);
        command
    }
}

/// A replacement of an older document, or its insert. If a newer one is there, the insert finds
/// its key taken.
fn guarded(write: &Write, document: RawDocumentBuf) -> Result<RawDocumentBuf, ReadModelError> {
    let (key, position) = (write.key.as_str(), names::to_stored(write.position)?);
    Ok(rawdoc! {"q": {"_id": key, "position": {"$lt": position}}, "u": document, "upsert": true})
}

/// A document as it is stored.
fn document(write: &Write, text: &[String]) -> Result<RawDocumentBuf, ReadModelError> {
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
    Ok(document)
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
