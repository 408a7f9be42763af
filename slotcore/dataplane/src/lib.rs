//! The data plane.

pub mod container;
pub mod json;
