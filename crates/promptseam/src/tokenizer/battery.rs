//! The texts on which the fast engine must agree with the reference before it
//! is used: every kind of token the vocabulary has, and Unicode that tokenizers
//! have been seen to disagree on.

use super::engine::{Engine, Special};
use crate::error::Result;

/// About how many vocabulary entries the battery takes.
const SAMPLED_TOKENS: usize = 8_192;
/// Entries joined into one text.
const TOKENS_PER_TEXT: usize = 64;

/// The first text on which the engines differ.
pub(crate) struct Disagreement {
    /// Which text of the battery it was; the text itself is fixed by it.
    pub(crate) index: usize,
    /// Where the ids first differ.
    pub(crate) at: usize,
}

/// Compares the engines over the battery, encoding in both modes and decoding.
pub(crate) fn compare(
    fast: &Engine,
    reference: &Engine,
    literals: &[&str],
) -> Result<Option<Disagreement>> {
    let texts = vocabulary_texts(reference)
        .chain(NASTY.iter().map(|text| (*text).to_owned()))
        .chain(literal_texts(literals))
        .chain(generated());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (index, text) in texts.enumerate() {
        for special in [Special::Recognize, Special::Text] {
            ours.clear();
            theirs.clear();
            fast.encode_into(&text, special, &mut ours)?;
            reference.encode_into(&text, special, &mut theirs)?;
            if ours != theirs {
                let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b);
                let at = same.count();
                return Ok(Some(Disagreement { index, at }));
            }
        }
        if fast.decode(&ours, false)? != reference.decode(&ours, false)? {
            return Ok(Some(Disagreement { index, at: 0 }));
        }
    }
    Ok(None)
}

/// Vocabulary entries as text, evenly over the id range, joined with what
/// usually stands between words.
fn vocabulary_texts(engine: &Engine) -> impl Iterator<Item = String> {
    const JOINS: [&str; 5] = ["", " ", "\n", "  ", "'"];
    let size = engine.vocab_size();
    let step = (size / SAMPLED_TOKENS).max(1);
    let ids: Vec<u32> = (0..size as u32).step_by(step).collect();
    let tokens: Vec<String> = ids
        .iter()
        .filter_map(|id| engine.decode(&[*id], false).ok())
        .collect();
    // Neighbours in the vocabulary are alike; take them far apart.
    let stride = tokens.len() / TOKENS_PER_TEXT;
    (0..stride).map(move |first| {
        let join = JOINS[first % JOINS.len()];
        let picked: Vec<&str> = tokens[first..]
            .iter()
            .step_by(stride)
            .map(String::as_str)
            .collect();
        picked.join(join)
    })
}

/// Each literal beside itself, beside others, cut short, and in odd company.
fn literal_texts(literals: &[&str]) -> impl Iterator<Item = String> {
    let step = (literals.len() / 64).max(1);
    let picked: Vec<&str> = literals.iter().step_by(step).copied().collect();
    let mut texts = Vec::new();
    for (index, literal) in picked.iter().enumerate() {
        let other = picked[(index * 7 + 3) % picked.len()];
        let cut: String = {
            let mut chars = literal.chars();
            chars.next_back();
            chars.collect()
        };
        texts.push(format!(
            "{literal}{literal} {literal}\n{other}{literal}a{literal} \u{301}{cut}{other}{cut} {literal}"
        ));
    }
    texts.into_iter()
}

const NASTY: &[&str] = &[
    "",
    " ",
    "\u{0}",
    "a\u{0}b\u{0}\u{0}",
    "\r\n\r\r\n\n \t \n\n\n",
    "   leading and trailing   ",
    "x\u{a0}y\u{2003}z\u{3000}w\u{200b}v\u{feff}u\u{85}t\u{2028}s\u{2029}r",
    "e\u{301} \u{e9} n\u{303} \u{1100}\u{1161}\u{11a8} \u{ac01} \u{212b} \u{2126} \u{fb01} \u{1e9b}\u{323}",
    "\u{301}\u{301}\u{301}a\u{300}\u{316}\u{301}\u{5b0}\u{5ac}",
    "\u{0958} \u{2adc} \u{1d15e} \u{f900} \u{2f800}",
    "\u{130} i\u{307} \u{131} \u{17f} \u{1e9e} \u{df} \u{149} \u{1f0}",
    "don't DON'T we'Re I'\u{17f} you'LL 'S's'\u{2019}s",
    "1234567890 12 123 1234 \u{661}\u{662}\u{663}\u{664} \u{b2}\u{b3} \u{2160}\u{216b} \u{3007}\u{4e00} \u{1d7d8}\u{1d7d9}",
    "\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{30c6}\u{30b9}\u{30c8}\u{3002}\u{ff01}\u{ff21}\u{ff42}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{1f3fd} \u{1f1e9}\u{1f1ea} \u{2764}\u{fe0f} \u{e0067}\u{e007f}",
    "\u{627}\u{644}\u{639}\u{631}\u{628}\u{64a}\u{629} \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940} \u{e44}\u{e17}\u{e22}",
    "\u{378}\u{2fff}\u{e000}\u{fdd0}\u{fffe}\u{ffff}\u{10ffff}\u{f0000}\u{1fffe}",
    "\u{1c89}\u{1c8a}\u{a7cb}\u{105c0}\u{16d40}\u{1cc00}\u{10d4a}\u{11bc0}",
    "\u{200e}\u{202e}\u{2066}\u{ad}\u{34f}\u{17b4}\u{180e}\u{2060}",
    "_foo __bar__ a_b_ \u{203f} \u{2054} snake_case camelCase HTTPServer2Go",
    "{\"a\": [1, 2, {\"b\": null}], \"c\": \"\\u00e9\\n\"}\n<div class=\"x\">&amp;</div>",
    "\tdef f(x):\n\t\treturn x**2  # \u{2713}\n\n\n    \t  pass",
    "!!!???...---___***///\\\\\\|||~~~```$$$%%%^^^&&&((()))[[[]]]",
    "https://example.com/a/b?c=d&e=f#g user@host.tld C:\\dir\\file.txt",
    "\u{2581}\u{2581}a \u{2581} <0x0A> <unk> <s> \u{120}a\u{10a}",
];

/// Texts of characters drawn from all planes and of long runs.
fn generated() -> impl Iterator<Item = String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32 % bound
    };
    let mut texts = Vec::new();
    for _ in 0..192 {
        let plane = [0x80, 0x800, 0x3000, 0x1_0000, 0x3_0000, 0x11_0000][next(6) as usize];
        let length = 8 + next(120);
        let text: String = (0..length)
            .map(|_| match next(6) {
                0 => ' ',
                1 => char::from(b'!' + next(94) as u8),
                _ => char::from_u32(next(plane)).unwrap_or('\n'),
            })
            .collect();
        texts.push(text);
    }
    for run in [
        "a",
        " ",
        "\n",
        "0",
        "\u{301}",
        "\u{4e00}",
        "ab ",
        "'s",
        "=-",
        "\u{1f600}",
    ] {
        texts.push(run.repeat(37));
        texts.push(format!("x{}y", run.repeat(300)));
    }
    texts.into_iter()
}
