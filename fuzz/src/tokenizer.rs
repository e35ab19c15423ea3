//! Fast engine against reference, and the boundary proof against both:
//! `fuzz tokenizer [--seconds N] [--most N] [--seed N] [--json]`.
//!
//! Ends with a line that counts texts and mismatches; exits 1 on a mismatch and
//! prints the seed and a shortened input for each.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::options::Options;
use promptseam::tokenizer::{EngineKind, Special, Tokenizer, TokenizerOptions};
use promptseam_fixtures::{FAMILIES, Rng, golden, tokenizer_json};

/// A text is long from this many ids on.
const LONG: usize = 20_000;
/// Texts of one family in a row, and how many of them are long.
const RUN: u64 = 1_024;
const LONG_PER_RUN: u64 = 2;

struct Pair {
    family: &'static str,
    fast: Tokenizer,
    reference: Tokenizer,
    literals: Vec<String>,
    safe: Vec<String>,
}

#[derive(Default)]
struct Counts {
    texts: AtomicU64,
    long: AtomicU64,
    cuts: AtomicU64,
    mismatches: AtomicUsize,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let words = words();
    let pairs: Vec<Pair> = FAMILIES.iter().map(|family| load(family)).collect();
    if !options.json {
        let loaded: Vec<_> = pairs.iter().map(|pair| pair.family).collect();
        println!("fuzzing {} for {} s", loaded.join(", "), options.seconds);
    }

    let counts = Counts::default();
    let start = Instant::now();
    let deadline = start + Duration::from_secs(options.seconds);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..threads {
            let (pairs, words, counts) = (&pairs, &words, &counts);
            scope.spawn(move || {
                let mut round = 0_u64;
                while Instant::now() < deadline
                    && counts.texts.load(Ordering::Relaxed) < options.most
                    && counts.mismatches.load(Ordering::Relaxed) < 10
                {
                    let number = round * threads as u64 + worker as u64;
                    let seed = options.seed.wrapping_mul(1 << 40).wrapping_add(number);
                    // fastokens keeps a cache of 16 MiB per thread and model, and
                    // only a few of them: many texts before the next family.
                    let pair = &pairs[(round / RUN) as usize % pairs.len()];
                    let long = round % RUN < LONG_PER_RUN;
                    try_one(pair, words, seed, long, counts);
                    round += 1;
                    if worker == 0 && round.is_multiple_of(8192) && !options.json {
                        let texts = counts.texts.load(Ordering::Relaxed);
                        println!("{:4} s  {texts} texts", start.elapsed().as_secs());
                    }
                }
            });
        }
    });

    let [texts, long, cuts] =
        [&counts.texts, &counts.long, &counts.cuts].map(|count| count.load(Ordering::Relaxed));
    let mismatches = counts.mismatches.load(Ordering::Relaxed);
    if options.json {
        println!(
            "{{\"texts\":{texts},\"long\":{long},\"cuts\":{cuts},\"mismatches\":{mismatches},\"seconds\":{:.1}}}",
            start.elapsed().as_secs_f64()
        );
    } else {
        println!(
            "{texts} texts, {long} of them over {LONG} ids, {cuts} cuts: {mismatches} mismatches in {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }
    ExitCode::from(u8::from(mismatches > 0))
}

fn load(family: &'static str) -> Pair {
    let json = tokenizer_json(family);
    let load = |reference_only| {
        let options = TokenizerOptions {
            reference_only,
            ..TokenizerOptions::default()
        };
        Tokenizer::load(&json, options).unwrap_or_else(|e| panic!("{family}: {e}"))
    };
    let fast = load(false);
    // Comparing the reference with itself would prove nothing.
    assert_ne!(
        fast.engine(),
        EngineKind::Reference,
        "{family}: {:?}",
        fast.fallback()
    );
    let literals = fast
        .added_tokens()
        .iter()
        .map(|t| t.content.clone())
        .collect();
    let safe = fast
        .boundaries()
        .safe()
        .map(|t| t.content.clone())
        .collect();
    Pair {
        family,
        reference: load(true),
        fast,
        literals,
        safe,
    }
}

/// Real text in pieces: what the golden conversations say.
fn words() -> Vec<String> {
    let mut words = Vec::new();
    for line in golden() {
        if line.request.len() > 40_000 {
            continue;
        }
        let mut piece = String::new();
        for (index, character) in line.request.replace("\\n", "\n").chars().enumerate() {
            piece.push(character);
            if character == '\n' || index % 61 == 60 {
                words.push(std::mem::take(&mut piece));
            }
        }
    }
    words
}

fn try_one(pair: &Pair, words: &[String], seed: u64, long: bool, counts: &Counts) {
    let mut rng = Rng::new(seed);
    let text = make_text(&mut rng, pair, words, long);
    let mut modes = vec![Special::Recognize];
    if !long && rng.one_in(3) {
        modes.push(Special::Text);
    }
    for special in modes {
        let ours = pair.fast.encode(&text, special).unwrap();
        let theirs = pair.reference.encode(&text, special).unwrap();
        if ours != theirs {
            report(pair, seed, &text, &format!("encode {special:?}"), counts);
            return;
        }
        if special == Special::Recognize {
            counts
                .long
                .fetch_add(u64::from(ours.len() > LONG), Ordering::Relaxed);
            check_pieces(pair, seed, &text, &ours, counts);
            check_decode(pair, seed, &text, &ours, counts);
            if !long {
                check_append(pair, &mut rng, seed, &text, words, counts);
            }
        }
    }
    counts.texts.fetch_add(1, Ordering::Relaxed);
}

/// The whole text from cut to cut gives the ids of the whole text, and each
/// boundary stands where it says.
fn check_pieces(pair: &Pair, seed: u64, text: &str, whole: &[u32], counts: &Counts) {
    for tokenizer in [&pair.fast, &pair.reference] {
        if std::ptr::eq(tokenizer, &pair.reference) && text.len() > 2_000 {
            continue;
        }
        let mut ids = Vec::new();
        let mut met = Vec::new();
        tokenizer
            .encode_pieces(
                text,
                false,
                &mut ids,
                |boundary| met.push(boundary),
                || Ok(()),
            )
            .unwrap();
        counts.cuts.fetch_add(met.len() as u64, Ordering::Relaxed);
        if ids != whole {
            report(pair, seed, text, "encode_pieces", counts);
            return;
        }
        if let Some(boundary) = met.get(seed as usize % met.len().max(1)) {
            let head = pair
                .fast
                .encode(&text[..boundary.text], Special::Recognize)
                .unwrap();
            if head != whole[..boundary.tokens] {
                report(pair, seed, text, "boundary place", counts);
                return;
            }
        }
    }
}

fn check_decode(pair: &Pair, seed: u64, text: &str, ids: &[u32], counts: &Counts) {
    let ours = pair.fast.decode(ids, false).unwrap();
    if ours != pair.reference.decode(ids, false).unwrap() {
        report(pair, seed, text, "decode", counts);
    }
    let mut stream = promptseam::tokenizer::DecodeStream::new(false);
    if ids.len() < 500 {
        let mut streamed = String::new();
        for id in ids {
            streamed.push_str(&stream.push(&pair.fast, &[*id]).unwrap());
        }
        streamed.push_str(&stream.finish(&pair.fast).unwrap());
        if streamed != ours {
            report(pair, seed, text, "decode stream", counts);
        }
    }
}

/// encode(a) ++ encode(b) == encode(a ++ b) where a ends on a safe token.
fn check_append(
    pair: &Pair,
    rng: &mut Rng,
    seed: u64,
    text: &str,
    words: &[String],
    counts: &Counts,
) {
    let head = format!("{text}{}", rng.pick(&pair.safe));
    let tail = if rng.one_in(2) {
        // What might join: the rest of a literal, white space, a mark.
        let mut tail: String = rng
            .pick(&pair.literals)
            .chars()
            .skip(rng.below(4))
            .collect();
        tail.insert_str(
            0,
            rng.pick::<&str>(&["", " ", "\n", "\u{301}", "|", ">", "\u{fe0f}"]),
        );
        tail
    } else {
        rng.pick(words).clone()
    };
    let mut ids = Vec::new();
    let mut cuts = 0_usize;
    pair.fast
        .encode_pieces(&head, false, &mut ids, |_| cuts += 1, || Ok(()))
        .unwrap();
    pair.fast
        .encode_pieces(&tail, true, &mut ids, |_| cuts += 1, || Ok(()))
        .unwrap();
    let whole = pair
        .reference
        .encode(&format!("{head}{tail}"), Special::Recognize)
        .unwrap();
    counts.cuts.fetch_add(1, Ordering::Relaxed);
    if ids != whole {
        report(
            pair,
            seed,
            &format!("{head}\u{241f}{tail}"),
            "append",
            counts,
        );
    }
}

fn make_text(rng: &mut Rng, pair: &Pair, words: &[String], long: bool) -> String {
    let mut text = String::new();
    let length = if long { 105_000 } else { 8 + rng.below(220) };
    let kind = rng.below(if long { 4 } else { 8 });
    while text.len() < length {
        match kind {
            0..=3 => {
                text.push_str(rng.pick(words).as_str());
                if rng.one_in(4) {
                    text.push_str(rng.pick(&pair.literals).as_str());
                }
            }
            4 => text.push(any_character(rng)),
            5 => {
                let literal = rng.pick(&pair.literals);
                let skip = rng.below(3);
                text.extend(literal.chars().skip(skip / 2));
                text.push_str(
                    rng.pick::<&str>(&["", "", " ", "\n\n", "a", "\u{301}", "  <", "\u{3000}"]),
                );
            }
            6 => {
                let run = any_character(rng);
                let times = 1 + rng.below(24);
                text.extend(std::iter::repeat_n(run, times));
                text.push(*rng.pick(&[' ', '\n', 'a', '\'', '1', '\r', '\t']));
            }
            _ => {
                let id = rng.below(pair.fast.vocab_size()) as u32;
                text.push_str(&pair.fast.decode(&[id], false).unwrap());
            }
        }
    }
    text
}

/// Any character, with the busier planes more often.
fn any_character(rng: &mut Rng) -> char {
    let bound = *rng.pick(&[0x80, 0x250, 0x800, 0x3000, 0x1_0000, 0x2_0000, 0x11_0000]);
    char::from_u32(rng.below(bound) as u32).unwrap_or('\u{fffd}')
}

fn report(pair: &Pair, seed: u64, text: &str, what: &str, counts: &Counts) {
    if counts.mismatches.fetch_add(1, Ordering::Relaxed) < 10 {
        let shown: String = text.chars().take(300).collect();
        eprintln!("MISMATCH {} {what}, seed {seed}: {shown:?}", pair.family);
    }
}
