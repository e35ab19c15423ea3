//! How many ids two slices have in common at their start.

/// Ids compared at once: 16 make one or two vector registers on every target.
const LANES: usize = 16;

/// The length of the common prefix of `a` and `b`. O(common prefix), at the
/// speed of memory.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    // Equal slices are the usual case, and comparing them whole is the fastest.
    if a == b {
        return length;
    }
    let whole = a.chunks_exact(LANES).zip(b.chunks_exact(LANES));
    let start = LANES * whole.take_while(|(a, b)| a == b).count();
    let rest = a[start..].iter().zip(&b[start..]);
    start + rest.take_while(|(a, b)| a == b).count()
}
