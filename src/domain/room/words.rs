//! The rules for texts that people choose: titles, names, messages, reasons and reactions.
//!
//! Lengths count characters, not bytes. A text that passes is recorded as it came.

use dramatis_events::room::MessageKind;

use super::{Field, RoomLimits, RoomRejection};
use crate::domain::line::{self, LineFault};

/// A title or a name: one line of visible text.
pub(super) fn check_line(field: Field, line: &str, max: usize) -> Result<(), RoomRejection> {
    line::check_line(line, max).map_err(|fault| match fault {
        LineFault::Empty => RoomRejection::Empty { field },
        LineFault::TooLong { got } => RoomRejection::TooLong { field, max, got },
        LineFault::Unprintable { got } => RoomRejection::Unprintable { field, got },
    })
}

/// A message's words: any characters, for real chat logs hold control characters. An action
/// may be without words: its author's name alone is one.
pub(super) fn check_text(kind: MessageKind, text: &str, limits: &RoomLimits) -> Result<(), RoomRejection> {
    if kind == MessageKind::Text {
        check_filled(Field::Text, text)?;
    }
    check_length(Field::Text, text, limits.text_chars_max)
}

/// A reason, if there is one.
pub(super) fn check_reason(reason: Option<&str>, limits: &RoomLimits) -> Result<(), RoomRejection> {
    reason.map_or(Ok(()), |reason| check_length(Field::Reason, reason, limits.reason_chars_max))
}

/// A reaction. Which characters are emoji changes with every Unicode release, so that is not asked.
pub(super) fn check_emoji(emoji: &str, limits: &RoomLimits) -> Result<(), RoomRejection> {
    let max = limits.emoji_chars_max;
    let visible = emoji.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if visible && !emoji.is_empty() && emoji.chars().nth(max).is_none() {
        return Ok(());
    }
    let shown = max.saturating_add(1);
    Err(RoomRejection::EmojiInvalid { max, got: emoji.chars().take(shown).collect() })
}

fn check_filled(field: Field, text: &str) -> Result<(), RoomRejection> {
    if text.trim().is_empty() { Err(RoomRejection::Empty { field }) } else { Ok(()) }
}

fn check_length(field: Field, text: &str, max: usize) -> Result<(), RoomRejection> {
    let got = text.chars().count();
    if got > max { Err(RoomRejection::TooLong { field, max, got }) } else { Ok(()) }
}
