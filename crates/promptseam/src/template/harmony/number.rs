//! JSON as Rust's serde_json prints it.
//!
//! vLLM hands the tools to oss-harmony as JSON text that Python wrote. Reading
//! it there, a float may lose its last digit, an integer beyond 64 bits becomes
//! a float, and defaults are printed again in serde_json's compact spelling.

use crate::{
    json::{push_float_repr, push_rust_float},
    template::data::Data,
};

/// Appends `value`. O(n).
pub(super) fn push_json(out: &mut String, value: &Data) {
    match value {
        Data::Null => out.push_str("null"),
        Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Data::Int(value) => out.push_str(itoa::Buffer::new().format(*value)),
        Data::BigInt(text) if text.parse::<u64>().is_ok() => out.push_str(text),
        Data::BigInt(text) => push_rust_float(out, read_float(text)),
        Data::Float(value) => {
            let mut spelled = String::new();
            push_float_repr(&mut spelled, *value);
            push_rust_float(out, read_float(&spelled));
        }
        Data::Str(text) => push_string(out, text),
        Data::List(items) => {
            out.push('[');
            for (index, item) in items.items().iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                push_json(out, item);
            }
            out.push(']');
        }
        Data::Map(map) => {
            out.push('{');
            for (index, (key, value)) in map.entries().iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                push_string(out, key.as_str());
                out.push(':');
                push_json(out, value);
            }
            out.push('}');
        }
    }
}

/// Whether serde_json reads the number at all.
pub(super) fn is_readable(value: &Data) -> bool {
    match value {
        Data::Float(value) => value.is_finite(),
        Data::BigInt(text) => read_float(text).is_finite(),
        _ => true,
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The float that serde_json reads from a number in Python's spelling: digits
/// as an integer, as many as 64 bits hold, then one multiplication or division
/// by a power of ten. Infinite where it refuses the number.
fn read_float(spelled: &str) -> f64 {
    let (negative, spelled) = match spelled.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, spelled),
    };
    let (mantissa, power) = spelled.split_once('e').unwrap_or((spelled, "0"));
    let mut exponent: i32 = power.parse().unwrap_or(0);
    let mut digits: u64 = 0;
    let (mut behind_point, mut full) = (false, false);
    for byte in mantissa.bytes() {
        if byte == b'.' {
            behind_point = true;
            continue;
        }
        let more = digits
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(byte - b'0')));
        match more.filter(|_| !full) {
            Some(more) => {
                digits = more;
                exponent -= i32::from(behind_point);
            }
            None => {
                full = true;
                exponent += i32::from(!behind_point);
            }
        }
    }
    let value = scaled(digits as f64, exponent);
    if negative { -value } else { value }
}

fn scaled(mut value: f64, mut exponent: i32) -> f64 {
    while exponent < -308 && value != 0.0 {
        value /= 1e308;
        exponent += 308;
    }
    match exponent {
        _ if value == 0.0 => value,
        309.. => f64::INFINITY,
        0.. => value * power_of_ten(exponent),
        _ => value / power_of_ten(-exponent),
    }
}

/// The double nearest to 10 to the power of `exponent`, which is at most 308.
fn power_of_ten(exponent: i32) -> f64 {
    format!("1e{exponent}").parse().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn numbers_are_spelled_as_oss_harmony_prints_them() {
        // What oss-harmony 0.0.11 printed as defaults.
        for (given, printed) in [
            ("1e16", "1e+16"),
            ("1e15", "1000000000000000.0"),
            ("0.1", "0.1"),
            ("1.1e-5", "0.000011"),
            ("1e-5", "0.00001"),
            ("1.5e-7", "1.5e-7"),
            ("-0.0", "-0.0"),
            ("5e-324", "5e-324"),
            ("9.5e-310", "9.5e-310"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("1.2345678901234568e-300", "1.234567890123457e-300"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775809", "-9.223372036854776e+18"),
        ] {
            let value = Data::from_json(&json::parse_str(given).unwrap());
            let mut out = String::new();
            push_json(&mut out, &value);
            assert_eq!(out, printed, "{given}");
        }
    }
}
