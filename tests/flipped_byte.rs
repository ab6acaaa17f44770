//! A byte that changed on the disk, in a segment that is closed or in its index: `dramatis log
//! verify` names the place, and nobody is ever told what was not recorded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use serde_json::{Value, json};
use support::imports::{Chance, long_tier};
use support::{Server, dramatis};

const MESSAGES: usize = 800;
const SETTINGS: [(&str, &str); 1] = [("DRAMATIS__LOG__SEGMENT_BYTES", "65536")];
/// Of the format's documentation: bytes of a segment's header and of a batch's.
const SEGMENT_HEADER: usize = 48;
const BATCH_HEADER: usize = 56;

/// Records messages of several sizes in two rooms.
fn record(data: &Path) {
    let server = Server::start_with(data, &[], &SETTINGS);
    for room in ["den", "attic"] {
        server.open_room(room, "olga");
        let mut olga = server.client("olga", &json!([]));
        for message in 0..MESSAGES / 2 {
            let text = format!("{message} {}", "text ".repeat(message % 150));
            olga.command(room, "post_message", &json!({"text": text}));
        }
        for _ in 0..MESSAGES / 2 {
            assert_eq!(olga.receive()["type"], "ack");
        }
    }
    assert_eq!(server.terminate(), Some(0));
}

/// The segments in their order, without the open one.
fn closed_segments(data: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect();
    segments.sort();
    segments.pop();
    assert!(segments.len() >= 3, "too few segments were closed: {segments:?}");
    segments
}

/// Changes one bit of a file and, when it is dropped, puts the file back.
struct Flip {
    file: PathBuf,
    offset: usize,
    bit: u64,
    whole: Vec<u8>,
}

impl Flip {
    fn new(file: &Path, offset: usize, bit: u64) -> Self {
        let whole = fs::read(file).unwrap();
        let mut flipped = whole.clone();
        flipped[offset] ^= 1 << bit;
        fs::write(file, flipped).unwrap();
        Self { file: file.to_owned(), offset, bit, whole }
    }

    fn name(&self) -> &str {
        self.file.file_name().unwrap().to_str().unwrap()
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bit {} of byte {} of {}", self.bit, self.offset, self.name())
    }
}

impl Drop for Flip {
    fn drop(&mut self) {
        fs::write(&self.file, &self.whole).unwrap();
    }
}

/// Where the last batch of a segment ends: what lies behind is zeros, allocated ahead.
fn end(segment: &Path) -> usize {
    fs::read(segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// One of the bytes that have a meaning of their own, or any.
fn offset(segment: &Path, chance: &mut Chance) -> usize {
    let end = end(segment);
    let headers = SEGMENT_HEADER + BATCH_HEADER + 8;
    match below(chance, 5) {
        0 => end - 1,
        1 | 2 => below(chance, headers),
        _ => below(chance, end),
    }
}

fn below(chance: &mut Chance, bound: usize) -> usize {
    usize::try_from(chance.below(bound as u64)).unwrap()
}

/// A bit of this segment, or of its index.
fn any_flip(segment: &Path, of_index: bool, chance: &mut Chance) -> Flip {
    if of_index {
        let index = segment.with_extension("index");
        let length = usize::try_from(fs::metadata(&index).unwrap().len()).unwrap();
        Flip::new(&index, below(chance, length), chance.below(8))
    } else {
        Flip::new(segment, offset(segment, chance), chance.below(8))
    }
}

/// The events as the server tells them, up to where it says that it cannot.
fn told(data: &Path, arguments: &[&str]) -> (Vec<u8>, Result<(), String>) {
    match Server::try_start(data, &SETTINGS) {
        Ok(server) => {
            let output = server.run(&[&["events", "read"], arguments].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() || said.contains("the log is damaged in 0"), "{said}");
            (output.stdout, output.status.success().then_some(()).ok_or(said))
        }
        Err(refused) => (Vec::new(), Err(refused)),
    }
}

/// Nothing but what was recorded is told, and all of it unless the server says that it cannot.
fn assert_nothing_altered(whole: &[u8], data: &Path, arguments: &[&str], flip: &Flip) -> bool {
    let (told, end) = told(data, arguments);
    assert!(whole.starts_with(&told), "altered: {flip}");
    if end.is_ok() {
        assert_eq!(told.len(), whole.len(), "cut short without a word: {flip}");
    }
    end.is_ok()
}

#[test]
fn a_flipped_byte_is_never_told_as_an_event() {
    let (directory, mut chance) = (tempfile::tempdir().unwrap(), Chance::new());
    let data = directory.path();
    record(data);
    let all: [&[&str]; 2] = [&[], &["--room", "attic"]];
    let whole = all.map(|arguments| told(data, arguments).0);
    assert!(!whole[1].is_empty() && whole[1].len() < whole[0].len());
    let (flips, mut told_whole) = (if long_tier() { 400 } else { 40 }, 0);
    let segments = closed_segments(data);
    for flip in 0..flips {
        let segment = &segments[below(&mut chance, segments.len())];
        let index = segment.with_extension("index");
        let flipped = any_flip(segment, flip % 4 == 0, &mut chance);
        if flip % 4 == 1 {
            // Then the segment is read whole.
            fs::rename(&index, index.with_extension("hidden")).unwrap();
        }
        let reading = below(&mut chance, 2);
        told_whole += u32::from(assert_nothing_altered(&whole[reading], data, all[reading], &flipped));
        if flip % 4 == 1 {
            fs::rename(index.with_extension("hidden"), index).unwrap();
        }
    }
    println!("{flips} flipped bits, {told_whole} of them beside what was read; nothing altered");
    assert!(told_whole < flips, "no flipped bit was met");
}

/// Runs `dramatis log verify`: its exit code, and each damage as file and offset.
fn verified(data: &Path) -> (Option<i32>, Vec<(String, u64)>) {
    let output = dramatis().args(["log", "verify", "--json", "--data"]).arg(data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let place =
        |found: &Value| (found["file"].as_str().unwrap().to_owned(), found["offset"].as_u64().unwrap());
    (output.status.code(), document["damage"].as_array().unwrap().iter().map(place).collect())
}

#[test]
fn a_flipped_byte_is_found_and_its_place_named() {
    let (directory, mut chance) = (tempfile::tempdir().unwrap(), Chance::new());
    let data = directory.path();
    record(data);
    assert_eq!(verified(data), (Some(0), Vec::new()));
    let flips = if long_tier() { 1_000 } else { 40 };
    let segments = closed_segments(data);
    for flip in 0..flips {
        let segment = &segments[below(&mut chance, segments.len())];
        let flipped = any_flip(segment, flip % 4 == 0, &mut chance);
        let (code, damage) = verified(data);
        let named = |(file, offset): &(String, u64)| {
            *file == flipped.name() && *offset <= u64::try_from(flipped.offset).unwrap()
        };
        assert_eq!(code, Some(2), "not found: {flipped}");
        assert!(damage.iter().any(named), "{flipped} is not named by {damage:?}");
    }
    assert_eq!(verified(data), (Some(0), Vec::new()));
    println!("{flips} flipped bits, all found and named");
}
