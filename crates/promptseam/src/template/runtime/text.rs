//! What Python takes for whitespace, and strings counted in characters.

/// `str.isspace` for one character. Rust's notion lacks the four separators.
pub(in crate::template) fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

/// `str.strip()`.
pub(in crate::template) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.rstrip()`.
pub(in crate::template) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Python's slice bounds on a sequence of `len` items, for a positive step.
pub(super) fn bounds(len: usize, start: Option<i64>, stop: Option<i64>) -> (usize, usize) {
    let clamp = |at: i64| match at {
        0.. => usize::try_from(at).unwrap_or(len).min(len),
        _ => len.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(len)),
    };
    (start.map_or(0, clamp), stop.map_or(len, clamp))
}

/// The positions that Python's `range(len)[start:stop:step]` gives; `step` is
/// not zero.
pub(super) fn positions(
    len: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |at: Option<i64>, default: i64| match at {
        None => default,
        Some(at) if at < 0 => at.saturating_add(len).max(low),
        Some(at) => at.min(high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (mut at, stop) = (clamp(start, first), clamp(stop, last));
    std::iter::from_fn(move || {
        let more = if step > 0 { at < stop } else { at > stop };
        let here = usize::try_from(at).ok().filter(|_| more)?;
        at = at.saturating_add(step);
        Some(here)
    })
}

/// The byte offset of the character at `at`, or the end.
pub(super) fn byte_offset(text: &str, at: usize) -> usize {
    if text.is_ascii() {
        return at.min(text.len());
    }
    text.char_indices()
        .nth(at)
        .map_or(text.len(), |(offset, _)| offset)
}

/// Lines as `str.splitlines` finds them, each with its end.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end = |c| {
            matches!(
                c,
                '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'
                    ..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        };
        let end = match rest.char_indices().find(|&(_, c)| is_end(c)) {
            Some((at, '\r')) if rest[at..].starts_with("\r\n") => at + 2,
            Some((at, end)) => at + end.len_utf8(),
            None => rest.len(),
        };
        let (line, after) = rest.split_at(end);
        rest = after;
        Some(line)
    })
}

/// A line without what ends it.
pub(super) fn without_end(line: &str) -> &str {
    let cut = line.strip_suffix("\r\n").or_else(|| {
        line.strip_suffix([
            '\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}',
        ])
    });
    cut.unwrap_or(line)
}
