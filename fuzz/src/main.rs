//! Fuzzers of promptseam's core. One program, since linking takes longer than most runs.

mod options;
mod records;
mod tokenizer;

use std::process::ExitCode;

use options::{Options, USAGE};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let run: fn(&Options) -> ExitCode = match arguments.next().as_deref() {
        Some("tokenizer") => tokenizer::run,
        Some("records") => records::run,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match Options::parse(arguments) {
        Ok(options) => run(&options),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
