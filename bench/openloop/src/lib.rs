//! An open-loop load generator: requests arrive when the schedule says so, whether or not those before them have been
//! answered, and a latency is counted from the moment that the schedule named. So a server that stalls is not spared
//! the requests that it would have got (no coordinated omission), and neither is a generator that comes late: its own
//! lag is in every latency, and told apart.
//!
//! The schedule is a pure function of the plan and its seed. Everything is bounded: the duration, the deadline of each
//! request, and the requests under way at once; what exceeds that is counted as not sent, never dropped silently.

mod arrivals;
mod client;
mod pace;
mod report;
mod run;
mod wire;

pub use arrivals::{Arrival, Arrivals, Schedule};
pub use report::{ActionReport, Bucket, Report};
pub use run::Load;

use std::net::SocketAddr;
use std::time::Duration;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The Routers' front doors; each request goes to one of them, chosen evenly by chance.
    pub endpoints: Vec<SocketAddr>,
    /// HTTP/2 connections to each of them.
    pub connections: usize,
    /// The actions, chosen by chance as their weights say.
    pub targets: Vec<Target>,
    /// When requests arrive.
    pub arrivals: Arrivals,
    /// Requests per second, on average.
    pub rate: f64,
    /// How long requests arrive.
    pub duration: Duration,
    /// Of each request, from its arrival on.
    pub deadline: Duration,
    /// Requests under way at once.
    pub outstanding_max: usize,
    /// Answers that take longer are counted as late.
    pub late: Duration,
    /// The width of the timeline's buckets.
    pub bucket: Duration,
    /// What chance is drawn from.
    pub seed: u64,
}

/// One action.
#[derive(Clone, Debug)]
pub struct Target {
    /// "namespace/name".
    pub action: String,
    /// One JSON object.
    pub payload: Vec<u8>,
    /// How often it is chosen, relative to the others.
    pub weight: f64,
}

/// The plan makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError(pub String);

impl Plan {
    /// Whether the plan can be carried out.
    pub fn check(&self) -> Result<(), PlanError> {
        let broken = |what: &str| Err(PlanError(what.to_owned()));
        if self.endpoints.is_empty() || self.targets.is_empty() || self.connections == 0 {
            return broken("at least one endpoint, one connection and one action");
        }
        if !(self.rate > 0.0 && self.rate <= 1e6) {
            return broken("rate: above 0 and at most 1,000,000 requests per second");
        }
        let weights = self.targets.iter().map(|target| target.weight);
        if weights
            .clone()
            .any(|weight| !(weight >= 0.0 && weight.is_finite()))
            || weights.sum::<f64>() <= 0.0
        {
            return broken("weights: not negative, and not all 0");
        }
        if self.bucket.is_zero() || self.deadline.is_zero() || self.outstanding_max == 0 {
            return broken("bucket, deadline and outstanding_max: above 0");
        }
        if self.duration.as_nanos() / self.bucket.as_nanos() > 1_000_000 {
            return broken("at most 1,000,000 buckets");
        }
        self.arrivals.check().map_err(PlanError)
    }
}
