//! The form of a read model's keys, for people who ask for a document by its key.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What follows the stream's name in a key, after a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPart {
    /// A revision of the stream, of 20 digits; the word says of what.
    Revision(&'static str),
    /// What the word says, as it is.
    Text(&'static str),
}

/// As many as 64 bits may need, so that keys sort as revisions do.
pub(crate) const DIGITS: usize = 20;

/// The form of the keys of these parts, such as `room-main.ROOM/MESSAGE`.
pub(crate) fn form(category: &str, parts: &[KeyPart]) -> String {
    let mut form = format!("{category}-main.{}", category.to_uppercase());
    for part in parts {
        let (KeyPart::Revision(word) | KeyPart::Text(word)) = part;
        // Writing to a String cannot fail.
        let _ = write!(form, "/{word}");
    }
    form
}

/// A key in full: revisions in it may have been written without the zeros before them.
pub(crate) fn whole<'a>(parts: &[KeyPart], key: &'a str) -> Cow<'a, str> {
    if !parts.iter().any(|part| matches!(part, KeyPart::Revision(_))) {
        return Cow::Borrowed(key);
    }
    let mut given = key.splitn(parts.len() + 1, '/');
    let mut whole = given.next().unwrap_or_default().to_owned();
    for (part, text) in parts.iter().zip(given) {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let _ = match part {
            KeyPart::Revision(_) if is_number => write!(whole, "/{text:0>DIGITS$}"),
            KeyPart::Revision(_) | KeyPart::Text(_) => write!(whole, "/{text}"),
        };
    }
    Cow::Owned(whole)
}

#[cfg(test)]
mod tests {
    use crate::named;

    #[test]
    fn revisions_may_be_written_without_their_zeros_and_names_are_left_alone() {
        for (projection, key, wanted) in [
            ("timeline", "room-main.den/2", "room-main.den/00000000000000000002"),
            ("timeline", "room-main.den/00000000000000000002", "room-main.den/00000000000000000002"),
            ("search", "room-main.den/18446744073709551615", "room-main.den/18446744073709551615"),
            ("replies", "room-main.den/2/7", "room-main.den/00000000000000000002/00000000000000000007"),
            ("replies", "room-main.den/2", "room-main.den/00000000000000000002"),
            ("timeline", "room-main.den/", "room-main.den/"),
            ("timeline", "room-main.den/x", "room-main.den/x"),
            ("timeline", "room-main.den/2/3", "room-main.den/2/3"),
            ("timeline", "room-main.den", "room-main.den"),
            ("members", "room-main.den/2", "room-main.den/2"),
            ("sessions", "user-main.alice/2", "user-main.alice/2"),
            ("rooms", "room-main.2", "room-main.2"),
        ] {
            let whole = named(projection).map(|projection| projection.whole_key(key).into_owned());
            assert_eq!(whole.as_deref(), Some(wanted), "{key} of {projection}");
        }
    }

    #[test]
    fn the_form_of_keys_is_told() {
        for (projection, wanted) in [
            ("rooms", "room-main.ROOM"),
            ("replies", "room-main.ROOM/ROOT/REPLY"),
            ("read_markers", "user-main.USER/ROOM"),
        ] {
            let form = named(projection).map(crate::DynProjection::key_form);
            assert_eq!(form.as_deref(), Some(wanted));
        }
    }
}
