//! The messages of one frame, handled one by one.

/// A frame and how far it is handled. What is behind a message that waits stays where it is: it
/// would be copied for each of them else.
#[derive(Default)]
pub(super) struct Frame {
    text: String,
    at: usize,
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self { text, at: 0 }
    }
}

impl Frame {
    /// The next message, without its line break.
    pub(super) fn next(&mut self) -> Option<&str> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let message = rest.split_once('\n').map_or(rest, |(message, _)| message);
        self.at = self.at.saturating_add(message.len()).saturating_add(1);
        Some(message)
    }

    /// The bytes that it keeps room for.
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Whether all of it is handled.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_stands_between_line_breaks() {
        for (text, messages) in
            [("", &[][..]), ("a", &["a"]), ("a\n", &["a"]), ("\n\na\nö\r\n\n", &["", "", "a", "ö\r", ""])]
        {
            let (mut frame, mut read) = (Frame::from(text.to_owned()), Vec::new());
            while !frame.is_done() {
                read.extend(frame.next().map(str::to_owned));
            }
            assert_eq!(read, messages, "{text:?}");
            assert_eq!(frame.next(), None);
        }
    }
}
