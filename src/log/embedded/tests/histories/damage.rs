//! Bits that flip at rest and beside a running log, and every kind of read while they are flipped:
//! an answer is right, or an error that names the file.

use dramatis_events::{Category, UnixMillis};

use super::world::{PAGE, Relaxed, World, name, room, walk};
use crate::log::embedded::format::{BATCH_HEADER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES};
use crate::log::embedded::tests::disk::{Chance, Disk};
use crate::log::embedded::tests::open_disk_at;
use crate::log::embedded::*;
use crate::log::{Expected, Header};

/// A batch as it lies in a segment.
#[derive(Debug, Clone, Copy)]
pub(in crate::log::embedded::tests) struct Batch {
    pub(in crate::log::embedded::tests) at: usize,
    pub(in crate::log::embedded::tests) end: usize,
    number: u64,
    watermark: u64,
    first_position: u64,
}

/// The batches of a segment, and where the last one ends.
pub(in crate::log::embedded::tests) fn batches(bytes: &[u8], log: u64) -> (Vec<Batch>, usize) {
    let (mut found, mut end) = (Vec::new(), SEGMENT_HEADER_BYTES);
    while let Some(rest) = bytes.get(end..)
        && let Ok((header, _)) = BatchHeader::decode(rest, log)
    {
        let at = end;
        end += BATCH_HEADER_BYTES + header.body_len as usize;
        let BatchHeader { number, watermark, first_position, .. } = header;
        found.push(Batch { at, end, number, watermark, first_position });
    }
    (found, end)
}

/// The names of a log's segments and indexes, in order.
pub(in crate::log::embedded::tests) fn files(disk: &Disk, ending: &str) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(ending)).collect()
}

/// Where a bit is flipped.
struct Flip {
    what: &'static str,
    file: String,
    at: usize,
    /// What errors may name besides the file itself: what is read by way of it.
    beside: Option<String>,
}

/// What must come of it when the log is opened.
#[derive(Debug)]
enum Outcome {
    /// It opens, and every read is right or names the file.
    Reads,
    /// It opens, and every event is there.
    Right,
    /// It does not open: damage at this byte.
    Refused(u64),
    /// The events from this position on look like a torn tail.
    Cut(u64),
}

fn within(events: impl Iterator<Item = Arc<Recorded>>, limit: ReadLimit) -> Vec<Arc<Recorded>> {
    let mut left = Left::new(limit);
    events.take_while(|event| left.take(event.envelope.data.len())).collect()
}

fn names_one_of(error: &LogError, damaged: &[String]) -> bool {
    matches!(error, LogError::Damaged { file, .. } if damaged.contains(file))
}

impl World {
    /// Behind the last batch of the open segment there are zeros only.
    pub(super) fn assert_clean_tail(&self) {
        let name = files(&self.disk, ".segment").pop().unwrap();
        for bytes in [self.disk.bytes(&name), self.disk.durable().bytes(&name)] {
            let (found, end) = batches(&bytes, self.epoch.log());
            let left = bytes[end..].iter().filter(|byte| **byte != 0).count();
            assert_eq!(left, 0, "of a torn tail, behind {end} of {} in {name}, {found:?}", bytes.len());
        }
    }

    /// After an opening without faults every closed segment has its index, and the chain names
    /// it with the hash of its bytes.
    pub(super) fn assert_derived(&mut self) {
        self.disk.heal();
        self.log = None;
        drop(open_disk_at(&self.disk, Options::default(), &self.clock).unwrap());
        let (mut segments, indexes) = (files(&self.disk, ".segment"), files(&self.disk, ".index"));
        segments.pop();
        let chain = chain::Chain::read(&self.disk).unwrap().unwrap();
        for segment in segments {
            assert!(indexes.contains(&segment.replace(".segment", ".index")), "{segment} has no index");
            let said = chain.sum(format::parse_segment_name(&segment).unwrap());
            let bytes = self.disk.bytes(&segment);
            let (_, end) = batches(&bytes, self.epoch.log());
            let sum = chain::sum(&*self.disk.open(&segment).unwrap(), end as u64).unwrap();
            assert!(said.is_some(), "the chain lacks {segment}");
            assert!(said == Some(sum) || self.unhashed.contains(&segment), "the chain's hash of {segment}");
        }
    }

    /// The limit: a closed segment that the chain does not name yet is hashed as it lies there
    /// when the log is opened, damage included; its checksums tell that.
    fn note_unhashed(&mut self, file: &str) {
        let is_open = files(&self.disk, ".segment").last().is_some_and(|open| open == file);
        let Some(first) = format::parse_segment_name(file).filter(|_| !is_open) else { return };
        let is_named = chain::Chain::read(&self.disk).unwrap().is_ok_and(|chain| chain.sum(first).is_some());
        if !is_named {
            self.unhashed.push(file.to_owned());
        }
    }

    /// Flips a bit while the log is closed, and opens it.
    pub(super) async fn flip_at_rest(&mut self) {
        if self.log().poisoned().is_some() || self.relaxed == Relaxed::Maybe {
            return;
        }
        self.disk.heal();
        self.log = None;
        self.relaxed = Relaxed::No;
        let settled = self.known.len();
        let flip = self.draw(false);
        let outcome = self.outcome_of(&flip);
        self.note_unhashed(&flip.file);
        self.counts.note(flip.what);
        let (before, bits) = (self.disk.bytes(&flip.file), 1 << self.chance.below(8));
        self.disk.flip(&flip.file, flip.at, bits);
        let names = [vec![flip.file.clone()], flip.beside.clone().into_iter().collect()].concat();
        let opened = open_disk_at(&self.disk, self.options.clone(), &self.clock);
        match (opened, outcome) {
            (Ok(log), Outcome::Reads) => {
                self.log = Some(log);
                self.use_damaged(&names).await;
                self.disk.change(&flip.file, |bytes| *bytes = before);
            }
            (Ok(log), Outcome::Right) => {
                self.log = Some(log);
                self.counts.note("flipped: nothing lost");
            }
            (Ok(log), Outcome::Cut(from)) => {
                self.log = Some(log);
                self.known.truncate(usize::try_from(from).unwrap());
                self.counts.note("flipped: taken for a torn tail");
            }
            (Err(OpenError::Damaged { file, offset, .. }), Outcome::Refused(at)) => {
                assert_eq!((&file, offset), (&flip.file, at), "{} at {}", flip.what, flip.at);
                self.put_back(&flip, bits);
            }
            // Its index is not written yet, so the segment is read whole.
            (Err(OpenError::Damaged { file, .. }), Outcome::Reads) if file == flip.file => {
                self.put_back(&flip, bits);
            }
            (Ok(_), outcome) => {
                panic!("{} at {} of {}: {outcome:?}, but it opened", flip.what, flip.at, flip.file)
            }
            (Err(error), outcome) => panic!("{} at {}: {outcome:?}, but {error}", flip.what, flip.at),
        }
        self.find(false).await;
        self.kept = self.kept.min(settled);
    }

    fn put_back(&mut self, flip: &Flip, bits: u8) {
        self.counts.note("flipped: not opened");
        self.disk.flip(&flip.file, flip.at, bits);
        if self.options.durability != Durability::Sync {
            // The process that could not open it may have meant to be relaxed.
            self.relaxed = Relaxed::Maybe;
        }
        self.log = Some(open_disk_at(&self.disk, self.options.clone(), &self.clock).unwrap());
    }

    /// Flips a bit of a file that the running log reads.
    pub(super) async fn flip_beside(&mut self) {
        let flip = self.draw(true);
        self.counts.note("flip: beside the running log");
        let (before, bits) = (self.disk.bytes(&flip.file), 1 << self.chance.below(8));
        self.disk.flip(&flip.file, flip.at, bits);
        let names = [vec![flip.file.clone()], flip.beside.clone().into_iter().collect()].concat();
        if files(&self.disk, ".segment").last() == Some(&flip.file) {
            self.probe(&names).await;
            self.disk.flip(&flip.file, flip.at, bits);
        } else {
            self.note_unhashed(&flip.file);
            self.use_damaged(&names).await;
            self.disk.change(&flip.file, |bytes| *bytes = before);
        }
    }

    /// Reads and appends while files are damaged that nothing is written to.
    async fn use_damaged(&mut self, damaged: &[String]) {
        let noticed = self.probe(damaged).await;
        self.counts.note(if noticed { "flipped: an error on reading" } else { "flipped: all reads right" });
        let stream = room(self.chance.below(5));
        let expected = Expected::after(self.head(&stream));
        let append = self.build(stream, expected, false);
        match self.log().append(append.clone()).await {
            Err(AppendError::Unavailable { reason }) if reason.contains("is damaged in") => {
                assert!(damaged.iter().any(|file| reason.contains(file)), "{reason}");
                self.counts.note("refusal: where the stream stands is damaged");
            }
            answer => self.answered(vec![(append, answer)]),
        }
    }

    fn draw(&mut self, running: bool) -> Flip {
        let (mut segments, indexes) = (files(&self.disk, ".segment"), files(&self.disk, ".index"));
        let open = segments.pop().unwrap();
        let chain = self.disk.list().unwrap().into_iter().find(|name| name == "chain");
        let mut pick = |names: &[String]| names.get(self.chance.below(names.len())).cloned();
        let (closed, index) = (pick(&segments), pick(&indexes));
        let in_file = |chance: &mut Chance, disk: &Disk, what, file: String, beside| {
            let at = chance.below(disk.bytes(&file).len());
            Flip { what, file, at, beside }
        };
        let chance = &mut self.chance;
        match (chance.below(8), closed, index, chain) {
            (0 | 1, Some(file), _, _) => in_file(chance, &self.disk, "flip: closed segment", file, None),
            (2, Some(file), _, _) if !running => Flip {
                what: "flip: closed segment's header",
                file,
                at: chance.below(SEGMENT_HEADER_BYTES),
                beside: None,
            },
            (3 | 4, _, Some(file), _) => {
                let segment = file.replace(".index", ".segment");
                in_file(chance, &self.disk, "flip: index", file, Some(segment))
            }
            (5, _, _, Some(file)) => in_file(chance, &self.disk, "flip: chain", file, None),
            (kind, ..) => self.draw_in_open(open, kind),
        }
    }

    fn draw_in_open(&mut self, file: String, kind: usize) -> Flip {
        let bytes = self.disk.bytes(&file);
        let (batches, end) = batches(&bytes, self.epoch.log());
        let (what, range) = match (&batches[..], kind) {
            ([_, .., last], 6 | 0 | 1) => {
                ("flip: open segment, before the last batch", SEGMENT_HEADER_BYTES..last.at)
            }
            ([.., last], 7 | 2) => ("flip: open segment, last batch", last.at..last.end),
            _ if bytes.len() > end => ("flip: open segment, behind its end", end..bytes.len()),
            _ => ("flip: open segment's header", 0..SEGMENT_HEADER_BYTES),
        };
        Flip { what, file, at: range.start + self.chance.below(range.len()), beside: None }
    }

    /// What must come of a flip, told from the batches' own words.
    fn outcome_of(&self, flip: &Flip) -> Outcome {
        let is_open = files(&self.disk, ".segment").last() == Some(&flip.file);
        if files(&self.disk, ".index").contains(&flip.file)
            || (!is_open && flip.at >= SEGMENT_HEADER_BYTES)
            || flip.file == "chain"
        {
            return Outcome::Reads;
        }
        let (batches, end) = batches(&self.disk.bytes(&flip.file), self.epoch.log());
        if flip.at >= end || (is_open && batches.is_empty()) {
            return Outcome::Right;
        }
        let Some(hit) = batches.iter().find(|batch| (batch.at..batch.end).contains(&flip.at)) else {
            return Outcome::Refused(0);
        };
        let proven = batches.iter().any(|later| later.number > hit.number && later.watermark > hit.number);
        if proven { Outcome::Refused(hit.at as u64) } else { Outcome::Cut(hit.first_position) }
    }

    /// Reads in every way: each answer is right, or an error that names one of the damaged files.
    /// Says whether there was one.
    pub(super) async fn probe(&mut self, damaged: &[String]) -> bool {
        let mut noticed = false;
        // One bit is easily missed.
        for _ in 0..if damaged.is_empty() { 3 } else { 12 } {
            let filter = self.draw_filter();
            let after = self.chance.below(self.known.len() + 1).checked_sub(1);
            let after = after.map(|after| Position::from_engine(after as u64));
            let limit = self.draw_limit();
            let (read, error) = walk(self.log(), after, &filter, limit).await;
            let passes =
                |event: &&Arc<Recorded>| Some(event.position) > after && filter.passes(&Header::of(event));
            let expected: Vec<_> = self.known.iter().filter(passes).cloned().collect();
            match error {
                None => assert!(
                    read == expected,
                    "{filter:?} past {after:?}: {} of {}",
                    read.len(),
                    expected.len()
                ),
                Some(error) => {
                    assert!(expected.starts_with(&read), "{filter:?}");
                    assert!(names_one_of(&error, damaged), "{error}");
                    noticed = true;
                }
            }
        }
        for number in 0..4 {
            noticed |= self.probe_stream(&room(number), damaged).await;
        }
        noticed
    }

    async fn probe_stream(&mut self, stream: &StreamId, damaged: &[String]) -> bool {
        let (mine, from, limit) = (self.of(stream), self.chance.below(20), self.draw_limit());
        let forward = self.log().read_stream(stream, Revision::new(from as u64), limit).await;
        let backward =
            self.log().read_stream_backwards(stream, Some(Revision::new(from as u64)), limit).await;
        let after = within(mine.iter().skip(from).cloned(), limit);
        let below = within(mine.iter().take(from).rev().cloned(), limit);
        let mut noticed = false;
        for (read, expected) in [(forward, after), (backward, below)] {
            match read {
                Ok(read) => assert!(read == expected, "{stream} from {from} {limit:?}"),
                Err(error) => {
                    assert!(names_one_of(&error, damaged), "{error}");
                    noticed = true;
                }
            }
        }
        match self.log().stream_head(stream).await {
            Ok(head) => assert_eq!(head, self.head(stream)),
            Err(error) => {
                assert!(names_one_of(&error, damaged), "{error}");
                noticed = true;
            }
        }
        let ids: Vec<_> = mine.iter().filter_map(|event| event.envelope.command.clone()).collect();
        if let Some(stamp) = ids.get(self.chance.below(ids.len())) {
            let asked = crate::log::contract::command(stream, "alice", stamp.id.as_str());
            match self.log().find_command(asked.clone()).await {
                Ok(found) => assert_eq!(found, self.outcome(&asked)),
                Err(error) => {
                    assert!(names_one_of(&error, damaged), "{error}");
                    noticed = true;
                }
            }
        }
        noticed
    }

    fn draw_limit(&mut self) -> ReadLimit {
        if self.chance.below(2) == 0 {
            return PAGE;
        }
        ReadLimit { events: self.chance.below(20), bytes: self.chance.below(3_000) }
    }

    fn draw_filter(&mut self) -> Filter {
        let mut filter = Filter::default();
        match self.chance.below(4) {
            0 | 1 => filter.stream = Some(room(self.chance.below(5))),
            2 => {
                filter.category =
                    Some(Category::parse(["room", "user", "none"][self.chance.below(3)]).unwrap());
            }
            _ => {}
        }
        if self.chance.below(3) == 0 {
            filter.names = (0..=self.chance.below(2)).map(|_| name(self.chance.below(3))).collect();
        }
        for bound in [&mut filter.recorded_from, &mut filter.recorded_before] {
            if self.chance.below(3) == 0
                && let Some(event) = self.known.get(self.chance.below(self.known.len()))
            {
                *bound =
                    Some(UnixMillis::new(event.recorded_at.get() + i64::from(self.chance.below(2) == 0)));
            }
        }
        filter
    }
}
