//! GPT-2's byte-level alphabet: each byte written as a printable character.

/// Appends the bytes that `token` spells. A token with a character outside the
/// alphabet, as added tokens may have, stands for its own UTF-8 (`tokenizers`
/// 0.23).
pub(super) fn push_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for character in token.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Printable Latin-1 stands for itself; the other 68 bytes, in order, are the
/// characters from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Takes the text out of `bytes` and leaves the bytes of a last character that
/// is not whole. What is no UTF-8 becomes U+FFFD, as in
/// [`String::from_utf8_lossy`] of all bytes at once.
pub(super) fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut from = 0;
    loop {
        let rest = &bytes[from..];
        let error = match std::str::from_utf8(rest) {
            Ok(rest) => {
                text.push_str(rest);
                from = bytes.len();
                break;
            }
            Err(error) => error,
        };
        let (valid, _) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        from += valid.len();
        match error.error_len() {
            Some(length) => {
                text.push('\u{fffd}');
                from += length;
            }
            None => break,
        }
    }
    bytes.drain(..from);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_spells_every_byte_once() {
        let mut seen = [false; 256];
        for code in 0..0x200 {
            let character = char::from_u32(code).unwrap();
            if let Some(byte) = byte_of(character) {
                assert!(
                    !std::mem::replace(&mut seen[usize::from(byte)], true),
                    "{byte}"
                );
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        // The best known ones: space and newline.
        assert_eq!(byte_of('\u{120}'), Some(b' '));
        assert_eq!(byte_of('\u{10a}'), Some(b'\n'));
    }

    #[test]
    fn text_taken_piece_by_piece_is_the_lossy_text_of_all_bytes() {
        let mut state = 1_u32;
        for length in 0..200 {
            let all: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    [0x61, 0xe3, 0x81, 0x82, 0xf0, 0x9f, 0x98, 0xff][(state >> 29) as usize]
                })
                .collect();
            let (mut pending, mut text) = (Vec::new(), String::new());
            for byte in &all {
                pending.push(*byte);
                text.push_str(&take_text(&mut pending));
                assert!(pending.len() < 4);
            }
            text.push_str(&String::from_utf8_lossy(&pending));
            assert_eq!(text, String::from_utf8_lossy(&all));
        }
    }
}
