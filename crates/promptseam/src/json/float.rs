//! Floats in Python's spelling.

use std::fmt::Write;

/// Appends `repr(value)`: the shortest digits that read back, in fixed notation
/// for exponents from -4 to 15, otherwise like `1e-07`.
pub fn push_float_repr(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("nan");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "inf" } else { "-inf" });
    } else {
        push_finite(out, value);
    }
}

/// Appends what `json.dumps` writes: as [`push_float_repr`], but `NaN`,
/// `Infinity` and `-Infinity`.
pub fn push_json_float(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        push_finite(out, value);
    }
}

fn push_finite(out: &mut String, value: f64) {
    let start = out.len();
    // Writing to a String cannot fail.
    let _ = write!(out, "{value:e}");
    let Some(mark) = out[start..].find('e') else {
        return;
    };
    let exponent: i32 = out[start + mark + 1..].parse().unwrap_or(0);
    out.truncate(start + mark);
    if (-4..16).contains(&exponent) {
        out.truncate(start);
        let _ = write!(out, "{value}");
        if !out[start..].contains('.') {
            out.push_str(".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    }
}
