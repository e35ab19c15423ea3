//! Text in which special tokens cannot be confused with content.
//!
//! Harmony encodes content as plain text, also where it spells a special token,
//! so a rendered prompt is no longer one text that a tokenizer could read. Here
//! it is one again: a special token is written as U+F0000 and a letter, a cut
//! between texts that are encoded apart as U+F0000 and `|`, and a U+F0000 in
//! content as two.

use std::borrow::Cow;

/// A private-use character, as rare in content as any.
const MARK: &str = "\u{f0000}";
const CUT: u8 = b'|';

/// A special token that the renderer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// Opens a message.
    Start,
    /// Ends the header.
    Message,
    /// Comes before the channel.
    Channel,
    /// Ends a tool call.
    Call,
    /// Ends any other message.
    End,
}

impl Token {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Start,
        Self::Message,
        Self::Channel,
        Self::Call,
        Self::End,
    ];

    /// How the vocabulary spells the token.
    pub const fn literal(self) -> &'static str {
        match self {
            Self::Start => "<|start|>",
            Self::Message => "<|message|>",
            Self::Channel => "<|channel|>",
            Self::Call => "<|call|>",
            Self::End => "<|end|>",
        }
    }

    const fn letter(self) -> u8 {
        match self {
            Self::Start => b's',
            Self::Message => b'm',
            Self::Channel => b'c',
            Self::Call => b'x',
            Self::End => b'e',
        }
    }
}

/// A piece of a marked text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A special token.
    Special(Token),
    /// Text to be encoded on its own, never empty.
    Text(Cow<'a, str>),
}

/// Appends content. O(n).
pub fn push_text(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = find_mark(rest) {
        let end = at + MARK.len();
        out.push_str(&rest[..end]);
        out.push_str(MARK);
        rest = &rest[end..];
    }
    out.push_str(rest);
}

/// Appends a special token.
pub fn push_special(out: &mut String, token: Token) {
    out.push_str(MARK);
    out.push(token.letter().into());
}

/// Appends a cut: what follows is encoded apart from what comes before.
pub fn push_cut(out: &mut String) {
    out.push_str(MARK);
    out.push(CUT.into());
}

/// The pieces of a marked text in order, each with the byte at which it ends.
/// O(n) in all.
pub fn pieces(marked: &str) -> impl Iterator<Item = (Piece<'_>, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &marked[at..];
            if rest.is_empty() {
                return None;
            }
            let (text, length) = leading_text(rest);
            if length > 0 {
                at += length;
                return Some((Piece::Text(text), at));
            }
            at += MARK.len() + 1;
            let letter = marked.as_bytes()[at - 1];
            if let Some(token) = Token::ALL.into_iter().find(|t| t.letter() == letter) {
                return Some((Piece::Special(token), at));
            }
        }
    })
}

/// The text for people: special tokens by their literals. O(n).
pub fn plain(marked: &str) -> String {
    let mut out = String::with_capacity(marked.len() + marked.len() / 8);
    for (piece, _) in pieces(marked) {
        match piece {
            Piece::Special(token) => out.push_str(token.literal()),
            Piece::Text(text) => out.push_str(&text),
        }
    }
    out
}

/// The text up to the next special token or cut, and its length as marked.
fn leading_text(marked: &str) -> (Cow<'_, str>, usize) {
    let mut text = Cow::Borrowed("");
    let mut at = 0;
    while let Some(found) = find_mark(&marked[at..]) {
        let end = at + found + MARK.len();
        let follows = marked.as_bytes().get(end);
        if follows.is_some_and(|&byte| byte == CUT || is_letter(byte)) {
            push(&mut text, &marked[at..at + found]);
            return (text, at + found);
        }
        push(&mut text, &marked[at..end]);
        let doubled = marked[end..].starts_with(MARK);
        at = end + if doubled { MARK.len() } else { 0 };
    }
    push(&mut text, &marked[at..]);
    (text, marked.len())
}

fn is_letter(byte: u8) -> bool {
    Token::ALL.iter().any(|token| token.letter() == byte)
}

/// Appends without copying as long as there is nothing to append to.
fn push<'a>(text: &mut Cow<'a, str>, more: &'a str) {
    if text.is_empty() {
        *text = Cow::Borrowed(more);
    } else if !more.is_empty() {
        text.to_mut().push_str(more);
    }
}

fn find_mark(text: &str) -> Option<usize> {
    let mut from = 0;
    // Its first byte begins the characters of planes 12 to 15, of which hardly
    // any is in use.
    while let Some(at) = memchr::memchr(MARK.as_bytes()[0], &text.as_bytes()[from..]) {
        let at = from + at;
        if text.as_bytes()[at..].starts_with(MARK.as_bytes()) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use promptseam_fixtures::Rng;

    /// What was written, as the reader should see it: cuts only show where they part texts.
    #[derive(Clone, Debug, PartialEq)]
    enum Written {
        Special(Token),
        Text(String),
        Cut,
    }

    fn random_text(rng: &mut Rng) -> String {
        const PIECES: [&str; 14] = [
            "\u{f0000}",
            "\u{f0000}\u{f0000}",
            "\u{f0000}s",
            "\u{f0000}|",
            "s",
            "|",
            "e",
            "<|start|>",
            "\u{f0001}",
            "\u{f0040}",
            "\u{10ffff}",
            "word ",
            "\u{e9}",
            "",
        ];
        (0..rng.below(6)).map(|_| *rng.pick(&PIECES)).collect()
    }

    #[test]
    fn whatever_content_spells_it_reads_back_and_is_no_special() {
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed);
            let mut marked = String::new();
            let mut written: Vec<Written> = Vec::new();
            for _ in 0..rng.below(8) {
                let next = match rng.below(3) {
                    0 => Written::Special(*rng.pick(&Token::ALL)),
                    1 => Written::Cut,
                    _ => Written::Text(random_text(&mut rng)),
                };
                match &next {
                    Written::Special(token) => push_special(&mut marked, *token),
                    Written::Cut => push_cut(&mut marked),
                    Written::Text(text) => push_text(&mut marked, text),
                }
                match (written.last_mut(), next) {
                    (Some(Written::Text(text)), Written::Text(more)) => text.push_str(&more),
                    (_, next) => written.push(next),
                }
            }
            // Empty texts leave no trace, so two texts around one were joined too late.
            let mut expected: Vec<Piece<'_>> = Vec::new();
            let mut joins = false;
            for item in &written {
                match item {
                    Written::Special(token) => expected.push(Piece::Special(*token)),
                    Written::Text(text) if text.is_empty() => continue,
                    Written::Text(text) => match expected.last_mut() {
                        Some(Piece::Text(last)) if joins => last.to_mut().push_str(text),
                        _ => expected.push(Piece::Text(text.as_str().into())),
                    },
                    Written::Cut => {}
                }
                joins = matches!(item, Written::Text(_));
            }
            let read: Vec<_> = pieces(&marked).collect();
            let ends: Vec<_> = read.iter().map(|(_, end)| *end).collect();
            assert!(ends.is_sorted(), "seed {seed}");
            let read: Vec<_> = read.into_iter().map(|(piece, _)| piece).collect();
            assert_eq!(read, expected, "seed {seed}: {marked:?}");
        }
    }

    #[test]
    fn reading_on_after_a_special_gives_the_pieces_that_follow_it() {
        for seed in 0..2_000 {
            let mut rng = Rng::new(seed);
            let mut marked = String::new();
            for _ in 0..6 {
                push_text(&mut marked, &random_text(&mut rng));
                push_special(&mut marked, *rng.pick(&Token::ALL));
            }
            let all: Vec<_> = pieces(&marked).collect();
            for (index, (piece, end)) in all.iter().enumerate() {
                if matches!(piece, Piece::Special(_)) {
                    let rest: Vec<_> = pieces(&marked[*end..]).map(|(piece, _)| piece).collect();
                    let after: Vec<_> = all[index + 1..].iter().map(|(p, _)| p.clone()).collect();
                    assert_eq!(rest, after, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn the_plain_text_shows_literals_and_no_marks() {
        let mut marked = String::new();
        push_special(&mut marked, Token::Start);
        push_text(&mut marked, "user");
        push_cut(&mut marked);
        push_text(&mut marked, " \u{f0000}s<|end|>");
        push_special(&mut marked, Token::End);
        assert_eq!(plain(&marked), "<|start|>user \u{f0000}s<|end|><|end|>");
    }
}
