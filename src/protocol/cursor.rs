//! One opaque cursor over all rooms of a session, for transports that have no frame to say
//! `hello` in: it follows the messages that went out and says where the client then stands. A room that is
//! denied for now alone stays in it, at the place that was asked for.
//!
//! Its text is checked, so that a damaged, altered or foreign one is told from a good one. It is
//! no secret and gives no right: all it says the client might say in a `hello` itself, and every
//! room in it is asked for anew under the reader's own name. No server keeps anything for it:
//! any node, and any later process, can take it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dramatis_events::{Epoch, MemberId, Revision};
use serde::{Deserialize, Serialize};

use super::ErrorCode;
use super::client::{CatchUp, RoomCursor};
use super::followed::Followed;

/// The form of the text: raised with every change of it.
const VERSION: u8 = 1;
/// Bytes of the check at the front of the text.
const CHECK_BYTES: usize = 12;
/// What the check is of; a key of this program, not a secret.
const CONTEXT: &str = "dramatis 2026-11 cursor over rooms, version 1";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cursor {
    user: MemberId,
    rooms: BTreeMap<Followed, Place>,
    /// It has been said which rooms there are.
    has_begun: bool,
    /// Where the client stands in the rooms that it has asked for, until then.
    asked: Vec<RoomCursor>,
}

/// Where the client stands in one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    epoch: Epoch,
    /// The revision that comes next.
    next: Revision,
    /// The room's state was asked for and has not come yet.
    awaits_state: bool,
}

impl Place {
    /// Where a client says that it stands; none if that is nowhere, and it asks for the latest page.
    fn asked(asked: &RoomCursor, epoch: Epoch) -> Option<Self> {
        let awaits_state = asked.catch_up == CatchUp::State;
        let first = (asked.from_first || awaits_state).then_some(Revision::FIRST);
        let next = asked.after.map(Revision::next).or(first)?;
        Some(Self { epoch: asked.epoch.unwrap_or(epoch), next, awaits_state })
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// No text of ours at all.
    #[error("a cursor must be the text that an earlier answer gave; what came is none")]
    Unreadable,
    /// Of another version of this program.
    #[error("a cursor of version {VERSION} is expected, one of version {0} came: start without it")]
    Version(u8),
    /// Altered on the way, or made elsewhere.
    #[error("the cursor's check does not match: it was altered, or no server of this kind made it")]
    Forged,
    /// Made for somebody else.
    #[error("the cursor was made for another user: start without it")]
    Foreign,
}

/// What a text carries: epochs once, and rooms with the epoch's place in that list.
#[derive(Serialize, Deserialize)]
struct Carried<'a> {
    user: Cow<'a, MemberId>,
    epochs: Vec<Epoch>,
    rooms: Vec<(Cow<'a, Followed>, usize, Revision, bool)>,
}

/// What of a message moves a cursor.
#[derive(Deserialize)]
struct Passing<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    room: Option<Followed>,
    revision: Option<Revision>,
    epoch: Option<Epoch>,
    how: Option<Cow<'a, str>>,
    after: Option<Revision>,
    #[serde(default)]
    rooms: Vec<Entry<'a>>,
}

/// One room of a `ready`.
#[derive(Deserialize)]
struct Entry<'a> {
    /// Perhaps a name that can be none, which is denied.
    room: String,
    epoch: Epoch,
    #[serde(borrow)]
    how: Cow<'a, str>,
    after: Option<Revision>,
    code: Option<ErrorCode>,
}

impl Cursor {
    /// Of a client that has got nothing yet and asks for these rooms.
    pub const fn asking(user: MemberId, asked: Vec<RoomCursor>) -> Self {
        Self { user, rooms: BTreeMap::new(), has_begun: false, asked }
    }

    /// Whether the rooms in it are all that are followed: before `ready` there are none in it, and who went
    /// on from there would follow none.
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Reads a text of [`Self::encode`].
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Unreadable)?;
        let (version, checked) = bytes.split_first().ok_or(CursorError::Unreadable)?;
        if *version != VERSION {
            return Err(CursorError::Version(*version));
        }
        let (check, carried) = checked.split_at_checked(CHECK_BYTES).ok_or(CursorError::Unreadable)?;
        if check != check_of(carried) {
            return Err(CursorError::Forged);
        }
        let Carried { user, epochs, rooms } =
            serde_json::from_slice(carried).map_err(|_| CursorError::Unreadable)?;
        let rooms = rooms.into_iter().map(|(room, epoch, next, awaits_state)| {
            let epoch = *epochs.get(epoch).ok_or(CursorError::Unreadable)?;
            Ok((room.into_owned(), Place { epoch, next, awaits_state }))
        });
        let rooms = rooms.collect::<Result<_, _>>()?;
        Ok(Self { user: user.into_owned(), rooms, has_begun: true, asked: Vec::new() })
    }

    /// The text: letters, digits, `-` and `_`.
    pub fn encode(&self) -> String {
        let mut epochs: Vec<Epoch> = Vec::new();
        let rooms = self.rooms.iter().map(|(room, place)| {
            let epoch = epochs.iter().position(|known| *known == place.epoch).unwrap_or_else(|| {
                epochs.push(place.epoch);
                epochs.len() - 1
            });
            (Cow::Borrowed(room), epoch, place.next, place.awaits_state)
        });
        let rooms = rooms.collect();
        let carried = Carried { user: Cow::Borrowed(&self.user), epochs, rooms };
        // These types hold strings and numbers only: serializing them cannot fail.
        let carried = serde_json::to_vec(&carried).unwrap_or_default();
        let mut bytes = Vec::with_capacity(1 + CHECK_BYTES + carried.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&check_of(&carried));
        bytes.extend_from_slice(&carried);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The rooms, as a `hello` of this user names them.
    pub fn rooms(&self, user: &MemberId) -> Result<Vec<RoomCursor>, CursorError> {
        if *user != self.user {
            return Err(CursorError::Foreign);
        }
        let rooms = self.rooms.iter().map(|(room, place)| RoomCursor {
            room: room.clone(),
            epoch: Some(place.epoch),
            after: place.next.get().checked_sub(1).filter(|_| !place.awaits_state).map(Revision::new),
            catch_up: if place.awaits_state { CatchUp::State } else { CatchUp::Events },
            from_first: place.next == Revision::FIRST && !place.awaits_state,
        });
        Ok(rooms.collect())
    }

    /// Follows messages that go out, newline-joined. Tells whether other rooms are followed from then on:
    /// who went on from an earlier cursor would follow what they were told that they do not, or miss a room.
    pub fn advance(&mut self, messages: &[u8]) -> bool {
        let mut follows_others = false;
        for message in messages.split(|byte| *byte == b'\n') {
            if let Ok(passing) = serde_json::from_slice(message) {
                follows_others |= self.pass(passing);
            }
        }
        follows_others
    }

    fn pass(&mut self, passing: Passing<'_>) -> bool {
        let Passing { kind, room, revision, epoch, how, after, rooms } = passing;
        match (&*kind, room) {
            ("ready", _) => {
                self.rooms.clear();
                self.has_begun = true;
                let asked = std::mem::take(&mut self.asked);
                let asked: HashMap<_, _> = asked.iter().map(|asked| (&asked.room, asked)).collect();
                for Entry { room, epoch, how, after, code } in rooms {
                    let Ok(room) = Followed::try_from(room) else { continue };
                    if code.is_some_and(ErrorCode::may_retry) {
                        let kept = asked.get(&room).and_then(|asked| Place::asked(asked, epoch));
                        self.rooms.extend(kept.map(|place| (room, place)));
                    } else {
                        self.take(room, epoch, &how, after);
                    }
                }
                true
            }
            ("subscribed", Some(room)) => {
                if let (Some(epoch), Some(how)) = (epoch, how) {
                    self.take(room, epoch, &how, after);
                }
                true
            }
            ("event" | "room_state" | "live", Some(room)) => {
                if let (Some(place), Some(revision)) = (self.rooms.get_mut(&room), revision) {
                    place.next = revision.next();
                    place.awaits_state = false;
                }
                false
            }
            ("unsubscribed" | "closed", Some(room)) => self.rooms.remove(&room).is_some(),
            _ => false,
        }
    }

    fn take(&mut self, room: Followed, epoch: Epoch, how: &str, after: Option<Revision>) {
        if how == "denied" {
            self.rooms.remove(&room);
            return;
        }
        let next = after.map_or(Revision::FIRST, Revision::next);
        self.rooms.insert(room, Place { epoch, next, awaits_state: how == "state" });
    }
}

impl TryFrom<String> for Cursor {
    type Error = CursorError;
    fn try_from(text: String) -> Result<Self, CursorError> {
        Self::parse(&text)
    }
}

fn check_of(carried: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    blake3::Hasher::new_derive_key(CONTEXT).update(carried).finalize_xof().fill(&mut check);
    check
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const EPOCH: &str = "00c0ffee00c0ffee.1";

    fn alice() -> MemberId {
        MemberId::parse("alice").unwrap()
    }

    fn after(messages: &[Value]) -> Cursor {
        let mut cursor = Cursor::asking(alice(), Vec::new());
        let text: Vec<String> = messages.iter().map(Value::to_string).collect();
        cursor.advance(text.join("\n").as_bytes());
        cursor
    }

    fn rooms(cursor: &Cursor) -> Vec<(String, Option<u64>, bool)> {
        let rooms = cursor.rooms(&alice()).unwrap().into_iter();
        rooms
            .map(|room| {
                (room.room.to_string(), room.after.map(Revision::get), room.catch_up == CatchUp::State)
            })
            .collect()
    }

    #[test]
    fn a_cursor_follows_what_goes_out() {
        let entry = |room: &str, how: &str, after: Option<u64>| json!({"room": room, "epoch": EPOCH, "head": 9, "how": how, "after": after});
        let ready = json!({"type": "ready", "connection": "1", "rooms":
            [entry("a", "events", Some(3)), entry("b", "reset", None), entry("c", "denied", None), entry("my room", "denied", None), entry("d", "state", None)]});
        let event = json!({"type": "event", "room": "a", "revision": 4, "name": "MessagePosted", "data": {"room": "b", "type": "ready"}});
        let state = json!({"type": "room_state", "room": "d", "revision": 7, "state": {}, "events": [event]});
        let mut subscribed = entry("e", "events", Some(1));
        subscribed["type"] = "subscribed".into();
        for (more, want) in [
            (None, vec![("a", Some(3), false), ("b", None, false), ("d", None, true)]),
            (Some(event), vec![("a", Some(4), false), ("b", None, false), ("d", None, true)]),
            (
                Some(json!({"type": "live", "room": "b", "revision": 9})),
                vec![("a", Some(3), false), ("b", Some(9), false), ("d", None, true)],
            ),
            (Some(state), vec![("a", Some(3), false), ("b", None, false), ("d", Some(7), false)]),
            (
                Some(subscribed),
                vec![("a", Some(3), false), ("b", None, false), ("d", None, true), ("e", Some(1), false)],
            ),
            (
                Some(json!({"type": "unsubscribed", "id": "u", "room": "a"})),
                vec![("b", None, false), ("d", None, true)],
            ),
            (
                Some(json!({"type": "closed", "room": "b", "code": "forbidden"})),
                vec![("a", Some(3), false), ("d", None, true)],
            ),
            (
                Some(json!({"type": "event", "room": "unknown", "revision": 4})),
                vec![("a", Some(3), false), ("b", None, false), ("d", None, true)],
            ),
            (
                Some(json!({"type": "ping"})),
                vec![("a", Some(3), false), ("b", None, false), ("d", None, true)],
            ),
        ] {
            let messages: Vec<Value> = [ready.clone()].into_iter().chain(more).collect();
            let got = rooms(&after(&messages));
            let got: Vec<_> =
                got.iter().map(|(room, after, state)| (room.as_str(), *after, *state)).collect();
            assert_eq!(got, want, "{messages:?}");
        }
    }

    #[test]
    fn what_is_denied_for_now_alone_stays_where_it_was() {
        let asked = |asked: Value| serde_json::from_value::<RoomCursor>(asked).unwrap();
        let denied = |room: &str, code: &str| json!({"room": room, "epoch": EPOCH, "head": null, "how": "denied", "code": code});
        let wanted = [
            json!({"room": "busy", "epoch": EPOCH, "after": 7}),
            json!({"room": "many", "after": 3}),
            json!({"room": "state", "catch_up": "state"}),
            json!({"room": "latest"}),
            json!({"room": "gone", "after": 5}),
        ];
        let mut cursor = Cursor::asking(alice(), wanted.map(asked).to_vec());
        let ready = json!({"type": "ready", "rooms": [
            denied("busy", "unavailable"), denied("many", "rate_limited"), denied("state", "unavailable"),
            denied("latest", "unavailable"), denied("gone", "not_found")]});
        assert!(cursor.advance(ready.to_string().as_bytes()));
        let want = [("busy", Some(7), false), ("many", Some(3), false), ("state", None, true)];
        assert_eq!(rooms(&cursor), want.map(|(room, after, state)| (room.to_owned(), after, state)));
        assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
    }

    #[test]
    fn it_tells_when_other_rooms_are_followed() {
        let mut cursor = after(&[json!({"type": "ready", "rooms": []})]);
        let subscribed =
            json!({"type": "subscribed", "id": "s", "room": "a", "epoch": EPOCH, "how": "events"});
        let unsubscribed = json!({"type": "unsubscribed", "id": "u", "room": "a"});
        for (message, others) in [
            (&subscribed, true),
            (&json!({"type": "live", "room": "a", "revision": null}), false),
            (&json!({"type": "event", "room": "a", "revision": 0}), false),
            (&unsubscribed, true),
            (&unsubscribed, false),
            (&json!({"type": "ready", "rooms": []}), true),
        ] {
            assert_eq!(cursor.advance(message.to_string().as_bytes()), others, "{message}");
        }
    }

    #[test]
    fn who_got_nothing_of_a_room_goes_on_from_its_first_event() {
        let ready = json!({"type": "ready", "rooms": [
            {"room": "a", "epoch": EPOCH, "how": "events"}, {"room": "b", "epoch": EPOCH, "how": "state"},
            {"room": "c", "epoch": EPOCH, "how": "events", "after": 0}]});
        let rooms = after(&[ready]).rooms(&alice()).unwrap();
        let told: Vec<_> =
            rooms.iter().map(|room| (room.from_first, room.after.map(Revision::get))).collect();
        assert_eq!(told, [(true, None), (false, None), (false, Some(0))]);
    }

    #[test]
    fn it_has_begun_with_ready() {
        for (before, want) in
            [(json!({"type": "drain"}), false), (json!({"type": "ready", "rooms": []}), true)]
        {
            assert_eq!(after(&[before]).has_begun(), want);
        }
    }

    #[test]
    fn only_its_own_text_is_a_cursor_and_only_for_its_own_user() {
        let cursor = after(&[
            json!({"type": "ready", "rooms": [{"room": "a", "epoch": EPOCH, "how": "events", "after": 3}]}),
        ]);
        let text = cursor.encode();
        assert_eq!(Cursor::parse(&text), Ok(cursor.clone()));
        let bob = MemberId::parse("bob").unwrap();
        assert_eq!(cursor.rooms(&bob).unwrap_err(), CursorError::Foreign);
        for bad in ["", "A", "not a cursor", "AQ", &format!("{text}="), &text[1..]] {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
        let mut newer = URL_SAFE_NO_PAD.decode(&text).unwrap();
        newer[0] = 2;
        assert_eq!(Cursor::parse(&URL_SAFE_NO_PAD.encode(newer)), Err(CursorError::Version(2)));
        let text = text.into_bytes();
        for at in 0..text.len() {
            let mut altered = text.clone();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert!(Cursor::parse(&String::from_utf8(altered).unwrap()).is_err(), "altered at {at}");
        }
    }

    proptest! {
        #[test]
        fn a_text_comes_back(places in prop::collection::btree_map("[!#$&-.0-9;=?-~]{1,40}", (any::<u64>(), any::<u32>(), any::<u64>(), any::<bool>()), 0..20)) {
            let rooms = places.into_iter().map(|(room, (log, counter, next, awaits_state))| {
                let place = Place { epoch: Epoch::new(log, counter), next: Revision::new(next), awaits_state };
                (Followed::try_from(room).unwrap(), place)
            });
            let cursor = Cursor { user: alice(), rooms: rooms.collect(), has_begun: true, asked: Vec::new() };
            prop_assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
        }
    }
}
