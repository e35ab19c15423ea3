//! Text that spells a special token of Harmony.
//!
//! vLLM 0.32 encodes the header of a tool call with a function that refuses it.

const NAMED: [(&str, u32); 9] = [
    ("startoftext", 199_998),
    ("endoftext", 199_999),
    ("return", 200_002),
    ("constrain", 200_003),
    ("channel", 200_005),
    ("start", 200_006),
    ("end", 200_007),
    ("message", 200_008),
    ("call", 200_012),
];
/// Every other id of this range is called `reserved_` and its number.
const IDS: std::ops::RangeInclusive<u32> = 199_998..=201_088;

/// Whether `text` holds the literal of a special token (oss-harmony 0.0.11).
/// O(n).
pub(super) fn is_in(text: &str) -> bool {
    text.match_indices("<|").any(|(at, open)| {
        let inner = &text[at + open.len()..];
        inner.find("|>").is_some_and(|end| is_name(&inner[..end]))
    })
}

fn is_name(name: &str) -> bool {
    if NAMED.iter().any(|(named, _)| *named == name) {
        return true;
    }
    let number = name.strip_prefix("reserved_").and_then(|digits| {
        let plain = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    });
    number.is_some_and(|id| IDS.contains(&id) && NAMED.iter().all(|(_, named)| *named != id))
}

#[cfg(test)]
mod tests {
    use super::is_in;

    #[test]
    fn literals_are_found_wherever_they_stand() {
        for text in [
            "<|end|>",
            "a<|<|call|>",
            "x<|reserved_200018|>y",
            "<|reserved_201088|>",
        ] {
            assert!(is_in(text), "{text}");
        }
        for text in [
            "<|endofprompt|>",
            "<|end |>",
            "<|end|",
            "<|reserved_200002|>",
            "<|reserved_201089|>",
        ] {
            assert!(!is_in(text), "{text}");
        }
    }
}
