//! `replies`: what answers what. One document a reply, keyed
//! `<room stream>/<first message of its thread>/<revision>`, both zero-padded to 20: a thread's
//! replies lie together, in the order of the room, and their links make its tree.

use dramatis_events::room::RoomEvent;
use dramatis_events::{MemberId, Recorded, Revision, StreamId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::key::KeyPart;
use crate::projection::{FoldError, Index, Projection, happened_at};
use crate::threads::{Threads, reply};

/// One message that answers another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The tenant.
    pub tenant: String,
    /// The room's id.
    pub room: String,
    /// The first message of the thread.
    pub root: Revision,
    /// The message itself; its words are in `timeline`.
    pub revision: Revision,
    /// The message it answers: another reply, or the first message.
    pub reply_to: Revision,
    /// Who said it.
    pub by: MemberId,
    /// When.
    pub posted_at: UnixMillis,
}

/// The projection that keeps [`Reply`] documents.
pub struct Replies;

impl Replies {
    /// What the keys of a thread's replies begin with.
    pub fn key_prefix(stream: &StreamId, root: Revision) -> String {
        format!("{}/", Threads::key(stream, root))
    }

    /// The key of a reply.
    pub fn key(stream: &StreamId, root: Revision, revision: Revision) -> String {
        format!("{}{revision:020}", Self::key_prefix(stream, root), revision = revision.get())
    }
}

impl Projection for Replies {
    const NAME: &'static str = "replies";
    const VERSION: u32 = 1;
    const KEY: &'static [KeyPart] = &[KeyPart::Revision("ROOT"), KeyPart::Revision("REPLY")];
    const EVENTS: &'static [&'static str] = &["MessagePosted"];
    // A thread's replies lie together, in order, by their keys.
    const INDEXES: &'static [Index] = &[];
    type Event = RoomEvent;
    type Document = Reply;

    fn keys(recorded: &Recorded, event: &RoomEvent, keys: &mut Vec<String>) {
        if let Some((_, root)) = reply(event) {
            keys.push(Self::key(&recorded.stream, root, recorded.revision));
        }
    }

    fn is_first(event: &RoomEvent) -> bool {
        matches!(event, RoomEvent::MessagePosted(_))
    }

    fn fold(document: &mut Option<Reply>, recorded: &Recorded, event: &RoomEvent) -> Result<(), FoldError> {
        let (posted, root) = reply(event).ok_or_else(|| FoldError::not_mine(event))?;
        let reply_to = posted
            .reply_to
            .ok_or_else(|| FoldError::out_of_place(event, "it is in a thread and answers nothing"))?;
        *document = Some(Reply {
            tenant: recorded.stream.tenant().to_owned(),
            room: recorded.stream.id().to_owned(),
            root,
            revision: recorded.revision,
            reply_to,
            by: recorded.envelope.author.clone(),
            posted_at: happened_at(recorded),
        });
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use crate::projection::testing::{document, history};

    use super::*;

    const REPLIES: &str = r#"alice MessagePosted {"kind":"text","text":"who is there?"}
        bob MessagePosted {"kind":"text","text":"me","reply_to":0,"thread_root":0}
        alice MessagePosted {"kind":"text","text":"who?","reply_to":1,"thread_root":0}"#;

    fn shown(root: u64, revision: u64, lines: &str) -> Result<String, FoldError> {
        let stream = StreamId::parse("room-main.lobby").unwrap();
        let key = Replies::key(&stream, Revision::new(root), Revision::new(revision));
        document::<Replies>(&key, &history(lines))
    }

    #[test]
    fn a_reply_names_what_it_answers_and_its_thread() {
        assert_eq!(
            shown(0, 2, REPLIES).unwrap(),
            r#"{"tenant":"main","room":"lobby","root":0,"revision":2,"reply_to":1,"by":"alice","posted_at":1002}"#,
        );
        assert_eq!(shown(0, 0, REPLIES).unwrap(), "none");
    }

    #[test]
    fn a_thread_without_a_link_is_refused() {
        let lines = r#"bob MessagePosted {"kind":"text","text":"me","thread_root":0}"#;
        let error = shown(0, 0, lines).unwrap_err();
        assert!(error.to_string().contains("answers nothing"), "{error}");
    }
}
