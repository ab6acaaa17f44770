//! Names and values that every engine checks before they stand in a statement.

use dramatis_events::Position;

use super::{Place, Query, ReadModelError};

/// Checks a collection's name: a projection's name, `@` and a number, as `rooms@1`.
pub(super) fn collection(name: &str) -> Result<&str, ReadModelError> {
    let well_formed = name.split_once('@').is_some_and(|(name, number)| {
        (1..=64).contains(&name.len())
            && name.bytes().all(is_letter)
            && (1..=9).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit())
    });
    let expected = "a projection's name, @ and a number, as rooms@1";
    if well_formed { Ok(name) } else { Err(unfit("a collection", expected, name)) }
}

/// Checks the name of a field or an index.
pub(super) fn field(name: &'static str) -> Result<&'static str, ReadModelError> {
    let well_formed = !name.is_empty() && name.bytes().all(is_letter);
    let expected = "lower-case letters and underscores";
    if well_formed { Ok(name) } else { Err(unfit("a field's name", expected, name)) }
}

/// Checks that a query goes on from a place of its own order.
pub(super) fn place(query: &Query) -> Result<Option<&Place>, ReadModelError> {
    match &query.after {
        Some(place) if place.value.is_some() != query.sort.is_some() => {
            let expected = "a value exactly where the query sorts by a field";
            Err(unfit("a place", expected, &format!("{place:?}")))
        }
        after => Ok(after.as_ref()),
    }
}

/// The first text past all that begin with the prefix.
pub(super) fn past_prefix(prefix: &str) -> Result<String, ReadModelError> {
    let mut chars = prefix.chars();
    let next = chars.next_back().filter(char::is_ascii).and_then(|last| char::from_u32(u32::from(last) + 1));
    let expected = "text that ends in an ASCII character";
    let next = next.ok_or_else(|| unfit("a key's prefix", expected, prefix))?;
    Ok(format!("{}{next}", chars.as_str()))
}

/// Positions are unsigned, the integers of the stores are not.
pub(super) fn to_stored(position: Position) -> Result<i64, ReadModelError> {
    let stored = i64::try_from(position.to_engine());
    stored.map_err(|_| unfit("a position", "a number below 2^63", &position.to_string()))
}

pub(super) fn from_stored(place: &str, stored: i64) -> Result<Position, ReadModelError> {
    let damaged = |_| ReadModelError::Damaged {
        place: place.to_owned(),
        reason: format!("the position {stored} is negative"),
    };
    u64::try_from(stored).map(Position::from_engine).map_err(damaged)
}

pub(super) fn unfit(what: &'static str, expected: &'static str, got: &str) -> ReadModelError {
    ReadModelError::Unfit { what, expected, got: got.to_owned() }
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte == b'_'
}
