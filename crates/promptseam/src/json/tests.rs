use super::*;
use crate::error::ErrorKind;

fn kind(text: &[u8]) -> ErrorKind {
    parse(text).expect_err("should be refused").kind()
}

fn round(text: &str) -> String {
    dumps(&parse(text.as_bytes()).unwrap(), &Style::default())
}

#[test]
fn pythons_extra_numbers_are_accepted() {
    assert_eq!(
        round("[NaN, Infinity, -Infinity, 1e400, -1e400]"),
        "[NaN, Infinity, -Infinity, Infinity, -Infinity]"
    );
    let digits = "9".repeat(4300);
    assert_eq!(round(&digits), digits);
    assert_eq!(kind("9".repeat(4301).as_bytes()), ErrorKind::InvalidJson);
    assert_eq!(
        round("[-0, -0.0, 18446744073709551616, 1E5, 1e-7, 1e16, 123456789012345680.0]"),
        "[0, -0.0, 18446744073709551616, 100000.0, 1e-07, 1e+16, 1.2345678901234568e+17]"
    );
}

#[test]
fn the_last_of_duplicate_keys_wins_at_the_first_ones_place() {
    assert_eq!(
        round(r#"{"a":1,"b":2,"a":3,"c":4,"b":5}"#),
        r#"{"a": 3, "b": 5, "c": 4}"#
    );
    let many: Vec<String> = (0..40).map(|n| format!(r#""k{}":{n}"#, n % 20)).collect();
    let want: Vec<String> = (0..20).map(|n| format!(r#""k{n}": {}"#, n + 20)).collect();
    assert_eq!(
        round(&format!("{{{}}}", many.join(","))),
        format!("{{{}}}", want.join(", "))
    );
}

#[test]
fn a_hundred_thousand_keys_stay_cheap() {
    let body: Vec<String> = (0..100_000).map(|n| format!(r#""key {n}":{n}"#)).collect();
    let body = format!("{{{}}}", body.join(","));
    let started = std::time::Instant::now();
    let parsed = parse(body.as_bytes()).unwrap();
    let object = parsed.as_object().unwrap();
    for n in 0..100_000 {
        assert!(object.get(&format!("key {n}")).is_some());
    }
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn malformed_input_is_refused_with_its_offset() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "tru",
        "nul",
        "Nan",
        "-Inf",
        "\"",
        "\"a",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"a\nb\"",
        "\"\t\"",
        "1 2",
        "[1]]",
        "\u{a0}1",
        "\"\\u123",
    ] {
        assert_eq!(kind(text.as_bytes()), ErrorKind::InvalidJson, "{text:?}");
    }
    assert_eq!(kind(b"\"\xff\""), ErrorKind::InvalidJson);
    let error = parse(b"[1, secret]").unwrap_err();
    assert!(error.message().contains("byte 4") && !error.message().contains("secret"));
}

#[test]
fn lone_surrogates_are_named_as_such() {
    for text in [
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800x\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\\udc00\"",
    ] {
        assert_eq!(kind(text.as_bytes()), ErrorKind::InvalidUnicode, "{text}");
    }
    assert_eq!(kind(b"\"\xed\xa0\x80\""), ErrorKind::InvalidUnicode);
    assert_eq!(round("\"\\ud83d\\ude00\""), "\"\\ud83d\\ude00\"");
}

#[test]
fn byte_order_marks_and_wide_encodings_are_as_in_python() {
    assert_eq!(
        parse(b"\xef\xbb\xbf{}").unwrap(),
        Json::Object(Object::default())
    );
    assert_eq!(kind(b"\xff\xfe{\0}\0"), ErrorKind::InvalidJson);
    assert_eq!(kind(b"{\0}\0"), ErrorKind::InvalidJson);
    assert_eq!(kind(b"\0{\0}"), ErrorKind::InvalidJson);
    assert_eq!(
        kind("\u{feff}{}".repeat(2).as_bytes()),
        ErrorKind::InvalidJson
    );
    assert!(parse_str("\u{feff}{}").is_err());
}

#[test]
fn deep_nesting_fails_without_a_stack_overflow() {
    let check = || {
        for open in ["[", "{\"a\":"] {
            assert_eq!(
                kind(open.repeat(1_000_000).as_bytes()),
                ErrorKind::InvalidJson
            );
        }
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        let parsed = parse(deep.as_bytes()).unwrap();
        assert_eq!(dumps(&parsed.clone(), &Style::default()), deep);
        drop(parsed);
    };
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(check)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn dumps_follows_its_style() {
    let value = parse(r#"{"b":[1,{}],"a":[],"ä":"\u0001é\"😀\u007f"}"#.as_bytes()).unwrap();
    assert_eq!(
        dumps(&value, &Style::default()),
        "{\"b\": [1, {}], \"a\": [], \"\\u00e4\": \"\\u0001\\u00e9\\\"\\ud83d\\ude00\u{7f}\"}"
    );
    let style = Style {
        ensure_ascii: false,
        indent: Some(Indent::Spaces(2)),
        sort_keys: true,
        ..Style::default()
    };
    assert_eq!(
        dumps(&value, &style),
        "{\n  \"a\": [],\n  \"b\": [\n    1,\n    {}\n  ],\n  \"ä\": \"\\u0001é\\\"😀\u{7f}\"\n}"
    );
    let style = Style {
        item_separator: Some(",".into()),
        key_separator: Some(":".into()),
        ..Style::default()
    };
    assert_eq!(
        dumps(&parse(b"{\"a\":[1,2]}").unwrap(), &style),
        "{\"a\":[1,2]}"
    );
}

#[test]
fn floats_print_as_python_does() {
    for (value, want) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (1.5e-7, "1.5e-07"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1e22, "1e+22"),
        (1.5e300, "1.5e+300"),
        (123456789.123, "123456789.123"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (9999999999999998.0, "9999999999999998.0"),
        (0.00012, "0.00012"),
        // Both 17-digit spellings are equally near.
        (-(163_569_853_408_262.0 + 0.125), "-163569853408262.12"),
        (163_569_853_408_262.0 + 0.375, "163569853408262.38"),
    ] {
        let mut out = String::new();
        push_float_repr(&mut out, value);
        assert_eq!(out, want);
    }
}

/// Seeded random documents: what serde_json accepts, we accept, with the same
/// tree; what it refuses, we refuse (less Python's additions).
#[test]
fn random_documents_agree_with_serde_json() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % bound as u64) as usize
    };
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\\n\"",
        "\"\\u00e9\"",
        "\"ü😀\"",
        "1",
        "-2.5e3",
        "0",
        "true",
        "null",
        " ",
        "\n",
        "\"",
        "\\",
        "e",
        "1.",
        "-",
        "\"long text with \\\" quotes and more\"",
    ];
    let mut agreed = 0;
    for _ in 0..60_000 {
        let mut text = String::new();
        if next(2) == 0 {
            random_value(&mut text, &mut next, 4);
            if next(3) == 0 && !text.is_empty() {
                let at = next(text.len());
                if text.is_char_boundary(at) {
                    text.insert_str(at, pieces[next(pieces.len())]);
                }
            }
        } else {
            for _ in 0..next(9) {
                text.push_str(pieces[next(pieces.len())]);
            }
        }
        let ours = parse(text.as_bytes());
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // serde_json refuses floats that Python reads as infinite.
        let out_of_range =
            matches!(&theirs, Err(error) if error.to_string().contains("out of range"));
        if out_of_range {
            continue;
        }
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{text:?}");
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            assert_eq!(to_serde(&ours), theirs, "{text:?}");
            agreed += 1;
        }
    }
    assert!(agreed > 10_000);
}

fn random_value(out: &mut String, next: &mut impl FnMut(usize) -> usize, depth: usize) {
    let strings = [
        "\"\"",
        "\"a\"",
        "\"key\"",
        "\"\\\"\"",
        "\"é\\u00e9\\ud83d\\ude00\"",
        "\"plain text of some length\"",
    ];
    match next(if depth == 0 { 5 } else { 7 }) {
        0 => out.push_str(strings[next(strings.len())]),
        1 => out.push_str(&format!("{}", next(1000) as i64 - 500)),
        2 => out.push_str(&format!(
            "{}.{}e{}",
            next(100),
            next(1000),
            next(40) as i64 - 20
        )),
        3 => out.push_str(["true", "false", "null"][next(3)]),
        4 => out.push_str(" \t0 "),
        5 => {
            out.push('[');
            for n in 0..next(4) {
                if n > 0 {
                    out.push(',');
                }
                random_value(out, next, depth - 1);
            }
            out.push(']');
        }
        _ => {
            out.push('{');
            for n in 0..next(24) {
                if n > 0 {
                    out.push_str(", ");
                }
                if next(3) == 0 {
                    out.push_str(strings[next(strings.len())]);
                } else {
                    out.push_str(&format!("\"k{}\"", next(30)));
                }
                out.push(':');
                random_value(out, next, depth.saturating_sub(2));
            }
            out.push('}');
        }
    }
}

fn to_serde(value: &Json<'_>) -> serde_json::Value {
    match value {
        Json::Null => serde_json::Value::Null,
        Json::Bool(value) => (*value).into(),
        Json::Number(Number::Integer("-0")) => (-0.0).into(),
        Json::Number(number) => number
            .as_i64()
            .map_or_else(|| number.to_f64().into(), Into::into),
        Json::String(text) => text.as_ref().into(),
        Json::Array(items) => items.iter().map(to_serde).collect(),
        Json::Object(object) => serde_json::Value::Object(
            object
                .iter()
                .map(|(key, value)| (key.to_owned(), to_serde(value)))
                .collect(),
        ),
    }
}
