//! What goes out in one write. Mostly that is one message, and for one no list is made.

use std::ops::Deref;

use bytes::Bytes;

/// Messages, one text each or several newline-joined; at least one.
#[derive(Debug)]
pub struct Messages(Held);

#[derive(Debug)]
enum Held {
    One([Bytes; 1]),
    Many(Vec<Bytes>),
}

impl Messages {
    pub(super) fn new(first: Bytes) -> Self {
        Self(Held::One([first]))
    }

    pub(super) fn push(&mut self, message: Bytes) {
        match &mut self.0 {
            Held::Many(messages) => messages.push(message),
            Held::One([first]) => self.0 = Held::Many(vec![std::mem::take(first), message]),
        }
    }

    /// The bytes of all of them, without what joins them.
    pub fn bytes(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }
}

impl Deref for Messages {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        match &self.0 {
            Held::One(one) => one,
            Held::Many(many) => many,
        }
    }
}
