//! Texts under names, changed by compare-and-set: aliases and notes.

use mongodb::bson::{Document, RawArrayBuf, RawDocumentBuf, cstr, doc, rawdoc};
use mongodb::options::FindOptions;

use super::Store;
use super::builds::raw;
use super::errors::Trouble;

pub(super) const ALIASES: &str = "meta.aliases";
pub(super) const NOTES: &str = "meta.notes";

/// The most documents that are deleted at once.
const DELETED_MAX: i64 = 1_000;

impl Store {
    /// The text under a name.
    pub(super) async fn named(
        &self,
        collection: &str,
        name: &str,
        field: &str,
    ) -> Result<Option<String>, Trouble> {
        let found = self.found(collection, doc! {"_id": name}, FindOptions::default()).await?;
        Ok(found.first().and_then(|found| found.get_str(field).ok()).map(str::to_owned))
    }

    /// Keeps another text under a name, if the present one is as expected; tells whether it did.
    pub(super) async fn swap(
        &self,
        collection: &str,
        name: &str,
        field: &str,
        expected: Option<String>,
        wanted: Option<String>,
    ) -> Result<bool, Trouble> {
        let changed = match (expected, &wanted) {
            (None, None) => return Ok(self.named(collection, name, field).await?.is_none()),
            (None, Some(wanted)) => {
                let text = doc! {"_id": name, field: wanted};
                self.change(insert(collection, [raw(&text)?])).await?
            }
            (Some(expected), Some(wanted)) => {
                let stands = doc! {"_id": name, field: expected};
                self.update(collection, stands, doc! {"$set": {field: wanted}}, false).await?
            }
            (Some(expected), None) => self.delete(collection, doc! {"_id": name, field: expected}).await?,
        };
        match changed {
            (1.., _) => Ok(true),
            (0, 1) => Ok(false),
            // The first try may have done it, and its answer got lost.
            (0, _) => Ok(self.named(collection, name, field).await? == wanted),
        }
    }

    /// Updates one document; answers how many it found, and how often it was tried.
    pub(super) async fn update(
        &self,
        collection: &str,
        filter: Document,
        update: Document,
        upsert: bool,
    ) -> Result<(u64, u32), Trouble> {
        let updates = vec![doc! {"q": filter, "u": update, "upsert": upsert}];
        self.change(raw(&doc! {"update": collection, "updates": updates})?).await
    }

    /// Deletes some of the documents that a filter finds; answers how many, and none once there are none.
    pub(super) async fn delete_some(&self, collection: &str, filter: &Document) -> Result<u64, Trouble> {
        let mut some = FindOptions::builder().projection(doc! {"_id": 1}).limit(DELETED_MAX).build();
        some.batch_size = u32::try_from(DELETED_MAX + 1).ok();
        let found = self.found(collection, filter.clone(), some).await?;
        let keys: Vec<_> = found.iter().filter_map(|found| found.get_str("_id").ok()).collect();
        let number = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        if number > 0 {
            let mut those = filter.clone();
            those.insert("_id", doc! {"$in": keys});
            self.delete(collection, those).await?;
        }
        // Tried again, the first try may have been the one that found them.
        Ok(number)
    }

    /// Deletes all documents that a filter finds; answers how many, and how often it was tried.
    pub(super) async fn delete(&self, collection: &str, filter: Document) -> Result<(u64, u32), Trouble> {
        let deletes = vec![doc! {"q": filter, "limit": 0}];
        self.change(raw(&doc! {"delete": collection, "deletes": deletes})?).await
    }
}

/// A command that inserts documents in any order; those whose keys are taken stay as they are.
pub(super) fn insert(
    collection: &str,
    documents: impl IntoIterator<Item = RawDocumentBuf>,
) -> RawDocumentBuf {
    let mut inserted = RawArrayBuf::new();
    documents.into_iter().for_each(|document| inserted.push(document));
    let mut insert = rawdoc! {"insert": collection, "ordered": false};
    insert.append(cstr!("documents"), inserted);
    insert
}
