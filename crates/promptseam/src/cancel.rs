//! Cancelling work from outside.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::error::{Error, ErrorKind, Result};

/// A flag that long work looks at between its stages. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the work to stop. It cannot be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Fails once [`Self::cancel`] was called.
    ///
    /// # Errors
    /// `Aborted`.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Aborted, "The work was cancelled."));
        }
        Ok(())
    }
}
