//! Finding the end of a string's plain part, eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The position of the first byte from `at` on that is a quote, a backslash or
/// a control character; `bytes.len()` if there is none.
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes
        .get(at..at + 8)
        .and_then(|c| <[u8; 8]>::try_from(c).ok())
    {
        let word = u64::from_le_bytes(chunk);
        // Borrows reach upwards only, so the lowest set flag is always right.
        let special = below(word, 0x20) | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c));
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    bytes[at..]
        .iter()
        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
        .map_or(bytes.len(), |found| at + found)
}

/// Flags the bytes below `limit` (at most 0x80).
const fn below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(ONES * limit) & !word & HIGHS
}

/// Flags the zero bytes.
const fn zero(word: u64) -> u64 {
    below(word, 1)
}
