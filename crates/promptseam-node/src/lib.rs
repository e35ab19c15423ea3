//! The Node addon: conversions, promises, cancellation and a worker pool around
//! the core. It holds no decisions. `ts/native.ts` is its only user.

mod model;
mod outcome;
mod pool;
mod prompt;
mod seam;
