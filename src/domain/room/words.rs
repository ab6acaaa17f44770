//! The rules for texts that people choose: titles, names, messages, reasons and reactions.
//!
//! Lengths count characters, not bytes. A text that passes is recorded as it came.

use dramatis_events::room::MessageKind;

use super::{Field, RoomLimits, RoomRejection};
use crate::domain::line::{self, LineFault, fits_a_line};

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

/// Whether a reaction shows what it is: nothing turns the text around it, and no two look the same but for
/// what is invisible. What is recorded already may be of before this rule, and is taken back without it.
pub(super) fn check_shown(emoji: &str, limits: &RoomLimits) -> Result<(), RoomRejection> {
    let is_invisible =
        |c| matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}' | '\u{feff}');
    if emoji.chars().all(|c| fits_a_line(c) && !is_invisible(c)) {
        return Ok(());
    }
    Err(RoomRejection::EmojiInvalid { max: limits.emoji_chars_max, got: emoji.to_owned() })
}

fn check_filled(field: Field, text: &str) -> Result<(), RoomRejection> {
    if text.trim().is_empty() { Err(RoomRejection::Empty { field }) } else { Ok(()) }
}

fn check_length(field: Field, text: &str, max: usize) -> Result<(), RoomRejection> {
    let got = text.chars().count();
    if got > max { Err(RoomRejection::TooLong { field, max, got }) } else { Ok(()) }
}
