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

/// Appends a finite float as Rust's serde_json 1.0.154 writes it: fixed
/// notation for exponents from -5 to 15, otherwise like `1e-7` and `1e+16`.
pub(crate) fn push_rust_float(out: &mut String, value: f64) {
    push_shortest(out, value, -5, 1);
}

fn push_finite(out: &mut String, value: f64) {
    push_shortest(out, value, -4, 2);
}

/// Appends the shortest digits, in fixed notation for exponents from `lowest`
/// to 15, otherwise with an exponent of so many digits at least.
fn push_shortest(out: &mut String, value: f64, lowest: i32, exponent_digits: usize) {
    // Of two shortest spellings equally near, Python and Ryu take the even one;
    // the standard library does not.
    let mut buffer = ryu::Buffer::new();
    let spelled = buffer.format_finite(value.abs());
    let (mantissa, power) = spelled.split_once('e').unwrap_or((spelled, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    // Of the first digit that is not zero.
    let exponent = power.parse::<i32>().unwrap_or(0) + whole.len() as i32 - 1 - zeros as i32;

    if value.is_sign_negative() {
        out.push('-');
    }
    if digits.is_empty() {
        out.push_str("0.0");
    } else if (0..16).contains(&exponent) {
        let point = exponent as usize + 1;
        // Writing to a String cannot fail.
        let _ = if digits.len() > point {
            write!(out, "{}.{}", &digits[..point], &digits[point..])
        } else {
            write!(out, "{digits:0<point$}.0")
        };
    } else if (lowest..0).contains(&exponent) {
        let _ = write!(out, "0.{:0<1$}{digits}", "", (-exponent - 1) as usize);
    } else {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(
            out,
            "{first}{point}{rest}e{sign}{:0exponent_digits$}",
            exponent.unsigned_abs()
        );
    }
}
