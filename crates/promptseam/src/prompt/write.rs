//! Id lists as the JSON of requests: most of a body's bytes, on the way of
//! every turn.

use super::Prompt;

/// Ids between two copies into the output.
const BATCH: usize = 512;
/// Decimal digits of the largest id, and a comma.
const LONGEST: usize = 11;

/// Appends `ids` to `out` as a JSON array without spaces. O(ids).
pub fn write_ids(ids: &[u32], out: &mut Vec<u8>) {
    let mut list = List::open(out, ids.len());
    list.append(ids);
    list.close();
}

impl Prompt {
    /// Appends the ids to `out` as a JSON array without spaces. O(length).
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_json_from(0, out);
    }

    /// As [`Self::write_json`], the ids from `start` on. O(ids from there).
    pub fn write_json_from(&self, start: usize, out: &mut Vec<u8>) {
        let mut list = List::open(out, self.len().saturating_sub(start));
        self.for_each_run_from(start, |ids| list.append(ids));
        list.close();
    }
}

struct List<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> List<'a> {
    fn open(out: &'a mut Vec<u8>, ids: usize) -> Self {
        // Ids of today's vocabularies have at most six digits.
        out.reserve(2 + 7 * ids);
        out.push(b'[');
        Self { out }
    }

    fn append(&mut self, ids: &[u32]) {
        // A word is written whole, and what of it is too much is written over.
        let mut text = [0; BATCH * LONGEST + 8];
        for batch in ids.chunks(BATCH) {
            let mut at = 0;
            for id in batch {
                at += write_id(*id, &mut text[at..]);
            }
            self.out.extend_from_slice(&text[..at]);
        }
    }

    fn close(self) {
        match self.out.last_mut() {
            Some(comma @ b',') => *comma = b']',
            _ => self.out.push(b']'),
        }
    }
}

/// The digits of 0 to 999 from the lowest byte on, without leading zeros; how
/// many they are stands in the highest byte.
static SHORT: [u32; 1000] = digits(false);
/// The three digits of 0 to 999 from the lowest byte on, then a comma.
static PADDED: [u32; 1000] = digits(true);

const fn digits(padded: bool) -> [u32; 1000] {
    let mut table = [0; 1000];
    let mut number = 0;
    while number < 1000 {
        let all = [number / 100, number / 10 % 10, number % 10];
        let mut from = 0;
        while !padded && from < 2 && all[from] == 0 {
            from += 1;
        }
        let count = 3 - from;
        let mut word = if padded { b',' as u32 } else { count as u32 } << 24;
        let mut digit = 0;
        while digit < count {
            word |= (b'0' as u32 + all[from + digit] as u32) << (8 * digit);
            digit += 1;
        }
        table[number] = word;
        number += 1;
    }
    table
}

/// Writes an id and a comma; gives how many bytes they are. `text` has room for
/// [`LONGEST`] bytes.
fn write_id(id: u32, text: &mut [u8]) -> usize {
    let (word, length) = if id < 1_000 {
        let short = SHORT[id as usize];
        let count = short >> 24;
        let word = u64::from(short & 0xff_ffff) | u64::from(b',') << (8 * count);
        (word, count as usize + 1)
    } else if id < 1_000_000 {
        let short = SHORT[(id / 1_000) as usize];
        let count = short >> 24;
        let rest = u64::from(PADDED[(id % 1_000) as usize]) << (8 * count);
        (u64::from(short & 0xff_ffff) | rest, count as usize + 4)
    } else {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(id).as_bytes();
        text[..digits.len()].copy_from_slice(digits);
        text[digits.len()] = b',';
        return digits.len() + 1;
    };
    text[..8].copy_from_slice(&word.to_le_bytes());
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(ids: &[u32]) -> String {
        let mut out = Vec::new();
        write_ids(ids, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lists_are_the_json_of_serde() {
        let ids: Vec<u32> = (0..1_100_000).chain(u32::MAX - 1_000..=u32::MAX).collect();
        assert_eq!(written(&ids), serde_json::to_string(&ids).unwrap());
        for length in [0, 1, BATCH - 1, BATCH, BATCH + 1] {
            // The longest ids there are must not run over the end of a batch.
            for id in [0, 999_999, u32::MAX] {
                let ids = vec![id; length];
                assert_eq!(written(&ids), serde_json::to_string(&ids).unwrap());
            }
        }
    }

    #[test]
    fn a_prompt_writes_what_its_ids_do() {
        let ids: Vec<u32> = (0..5_000).collect();
        let mut out = b"{\"token_ids\":".to_vec();
        Prompt::from_ids(&ids).write_json(&mut out);
        assert_eq!(out, format!("{{\"token_ids\":{}", written(&ids)).as_bytes());
    }
}
