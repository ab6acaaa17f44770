//! What the driver and the server say, in the words of the port.

use mongodb::bson::{Bson, Document};
use mongodb::error::{Error, ErrorKind};

use crate::read_models::ReadModelError;

/// A document with this key, or this value under a unique index, is there already.
pub(super) const DUPLICATE_KEY: i32 = 11_000;
/// The collection does not exist.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// An index that an operation needs is not there.
const INDEX_NOT_FOUND: i32 = 27;
/// An index over these fields is there under another name or with other options.
const INDEX_OPTIONS_CONFLICT: i32 = 85;
/// An index of this name is there over other fields.
const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
/// It took longer than it was given.
const MAX_TIME_EXPIRED: i32 = 50;
/// What a server says to an index that it cannot make: `CommandNotSupported`, `NotImplemented`,
/// Amazon `DocumentDB`'s "feature not supported", what a strict API version leaves out, and
/// `FerretDB`'s `IndexNotFound`, which no other says to this.
const NOT_SUPPORTED: [i32; 5] = [115, 238, 303, 323, INDEX_NOT_FOUND];
/// The collection exists already.
const NAMESPACE_EXISTS: i32 = 48;
/// The collection was dropped while it was read.
const QUERY_PLAN_KILLED: i32 = 175;

/// The codes after which a guarded write may be tried again at once: the server steps down, shuts
/// down or lost a connection. From the driver specification "Retryable Writes".
const PASSING: [i32; 12] = [6, 7, 89, 91, 189, 262, 9_001, 10_107, 11_600, 11_602, 13_435, 13_436];

/// Letters of what a server says that are told on: some quote the whole command, with documents in it.
const REASON_CHARS_MAX: usize = 400;

/// Why an operation did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing came back in time, or the connection broke: the outcome is unknown.
    Unreachable {
        /// What happened.
        reason: String,
        /// Whether it may be tried again at once.
        again: bool,
    },
    /// The server said no.
    Refused {
        /// Its code.
        code: i32,
        /// Its words, cut short if they are many.
        reason: String,
    },
    /// What the port says already.
    Said(ReadModelError),
}

impl Trouble {
    fn refused(code: i32, reason: &str) -> Self {
        Self::Refused { code, reason: shortened(reason) }
    }

    pub(super) fn no_collection(&self) -> bool {
        matches!(self, Self::Refused { code: NAMESPACE_NOT_FOUND | QUERY_PLAN_KILLED, .. })
    }

    /// The collection has no text index, or is not there.
    pub(super) fn no_text_index(&self) -> bool {
        matches!(self, Self::Refused { code: INDEX_NOT_FOUND | NAMESPACE_NOT_FOUND, .. })
    }

    /// It was ended by the server, which answers.
    pub(super) fn out_of_time(&self) -> bool {
        matches!(self, Self::Refused { code: MAX_TIME_EXPIRED, .. })
    }

    pub(super) fn index_has_other_options(&self) -> bool {
        matches!(self, Self::Refused { code: INDEX_OPTIONS_CONFLICT, .. })
    }

    pub(super) fn index_has_other_fields(&self) -> bool {
        matches!(self, Self::Refused { code: INDEX_KEY_SPECS_CONFLICT, .. })
    }

    /// That the server cannot do this at all, if its no to an index means that.
    pub(super) fn or_unsupported(self, what: &'static str) -> Self {
        match self {
            Self::Refused { code, reason } if NOT_SUPPORTED.contains(&code) => {
                ReadModelError::Unsupported { what, reason: format!("{reason} (code {code})") }.into()
            }
            other => other,
        }
    }

    pub(super) fn collection_exists(&self) -> bool {
        matches!(self, Self::Refused { code: NAMESPACE_EXISTS, .. })
    }
}

impl From<ReadModelError> for Trouble {
    fn from(error: ReadModelError) -> Self {
        Self::Said(error)
    }
}

impl From<Trouble> for ReadModelError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable { reason, .. } => Self::Failure { reason },
            Trouble::Refused { code, reason } => {
                Self::Failure { reason: format!("the server refused it with code {code}: {reason}") }
            }
            Trouble::Said(error) => error,
        }
    }
}

/// An error of the driver in its words, without the labels that are for programs.
pub(super) fn told(error: &Error) -> String {
    without_labels(error.kind.to_string())
}

/// What it says of servers has their errors with labels in it, in any order.
fn without_labels(mut text: String) -> String {
    const LABELS: &str = ", labels: {";
    while let Some(at) = text.find(LABELS) {
        let end = text.get(at..).and_then(|labels| labels.find('}')).map_or(text.len(), |end| at + end + 1);
        text.replace_range(at..end, "");
    }
    text
}

/// Sorts an error of the driver.
pub(super) fn sort(error: &Error) -> Trouble {
    match error.kind.as_ref() {
        ErrorKind::Command(refused) if !PASSING.contains(&refused.code) => {
            Trouble::refused(refused.code, &refused.message)
        }
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::Command(_) => {
            Trouble::Unreachable { reason: told(error), again: true }
        }
        // Finding a server has waited already.
        _ => Trouble::Unreachable { reason: told(error), again: false },
    }
}

/// What a reply to a write says beside `ok: 1`.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// How many documents were found, changed or not, inserted or removed.
    pub(super) found: u64,
    /// How many of the writes found their key taken, as far as the server tells which index it was.
    pub(super) duplicates: u64,
}

/// Reads a reply. A duplicate key in another index than that of `_id` is an error.
pub(super) fn written(reply: &Document) -> Result<Written, Trouble> {
    let mut written = Written { found: count(reply, "n"), ..Written::default() };
    for error in reply.get_array("writeErrors").into_iter().flatten() {
        let Some(error) = error.as_document() else { continue };
        let code = number(error, "code");
        let reason = error.get_str("errmsg").unwrap_or_default();
        if code != DUPLICATE_KEY || on_id(error, reason) == Some(false) {
            return Err(Trouble::refused(code, reason));
        }
        written.duplicates += 1;
    }
    match reply.get_document("writeConcernError") {
        Ok(error) => Err(Trouble::Unreachable {
            reason: format!(
                "no majority took it: {}; see with rs.status() that most of its members are up and keep up",
                shortened(error.get_str("errmsg").unwrap_or_default())
            ),
            again: false,
        }),
        Err(_) => Ok(written),
    }
}

/// Whether the duplicate key is `_id`: by the pattern that servers from 4.4 on tell, or else by
/// the name of the index in the message, if it has one.
fn on_id(error: &Document, reason: &str) -> Option<bool> {
    match error.get_document("keyPattern") {
        Ok(pattern) => Some(pattern.keys().eq(["_id"])),
        Err(_) => reason.contains("index: ").then(|| reason.contains("index: _id_")),
    }
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARS_MAX) {
        None => reason.to_owned(),
        Some((end, _)) => format!(
            "{}… (the first {REASON_CHARS_MAX} of {} letters)",
            reason.get(..end).unwrap_or_default(),
            reason.chars().count()
        ),
    }
}

/// A number that is not negative.
pub(super) fn count(document: &Document, field: &str) -> u64 {
    whole(document, field).and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// A small number, such as a code.
pub(super) fn number(document: &Document, field: &str) -> i32 {
    whole(document, field).and_then(|number| i32::try_from(number).ok()).unwrap_or_default()
}

/// A number that servers give in several types.
fn whole(document: &Document, field: &str) -> Option<i64> {
    match document.get(field)? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        // Written out it has its digits alone, unless it is not whole.
        Bson::Double(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn labels_are_left_out() {
        let of = |labels: &str| format!("Servers: [ {{ Error: refused{labels}, source: None }} ]");
        let text = of(r#", labels: {"RetryableError", "Overloaded"}"#);
        assert_eq!(without_labels(format!("{text} {text}")), format!("{0} {0}", of("")));
        assert_eq!(without_labels("refused, labels: {".to_owned()), "refused");
    }

    #[test]
    fn a_duplicate_on_another_index_than_that_of_the_key_is_refused() {
        let reply = |pattern: Document| {
            doc! {"ok": 1, "writeErrors": [{"index": 0, "code": 11_000, "errmsg": "E11000", "keyPattern": pattern}]}
        };
        assert!(written(&reply(doc! {"_id": 1})).is_ok_and(|written| written.duplicates == 1));
        for other in [doc! {"body.title": 1}, doc! {"_id": 1, "body.title": 1}] {
            assert!(
                written(&reply(other))
                    .is_err_and(|trouble| matches!(trouble, Trouble::Refused { code: DUPLICATE_KEY, .. }))
            );
        }
        let old = |index: &str| {
            let errmsg = format!("E11000 duplicate key error collection: d.rooms@1 {index} dup key: {{}}");
            doc! {"ok": 1, "writeErrors": [{"index": 0, "code": 11_000, "errmsg": errmsg}]}
        };
        assert!(written(&old("index: _id_")).is_ok_and(|written| written.duplicates == 1));
        assert!(written(&old("")).is_ok_and(|written| written.duplicates == 1));
        assert!(written(&old("index: title")).is_err());
        assert!(written(&doc! {"ok": 1, "writeErrors": [{"index": 0, "code": 2}]}).is_err());
        assert!(written(&doc! {"ok": 1, "writeConcernError": {"code": 64, "errmsg": "waiting"}}).is_err());
        assert!(written(&doc! {"ok": 1, "n": 3}).is_ok_and(|written| written.found == 3));
    }

    #[test]
    fn numbers_are_read_in_every_type_that_servers_give() {
        for (n, expected) in [
            (Bson::Int32(3), 3),
            (Bson::Int64(5_000_000_000), 5_000_000_000),
            (Bson::Double(3.0), 3),
            (Bson::Double(5e9), 5_000_000_000),
            (Bson::Double(0.5), 0),
            (Bson::Double(f64::NAN), 0),
            (Bson::Int32(-1), 0),
            (Bson::String("3".into()), 0),
        ] {
            assert_eq!(count(&doc! {"n": n.clone()}, "n"), expected, "{n}");
        }
        assert_eq!(number(&doc! {"code": 11_000.0}, "code"), DUPLICATE_KEY);
        assert_eq!(number(&doc! {"code": 5_000_000_000_i64}, "code"), 0);
    }

    #[test]
    fn what_a_server_quotes_is_cut_short() {
        let quoted =
            format!("not authorized to execute {{ insert: \"rooms@1\", text: \"{}\" }}", "é".repeat(900));
        let reply = doc! {"ok": 1, "writeErrors": [{"index": 0, "code": 13, "errmsg": &quoted}]};
        let reason = match written(&reply) {
            Err(Trouble::Refused { code: 13, reason }) => reason,
            other => format!("{other:?}"),
        };
        let told = format!("… (the first 400 of {} letters)", quoted.chars().count());
        assert!(reason.starts_with("not authorized") && reason.ends_with(&told), "{reason}");
        assert_eq!(shortened(&quoted), reason);
        assert_eq!(shortened("short"), "short");
        // Which index it was is found out from all of it.
        let errmsg = format!("E11000 duplicate key error collection: {} index: title", "x".repeat(400));
        let reply = doc! {"ok": 1, "writeErrors": [{"index": 0, "code": 11_000, "errmsg": errmsg}]};
        assert!(written(&reply).is_err());
    }
}
