//! What commands print. An output that nobody reads any more, or that cannot be written, is never a
//! reason to leave work half done.

use std::io::{self, ErrorKind, Write};

use super::Failure;

/// Prints what the command is there to print. Once nobody reads that any more the command is to end,
/// quietly: the error is then [`Failure::Unread`].
pub(super) fn show(text: &str) -> anyhow::Result<()> {
    shown(&mut io::stdout().lock(), text)
}

/// Prints what came of some work, which goes on all the same where that cannot be written: the exit
/// code tells of the work.
pub(super) fn report(text: &str) {
    if let Err(error) = shown(&mut io::stdout().lock(), text)
        && !matches!(error.downcast_ref(), Some(Failure::Unread))
    {
        tell(&format!("dramatis: {error:#}"));
    }
}

/// Prints a line on standard error. Where that cannot be written there is nobody to tell it to.
pub(super) fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn shown(to: &mut impl Write, text: &str) -> anyhow::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::Unread.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
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
    fn a_closed_pipe_is_told_from_what_cannot_be_written() {
        let closed = shown(&mut Broken(ErrorKind::BrokenPipe), "a\n").unwrap_err();
        assert_eq!(closed.downcast_ref::<Failure>().map(Failure::exit_code), Some(0));
        let full = shown(&mut Broken(ErrorKind::StorageFull), "a\n").unwrap_err();
        assert!(full.to_string().starts_with("cannot write to standard output"), "{full}");
    }
}
