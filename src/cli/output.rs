//! What commands print. An output that nobody reads any more, or that cannot be written, is never a
//! reason to leave work half done.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal as _, Write};

use super::Failure;

/// Standard output. What a terminal would obey it is shown instead.
pub(super) fn stdout() -> Box<dyn Write> {
    let stdout = io::stdout().lock();
    if stdout.is_terminal() { Box::new(Tamed::new(stdout)) } else { Box::new(stdout) }
}

/// Prints what the command is there to print. Once nobody reads that any more the command is to end,
/// quietly: the error is then [`Failure::Unread`].
pub(super) fn show(text: &str) -> anyhow::Result<()> {
    shown(&mut stdout(), text)
}

/// Prints what came of some work, which goes on all the same where that cannot be written: the exit
/// code tells of the work.
pub(super) fn report(text: &str) {
    if let Err(error) = shown(&mut stdout(), text)
        && !matches!(error.downcast_ref(), Some(Failure::Unread))
    {
        tell(&format!("dramatis: {error:#}"));
    }
}

/// Prints a line on standard error. Where that cannot be written there is nobody to tell it to.
pub(super) fn tell(line: &str) {
    let mut stderr = io::stderr().lock();
    let line = if stderr.is_terminal() { tamed(line) } else { line.to_owned() };
    let _ = writeln!(stderr, "{line}");
}

/// Writes text with what steers a terminal, or turns the text around it, written as JSON escapes it:
/// within JSON it stays the same JSON.
struct Tamed<W> {
    to: W,
    /// The beginning of a character of which more is to come.
    begun: Vec<u8>,
}

impl<W> Tamed<W> {
    fn new(to: W) -> Self {
        Self { to, begun: Vec::new() }
    }
}

impl<W: Write> Write for Tamed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.begun) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let whole = std::mem::replace(&mut self.begun, rest);
        self.to.write_all(tamed(&String::from_utf8_lossy(&whole)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn tamed(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            // Writing to a String cannot fail.
            let _ = write!(tamed, "\\u{:04x}", u32::from(c));
        } else {
            tamed.push(c);
        }
    }
    tamed
}

/// Whether a terminal obeys it, but for the end of a line, or turns what is around it.
fn steers(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    turns || (c.is_control() && c != '\n')
}

fn shown(to: &mut impl Write, text: &str) -> anyhow::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::Unread.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_is_not_steered_by_what_people_say() {
        let said =
            "a\u{9b}31m \u{9d}0;t\u{7} \u{7f} \u{1b}[2J \u{202e}evil\u{2069} \u{200f}\u{61c} é 👍\u{200d}";
        let line = serde_json::json!({ "text": said }).to_string() + "\n";
        // However it comes in pieces.
        for size in 1..=line.len() {
            let mut tamed = Tamed::new(Vec::new());
            for piece in line.as_bytes().chunks(size) {
                tamed.write_all(piece).unwrap();
            }
            let shown = String::from_utf8(tamed.to).unwrap();
            assert!(!shown.contains(steers) && shown.contains("é 👍\u{200d}"), "{size}: {shown:?}");
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read["text"], said);
        }
        assert_eq!(tamed("room\u{1b}[2J\tx\n"), "room\\u001b[2J\\u0009x\n");
        let mut broken = Tamed::new(Vec::new());
        broken.write_all(b"\x9b31m").unwrap();
        assert_eq!(broken.to, "\u{fffd}31m".as_bytes());
    }

    #[test]
    fn a_closed_pipe_is_told_from_what_cannot_be_written() {
        let closed = shown(&mut Broken(ErrorKind::BrokenPipe), "a\n").unwrap_err();
        assert_eq!(closed.downcast_ref::<Failure>().map(Failure::exit_code), Some(0));
        let full = shown(&mut Broken(ErrorKind::StorageFull), "a\n").unwrap_err();
        assert!(full.to_string().starts_with("cannot write to standard output"), "{full}");
    }
}
