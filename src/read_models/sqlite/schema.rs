//! Tables and statements, as text.
//!
//! `builds` holds checkpoints, `aliases` the live builds, `dead_letters` the parked keys, `notes`
//! what the projector keeps about its work; each build has a table of documents named after its
//! collection, and one of their words if it is searched. Fields are indexed by
//! expression, so that a document is stored once.

use dramatis_projections::{Field, Index, TextField};
use rusqlite::Connection;

use crate::read_models::{
    Direction, FIND_MAX, NewBuild, Place, Query, ReadModelError, SEARCH_SKIP_MAX, Search, Value, names, text,
};

/// Says that a file is ours: `dram` in ASCII.
pub(super) const APPLICATION_ID: i64 = 0x6472_616d;
/// Raised with every change of these tables.
pub(super) const FORMAT: i64 = 1;

/// What the columns of a full-text index begin with, so that none is called as one of the documents'.
pub(super) const WORDS_OF: &str = "words_of_";

/// What a word consists of, by Unicode's general categories: all but what separates, as words are
/// cut already. Without marks, or signs that this tokenizer is too old to know, they would be cut again.
const CATEGORIES: &str = "L* M* N* P* S* C*";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS builds (
        collection TEXT PRIMARY KEY, projection TEXT NOT NULL, version INTEGER NOT NULL,
        epoch TEXT NOT NULL, position INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS aliases (
        projection TEXT PRIMARY KEY, collection TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS notes (
        name TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS dead_letters (
        collection TEXT NOT NULL, key TEXT NOT NULL, position INTEGER NOT NULL,
        event TEXT NOT NULL, error TEXT NOT NULL, PRIMARY KEY (collection, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS leases (
        name TEXT PRIMARY KEY, holder TEXT NOT NULL, token INTEGER NOT NULL,
        until_ms INTEGER NOT NULL) WITHOUT ROWID;";

/// Marks a new file as ours and creates the tables that every store has.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch(TABLES)
}

/// The table of a collection, quoted. The name's form is checked: it stands in statements.
pub(super) fn table(collection: &str) -> Result<String, ReadModelError> {
    Ok(format!("\"documents {}\"", names::collection(collection)?))
}

/// The full-text index of a collection whose documents are searched, quoted.
pub(super) fn words_table(collection: &str) -> Result<String, ReadModelError> {
    Ok(format!("\"words {}\"", names::collection(collection)?))
}

/// Creates the documents of a collection, without what they are looked for by.
pub(super) fn create_collection(build: &NewBuild) -> Result<String, ReadModelError> {
    let collection = &build.collection;
    let table = table(collection)?;
    let columns = if build.text.is_empty() {
        "(key TEXT PRIMARY KEY, position INTEGER NOT NULL, body TEXT) WITHOUT ROWID"
    } else {
        // The full-text index names its documents by number.
        "(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, position INTEGER NOT NULL, body TEXT)"
    };
    let mut statements = vec![format!("CREATE TABLE IF NOT EXISTS {table} {columns}")];
    statements.push(format!(
        "CREATE INDEX IF NOT EXISTS \"tombstones {collection}\" ON {table} (position) WHERE body IS NULL"
    ));
    statements.extend(create_words(build)?);
    Ok(statements.join(";\n"))
}

/// The indexes of a collection, each by its name and as `sqlite_master` has it.
pub(super) fn indexes(build: &NewBuild) -> Result<Vec<(String, String)>, ReadModelError> {
    let collection = &build.collection;
    let table = table(collection)?;
    let statement = |index: &Index| {
        let columns: Result<Vec<_>, _> = index.fields.iter().map(|field| column(*field)).collect();
        let columns = columns?.join(", ");
        let name = format!("{} {collection}", names::field(index.name)?);
        let sql = format!("CREATE INDEX \"{name}\" ON {table} ({columns}, key) WHERE body IS NOT NULL");
        Ok((name, sql))
    };
    build.indexes.iter().map(statement).collect()
}

/// The index holds words as [`text::words`] cuts them, and no second copy of the text.
fn create_words(build: &NewBuild) -> Result<Vec<String>, ReadModelError> {
    if build.text.is_empty() {
        return Ok(Vec::new());
    }
    let words = words_table(&build.collection)?;
    let fields = build.text.iter().map(|field| Ok(format!("{WORDS_OF}{}", names::field(field.name)?)));
    let fields = fields.collect::<Result<Vec<_>, ReadModelError>>()?.join(", ");
    let rank = rank(build.text);
    Ok(vec![
        format!(
            "CREATE VIRTUAL TABLE IF NOT EXISTS {words} USING fts5({fields}, content='',
                contentless_delete=1, tokenize=\"unicode61 remove_diacritics 0 categories '{CATEGORIES}'\")"
        ),
        format!("INSERT INTO {words} ({words}, rank) VALUES ('rank', '{rank}')"),
    ])
}

/// How the full-text index ranks: it keeps how much a word in each of its fields counts.
fn rank(fields: &[TextField]) -> String {
    let weights: Vec<_> = fields.iter().map(|field| format!("{}.0", field.weight)).collect();
    format!("bm25({})", weights.join(", "))
}

/// Reads what [`rank`] wrote.
pub(super) fn weights(rank: &str) -> Vec<f64> {
    let weights = rank.trim_start_matches("bm25(").trim_end_matches(')').split(", ");
    weights.map(|weight| weight.parse().unwrap_or(1.0)).collect()
}

fn column(field: Field) -> Result<String, ReadModelError> {
    Ok(format!("json_extract(body, '$.{}')", names::field(field.name)?))
}

/// Removes tombstones up to a position and the build's checkpoint: two parameters.
pub(super) fn purge(collection: &str) -> Result<String, ReadModelError> {
    let table = table(collection)?;
    Ok(format!(
        "DELETE FROM {table} WHERE body IS NULL AND position <=
            min(?, coalesce((SELECT position FROM builds WHERE collection = ?), -1))"
    ))
}

/// A page of documents past a key: one parameter.
pub(super) fn scan(collection: &str, limit: usize) -> Result<String, ReadModelError> {
    let (table, limit) = (table(collection)?, limit.min(FIND_MAX));
    Ok(format!(
        "SELECT key, position, body FROM {table} WHERE key > ? AND body IS NOT NULL ORDER BY key LIMIT {limit}"
    ))
}

/// A query as a statement and its parameters.
pub(super) fn select(
    collection: &str,
    query: &Query,
) -> Result<(String, Vec<rusqlite::types::Value>), ReadModelError> {
    let table = table(collection)?;
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    filter(query.key_prefix.as_ref(), &query.equal, &mut conditions, &mut values)?;
    let (order, comparison) = match query.direction {
        Direction::Ascending => ("ASC", ">"),
        Direction::Descending => ("DESC", "<"),
    };
    let sort = query.sort.map(column).transpose()?;
    if let Some(Place { value, key }) = names::place(query)? {
        match (&sort, value) {
            (Some(sort), Some(value)) => {
                conditions.push(format!("({sort}, key) {comparison} (?, ?)"));
                values.push(parameter(value));
            }
            _ => conditions.push(format!("key {comparison} ?")),
        }
        values.push(key.clone().into());
    }
    let sort = sort.map_or_else(String::new, |sort| format!("{sort} {order}, "));
    let (conditions, limit) = (conditions.join(" AND "), query.limit.min(FIND_MAX));
    let sql = format!(
        "SELECT key, position, body FROM {table} WHERE {conditions} ORDER BY {sort}key {order} LIMIT {limit}"
    );
    Ok((sql, values))
}

/// A statement and its parameters.
type Statement = (String, Vec<rusqlite::types::Value>);

/// A search as a statement and its parameters; `None` if it asks for no word.
pub(super) fn search(collection: &str, search: &Search) -> Result<Option<Statement>, ReadModelError> {
    let Some((matching, values)) = matches(collection, search)? else { return Ok(None) };
    let order = match search.sort {
        None => "rank, key DESC".to_owned(),
        Some((field, direction)) => {
            let order = if direction == Direction::Ascending { "ASC" } else { "DESC" };
            format!("{} {order}, key {order}", column(field)?)
        }
    };
    let (limit, skip) = (search.limit.min(FIND_MAX), search.skip.min(SEARCH_SKIP_MAX));
    let sql = format!("SELECT key, position, body {matching} ORDER BY {order} LIMIT {limit} OFFSET {skip}");
    Ok(Some((sql, values)))
}

/// The numbers of the documents that a search finds, those with the largest keys first: as many as anybody
/// pages to.
pub(super) fn matching(collection: &str, search: &Search) -> Result<Option<Statement>, ReadModelError> {
    let Some((matching, values)) = matches(collection, search)? else { return Ok(None) };
    let limit = SEARCH_SKIP_MAX + FIND_MAX;
    Ok(Some((format!("SELECT id {matching} ORDER BY key DESC LIMIT {limit}"), values)))
}

/// The documents that a search finds, as the rest of a statement from `FROM` on.
fn matches(collection: &str, search: &Search) -> Result<Option<Statement>, ReadModelError> {
    let phrases = text::phrases(&search.text)?;
    if phrases.is_empty() {
        return Ok(None);
    }
    let (table, words) = (table(collection)?, words_table(collection)?);
    let phrases: Vec<_> = phrases.iter().map(|phrase| format!("\"{phrase}\"")).collect();
    let mut conditions = vec![format!("{words} MATCH ?")];
    let mut values = vec![phrases.join(" ").into()];
    filter(search.key_prefix.as_ref(), &search.equal, &mut conditions, &mut values)?;
    let conditions = conditions.join(" AND ");
    // The documents first: if the build is gone, its error names them.
    let sql = format!("FROM {table} JOIN {words} ON {words}.rowid = {table}.id WHERE {conditions}");
    Ok(Some((sql, values)))
}

fn filter(
    key_prefix: Option<&String>,
    equal: &[(Field, Value)],
    conditions: &mut Vec<String>,
    values: &mut Vec<rusqlite::types::Value>,
) -> Result<(), ReadModelError> {
    conditions.push("body IS NOT NULL".to_owned());
    if let Some(prefix) = key_prefix {
        conditions.push("key >= ? AND key < ?".to_owned());
        values.extend([prefix.clone().into(), names::past_prefix(prefix)?.into()]);
    }
    for (field, value) in equal {
        conditions.push(format!("{} = ?", column(*field)?));
        values.push(parameter(value));
    }
    Ok(())
}

fn parameter(value: &Value) -> rusqlite::types::Value {
    match value {
        Value::Text(text) => text.clone().into(),
        Value::Integer(integer) => (*integer).into(),
    }
}
