//! Names and the two numbers that order everything: terms and versions.

use std::sync::Arc;

/// A router's incarnation, a container's id, an action's or a Manager's name. Cheap to clone.
pub type Name = Arc<str>;

/// A leader's fencing token; greater is newer, the epoch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// The ledger's epoch.
    pub epoch: i64,
    /// The etcd revision at which the leader took the key.
    pub revision: i64,
}

/// The version of an order; greater is newer, the term first. The default is older than every order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The term of the leader that gave the order.
    pub term: Term,
    /// Counts that leader's orders, from 1.
    pub counter: i64,
}
