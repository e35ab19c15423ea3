//! The worker pool: a few threads of our own, a bounded queue, no panics out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use crossbeam_channel::{Sender, TrySendError, bounded};

type Job = Box<dyn FnOnce() + Send>;

/// Rendering recurses with the nesting of JSON and templates.
const STACK_BYTES: usize = 8 << 20;

/// Threads that run jobs in the order they came. Dropping the pool, or closing
/// it, lets queued jobs finish and ends the threads.
pub(crate) struct Pool {
    jobs: Mutex<Option<Sender<Job>>>,
    limit: usize,
    /// Whose it is, for people.
    owner: &'static str,
}

/// Why a job was not taken.
pub(crate) enum Refused {
    /// The queue is full; it holds this many.
    Full(usize),
    /// The pool was closed, with its owner.
    Closed(&'static str),
}

impl Pool {
    pub(crate) fn new(owner: &'static str, threads: usize, limit: usize) -> std::io::Result<Self> {
        let (sender, receiver) = bounded::<Job>(limit);
        for index in 0..threads {
            let receiver = receiver.clone();
            thread::Builder::new()
                .name(format!("promptseam-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    for job in receiver {
                        // Jobs settle their promise themselves, panics included;
                        // this keeps the thread if one does not.
                        let _ = catch_unwind(AssertUnwindSafe(job));
                    }
                })?;
        }
        Ok(Self {
            jobs: Mutex::new(Some(sender)),
            limit,
            owner,
        })
    }

    /// Queues `job`, or gives it back with the reason it was refused.
    pub(crate) fn submit<J: FnOnce() + Send + 'static>(&self, job: J) -> Result<(), Refused> {
        let jobs = self.jobs.lock().unwrap_or_else(|e| e.into_inner());
        match jobs.as_ref().map(|jobs| jobs.try_send(Box::new(job))) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(Refused::Full(self.limit)),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(Refused::Closed(self.owner)),
        }
    }

    pub(crate) fn close(&self) {
        self.jobs.lock().unwrap_or_else(|e| e.into_inner()).take();
    }
}
