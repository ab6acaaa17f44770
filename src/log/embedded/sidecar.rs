//! The index file beside a closed segment. It is derived: missing or damaged, it is rebuilt.
//!
//! It is what lets a reader skip the segment, or go straight to a place in it. A head (magic and
//! version, length, crc32c; what the segment holds; both tables' parts for memory; the event
//! names and categories, each behind its length), then the sections, little-endian: the offset
//! of every record (4 bytes each), the streams (hash, first revision 8, count 4, list 4), the
//! streams' lists of indices (4 each), the commands (key prefix, index of the last event 4).

use std::io;

use dramatis_events::StreamId;

use super::bytes::{Fields, to_u32, to_u64, to_usize};
use super::checksum::crc32c;
use super::index::{MemoryIndex, Run, RunSpan};
use super::storage::{StoredFile, read_up_to};
use super::table::{self, Table, TableError};

const MAGIC: [u8; 8] = *b"DRAMIDX\x02";
/// Magic, head length, head checksum.
const PREFIX_BYTES: u64 = 16;
const STREAM_REST: usize = 16;
const COMMAND_REST: usize = 4;
const FACTS_BYTES: usize = 48;
/// Names and categories that are looked at; a segment of so many kinds is not skipped by them.
const KINDS_MAX: usize = 256;

/// What a closed segment holds, and where its chain of batches ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) first: u64,
    pub(super) count: u32,
    /// The length of the segment without what was allocated ahead.
    pub(super) end: u64,
    pub(super) next_batch: u64,
    pub(super) last_crc: u32,
    pub(super) first_recorded_at: i64,
    pub(super) last_recorded_at: i64,
}

impl Facts {
    /// Whether these are the facts of the segment with these positions.
    pub(super) fn holds(&self, positions: &std::ops::Range<u64>) -> bool {
        self.first == positions.start && self.first.checked_add(u64::from(self.count)) == Some(positions.end)
    }

    fn encode(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(&self.first.to_le_bytes());
        head.extend_from_slice(&self.count.to_le_bytes());
        head.extend_from_slice(&self.end.to_le_bytes());
        head.extend_from_slice(&self.next_batch.to_le_bytes());
        head.extend_from_slice(&self.last_crc.to_le_bytes());
        head.extend_from_slice(&self.first_recorded_at.to_le_bytes());
        head.extend_from_slice(&self.last_recorded_at.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            first: fields.u64()?,
            count: fields.u32()?,
            end: fields.u64()?,
            next_batch: fields.u64()?,
            last_crc: fields.u32()?,
            first_recorded_at: fields.i64()?,
            last_recorded_at: fields.i64()?,
        })
    }
}

/// A closed segment's index: tables' parts in memory, the rest in the file.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) facts: Facts,
    offsets: u64,
    streams: Table,
    lists: u64,
    commands: Table,
    kinds: Kinds,
}

/// The event names and categories of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) names: Vec<String>,
    pub(super) categories: Vec<String>,
}

impl Kinds {
    fn encode(&self, head: &mut Vec<u8>) {
        for texts in [&self.names, &self.categories] {
            head.extend_from_slice(&to_u32(texts.len()).to_le_bytes());
            for text in texts {
                head.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                head.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// Kinds that are not known are told by names and categories that are empty.
    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let mut texts = || {
            let count = to_usize(u64::from(fields.u32()?)).min(KINDS_MAX);
            (0..count).map(|_| fields.text().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        Some(Self { names: texts()?, categories: texts()? })
    }
}

/// The key under which a stream is indexed: 64 bits of BLAKE3 over its name.
pub(super) fn stream_key(stream: &str) -> u64 {
    let mut bytes = [0; 8];
    let mut hasher = blake3::Hasher::new();
    hasher.update(stream.as_bytes()).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The key under which a command is indexed: the first 64 bits of its key.
pub(super) fn command_prefix(key: [u8; 16]) -> u64 {
    Fields(&key).u64().unwrap_or(0)
}

impl Sidecar {
    /// The whole index file of a segment, and what of it stays in memory.
    pub(super) fn build(facts: Facts, index: &MemoryIndex) -> (Self, Vec<u8>) {
        let offsets = numbers(&index.offsets);
        let mut runs: Vec<_> = index.runs.iter().map(|run| (stream_key(run.stream.as_str()), run)).collect();
        runs.sort_unstable_by(|a, b| (a.0, &a.1.stream).cmp(&(b.0, &b.1.stream)));
        let (mut entries, mut lists) = (Vec::with_capacity(runs.len()), Vec::with_capacity(offsets.len()));
        for (key, run) in runs {
            entries.push((key, stream_entry(run, lists.len() / 4)));
            lists.extend_from_slice(&numbers(&run.at));
        }
        let commands = index.commands.iter().map(|(key, at)| (command_prefix(*key), at.to_le_bytes()));
        let commands = table::sorted(commands, index.commands.len());
        let (mut streams, streams_bytes) = Table::build(&entries);
        let (mut commands, commands_bytes) = Table::build(&commands);
        let few = index.names.len() <= KINDS_MAX && index.categories.len() <= KINDS_MAX;
        let kinds = Kinds {
            names: index.names.iter().map(|name| name.as_str().to_owned()).filter(|_| few).collect(),
            categories: index.categories.iter().filter(|_| few).cloned().collect(),
        };

        let mut head = Vec::new();
        facts.encode(&mut head);
        streams.encode(&mut head);
        commands.encode(&mut head);
        kinds.encode(&mut head);
        let layout = Layout::of(to_u64(head.len()), facts.count, &mut streams, &mut commands);
        let mut file = Vec::with_capacity(head.len() + to_usize(layout.end));
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&to_u32(head.len()).to_le_bytes());
        file.extend_from_slice(&crc32c(&head).to_le_bytes());
        for part in [head, offsets, streams_bytes, lists, commands_bytes] {
            file.extend_from_slice(&part);
        }
        (Self { facts, offsets: layout.offsets, streams, lists: layout.lists, commands, kinds }, file)
    }

    /// Reads what stays in memory; `None` if the file is not a whole index of this format.
    pub(super) fn read(file: &dyn StoredFile) -> io::Result<Option<Self>> {
        let prefix = read_up_to(file, 0, PREFIX_BYTES)?;
        let mut fields = Fields(&prefix);
        if fields.array() != Some(MAGIC) {
            return Ok(None);
        }
        let (Some(len), Some(crc)) = (fields.u32(), fields.u32()) else { return Ok(None) };
        let head = read_up_to(file, PREFIX_BYTES, u64::from(len))?;
        if head.len() < FACTS_BYTES || crc32c(&head) != crc {
            return Ok(None);
        }
        let mut fields = Fields(&head);
        let parts = (|| {
            let facts = Facts::decode(&mut fields)?;
            let streams = Table::decode(&mut fields, STREAM_REST)?;
            let commands = Table::decode(&mut fields, COMMAND_REST)?;
            Some((facts, streams, commands, Kinds::decode(&mut fields)?))
        })();
        let Some((facts, mut streams, mut commands, kinds)) = parts else { return Ok(None) };
        let layout = Layout::of(to_u64(head.len()), facts.count, &mut streams, &mut commands);
        let whole = file.size()? == layout.end;
        if whole {
            streams.remember(file);
            commands.remember(file);
        }
        let (offsets, lists) = (layout.offsets, layout.lists);
        Ok(whole.then_some(Self { facts, offsets, streams, lists, commands, kinds }))
    }

    /// What kinds of events the segment holds; `None` if they are too many to say.
    pub(super) fn kinds(&self) -> Option<&Kinds> {
        (!self.kinds.names.is_empty()).then_some(&self.kinds)
    }

    /// Bytes of the filters in memory.
    pub(super) fn filter_bytes(&self) -> u64 {
        self.streams.filter_bytes() + self.commands.filter_bytes()
    }

    /// The same without its filters.
    pub(super) fn without_filters(&self) -> Self {
        Self {
            streams: self.streams.without_filter(),
            commands: self.commands.without_filter(),
            kinds: self.kinds.clone(),
            ..*self
        }
    }

    /// How many streams begin in the segment.
    pub(super) fn begun(&self, file: &dyn StoredFile) -> Result<u64, TableError> {
        let mut begun = 0;
        self.streams.each(file, |entry| {
            let mut fields = Fields(entry);
            let _key = fields.u64();
            begun += u64::from(fields.u64() == Some(0));
        })?;
        Ok(begun)
    }

    pub(super) fn may_hold_stream(&self, key: u64) -> bool {
        self.streams.may_hold(key)
    }

    pub(super) fn may_hold_command(&self, key: [u8; 16]) -> bool {
        self.commands.may_hold(command_prefix(key))
    }

    /// What may be of this stream here; the first record of each proves whose it is.
    pub(super) fn spans(&self, file: &dyn StoredFile, stream: &StreamId) -> Result<Vec<RunSpan>, TableError> {
        let entries = self.streams.find(file, stream_key(stream.as_str()))?;
        let span = |entry: &Vec<u8>| {
            let mut fields = Fields(entry);
            Some(RunSpan { first_revision: fields.u64()?, count: fields.u32()?, list: fields.u32()? })
        };
        Ok(entries.iter().filter_map(span).collect())
    }

    /// The last events of the commands that may be this one.
    pub(super) fn commands(&self, file: &dyn StoredFile, key: [u8; 16]) -> Result<Vec<u32>, TableError> {
        let entries = self.commands.find(file, command_prefix(key))?;
        Ok(entries.iter().filter_map(|entry| Fields(entry).u32()).collect())
    }

    /// The indices of a span's events from the `skip`-th on.
    pub(super) fn list(
        &self,
        file: &dyn StoredFile,
        span: RunSpan,
        skip: u64,
        count: usize,
    ) -> io::Result<Vec<u32>> {
        let count = to_u64(count).min(u64::from(span.count).saturating_sub(skip));
        let from = u64::from(span.list).saturating_add(skip);
        let count = count.min(u64::from(self.facts.count).saturating_sub(from));
        read_numbers(file, self.lists + from * 4, count)
    }

    /// The offsets of `count` events from the index `from` on.
    pub(super) fn offsets(&self, file: &dyn StoredFile, from: u32, count: usize) -> io::Result<Vec<u32>> {
        let count = to_u64(count).min(u64::from(self.facts.count.saturating_sub(from)));
        read_numbers(file, self.offsets + u64::from(from) * 4, count)
    }
}

/// Where the sections begin.
struct Layout {
    offsets: u64,
    lists: u64,
    end: u64,
}

impl Layout {
    fn of(head: u64, count: u32, streams: &mut Table, commands: &mut Table) -> Self {
        let offsets = PREFIX_BYTES + head;
        streams.place(offsets + u64::from(count) * 4);
        let lists = offsets + u64::from(count) * 4 + streams.bytes();
        commands.place(lists + u64::from(count) * 4);
        Self { offsets, lists, end: lists + u64::from(count) * 4 + commands.bytes() }
    }
}

fn stream_entry(run: &Run, list: usize) -> [u8; STREAM_REST] {
    let mut rest = [0; STREAM_REST];
    let fields = run.first_revision.to_le_bytes().into_iter();
    let fields = fields.chain(to_u32(run.at.len()).to_le_bytes()).chain(to_u32(list).to_le_bytes());
    for (to, from) in rest.iter_mut().zip(fields) {
        *to = from;
    }
    rest
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.len() * 4);
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn read_numbers(file: &dyn StoredFile, offset: u64, count: u64) -> io::Result<Vec<u32>> {
    let mut bytes = vec![0; to_usize(count.saturating_mul(4))];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.chunks_exact(4).filter_map(|number| Fields(number).u32()).collect())
}
