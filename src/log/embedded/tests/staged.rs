//! Staged events: an index with batches on their way answers as one that never heard of them.

use dramatis_events::{EventName, StreamId};
use proptest::prelude::*;

use super::super::index::{Following, MemoryIndex};

/// Events of one append: which stream, which command, how many.
type Appended = (usize, u8, usize);

fn stream(number: usize) -> StreamId {
    StreamId::parse(&format!("room-main.{number}")).unwrap()
}

/// An index, and how many events of each stream it was given.
#[derive(Default)]
struct Filled {
    index: MemoryIndex,
    next: [u64; 3],
}

impl Filled {
    fn push(&mut self, (number, command, events): Appended) {
        let (stream, names) = (stream(number), [EventName::known("Spoken")]);
        let following =
            Following { stream: &stream, first_revision: self.next[number], recorded_at: 1, names: &names };
        let first = self.index.offsets.len();
        let places = (first..first + events).map(|at| (u32::try_from(at).unwrap() * 10, Some([command; 16])));
        self.index.push(&following, places).unwrap();
        self.next[number] += events as u64;
    }

    /// All that can be asked.
    fn answers(&self) -> Vec<String> {
        let streams = (0..3).map(|number| {
            let span = self
                .index
                .span(&stream(number))
                .map(|span| (span.first_revision, span.count, self.index.list(span, 0, usize::MAX).to_vec()));
            format!("{span:?}")
        });
        let commands = (0..4).map(|command| format!("{:?}", self.index.command([command; 16])));
        let all = format!("{} {:?}", self.index.count(), self.index.offsets(0, usize::MAX));
        streams.chain(commands).chain([all]).collect()
    }
}

fn appended() -> impl Strategy<Value = Appended> {
    (0..3_usize, 0..4_u8, 1..4_usize)
}

proptest! {
    #[test]
    fn what_is_on_its_way_is_not_found(
        batches in prop::collection::vec(prop::collection::vec(appended(), 1..4), 1..12),
        ahead in 1..3_usize,
    ) {
        let (mut staged, mut plain) = (Filled::default(), Filled::default());
        for sent in 0..batches.len() + ahead {
            if let Some(shown) = sent.checked_sub(ahead) {
                for append in &batches[shown] {
                    plain.push(*append);
                }
                staged.index.reveal(plain.index.count());
                prop_assert_eq!(staged.answers(), plain.answers());
            }
            if let Some(batch) = batches.get(sent) {
                staged.index.stage();
                for append in batch {
                    staged.push(*append);
                }
                prop_assert_eq!(staged.answers(), plain.answers());
            }
        }
    }
}
