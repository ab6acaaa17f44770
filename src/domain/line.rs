//! The rule for titles and names: one line of visible text, within a limit.
//!
//! Lengths count characters, not bytes. A text that passes is recorded as it came.

/// Why a text is no such line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineFault {
    /// Nothing but white space.
    Empty,
    /// Too many characters.
    TooLong {
        /// How many.
        got: usize,
    },
    /// A character that a line of text cannot show.
    Unprintable {
        /// The first of them.
        got: char,
    },
}

/// Checks a line of at most so many characters.
pub(super) fn check_line(line: &str, chars_max: usize) -> Result<(), LineFault> {
    if line.trim().is_empty() {
        return Err(LineFault::Empty);
    }
    let got = line.chars().count();
    if got > chars_max {
        return Err(LineFault::TooLong { got });
    }
    match line.chars().find(|c| !fits_a_line(*c)) {
        Some(got) => Err(LineFault::Unprintable { got }),
        None => Ok(()),
    }
}

/// Control characters break the line; directional overrides turn the text around it, so that
/// one name can be made to look like another.
pub(super) fn fits_a_line(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
