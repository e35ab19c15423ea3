//! The Node addon: conversions, promises, cancellation and a worker pool around
//! the core. It holds no decisions. `ts/native.ts` is its only user.

mod block_hashes;
mod model;
mod outcome;
mod pool;
mod prompt;
mod seam;
mod store;

/// Planning a turn makes hundreds of small allocations and no large one: glibc's
/// allocator takes a fifth of the time, this one a third of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
