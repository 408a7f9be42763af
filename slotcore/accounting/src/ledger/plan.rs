//! What the plan wants: records, raises and recalls.

use std::collections::BTreeMap;

use super::{Change, Entry, Ledger, LedgerError};
use crate::{Name, Planted};

impl Ledger {
    /// Stages a new record without shares.
    pub fn add(&mut self, container: &str, capacity: u32) -> Result<(), LedgerError> {
        self.check_leading()?;
        if self.entries.contains_key(container) {
            return Err(LedgerError::KnownContainer(container.into()));
        }
        let container: Name = container.into();
        let entry = Entry {
            capacity,
            recorded: false,
            change: Change::None,
            shares: BTreeMap::new(),
        };
        self.entries.insert(container.clone(), entry);
        self.stage(&container, Change::Put);
        Ok(())
    }

    /// Stages the record with a capacity: a stem cell, which was added with none, becomes an action's.
    pub fn give(&mut self, container: &str, capacity: u32) -> Result<(), LedgerError> {
        self.check_leading()?;
        let entry = self.live_entry(container)?;
        if entry.capacity != 0 {
            return Err(LedgerError::NotAStemCell(container.into()));
        }
        entry.capacity = capacity;
        self.stage(&container.into(), Change::Put);
        Ok(())
    }

    /// Stages a rewrite of the record, because a field that the ledger does not know has changed.
    pub fn touch(&mut self, container: &str) -> Result<(), LedgerError> {
        self.check_leading()?;
        self.live_entry(container)?;
        self.stage(&container.into(), Change::Put);
        Ok(())
    }

    /// Stages the deletion of the record, only on proof that the container has ended. Voids its shares.
    pub fn remove(&mut self, container: &str) -> Result<(), LedgerError> {
        self.check_leading()?;
        self.live_entry(container)?;
        self.stage(&container.into(), Change::Delete);
        Ok(())
    }

    /// Stages a raise to `target` slots; its order follows the commit.
    pub fn grant(&mut self, container: &str, router: &str, target: u32) -> Result<(), LedgerError> {
        self.check_leading()?;
        let stream = self.known_session(router)?.stream;
        let entry = self.live_entry(container)?;
        let (sum, capacity) = (entry.staged_sum(), entry.capacity);
        let share = entry.shares.get(router).map_or(0, |share| share.staged);
        if target <= share {
            return Err(LedgerError::NotARaise { target, share });
        }
        let shares = sum - u64::from(share) + u64::from(target);
        if shares > u64::from(capacity) {
            return Err(LedgerError::AboveCapacity {
                container: container.into(),
                shares,
                capacity,
            });
        }
        let name: Name = router.into();
        let share = entry.shares.entry(name.clone()).or_default();
        (share.staged, share.target, share.planned) = (target, target, Some(stream));
        let container: Name = container.into();
        let session = self.sessions.get_mut(&name).expect("a known session");
        session.containers.insert(container.clone());
        self.stage(&container, Change::Put);
        if self.plant.is(Planted::TellFirst) {
            self.ready.insert(container);
        }
        Ok(())
    }

    /// Orders a lowering to `target` slots, or back up to at most the share; nothing is written before the router's
    /// acknowledgement. Belongs to the container's transaction if it has one in this turn.
    pub fn recall(
        &mut self,
        container: &str,
        router: &str,
        target: u32,
    ) -> Result<(), LedgerError> {
        self.check_leading()?;
        let persist_first = self.plant.is(Planted::PersistBeforeAck);
        let stream = self.known_session(router)?.stream;
        let entry = self.live_entry(container)?;
        let Some(share) = entry.shares.get_mut(router).filter(|s| s.staged >= target) else {
            let share = entry.shares.get(router).map_or(0, |share| share.staged);
            return Err(LedgerError::NotARecall { target, share });
        };
        if share.staged > share.recorded {
            // The raise of this turn was not told to anybody: it is taken back as if it had never been.
            share.staged = share.recorded.max(target);
        }
        (share.target, share.planned) = (target, Some(stream));
        let container: Name = container.into();
        if persist_first && self.share(&container, router).staged > target {
            self.share(&container, router).staged = target;
            self.stage(&container, Change::Put);
        }
        self.offer(&container);
        Ok(())
    }
}
