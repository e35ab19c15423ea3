//! What a fuzzer is told on its command line.

pub(crate) const USAGE: &str =
    "usage: fuzz tokenizer | records [--seconds N] [--most N] [--seed N] [--json]";

pub(crate) struct Options {
    pub(crate) seconds: u64,
    /// Inputs to try.
    pub(crate) most: u64,
    pub(crate) seed: u64,
    pub(crate) json: bool,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seconds: 60,
            most: u64::MAX,
            seed: 1,
            json: false,
        };
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{argument} takes a number\n{USAGE}"))
            };
            match argument.as_str() {
                "--seconds" => options.seconds = number()?,
                "--most" => options.most = number()?,
                "--seed" => options.seed = number()?,
                "--json" => options.json = true,
                _ => return Err(format!("unknown option {argument}\n{USAGE}")),
            }
        }
        Ok(options)
    }
}
