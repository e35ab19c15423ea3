//! What a fuzzer is told on its command line.

pub(crate) struct Options {
    pub(crate) seconds: u64,
    pub(crate) most: u64,
    pub(crate) seed: u64,
    pub(crate) json: bool,
}

impl Options {
    /// The options of the fuzzer `name`, which tries so many `things`.
    pub(crate) fn parse(name: &str, things: &str) -> Result<Self, String> {
        let usage = format!("usage: {name} [--seconds N] [--{things} N] [--seed N] [--json]");
        let mut options = Self {
            seconds: 60,
            most: u64::MAX,
            seed: 1,
            json: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{argument} takes a number\n{usage}"))
            };
            match argument.strip_prefix("--") {
                Some("seconds") => options.seconds = number()?,
                Some("seed") => options.seed = number()?,
                Some("json") => options.json = true,
                Some(other) if other == things => options.most = number()?,
                _ => return Err(format!("unknown option {argument}\n{usage}")),
            }
        }
        Ok(options)
    }
}
