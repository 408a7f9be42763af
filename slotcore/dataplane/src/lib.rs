//! The data plane.

pub mod container;
#[cfg(test)]
mod fuzz;
pub mod json;
