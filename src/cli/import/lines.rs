//! The lines of one file. A pipe is read once: what was looked at ahead comes again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The longest line that is read, bytes with its end; a longer one is no chat log's.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;
/// How much of a file is read at a time, bytes.
const READ_BYTES: usize = 64 * 1024;

/// One line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// With its end.
    Whole(Vec<u8>),
    /// Of [`LINE_BYTES_MAX`] bytes or more, which are passed over: so many.
    TooLong(usize),
}

impl Line {
    /// Its bytes in the file.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::TooLong(bytes) => *bytes,
        }
    }
}

/// What a file is, as far as it matters to who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// It can be opened again and gives the same.
    Regular,
    /// What was read once is gone, as from a pipe.
    Once,
}

/// Reads a file line by line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    ahead: VecDeque<Line>,
}

/// What is known of an opened file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    pub(super) source: Source,
    /// Its size, where it has one.
    pub(super) bytes: u64,
    pub(super) identity: Identity,
}

/// Which file it is, whatever it is called: its device and its number there.
pub(super) type Identity = (u64, u64);

/// Opens a file; says what it is.
pub(super) fn open(path: &Path) -> io::Result<(Lines<File>, Opened)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let source = if metadata.is_file() { Source::Regular } else { Source::Once };
    let opened = Opened { source, bytes: metadata.len(), identity: (metadata.dev(), metadata.ino()) };
    Ok((Lines::new(file), opened))
}

impl<R: Read> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(READ_BYTES, reader), ahead: VecDeque::new() }
    }

    /// Whether the next line need not be waited for.
    pub(super) fn has_next(&self) -> bool {
        !self.ahead.is_empty() || self.reader.buffer().contains(&b'\n')
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        match self.ahead.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.read(),
        }
    }

    /// The next line that was not looked at yet; [`Lines::next`] gives it all the same.
    pub(super) fn look_ahead(&mut self) -> io::Result<Option<&Line>> {
        let Some(line) = self.read()? else { return Ok(None) };
        self.ahead.push_back(line);
        Ok(self.ahead.back())
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes)?;
        if bytes.len() < LINE_BYTES_MAX {
            return Ok((!bytes.is_empty()).then_some(Line::Whole(bytes)));
        }
        let rest = if bytes.ends_with(b"\n") { 0 } else { self.reader.skip_until(b'\n')? };
        Ok(Some(Line::TooLong(bytes.len().saturating_add(rest))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn what_was_looked_at_comes_again() {
        let mut lines = Lines::new("a\nb\r\nc".as_bytes());
        assert_eq!(lines.look_ahead().unwrap(), Some(&whole("a\n")));
        assert_eq!(lines.look_ahead().unwrap(), Some(&whole("b\r\n")));
        for line in ["a\n", "b\r\n", "c"] {
            assert_eq!(lines.next().unwrap(), Some(whole(line)));
        }
        assert_eq!(lines.look_ahead().unwrap(), None);
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let longest = format!("{}\n", "x".repeat(LINE_BYTES_MAX - 2));
        for (longer, bytes) in [
            (format!("{}\n", "x".repeat(LINE_BYTES_MAX - 1)), LINE_BYTES_MAX),
            (format!("{}\n", "x".repeat(3 * LINE_BYTES_MAX)), 3 * LINE_BYTES_MAX + 1),
            ("x".repeat(LINE_BYTES_MAX), LINE_BYTES_MAX),
        ] {
            let last = longer.ends_with('\n').then(|| whole("after"));
            let text = format!("{longest}{longer}{}", if last.is_some() { "after" } else { "" });
            let mut lines = Lines::new(text.as_bytes());
            assert_eq!(lines.next().unwrap(), Some(whole(&longest)));
            let read = lines.next().unwrap().unwrap();
            assert_eq!((read.len(), &read), (bytes, &Line::TooLong(bytes)));
            assert_eq!((lines.next().unwrap(), lines.next().unwrap()), (last, None));
        }
    }
}
