//! The best matches in a part of the documents, such as those of a room: how well one matches, it says alone.
//!
//! The full-text index weighs words by how rare they are in all documents. In a room that would tell what is
//! said in the others, whoever may read them.

use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use serde_json::Value;

use super::errors::failed;
use super::write::fields_searched;
use super::{Row, document, row, schema};
use crate::read_models::{Document, FIND_MAX, ReadModelError, SEARCH_SKIP_MAX, Search, text};

/// Bytes of documents that are looked into for one search, those with the largest keys first; others that match
/// come after them.
const LOOKED_INTO_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How soon more of the same word counts for little, and how much a long text is held against it: as
/// `SQLite` has them in its `bm25`.
const SATURATION: f64 = 1.2;
const LENGTH_COUNTS: f64 = 0.75;
/// A text of so many words is neither short nor long. `bm25` takes the mean of all documents.
const WORDS_USUAL: f64 = 20.0;

/// What a search finds, the best first.
pub(super) fn documents(
    connection: &mut Connection,
    place: &str,
    collection: &str,
    search: &Search,
) -> Result<Vec<Document>, ReadModelError> {
    let Some((sql, values)) = schema::matching(collection, search)? else { return Ok(Vec::new()) };
    let (phrases, table) = (text::phrases(&search.text)?, schema::table(collection)?);
    let phrases: Vec<Vec<_>> = phrases.iter().map(|phrase| phrase.split(' ').collect()).collect();
    let rows = || -> rusqlite::Result<Vec<Row>> {
        // One snapshot for all that is asked.
        let transaction = connection.transaction()?;
        let found = transaction
            .prepare_cached(&sql)?
            .query_map(params_from_iter(values), |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        let fields = weights(&transaction, collection)?;
        let mut body = transaction.prepare_cached(&format!("SELECT body FROM {table} WHERE id = ?"))?;
        let (mut ranked, mut left) = (Vec::with_capacity(found.len()), LOOKED_INTO_BYTES_MAX);
        for id in found {
            let body: Option<String> =
                if left == 0 { None } else { body.query_row([id], |row| row.get(0)).optional()? };
            left = left.saturating_sub(body.as_ref().map_or(0, String::len));
            ranked.push((body.map_or(0.0, |body| score(&body, &fields, &phrases)), id));
        }
        // Of those that match as well, the larger key stays first.
        ranked.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let asked =
            ranked.into_iter().skip(search.skip.min(SEARCH_SKIP_MAX)).take(search.limit.min(FIND_MAX));
        let sql = format!("SELECT key, position, body FROM {table} WHERE id = ?");
        let mut whole = transaction.prepare_cached(&sql)?;
        asked.map(|(_, id)| whole.query_row([id], row)).collect()
    };
    let rows = rows().map_err(|e| failed(place, &e))?;
    rows.into_iter().map(|row| document(place, row)).collect()
}

/// The fields that a collection is searched in, and how much a word in each counts.
fn weights(connection: &Connection, collection: &str) -> rusqlite::Result<Vec<(String, f64)>> {
    let fields = fields_searched(connection, collection)?.unwrap_or_default();
    let rank: String = connection
        .prepare_cached(&format!("SELECT v FROM \"words {collection}_config\" WHERE k = 'rank'"))?
        .query_row([], |row| row.get(0))?;
    Ok(fields.into_iter().zip(schema::weights(&rank)).collect())
}

/// How well a document matches.
fn score(body: &str, fields: &[(String, f64)], phrases: &[Vec<&str>]) -> f64 {
    // What is no object has no fields.
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let (mut length, mut said) = (0.0, vec![0.0; phrases.len()]);
    for (field, weight) in fields {
        let words = text::words(body.get(field).and_then(Value::as_str).unwrap_or_default());
        let words: Vec<_> = words.split(' ').filter(|word| !word.is_empty()).collect();
        length += number(words.len());
        for (said, phrase) in said.iter_mut().zip(phrases) {
            *said += weight * number(words.windows(phrase.len()).filter(|words| *words == phrase).count());
        }
    }
    let held_against = SATURATION * (1.0 - LENGTH_COUNTS + LENGTH_COUNTS * length / WORDS_USUAL);
    said.iter().map(|said| said * (SATURATION + 1.0) / (said + held_against)).sum()
}

fn number(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
