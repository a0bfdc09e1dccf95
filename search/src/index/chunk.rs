//! Cutting files into chunks: whole lines, about a kilobyte together, cut where the content says so.
//!
//! Two versions of a file, or two files with a common part, then share the chunks of what they have in common, and each
//! is stored, indexed and verified once. A cut falls behind a line when the chunk has a quarter of its target and the
//! line's own hash asks for it, at the latest at four times the target. A line that is longer is a chunk of its own: lines
//! are never split, so that a pattern, which matches within a line, matches within a chunk.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes that a chunk has on average, about.
const TARGET_BYTES: usize = 1024;
/// Below this a chunk is not cut.
const BYTES_MIN: usize = TARGET_BYTES / 4;
/// The first line that ends behind this ends the chunk.
const BYTES_MAX: usize = TARGET_BYTES * 4;
/// One line in so many asks for a cut: the lines of a target, at 32 bytes each.
const LINES_MODULUS: u64 = (TARGET_BYTES / 32) as u64;

/// The chunks of `data`, in order; together they are `data`.
pub(crate) fn chunks(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (chunk, behind) = rest.split_at(cut(rest));
        rest = behind;
        Some(chunk)
    })
}

/// Where the first chunk of `data` ends.
fn cut(data: &[u8]) -> usize {
    let mut end = 0;
    while let Some(rest) = data.get(end..).filter(|rest| !rest.is_empty()) {
        let line_bytes = memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
        // A very long line gets a chunk of its own, so that its neighbours are not copied with each version of it.
        if end > 0 && line_bytes > BYTES_MAX {
            return end;
        }
        let line = rest.get(..line_bytes).unwrap_or(rest);
        end += line_bytes;
        if end >= BYTES_MAX || (end >= BYTES_MIN && xxh3_64(line).is_multiple_of(LINES_MODULUS)) {
            return end;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{BYTES_MAX, chunks};

    fn lines(count: usize) -> Vec<u8> {
        (0..count).flat_map(|line| format!("line number {} of a file\n", line * 7919 % 1000).into_bytes()).collect()
    }

    #[test]
    fn chunks_are_whole_lines_and_the_whole_file() {
        let mut data = lines(2000);
        data.extend(b"no newline at the end");
        let found: Vec<&[u8]> = chunks(&data).collect();
        assert_eq!(found.concat(), data);
        let (last, others) = found.split_last().expect("there are chunks");
        assert!(!last.is_empty());
        assert!(others.iter().all(|chunk| chunk.ends_with(b"\n") && chunk.len() <= BYTES_MAX + 40));
        assert!((20..=200).contains(&found.len()), "{} chunks", found.len());
        assert_eq!(chunks(b"").count(), 0);
        assert_eq!(chunks(b"\n\n\n").collect::<Vec<_>>(), [b"\n\n\n"]);
    }

    #[test]
    fn an_inserted_line_changes_few_chunks() {
        let data = lines(4000);
        let before: HashSet<&[u8]> = chunks(&data).collect();
        let at = data.len() / 2 + data[data.len() / 2..].iter().position(|byte| *byte == b'\n').expect("lines") + 1;
        let changed = [&data[..at], b"a new line\n", &data[at..]].concat();
        let fresh = chunks(&changed).filter(|chunk| !before.contains(chunk)).count();
        assert!((1..=3).contains(&fresh), "{fresh} new chunks");
    }

    #[test]
    fn a_long_line_is_alone() {
        let long = vec![b'x'; 100_000];
        let data = [b"in front\n".as_slice(), &long, b"\nbehind\n"].concat();
        let found: Vec<usize> = chunks(&data).map(<[u8]>::len).collect();
        assert_eq!(found, [9, 100_001, 7]);
    }
}
