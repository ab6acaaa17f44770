//! What each command leads to, given the room it meets.
//!
//! Every rule asks in one order: may the author do this at all, does what they refer to
//! exist, may they do it to that, and last, is what they wrote acceptable.

use dramatis_events::room::{
    MemberJoined, MemberLeft, MemberRemoved, MemberRenamed, MessageEdited, MessagePosted, MessageRedacted,
    ReactionAdded, ReactionRemoved, RoomClosed, RoomEvent, RoomOpened, RoomRenamed, RoomVisibilitySet,
    Visibility,
};
use dramatis_events::{MemberId, MemberKind, Personal, Revision};

use super::state::Details;
use super::words::{check_emoji, check_line, check_reason, check_shown, check_text};
use super::{
    AddReaction, CloseRoom, EditMessage, Field, Join, Leave, OpenRoom, PostMessage, RedactMessage,
    RemoveMember, RemoveReaction, RenameMember, RenameRoom, Room, RoomLimits, RoomRejection,
};
use crate::domain::{Context, Target};

pub(super) type Decision = Result<Vec<RoomEvent>, RoomRejection>;

/// Opens a room. People and personas enter the rooms they open; programs do not.
pub(super) fn open(context: &Context<'_, Room>, asked: &OpenRoom) -> Decision {
    check_line(Field::Title, &asked.title, context.limits.title_chars_max)?;
    let author = context.author;
    let mut events = vec![RoomOpened { title: asked.title.clone(), owner: author.clone() }.into()];
    if asked.visibility != Visibility::default() {
        events.push(RoomVisibilitySet { visibility: asked.visibility }.into());
    }
    match author.kind() {
        MemberKind::User | MemberKind::Persona => events.push(joined(author, None)),
        MemberKind::Integration | MemberKind::System => {}
    }
    Ok(events)
}

/// The rules of an open room.
pub(super) struct Rules<'a> {
    pub(super) room: &'a Details,
    pub(super) author: &'a MemberId,
    pub(super) target: Option<&'a Target<RoomEvent>>,
    pub(super) limits: &'a RoomLimits,
}

impl Rules<'_> {
    pub(super) fn rename_room(&self, asked: &RenameRoom) -> Decision {
        self.owner_only()?;
        check_line(Field::Title, &asked.title, self.limits.title_chars_max)?;
        if asked.title == self.room.title {
            return Ok(Vec::new());
        }
        Ok(one(RoomRenamed { title: asked.title.clone() }))
    }

    pub(super) fn close_room(&self, asked: &CloseRoom) -> Decision {
        self.owner_only()?;
        check_reason(asked.reason.as_deref(), self.limits)?;
        Ok(one(RoomClosed { reason: asked.reason.clone() }))
    }

    pub(super) fn join(&self, asked: &Join) -> Decision {
        let current = self.room.members.get(self.author);
        self.may_join()?;
        let (got, max) = (self.room.members.len(), self.limits.members_max);
        if current.is_none() && got >= max {
            return Err(RoomRejection::RoomFull { max, got });
        }
        if let Some(name) = &asked.display_name {
            self.check_display_name(name)?;
        }
        match (current, &asked.display_name) {
            (None, name) => {
                let accepted = self.accepted().map(RoomEvent::from);
                Ok(accepted.into_iter().chain([joined(self.author, name.as_deref())]).collect())
            }
            (Some(current), Some(name)) => Ok(self.renamed(current, name)),
            (Some(_), None) => Ok(Vec::new()),
        }
    }

    pub(super) fn leave(&self, asked: &Leave) -> Decision {
        self.members_only()?;
        check_reason(asked.reason.as_deref(), self.limits)?;
        Ok(one(MemberLeft { member: self.author.clone(), reason: asked.reason.clone() }))
    }

    pub(super) fn remove_member(&self, asked: &RemoveMember) -> Decision {
        self.owner_only()?;
        if !self.room.members.contains_key(&asked.member) {
            return Err(RoomRejection::MemberNotFound { member: asked.member.clone() });
        }
        check_reason(asked.reason.as_deref(), self.limits)?;
        Ok(one(MemberRemoved { member: asked.member.clone(), reason: asked.reason.clone() }))
    }

    pub(super) fn rename_member(&self, asked: &RenameMember) -> Decision {
        let current = self.members_only()?;
        self.check_display_name(&asked.display_name)?;
        Ok(self.renamed(current, &asked.display_name))
    }

    pub(super) fn post_message(&self, asked: &PostMessage) -> Decision {
        self.members_only()?;
        let thread_root = match asked.reply_to {
            Some(reply_to) => Some(self.message(reply_to)?.1.thread_root.unwrap_or(reply_to)),
            None => None,
        };
        check_text(asked.kind, &asked.text, self.limits)?;
        Ok(one(MessagePosted {
            kind: asked.kind,
            text: Personal::from(asked.text.as_str()),
            reply_to: asked.reply_to,
            thread_root,
        }))
    }

    pub(super) fn edit_message(&self, asked: &EditMessage) -> Decision {
        self.members_only()?;
        let (message_author, posted) = self.message(asked.target)?;
        if message_author != self.author {
            return Err(RoomRejection::AuthorOnly {
                message_author: message_author.clone(),
                author: self.author.clone(),
            });
        }
        check_text(posted.kind, &asked.text, self.limits)?;
        Ok(one(MessageEdited { target: asked.target, text: Personal::from(asked.text.as_str()) }))
    }

    pub(super) fn redact_message(&self, asked: &RedactMessage) -> Decision {
        // An owner keeps order in a room they need not be in.
        let owner = self.author == &self.room.owner;
        if !owner {
            self.members_only()?;
        }
        let (message_author, _) = self.message(asked.target)?;
        if !owner && message_author != self.author {
            return Err(RoomRejection::AuthorOrOwnerOnly {
                message_author: message_author.clone(),
                owner: self.room.owner.clone(),
                author: self.author.clone(),
            });
        }
        check_reason(asked.reason.as_deref(), self.limits)?;
        Ok(one(MessageRedacted { target: asked.target, reason: asked.reason.clone() }))
    }

    pub(super) fn add_reaction(&self, asked: &AddReaction) -> Decision {
        self.check_reaction(asked.target, &asked.emoji)?;
        check_shown(&asked.emoji, self.limits)?;
        Ok(one(ReactionAdded { target: asked.target, emoji: asked.emoji.clone() }))
    }

    pub(super) fn remove_reaction(&self, asked: &RemoveReaction) -> Decision {
        self.check_reaction(asked.target, &asked.emoji)?;
        Ok(one(ReactionRemoved { target: asked.target, emoji: asked.emoji.clone() }))
    }

    fn check_reaction(&self, target: Revision, emoji: &str) -> Result<(), RoomRejection> {
        self.members_only()?;
        self.message(target)?;
        check_emoji(emoji, self.limits)
    }

    fn check_display_name(&self, name: &str) -> Result<(), RoomRejection> {
        check_line(Field::DisplayName, name, self.limits.display_name_chars_max)
    }

    pub(super) fn owner_only(&self) -> Result<(), RoomRejection> {
        let owner = &self.room.owner;
        if self.author == owner {
            return Ok(());
        }
        // Who may not read the room is not told whose it is.
        if !self.room.reading(self.author).may_read() {
            self.members_only()?;
        }
        Err(RoomRejection::OwnerOnly { owner: owner.clone(), author: self.author.clone() })
    }

    /// The author's display name, which only members have.
    pub(super) fn members_only(&self) -> Result<&Personal, RoomRejection> {
        let name = self.room.members.get(self.author);
        name.ok_or_else(|| RoomRejection::NotAMember { author: self.author.clone() })
    }

    /// The message at this revision and who wrote it.
    fn message(&self, target: Revision) -> Result<(&MemberId, &MessagePosted), RoomRejection> {
        match self.target {
            Some(Target { author, event: RoomEvent::MessagePosted(posted), .. }) => Ok((author, posted)),
            _ => Err(RoomRejection::MessageNotFound { target }),
        }
    }

    /// A renaming of the author, unless the name is the current one.
    fn renamed(&self, current: &Personal, name: &str) -> Vec<RoomEvent> {
        let display_name = Personal::from(name);
        if display_name == *current {
            return Vec::new();
        }
        vec![MemberRenamed { member: self.author.clone(), display_name }.into()]
    }
}

/// A default name is the author's id, which no limit on chosen names binds.
fn joined(member: &MemberId, display_name: Option<&str>) -> RoomEvent {
    let display_name = Personal::from(display_name.unwrap_or_else(|| member.bare()));
    MemberJoined { member: member.clone(), display_name }.into()
}

pub(super) fn one(event: impl Into<RoomEvent>) -> Vec<RoomEvent> {
    vec![event.into()]
}
