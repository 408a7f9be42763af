//! Exact accounting: who may use how many slots of which container.
//!
//! [`Ledger`] is the Manager's side of the protocol, [`SlotTable`] the Router's. Both are plain values: no clock, no
//! I/O, no thread, no randomness. Time comes in as an argument and serves liveness only. What they promise together
//! is checked on this very code by the model in `tests/`; `docs/proof.md` tells what was checked.

mod ledger;
mod number;
mod planted;
#[cfg(feature = "planted")]
pub mod renumber;
mod slab;
mod table;

pub use ledger::{Commit, Ledger, LedgerError, Order, Record};
pub use number::{Name, Term, Version};
pub use planted::{Plant, Planted};
pub use slab::Key;
pub use table::{
    Acknowledgement, Demand, Grant, Holding, Lane, Limits, OrderError, QueueFull, Slot, SlotTable,
    Spec, Ticket,
};
