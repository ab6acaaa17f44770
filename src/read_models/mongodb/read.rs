//! Reading documents.

use dramatis_projections::{Field, Stored};
use mongodb::bson::{Document as Bson, RawDocument, doc};
use mongodb::options::FindOptions;

use super::errors::{self, Trouble};
use super::{Store, body};
use crate::read_models::{
    Direction, Document, FIND_BYTES_MAX, FIND_MAX, Query, ReadModelError, SCAN_BYTES_MAX, SEARCH_SKIP_MAX,
    Search, Value, names, text,
};

/// Bytes at which what a query finds ends. A document is larger here than as JSON, by less than eight times, and has
/// 16 MiB at the most: what comes to so much are two documents or more, and past [`FIND_BYTES_MAX`].
const FOUND_BYTES_MAX: usize = 17 * FIND_BYTES_MAX;
/// So many documents are counted one by one.
const COUNTED_MAX: u64 = 100_000;

impl Store {
    /// What a projection folds on: nothing that is lost, perhaps.
    pub(super) async fn load(&self, collection: &str, keys: Vec<String>) -> Result<Vec<Stored>, Trouble> {
        let before = self.unsaved(collection);
        let found = self.of_keys(collection, keys).await?;
        self.unless_set_back(collection, before)?;
        Ok(found)
    }

    pub(super) async fn get(&self, collection: &str, key: String) -> Result<Option<Document>, Trouble> {
        let before = self.unsaved(collection);
        let found = self.of_keys(collection, vec![key]).await?;
        self.unless_lost(collection, before)?;
        Ok(found.into_iter().find_map(document))
    }

    async fn of_keys(&self, collection: &str, keys: Vec<String>) -> Result<Vec<Stored>, Trouble> {
        let options = FindOptions::builder().batch_size(batch_size(keys.len())).projection(shown()).build();
        let found = self.found(collection, doc! {"_id": {"$in": keys}}, options).await?;
        self.unless_gone(collection, found.is_empty()).await?;
        found.iter().map(|raw| stored(collection, raw).map_err(Trouble::from)).collect()
    }

    pub(super) async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, Trouble> {
        let mut conditions = filter(query.key_prefix.as_deref(), &query.equal)?;
        let (order, past) = match query.direction {
            Direction::Ascending => (1, "$gt"),
            Direction::Descending => (-1, "$lt"),
        };
        let sort = query.sort.map(path).transpose()?;
        if let Some(place) = names::place(query)? {
            let past_key = doc! {"_id": {past: &place.key}};
            match (&sort, &place.value) {
                (Some(sort), Some(at)) => {
                    // The first condition bounds the walk through the index.
                    conditions.push(doc! {sort: {format!("{past}e"): value(at)}});
                    conditions.push(doc! {"$or": [{sort: {past: value(at)}}, past_key]});
                }
                _ => conditions.push(past_key),
            }
        }
        let mut sorted = Bson::new();
        if let Some(sort) = sort {
            sorted.insert(sort, order);
        }
        sorted.insert("_id", order);
        let limit = query.limit.min(FIND_MAX);
        self.page(collection, doc! {"$and": conditions}, page_of(sorted, shown(), 0, limit)).await
    }

    pub(super) async fn search(&self, collection: &str, search: &Search) -> Result<Vec<Document>, Trouble> {
        let phrases = text::phrases(&search.text)?;
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        // Words are stored between blanks: a phrase with them finds whole words only. Each phrase
        // must occur, while of words without quotes one would do.
        let phrases: Vec<_> = phrases.iter().map(|phrase| format!("\" {phrase} \"")).collect();
        let mut conditions = filter(search.key_prefix.as_deref(), &search.equal)?;
        // What words are the same without is cut away already; the server would take more for that.
        conditions.push(doc! {"$text": {"$search": phrases.join(" "), "$diacriticSensitive": true}});
        let (mut projection, score) = (shown(), doc! {"$meta": "textScore"});
        let sorted = match search.sort {
            None => {
                projection.insert("score", score.clone());
                doc! {"score": score, "_id": -1}
            }
            Some((field, direction)) => {
                let order = if direction == Direction::Ascending { 1 } else { -1 };
                doc! {path(field)?: order, "_id": order}
            }
        };
        let (skip, limit) = (search.skip.min(SEARCH_SKIP_MAX), search.limit.min(FIND_MAX));
        let mut options = page_of(sorted, projection, skip, limit);
        // Its server ends it in time, and what is slow is not what does not answer.
        let within = self.options.operation_timeout / 2;
        options.max_time = Some(within);
        match self.page(collection, doc! {"$and": conditions}, options).await {
            Err(trouble) if trouble.out_of_time() => {
                let reason = format!(
                    "the search took longer than {} ms: ask for rarer words, or in one room",
                    within.as_millis()
                );
                Err(ReadModelError::Failure { reason }.into())
            }
            Err(trouble) if trouble.no_text_index() => {
                self.standing(collection).await?;
                Err(text::not_searched(collection).into())
            }
            found => found,
        }
    }

    pub(super) async fn scan(
        &self,
        collection: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Document>, Trouble> {
        let filter = doc! {"_id": {"$gt": after.unwrap_or_default()}, "latest.body": {"$exists": true}};
        let options = page_of(doc! {"_id": 1}, shown(), 0, limit.min(FIND_MAX));
        self.page_within(collection, filter, options, SCAN_BYTES_MAX).await
    }

    /// Counts keys and tombstones, both by an index alone; of very many, what the server believes
    /// that there are.
    pub(super) async fn count(&self, collection: &str) -> Result<u64, Trouble> {
        let believed = self.counted(doc! {"count": collection}).await?;
        let all = if believed > COUNTED_MAX {
            believed
        } else {
            self.counted(doc! {"count": collection, "query": {"_id": {"$gte": ""}}}).await?
        };
        let deleted = self.counted(doc! {"count": collection, "query": {"latest.deleted": true}}).await?;
        let count = all.saturating_sub(deleted);
        self.unless_gone(collection, count == 0).await?;
        Ok(count)
    }

    /// Its server ends it in time, and what is slow is not what does not answer.
    async fn counted(&self, mut count: Bson) -> Result<u64, Trouble> {
        let within = self.options.operation_timeout / 2;
        count.insert("maxTimeMS", i64::try_from(within.as_millis()).unwrap_or(i64::MAX).max(1));
        match self.command(count).await {
            Err(trouble) if trouble.out_of_time() => {
                let reason = format!("counting took longer than {} ms", within.as_millis());
                Err(ReadModelError::Failure { reason }.into())
            }
            counted => Ok(errors::count(&counted?, "n")),
        }
    }

    async fn page(
        &self,
        collection: &str,
        filter: Bson,
        options: FindOptions,
    ) -> Result<Vec<Document>, Trouble> {
        self.page_within(collection, filter, options, FOUND_BYTES_MAX).await
    }

    async fn page_within(
        &self,
        collection: &str,
        filter: Bson,
        options: FindOptions,
        bytes_max: usize,
    ) -> Result<Vec<Document>, Trouble> {
        // To the server that would be no limit.
        if options.limit == Some(0) {
            return Ok(Vec::new());
        }
        let before = self.unsaved(collection);
        let found = self.found_within(collection, filter, options, bytes_max).await?;
        self.unless_lost(collection, before)?;
        self.unless_gone(collection, found.is_empty()).await?;
        let documents = found.iter().map(|raw| stored(collection, raw).map(document));
        Ok(documents.filter_map(Result::transpose).collect::<Result<_, ReadModelError>>()?)
    }

    /// A collection that is not there looks like an empty one.
    async fn unless_gone(&self, collection: &str, empty: bool) -> Result<(), Trouble> {
        if empty {
            self.standing(collection).await?;
        }
        Ok(())
    }
}

/// The fields that are read.
fn shown() -> Bson {
    doc! {"latest.position": 1, "latest.body": 1}
}

fn page_of(sort: Bson, projection: Bson, skip: usize, limit: usize) -> FindOptions {
    let mut options = FindOptions::builder().sort(sort).projection(projection).build();
    options.skip = u64::try_from(skip).ok();
    options.limit = i64::try_from(limit).ok();
    options.batch_size = Some(batch_size(limit));
    options
}

/// All in one answer, unless it is too large for that. One more than asked ends the cursor.
fn batch_size(documents: usize) -> u32 {
    u32::try_from(documents).unwrap_or(u32::MAX).saturating_add(1)
}

fn filter(key_prefix: Option<&str>, equal: &[(Field, Value)]) -> Result<Vec<Bson>, ReadModelError> {
    let mut conditions = vec![doc! {"latest.body": {"$exists": true}}];
    if let Some(prefix) = key_prefix {
        conditions.push(doc! {"_id": {"$gte": prefix, "$lt": names::past_prefix(prefix)?}});
    }
    for (field, equal) in equal {
        conditions.push(doc! {path(*field)?: value(equal)});
    }
    Ok(conditions)
}

fn path(field: Field) -> Result<String, ReadModelError> {
    Ok(format!("latest.body.{}", names::field(field.name)?))
}

fn value(value: &Value) -> mongodb::bson::Bson {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(integer) => (*integer).into(),
    }
}

fn document(Stored { key, position, body }: Stored) -> Option<Document> {
    body.map(|body| Document { key, position, body })
}

fn stored(collection: &str, raw: &RawDocument) -> Result<Stored, ReadModelError> {
    let key = raw.get_str("_id").map_err(|error| damaged(collection, "", &error))?.to_owned();
    let damaged = |error: &dyn std::fmt::Display| damaged(collection, &key, error);
    let latest = raw.get_document("latest").map_err(|error| damaged(&error))?;
    let position = latest.get_i64("position").map_err(|error| damaged(&error))?;
    let position = names::from_stored(collection, position)?;
    let body = latest.get("body").map_err(|error| damaged(&error))?;
    let body = body.map(body::to_json).transpose().map_err(|error| damaged(&error))?;
    Ok(Stored { key, position, body })
}

pub(super) fn damaged(collection: &str, key: &str, error: &dyn std::fmt::Display) -> ReadModelError {
    ReadModelError::Damaged { place: format!("{key:?} in {collection}"), reason: error.to_string() }
}
