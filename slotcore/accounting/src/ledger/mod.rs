//! The Manager's side: who holds which share of which container, and what may be said to whom.
//!
//! Invariants, at every moment (DESIGN.md, section 3):
//! - the shares of a container, as recorded and as staged, are at most its capacity;
//! - an order is handed out only if its target is at most the recorded share and no write of its container is staged
//!   or under way: a raise follows its record, and a recall never crosses a commit;
//! - a share is lowered only on an acknowledgement of the newest order of the newest stream, on the Hello that
//!   answers this term's Welcome, or with the container's end;
//! - while an outcome is unknown nothing is handed out.
//!
//! A step that is refused changes nothing. Costs are per touched record; only `lead` and `settled` read them all.

mod chain;
mod plan;
#[cfg(feature = "planted")]
mod renumber;
mod session;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{Name, Plant, Term, Version};

/// Why the ledger refuses a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A commit is under way: events wait for the next turn.
    #[error("a commit is under way")]
    CommitPending,
    /// The step needs a commit under way, and there is none.
    #[error("no commit is under way")]
    NoCommit,
    /// The step needs a term.
    #[error("no term is led")]
    NotLeading,
    /// A term must be newer than every term led before.
    #[error("term {0:?} was led before, or is older than one that was")]
    OldTerm(Term),
    /// An etcd revision cannot be older than the turn it follows.
    #[error("revision {0} is not newer than the turn before it")]
    OldRevision(i64),
    /// Rule 3.1: shares sum to at most the capacity.
    #[error("shares of {container} would be {shares}, of {capacity}")]
    AboveCapacity {
        /// The container.
        container: Name,
        /// What its shares would sum to.
        shares: u64,
        /// Its capacity.
        capacity: u32,
    },
    /// Rule 3.10: the ledger has forgotten a grant. Do not serve until `slotway cluster recover`.
    #[error("{router} holds {holding} of {container}, {recorded} are on the ledger")]
    AboveLedger {
        /// The router.
        router: Name,
        /// The container.
        container: Name,
        /// What it holds or runs.
        holding: u32,
        /// What is recorded.
        recorded: u32,
    },
    /// The container is not on the ledger, or its record is about to be deleted.
    #[error("container {0} is not on the ledger")]
    UnknownContainer(Name),
    /// The container is on the ledger already.
    #[error("container {0} is on the ledger already")]
    KnownContainer(Name),
    /// A capacity stays for good: only a container without any is given one.
    #[error("container {0} has a capacity already")]
    NotAStemCell(Name),
    /// The router has not said Hello in this term on its newest stream.
    #[error("router {0} has not said Hello in this term")]
    UnknownRouter(Name),
    /// A grant must raise.
    #[error("a grant of {target} is not above the share of {share}")]
    NotARaise {
        /// The target asked for.
        target: u32,
        /// The staged share.
        share: u32,
    },
    /// A recall cannot exceed the share.
    #[error("a recall to {target} is above the share of {share}")]
    NotARecall {
        /// The target asked for.
        target: u32,
        /// The staged share.
        share: u32,
    },
}

/// A container's record as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The container's id.
    pub container: Name,
    /// C.
    pub capacity: u32,
    /// The slots granted, by router.
    pub shares: BTreeMap<Name, u32>,
}

/// An absolute target, to be sent on the stream that it was planned for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// The router.
    pub router: Name,
    /// The router's stream.
    pub stream: u64,
    /// The container.
    pub container: Name,
    /// Slots that the router may use from now on.
    pub target: u32,
    /// Greater than that of every order handed out before.
    pub version: Version,
}

/// One guarded transaction: compare the leader key's revision with `term` and the turn key's with `turn`, put the turn
/// key and the records.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The term that is led.
    pub term: Term,
    /// The revision that the turn key must have; 0: absent.
    pub turn: i64,
    /// Records to be put.
    pub puts: Vec<Record>,
    /// Containers whose records are to be deleted.
    pub deletes: Vec<Name>,
}

/// One router's share of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Share {
    /// As etcd has it.
    recorded: u32,
    /// As etcd will have it once all that is staged is committed.
    staged: u32,
    /// What the router was last ordered, or is about to be.
    target: u32,
    /// The newest order handed out on the newest stream in this term.
    sent: Option<Version>,
    /// An order that has not been handed out: its stream. The target is `target`.
    planned: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Change {
    None,
    Put,
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    capacity: u32,
    /// etcd has the record.
    recorded: bool,
    /// What is staged, or in the pending transaction.
    change: Change,
    shares: BTreeMap<Name, Share>,
}

impl Entry {
    /// The most that the router can be using: what is recorded, or less where the router has said so already and the write
    /// is staged. Where the record is about to be deleted, nothing is lowered any more.
    fn proved(&self, router: &str) -> u32 {
        self.shares
            .get(router)
            .map_or(0, |share| match self.change {
                Change::Delete => share.recorded,
                _ => share.recorded.min(share.staged),
            })
    }

    fn staged_sum(&self) -> u64 {
        self.shares.values().map(|s| u64::from(s.staged)).sum()
    }
}

/// What the ledger knows of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Session {
    /// The newest stream; 0 before the first.
    stream: u64,
    /// It is still open.
    open: bool,
    /// Hello was said on it in this term.
    known: bool,
    /// Containers of which the router has a share, recorded or staged.
    containers: BTreeSet<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Pending {
    /// A transaction with these containers awaits its answer.
    Sent(Vec<Name>),
    /// Its answer did not come; it may still be applied.
    Unknown,
}

/// The Manager's side of the protocol. See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    term: Option<Term>,
    /// The greatest term ever led.
    newest_term: Term,
    /// The revision of the newest commit of the chain.
    turn: i64,
    /// Orders handed out in this term.
    counter: i64,
    entries: BTreeMap<Name, Entry>,
    sessions: BTreeMap<Name, Session>,
    /// Containers with a change that is not in the pending transaction, the oldest first.
    staged: VecDeque<Name>,
    /// Containers that may have planned orders, and have no write.
    ready: BTreeSet<Name>,
    pending: Option<Pending>,
    plant: Plant,
}

impl Ledger {
    /// A ledger that leads nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A ledger with a planted mistake.
    #[cfg(feature = "planted")]
    pub fn planted(plant: Plant) -> Self {
        Self {
            plant,
            ..Self::default()
        }
    }

    fn check_idle(&self) -> Result<(), LedgerError> {
        match self.pending {
            Some(_) => Err(LedgerError::CommitPending),
            None => Ok(()),
        }
    }

    fn check_leading(&self) -> Result<Term, LedgerError> {
        self.check_idle()?;
        self.term.ok_or(LedgerError::NotLeading)
    }

    /// The session, if the router has said Hello in this term on its newest stream.
    fn known_session(&self, router: &str) -> Result<&Session, LedgerError> {
        self.sessions
            .get(router)
            .filter(|session| session.known)
            .ok_or_else(|| LedgerError::UnknownRouter(router.into()))
    }

    fn live_entry(&mut self, container: &str) -> Result<&mut Entry, LedgerError> {
        self.entries
            .get_mut(container)
            .filter(|entry| entry.change != Change::Delete)
            .ok_or_else(|| LedgerError::UnknownContainer(container.into()))
    }

    /// Stages a write of the record.
    fn stage(&mut self, container: &Name, change: Change) {
        let entry = self.entries.get_mut(container).expect("staged by name");
        if entry.change == Change::None {
            self.staged.push_back(container.clone());
            self.ready.remove(container);
        }
        entry.change = entry.change.max(change);
    }

    /// Marks the container's planned orders as fit to be handed out, unless they have to wait for a write.
    fn offer(&mut self, container: &Name) {
        if self.entries[container].change == Change::None {
            self.ready.insert(container.clone());
        }
    }
}
