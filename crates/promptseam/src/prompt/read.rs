//! Id lists in the JSON of answers, taken out before anything else reads it.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// Nesting that an answer may have; vLLM's has 5.
const MAX_DEPTH: usize = 64;

/// An answer, or one event of a streamed answer, with its id lists taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The JSON with `null` where the lists were.
    pub json: String,
    /// The prompt's ids: `prompt_token_ids` at the top or in a choice;
    /// `token_ids` or `tokens` at the top (the render and tokenize routes).
    pub prompt: Option<Vec<u32>>,
    /// For each choice, its `token_ids`.
    pub choices: Vec<Option<Vec<u32>>>,
}

/// Takes the id lists out of an answer of vLLM 0.32. Only the part of the JSON
/// that leads to them is read; strings and other values are skipped over.
/// O(bytes).
///
/// # Errors
/// `InvalidJson` where that part is not JSON, `InvalidTokenId` where a list
/// holds anything but ids.
pub fn read_answer(bytes: &[u8]) -> Result<Answer> {
    let text = std::str::from_utf8(bytes).map_err(|e| malformed(e.valid_up_to()))?;
    let mut reader = Reader { bytes, at: 0 };
    let mut answer = Answer::default();
    let mut cuts = Vec::new();
    reader.members(0, |reader, key| {
        match key {
            "prompt_token_ids" | "token_ids" | "tokens" => {
                if let Some((range, ids)) = reader.ids()? {
                    cuts.push(range);
                    answer.prompt = Some(ids);
                }
            }
            "choices" if reader.peek() == Some(b'[') => reader.items(1, |reader| {
                if reader.peek() != Some(b'{') {
                    return reader.skip(1);
                }
                let mut sampled = None;
                reader.members(2, |reader, key| {
                    match key {
                        "token_ids" => {
                            if let Some((range, ids)) = reader.ids()? {
                                cuts.push(range);
                                sampled = Some(ids);
                            }
                        }
                        "prompt_token_ids" => {
                            if let Some((range, ids)) = reader.ids()? {
                                cuts.push(range);
                                answer.prompt = Some(ids);
                            }
                        }
                        _ => reader.skip(2)?,
                    }
                    Ok(())
                })?;
                answer.choices.push(sampled);
                Ok(())
            })?,
            _ => reader.skip(1)?,
        }
        Ok(())
    })?;
    reader.space();
    if reader.at != bytes.len() {
        return Err(malformed(reader.at));
    }
    let mut from = 0;
    for cut in cuts {
        answer.json.push_str(&text[from..cut.start]);
        answer.json.push_str("null");
        from = cut.end;
    }
    answer.json.push_str(&text[from..]);
    Ok(answer)
}

fn malformed(at: usize) -> Error {
    Error::new(
        ErrorKind::InvalidJson,
        format!("The answer is not the JSON it should be, at byte {at}."),
    )
}

/// Walks over JSON without building it.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek() != Some(byte) {
            return Err(malformed(self.at));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes a comma or the closing byte; true when another value follows.
    fn more(&mut self, close: u8) -> Result<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(malformed(self.at)),
        }
    }

    /// Walks an object; `value` must take each member's value.
    fn members(
        &mut self,
        depth: usize,
        mut value: impl FnMut(&mut Self, &str) -> Result<()>,
    ) -> Result<()> {
        self.expect(b'{')?;
        if depth > MAX_DEPTH {
            return Err(malformed(self.at));
        }
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            // A key with escapes is none of ours.
            value(self, std::str::from_utf8(key).unwrap_or_default())?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Walks an array; `value` must take each item.
    fn items(
        &mut self,
        depth: usize,
        mut value: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.expect(b'[')?;
        if depth > MAX_DEPTH {
            return Err(malformed(self.at));
        }
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            value(self)?;
            if !self.more(b']')? {
                return Ok(());
            }
        }
    }

    /// The raw bytes between the quotes.
    fn string(&mut self) -> Result<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match memchr::memchr2(b'"', b'\\', &self.bytes[self.at..]) {
                None => return Err(malformed(self.bytes.len())),
                Some(offset) if self.bytes[self.at + offset] == b'"' => {
                    let end = self.at + offset;
                    self.at = end + 1;
                    return Ok(&self.bytes[start..end]);
                }
                Some(offset) => self.at = (self.at + offset + 2).min(self.bytes.len()),
            }
        }
    }

    fn skip(&mut self, depth: usize) -> Result<()> {
        match self.peek() {
            Some(b'{') => self.members(depth + 1, |reader, _| reader.skip(depth + 1)),
            Some(b'[') => self.items(depth + 1, |reader| reader.skip(depth + 1)),
            Some(b'"') => self.string().map(drop),
            _ => {
                let start = self.at;
                while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') =
                    self.bytes.get(self.at)
                {
                    self.at += 1;
                }
                if self.at == start {
                    return Err(malformed(start));
                }
                Ok(())
            }
        }
    }

    /// A list of ids with the range it stands in; `None` for `null`.
    fn ids(&mut self) -> Result<Option<(Range<usize>, Vec<u32>)>> {
        if self.peek() != Some(b'[') {
            self.skip(1)?;
            return Ok(None);
        }
        let start = self.at;
        let mut ids = Vec::new();
        self.items(1, |reader| {
            ids.push(reader.id()?);
            Ok(())
        })?;
        Ok(Some((start..self.at, ids)))
    }

    fn id(&mut self) -> Result<u32> {
        self.space();
        let start = self.at;
        let mut id = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            // Eleven digits cannot be a u32, and cannot overflow a u64 either.
            if self.at - start > 10 {
                break;
            }
            id = 10 * id + u64::from(digit - b'0');
            self.at += 1;
        }
        match u32::try_from(id) {
            Ok(id) if self.at > start => Ok(id),
            _ => Err(Error::new(
                ErrorKind::InvalidTokenId,
                format!("The answer has something else than a token id at byte {start}."),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_out_the_lists_of_a_chat_event() {
        let event = br#"{"id":"a","prompt_token_ids":[1, 22,4294967295],"choices":[{"index":0,"delta":{"content":"\"token_ids\":[9]"},"token_ids":[7]},{"index":1,"token_ids":null}],"usage":{"prompt_tokens":3}}"#;
        let answer = read_answer(event).unwrap();
        assert_eq!(answer.prompt, Some(vec![1, 22, u32::MAX]));
        assert_eq!(answer.choices, [Some(vec![7]), None]);
        assert_eq!(
            answer.json,
            r#"{"id":"a","prompt_token_ids":null,"choices":[{"index":0,"delta":{"content":"\"token_ids\":[9]"},"token_ids":null},{"index":1,"token_ids":null}],"usage":{"prompt_tokens":3}}"#
        );
    }

    #[test]
    fn refuses_what_is_not_an_answer() {
        for (bytes, kind) in [
            (&b"<html>"[..], ErrorKind::InvalidJson),
            (b"", ErrorKind::InvalidJson),
            (b"{", ErrorKind::InvalidJson),
            (b"{}x", ErrorKind::InvalidJson),
            (b"{\"a\":}", ErrorKind::InvalidJson),
            (b"{\"a\":\"\\", ErrorKind::InvalidJson),
            (b"{\"a\":\"\xff\"}", ErrorKind::InvalidJson),
            (b"{\"token_ids\":[1.5]}", ErrorKind::InvalidJson),
            (b"{\"token_ids\":[-1]}", ErrorKind::InvalidTokenId),
            (b"{\"token_ids\":[\"1\"]}", ErrorKind::InvalidTokenId),
            (b"{\"token_ids\":[4294967296]}", ErrorKind::InvalidTokenId),
            (
                b"{\"token_ids\":[99999999999999999999999]}",
                ErrorKind::InvalidTokenId,
            ),
        ] {
            let error = read_answer(bytes).unwrap_err();
            assert_eq!(error.kind(), kind, "{}", String::from_utf8_lossy(bytes));
        }
        let deep = [&b"{\"a\":"[..], &b"[".repeat(100_000)].concat();
        assert_eq!(
            read_answer(&deep).unwrap_err().kind(),
            ErrorKind::InvalidJson
        );
    }

    #[test]
    fn lists_come_back_as_written() {
        let ids: Vec<u32> = (0..2_000_u32)
            .map(|i| i.wrapping_mul(2_654_435_761))
            .collect();
        let mut body = b"{\"prompt_token_ids\":".to_vec();
        crate::prompt::write_ids(&ids, &mut body);
        body.push(b'}');
        assert_eq!(read_answer(&body).unwrap().prompt, Some(ids));
    }
}
