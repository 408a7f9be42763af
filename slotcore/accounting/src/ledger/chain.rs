//! The chain of commits, and the orders that may follow them.

use super::session::load;
use super::{Change, Commit, Ledger, LedgerError, Order, Pending, Record};
use crate::{Name, Plant, Planted, Term, Version};

impl Ledger {
    /// Takes at most `records_max` staged records into a transaction; None if nothing is staged.
    pub fn begin(&mut self, records_max: usize) -> Result<Option<Commit>, LedgerError> {
        self.check_leading()?;
        if self.staged.is_empty() {
            return Ok(None);
        }
        let taken = records_max.min(self.staged.len());
        let containers: Vec<Name> = self.staged.drain(..taken).collect();
        self.begin_with(containers).map(Some)
    }

    /// A transaction that only moves the chain, for writes of records that are not containers'.
    pub fn begin_empty(&mut self) -> Result<Commit, LedgerError> {
        self.begin_with(Vec::new())
    }

    fn begin_with(&mut self, containers: Vec<Name>) -> Result<Commit, LedgerError> {
        let term = self.check_leading()?;
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for container in &containers {
            let entry = &self.entries[container];
            if entry.change == Change::Delete {
                deletes.push(container.clone());
                continue;
            }
            assert!(
                entry.staged_sum() <= u64::from(entry.capacity),
                "shares of {container} are above its capacity"
            );
            puts.push(Record {
                container: container.clone(),
                capacity: entry.capacity,
                shares: self.staged_shares(container),
            });
        }
        self.pending = Some(Pending::Sent(containers));
        Ok(Commit {
            term,
            turn: self.turn,
            puts,
            deletes,
        })
    }

    /// The transaction was applied at this revision; its orders may be sent now.
    pub fn committed(&mut self, revision: i64) -> Result<(), LedgerError> {
        if revision <= self.turn {
            return Err(LedgerError::OldRevision(revision));
        }
        let Some(Pending::Sent(containers)) = self.pending.clone() else {
            return Err(LedgerError::NoCommit);
        };
        self.pending = None;
        self.turn = revision;
        for container in containers {
            let entry = self.entries.get_mut(&container).expect("pending container");
            let deleted = entry.change == Change::Delete;
            (entry.change, entry.recorded) = (Change::None, true);
            for (router, share) in &mut entry.shares {
                share.recorded = share.staged;
                if deleted || share.recorded == 0 {
                    let session = self.sessions.get_mut(router).expect("indexed session");
                    session.containers.remove(&container);
                }
            }
            // An order outlives its share only by a planted bug.
            let outlives = self.plant != Plant::default();
            entry
                .shares
                .retain(|_, share| share.recorded > 0 || (outlives && share.planned.is_some()));
            if deleted {
                self.entries.remove(&container);
                self.ready.remove(&container);
            } else {
                self.ready.insert(container);
            }
        }
        Ok(())
    }

    /// A compare failed: another one leads, or the chain moved. Same as `depose`.
    pub fn rejected(&mut self) {
        self.depose();
    }

    /// No answer came. Nothing may be sent until `settled`: repeat a transaction that compares the leader key with the
    /// returned term, puts the turn key and reads all records in its success branch.
    pub fn unknown(&mut self) -> Result<Term, LedgerError> {
        match (&self.pending, self.term) {
            (Some(_), Some(term)) => {
                self.pending = Some(Pending::Unknown);
                Ok(term)
            }
            _ => Err(LedgerError::NoCommit),
        }
    }

    /// The fencing write was applied at `revision` and read `records`. Replaces the view; every known router is told
    /// again what the ledger says. Staged changes are dropped: plan anew.
    pub fn settled(
        &mut self,
        revision: i64,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<(), LedgerError> {
        if self.pending != Some(Pending::Unknown) {
            return Err(LedgerError::NoCommit);
        }
        let fenced = revision > self.turn || self.plant.is(Planted::LateTxn);
        if !fenced {
            return Err(LedgerError::OldRevision(revision));
        }
        let entries = load(records)?;
        self.pending = None;
        self.turn = revision;
        self.replace(entries);
        for (container, entry) in &mut self.entries {
            for (router, share) in &mut entry.shares {
                let session = &self.sessions[router];
                if session.known {
                    share.planned = Some(session.stream);
                    self.ready.insert(container.clone());
                }
            }
        }
        Ok(())
    }

    /// Takes the orders that may be sent now, each with a version of its own. Those whose stream is not the newest any
    /// more are dropped: the Hello on the newer one tells what is so.
    pub fn orders(&mut self) -> Vec<Order> {
        let Some(term) = self.term else {
            return Vec::new();
        };
        if self.pending == Some(Pending::Unknown) {
            return Vec::new();
        }
        let newest = self.plant.is(Planted::NewestStream);
        let mut orders = Vec::new();
        for container in std::mem::take(&mut self.ready) {
            let Some(entry) = self.entries.get_mut(&container) else {
                continue;
            };
            for (router, share) in &mut entry.shares {
                let Some(planned) = share.planned.take() else {
                    continue;
                };
                let session = &self.sessions[router];
                if !newest && (!session.known || session.stream != planned) {
                    continue;
                }
                assert!(
                    share.target <= share.recorded || self.plant != Plant::default(),
                    "an order to {router} for {container} is above its recorded share"
                );
                self.counter += 1;
                let version = Version {
                    term,
                    counter: self.counter,
                };
                share.sent = Some(version);
                orders.push(Order {
                    router: router.clone(),
                    stream: session.stream,
                    container: container.clone(),
                    target: share.target,
                    version,
                });
            }
        }
        orders
    }
}
