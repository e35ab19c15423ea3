//! Continuing conversations: appending to a prompt what is new, where that can
//! be shown to give the full render's ids.
//!
//! A [`Turn`] is what came in. What of it is known is found by the digests of its
//! [histories](Turn::candidates) among [`Artifact`]s, the records of earlier
//! turns. A [`Planner`] takes the first rung of the ladder that holds:
//!
//! - *certified suffix*: stored ids up to the seam, then the encoded marginal
//!   suffix. For classes of transitions on which the template was certified.
//! - *aligned render* and *full render*: the whole text is rendered, and encoded
//!   from the last boundary row that it still matches.
//! - *messages*: the server renders.
//!
//! A [`Plan`] says by its [`Outcome`] which, and why not a better one. Committed
//! with its answer it becomes an artifact.

mod artifact;
mod certificate;
mod certification;
mod class;
mod environment;
mod history;
mod members;
mod outcome;
mod plan;
mod planner;
mod probes;
mod record;
mod sampled;
mod traits;
mod turn;

pub use artifact::{Answer, Artifact, ArtifactId, SampledSpan};
pub use certificate::{Certificate, Claim};
pub use environment::{Environment, Fingerprint, Identity};
pub use history::HistoryDigest;
pub use outcome::{Field, Outcome, Reason, Rung};
pub use plan::{Drift, Plan};
pub use planner::{Found, PlanOptions, Planner, ShadowPolicy};
pub(crate) use record::{has_parent, id_of};
pub use turn::Turn;
