//! A short run of each fuzzer, with the overflow checks and assertions that a
//! release build leaves out.

use std::process::Command;

fn run(fuzzer: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fuzz"));
    let status = command.args([fuzzer, "--seconds", "10"]).status();
    assert!(status.expect("the fuzzer starts").success());
}

#[test]
fn tokenizer() {
    run("tokenizer");
}

#[test]
fn records() {
    run("records");
}
