//! What can be seen of a ledger.

use std::collections::BTreeMap;

use super::{Change, Ledger};
use crate::{Name, Term, Version};

impl Ledger {
    /// The term that is led, or None.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// Whether a commit is under way.
    pub fn pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The shares as recorded.
    pub fn shares(&self, container: &str) -> BTreeMap<Name, u32> {
        let entry = self.entries.get(container);
        let shares = entry.iter().flat_map(|entry| &entry.shares);
        shares
            .filter(|(_, share)| share.recorded > 0)
            .map(|(router, share)| (router.clone(), share.recorded))
            .collect()
    }

    /// The shares as they will be recorded when all that is staged is committed.
    pub fn staged_shares(&self, container: &str) -> BTreeMap<Name, u32> {
        let entry = self.entries.get(container);
        let shares = entry
            .filter(|entry| entry.change != Change::Delete)
            .into_iter()
            .flat_map(|entry| &entry.shares);
        shares
            .filter(|(_, share)| share.staged > 0)
            .map(|(router, share)| (router.clone(), share.staged))
            .collect()
    }

    /// What the router was last ordered, or is about to be: the share if nothing lower is ordered.
    pub fn target(&self, container: &str, router: &str) -> u32 {
        let entry = self.entries.get(container);
        let share = entry.and_then(|entry| entry.shares.get(router));
        share.map_or(0, |share| share.target)
    }

    /// Slots that may be granted: capacity less all staged shares.
    pub fn free(&self, container: &str) -> u32 {
        match self.entries.get(container) {
            Some(entry) if entry.change != Change::Delete => {
                let staged = u32::try_from(entry.staged_sum()).unwrap_or(u32::MAX);
                entry.capacity.saturating_sub(staged)
            }
            _ => 0,
        }
    }

    /// Whether the router has said Hello in this term on its newest stream.
    pub fn known(&self, router: &str) -> bool {
        self.known_session(router).is_ok()
    }

    /// The newest order sent on this stream in this term.
    pub fn version_sent(&self, container: &str, router: &str) -> Option<Version> {
        let entry = self.entries.get(container)?;
        self.known_session(router).ok()?;
        entry.shares.get(router)?.sent
    }

    /// Containers of which the router has a share on the ledger, recorded or staged.
    pub fn containers_of(&self, router: &str) -> Vec<Name> {
        let session = self.sessions.get(router);
        session
            .iter()
            .flat_map(|session| &session.containers)
            .cloned()
            .collect()
    }

    /// Whether anything is staged.
    pub fn staged(&self) -> bool {
        !self.staged.is_empty()
    }
}
