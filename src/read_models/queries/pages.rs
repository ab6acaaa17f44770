//! How much one page holds: as many documents as are asked for, and of large ones fewer.

/// Bytes of documents at which a page ends.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// How many of these lengths in bytes, in their order, one page of so many holds: one at the least, so that whoever
/// goes on from the last one gets to the end.
pub fn fitting(lengths: impl IntoIterator<Item = usize>, bytes_max: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |(number, length): &(usize, usize)| {
        bytes = bytes.saturating_add(*length);
        *number == 0 || bytes <= bytes_max
    };
    lengths.into_iter().enumerate().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_after_so_many_bytes_and_holds_one_document_at_the_least() {
        const HALF: usize = PAGE_BYTES_MAX / 2;
        for (lengths, expected) in [
            (&[][..], 0),
            (&[2, 3], 2),
            (&[HALF, HALF], 2),
            (&[HALF, HALF, 1], 2),
            (&[HALF, HALF + 1, 1], 1),
            (&[PAGE_BYTES_MAX + 1], 1),
            (&[usize::MAX, usize::MAX], 1),
        ] {
            assert_eq!(fitting(lengths.iter().copied(), PAGE_BYTES_MAX), expected, "{lengths:?}");
        }
    }
}
