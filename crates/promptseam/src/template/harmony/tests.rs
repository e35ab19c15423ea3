//! What Harmony prints, by behaviour; whole prompts are compared in `tests/golden.rs`.
