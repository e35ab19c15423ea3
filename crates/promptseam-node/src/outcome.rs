//! What a call gives JavaScript: its value, or a failure as plain data.
//!
//! Errors cross the border as objects with a code; `ts/native.ts` makes them
//! into a `PromptseamError`, in that one place. A panic is a failure too.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use napi::bindgen_prelude::{Either, ToNapiValue};
use napi_derive::napi;
use promptseam::Error;

/// A failed call.
#[derive(Clone)]
#[napi(object)]
pub struct Failure {
    /// The stable code, `PS_...`.
    pub failed: String,
    /// The message for people.
    pub message: String,
    /// What caused it.
    pub cause: Option<String>,
}

/// The value, or why there is none.
pub(crate) type Outcome<T> = Either<Failure, T>;

impl Failure {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            failed: code.to_owned(),
            message: message.into(),
            cause: None,
        }
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new("PS_CLOSED", format!("The {what} was closed."))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Self {
            failed: error.code().to_owned(),
            message: error.message().to_owned(),
            cause,
        }
    }
}

fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    Failure {
        // The panic's own text may quote the input, so it is not the message.
        cause: text.map(|text| text.chars().take(200).collect()),
        ..Failure::new(
            "PS_INTERNAL",
            "promptseam's native code panicked. The process is unharmed; please report this.",
        )
    }
}

/// Runs `work`; an error or a panic becomes a failure.
pub(crate) fn guarded<T: ToNapiValue>(work: impl FnOnce() -> Result<T, Failure>) -> Outcome<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Either::B(value),
        Ok(Err(failure)) => Either::A(failure),
        Err(payload) => Either::A(panicked(&*payload)),
    }
}
