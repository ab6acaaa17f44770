//! Writing a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dramatis_events::{Epoch, Position};
use dramatis_projections::Write;
use mongodb::bson::{RawArrayBuf, RawBson, RawDocumentBuf, cstr, doc, rawdoc};

use super::builds::{BUILDS, standing};
use super::errors::{DUPLICATE_KEY, Trouble, Written};
use super::lately::Begun;
use super::{Store, body};
use crate::read_models::names::{self, unfit};
use crate::read_models::{Batch, ReadModelError, text};

/// Bytes of one command, which may be 16 MiB at the most.
pub(super) const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Documents of one command, of which servers take 100,000.
const COMMAND_DOCUMENTS_MAX: usize = 10_000;
/// Batches of so many documents are put into BSON beside what runs on the caller's thread.
const BESIDE_DOCUMENTS_MIN: usize = 500;
/// Bytes of one document: servers take 16 MiB, and it stands in a command.
const DOCUMENT_BYTES_MAX: usize = 15 * 1024 * 1024;

/// Documents that one statement changes together: for each of them the server looks through a list as long.
const TOGETHER_MAX: usize = 100;

/// How often writes are sent that meet documents which others insert in the same moment.
const SENT_MAX: u32 = 8;

impl Store {
    /// Documents first, then dead letters, then the checkpoint: cut off anywhere, the same batch
    /// made again has the effect of one. The journal holds all three once it holds the checkpoint; until
    /// then a server that dies may lose documents, and they are folded again from the checkpoint before. Nothing
    /// of a batch is written that was folded from what is lost: the guards would keep it for ever.
    pub(super) async fn write(
        self: &Arc<Self>,
        collection: &str,
        batch: Arc<Batch>,
        begun: Begun,
    ) -> Result<(), Trouble> {
        let written = async {
            let text = self.goes_on_from(collection, &batch).await?;
            for bulk in bulks(batch.clone(), text).await? {
                self.write_all(collection, &bulk).await?;
            }
            self.park(collection, &batch.parked).await?;
            if let Some(position) = batch.checkpoint.position {
                self.move_checkpoint(collection, position, &batch).await?;
                self.end_unsaved_of(collection, begun);
            }
            Ok(())
        };
        self.while_kept(collection, begun, written).await
    }

    /// Whether a batch was folded from what is stored; answers the fields whose words are kept.
    async fn goes_on_from(self: &Arc<Self>, collection: &str, batch: &Batch) -> Result<Vec<String>, Trouble> {
        let after = batch.after.map(names::to_stored).transpose()?;
        let mut standing = self.standing_lately(collection).await?;
        if standing.position < after {
            // What was known may be older than that.
            standing = self.ask_standing(collection).await?;
        }
        let got = batch.checkpoint.epoch;
        match batch.after {
            _ if standing.epoch != got => Err(other_epoch(collection, standing.epoch, got)),
            Some(acknowledged) if standing.position < after => {
                Err(self.lose(collection, acknowledged).into())
            }
            _ => Ok(standing.text),
        }
    }

    async fn move_checkpoint(
        &self,
        collection: &str,
        position: Position,
        batch: &Batch,
    ) -> Result<(), Trouble> {
        let (epoch, mut build) = (batch.checkpoint.epoch, standing(collection));
        build.insert("epoch", epoch.to_string());
        if let Some(after) = batch.after {
            build.insert("position", doc! {"$gte": names::to_stored(after)?});
        }
        let position = names::to_stored(position)?;
        let forward = doc! {"$max": {"position": position}};
        let (found, _) = self.update(BUILDS, build, forward, false).await?;
        if found > 0 {
            self.stands_at(collection, position);
            return Ok(());
        }
        // What was known of it a moment ago holds no more.
        let stored = self.ask_standing(collection).await?.epoch;
        match batch.after.filter(|_| stored == epoch) {
            Some(acknowledged) => Err(self.lose(collection, acknowledged).into()),
            None => Err(other_epoch(collection, stored, epoch)),
        }
    }

    /// Has a run go on from the checkpoint: what is there past that it skips, and does not write again. So all of
    /// it is in the journal first, and what is not there then counts as lost no more.
    pub(super) async fn go_on_from_checkpoint(&self, collection: &str) -> Result<(), Trouble> {
        let begun = self.begun(collection);
        // The journal has one order: it holds what was written before this once it holds this.
        let opened = doc! {"$inc": {"opened": 1_i64}};
        let (found, _) = self.update(BUILDS, standing(collection), opened, false).await?;
        if found == 0 {
            return Err(ReadModelError::NoBuild { collection: collection.to_owned() }.into());
        }
        self.end_unsaved_of(collection, begun);
        Ok(())
    }

    /// Inserts what is new and changes what is there, which costs a server less than a write that may
    /// have to do either; where it is not as it was thought to be, that is done.
    async fn write_all(&self, collection: &str, bulk: &Bulk) -> Result<(), Trouble> {
        if self.written_as_likely(collection, bulk).await?.found >= bulk.len() {
            return Ok(());
        }
        // A duplicate is a document that somebody else inserted in that moment: sent again, the write
        // finds it. Some servers stop there, so all are sent again.
        for _ in 0..SENT_MAX {
            let (written, _) = self.written(bulk.command(collection, How::Upsert)?, false).await?;
            if written.found >= bulk.len() {
                return Ok(());
            }
            if written.duplicates == 0 {
                let (asked, told) = (bulk.len(), written.found);
                let reason =
                    format!("of {asked} writes the server tells of {told}, and nothing of the others");
                return Err(ReadModelError::Failure { reason }.into());
            }
        }
        let reason = format!("a unique index of {collection} holds what one of its documents is to hold");
        Err(Trouble::Refused { code: DUPLICATE_KEY, reason })
    }

    async fn written_as_likely(&self, collection: &str, bulk: &Bulk) -> Result<Written, Trouble> {
        let likely = match self.refuses_together.load(Ordering::Relaxed) {
            _ if bulk.is_new => How::Insert,
            false => How::Together,
            true => How::Update,
        };
        match self.written(bulk.command(collection, likely)?, false).await {
            Err(Trouble::Refused { code, reason }) if likely == How::Together => {
                let (written, _) = self.written(bulk.command(collection, How::Update)?, false).await?;
                tracing::debug!(code, reason, "this server changes documents one by one");
                self.refuses_together.store(true, Ordering::Relaxed);
                Ok(written)
            }
            answer => answer.map(|(written, _)| written),
        }
    }

    pub(super) async fn purge(&self, collection: &str, up_to: Position) -> Result<u64, Trouble> {
        let Some(checkpoint) = self.standing(collection).await?.position else { return Ok(0) };
        let up_to = names::to_stored(up_to)?.min(checkpoint);
        let deleted = doc! {"latest.deleted": true, "latest.position": {"$lte": up_to}};
        let mut all = 0;
        loop {
            // What one operation takes is bounded: one that is slow is taken for a server that is gone.
            let purged = self.delete_some(collection, &deleted).await?;
            if purged == 0 {
                return Ok(all);
            }
            all += purged;
        }
    }
}

fn other_epoch(collection: &str, stored: Epoch, got: Epoch) -> Trouble {
    ReadModelError::OtherEpoch { collection: collection.to_owned(), stored, got }.into()
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

/// Documents to write with one command, in any order.
#[derive(Default)]
struct Bulk {
    /// Whether they are not known to be there.
    is_new: bool,
    documents: Vec<RawDocumentBuf>,
    bytes: usize,
}

/// What a command does with documents that are there, and with those that are not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Insert,
    /// Many with a statement, which costs the server two thirds.
    Together,
    Update,
    Upsert,
}

impl Bulk {
    fn all(writes: &[Write], text: &[String]) -> Result<Vec<Self>, ReadModelError> {
        let (mut full, mut new) = (Vec::new(), Self { is_new: true, ..Self::default() });
        let mut known = Self::default();
        for write in writes {
            let document = document(write, text)?;
            let bulk = if write.is_new { &mut new } else { &mut known };
            if bulk.is_full(&document) {
                let is_new = bulk.is_new;
                full.push(std::mem::replace(bulk, Self { is_new, ..Self::default() }));
            }
            bulk.push(document);
        }
        full.extend([new, known].into_iter().filter(|bulk| !bulk.documents.is_empty()));
        Ok(full)
    }

    fn push(&mut self, document: RawDocumentBuf) {
        self.bytes += document.as_bytes().len();
        self.documents.push(document);
    }

    fn len(&self) -> u64 {
        u64::try_from(self.documents.len()).unwrap_or(u64::MAX)
    }

    fn is_full(&self, next: &RawDocumentBuf) -> bool {
        let (documents, bytes) = (self.documents.len(), self.bytes + next.as_bytes().len());
        documents > 0 && (documents >= COMMAND_DOCUMENTS_MAX || bytes > COMMAND_BYTES_MAX)
    }

    fn command(&self, collection: &str, how: How) -> Result<RawDocumentBuf, ReadModelError> {
        let mut statements = RawArrayBuf::new();
        match how {
            How::Insert => self.documents.iter().for_each(|document| statements.push(document.as_ref())),
            How::Together => {
                for some in self.documents.chunks(TOGETHER_MAX) {
                    statements.push(guarded_together(some)?);
                }
            }
            How::Update | How::Upsert => {
                for document in &self.documents {
                    statements.push(guarded(document, how == How::Upsert)?);
                }
            }
        }
        let (mut command, field) = match how {
            How::Insert => (rawdoc! {"insert": collection}, cstr!("documents")),
            How::Together | How::Update | How::Upsert => (rawdoc! {"update": collection}, cstr!("updates")),
        };
        command.append(cstr!("ordered"), false);
        command.append(field, statements);
        Ok(command)
    }
}

/// A replacement of an older document, or its insert. Embedded documents compare field by field,
/// and the first is the position: so the larger one is the later one. A filter by position as well
/// would cost a server twice as much, as it plans each query that is not by the key alone.
fn guarded(document: &RawDocumentBuf, upsert: bool) -> Result<RawDocumentBuf, ReadModelError> {
    let (key, latest) = (part(document, "_id")?, part(document, "latest")?);
    Ok(rawdoc! {"q": {"_id": key}, "u": {"$max": {"latest": latest}}, "upsert": upsert})
}

/// The same of documents that are there: each takes its own value out of a list.
fn guarded_together(documents: &[RawDocumentBuf]) -> Result<RawDocumentBuf, ReadModelError> {
    let (mut keys, mut values) = (RawArrayBuf::new(), RawArrayBuf::new());
    for document in documents {
        keys.push(part(document, "_id")?);
        values.push(part(document, "latest")?);
    }
    let place = rawdoc! {"$indexOfArray": [{"$literal": keys.clone()}, "$_id"]};
    let value = rawdoc! {"$arrayElemAt": [{"$literal": values}, place]};
    let later = rawdoc! {"$set": {"latest": {"$max": ["$latest", value]}}};
    Ok(rawdoc! {"q": {"_id": {"$in": keys}}, "u": [later], "multi": true})
}

fn part(document: &RawDocumentBuf, field: &str) -> Result<RawBson, ReadModelError> {
    let found = document.get(field).ok().flatten().map(RawBson::from);
    found.ok_or_else(|| ReadModelError::Failure { reason: format!("a document without {field:?}") })
}

/// A document as it is stored.
fn document(write: &Write, text: &[String]) -> Result<RawDocumentBuf, ReadModelError> {
    let (key, position) = (write.key.as_str(), names::to_stored(write.position)?);
    let mut latest = rawdoc! {"position": position};
    match &write.body {
        None => latest.append(cstr!("deleted"), true),
        Some(json) => {
            let body = body::to_bson(key, json)?;
            let words = words(&body, text)?;
            latest.append(cstr!("body"), body);
            if let Some(words) = words {
                latest.append(cstr!("words"), words);
            }
        }
    }
    let document = rawdoc! {"_id": key, "latest": latest};
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
