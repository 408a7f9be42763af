//! The data plane: the Router's front door and its connections to containers.
//!
//! `front` accepts connections; a request is served by `invoke` or `submit`, or goes through `passthrough` to the Python server.
//! `state` decides who gets which slot; `session` is how a Router's session with its Managers drives it. A container is
//! talked to by `container`. What is promised: per container never more requests in flight than slots are held, because
//! a slot is a value that moves into the call and comes back when the container's answer has ended.

mod activation;
mod asked;
mod attempt;
mod attempts;
pub mod container;
mod counters;
mod deadline;
mod decimal;
mod entry;
mod failure;
mod front;
#[cfg(test)]
mod fuzz;
mod invoke;
pub mod json;
mod link;
mod message;
mod passthrough;
mod peers;
mod plane;
mod reply;
mod session;
mod settings;
mod shared;
mod signal;
mod splice;
mod state;
mod submissions;
mod submit;
mod target;
mod wire;

pub use attempts::{Attempt, Ended, Happened};
pub use failure::Reason;
pub use plane::DataPlane;
pub use session::{ArgumentError, Events};
pub use settings::{PlantedBug, Settings};
pub use submissions::Submission;
