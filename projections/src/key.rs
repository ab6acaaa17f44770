//! The form of a read model's keys, for people who ask for a document by its key.

use std::borrow::Cow;
use std::fmt::Write as _;

use dramatis_events::Revision;

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

/// The revision before which no event changes the document of a key: that of the last message which it names, as nothing
/// refers to what is yet to come.
pub(crate) fn first(parts: &[KeyPart], key: &str) -> Revision {
    let mut given = key.splitn(parts.len() + 1, '/').skip(1);
    let named = parts.iter().zip(given.by_ref()).filter(|(part, _)| matches!(part, KeyPart::Revision(_)));
    named.filter_map(|(_, text)| text.parse().ok()).max().map_or(Revision::FIRST, Revision::new)
}

#[cfg(test)]
mod tests {
    use dramatis_events::Revision;

    use crate::named;

    #[test]
    fn a_key_that_names_messages_tells_where_its_events_begin() {
        for (projection, key, wanted) in [
            ("timeline", "room-main.den/00000000000000000002", 2),
            ("search", "room-main.den/2", 2),
            ("replies", "room-main.den/00000000000000000002/00000000000000000007", 7),
            ("threads", "room-main.den/00000000000000000007", 7),
            ("timeline", "room-main.den/x", 0),
            ("timeline", "room-main.den", 0),
            // Names that look like revisions.
            ("members", "room-main.den/00000000000000000002", 0),
            ("read_markers", "user-main.alice/2", 0),
            ("rooms", "room-main.2", 0),
        ] {
            let first = named(projection).map(|projection| projection.first_of(key));
            assert_eq!(first, Some(Revision::new(wanted)), "{key} of {projection}");
        }
    }

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
