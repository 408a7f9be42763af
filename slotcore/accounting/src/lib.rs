//! Exact accounting.
