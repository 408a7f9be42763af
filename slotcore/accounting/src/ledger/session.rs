//! Leadership, and what routers say.

use std::collections::BTreeMap;

use super::{Change, Entry, Ledger, LedgerError, Record, Session, Share};
use crate::{Name, Planted, Term, Version};

impl Ledger {
    /// Begins a term over `records`, read at the winning revision; `turn` is the turn key's revision then (0: absent).
    ///
    /// Returns the open streams (router, stream): each is to be greeted with a Welcome.
    pub fn lead(
        &mut self,
        term: Term,
        turn: i64,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Vec<(Name, u64)>, LedgerError> {
        self.check_idle()?;
        if term <= self.newest_term {
            return Err(LedgerError::OldTerm(term));
        }
        let entries = load(records)?;
        self.forget_terms();
        (self.term, self.newest_term, self.turn, self.counter) = (Some(term), term, turn, 0);
        self.replace(entries);
        // A session that is closed and owns nothing says nothing any more: a Hello of an older term does not count.
        self.sessions
            .retain(|_, session| session.open || !session.containers.is_empty());
        Ok(self
            .sessions
            .iter()
            .filter(|(_, session)| session.open)
            .map(|(router, session)| (router.clone(), session.stream))
            .collect())
    }

    /// Not leader any more: nothing staged or pending will be sent. Streams stay open.
    pub fn depose(&mut self) {
        self.forget_terms();
        let recorded: Vec<Record> = self.records().collect();
        self.replace(load(recorded).expect("records were accepted before"));
    }

    /// No Hello counts any more, and no transaction is waited for.
    fn forget_terms(&mut self) {
        (self.term, self.pending) = (None, None);
        for session in self.sessions.values_mut() {
            session.known = false;
        }
    }

    /// A stream opened; the greatest number is the newest. False: a newer one is known, drop this one.
    ///
    /// If a term is led, the caller sends a Welcome. Allowed while a commit is under way: orders of the older stream
    /// are then dropped instead of handed out.
    pub fn attach(&mut self, router: &str, stream: u64) -> bool {
        let session = self.sessions.entry(router.into()).or_default();
        if stream <= session.stream {
            return false;
        }
        session.stream = stream;
        session.open = true;
        session.known = false;
        true
    }

    /// The stream closed. Its router's shares stay as they are: a vanished router may still serve.
    pub fn detach(&mut self, router: &str, stream: u64) {
        let Some(session) = self.sessions.get_mut(router) else {
            return;
        };
        if session.stream != stream {
            return;
        }
        session.open = false;
        session.known = false;
        if self.plant.is(Planted::FreeDeadRouter) && self.check_leading().is_ok() {
            for container in self.sessions[router].containers.clone() {
                self.lower(&container, router, 0);
            }
        }
    }

    /// What a router holds and runs, (container, held, running), in answer to the Welcome of `term`.
    ///
    /// Counts once per stream and term; anything else changes nothing. Stages the lowering of each of the router's
    /// shares to max(held, running), and orders held anew where more runs, so that the acknowledgement will count.
    /// Returns the containers that are not on the ledger: the router is to be told that they have ended.
    ///
    /// A holding above the record, or above a lowering that is staged because the router itself has said so, is refused:
    /// its slots may be promised to another one already.
    pub fn hello<'a>(
        &mut self,
        router: &str,
        stream: u64,
        term: Term,
        holdings: impl IntoIterator<Item = (&'a str, u32, u32)>,
    ) -> Result<Vec<Name>, LedgerError> {
        self.check_idle()?;
        let Some(session) = self.sessions.get(router) else {
            return Ok(Vec::new());
        };
        let first = self.term == Some(term) && !session.known;
        let counts = first || (self.plant.is(Planted::OldHello) && self.term.is_some());
        if !counts || session.stream != stream || !session.open {
            return Ok(Vec::new());
        }
        let mut held_by_container = BTreeMap::new();
        let mut ended = Vec::new();
        for (container, held, running) in holdings {
            let Some(entry) = self.entries.get(container) else {
                ended.push(container.into());
                continue;
            };
            let recorded = entry.proved(router);
            let holding = held.max(running);
            if holding > recorded {
                return Err(LedgerError::AboveLedger {
                    router: router.into(),
                    container: container.into(),
                    holding,
                    recorded,
                });
            }
            held_by_container.insert(container, (held, running));
        }
        let containers = session.containers.clone();
        if let Some(session) = self.sessions.get_mut(router) {
            session.known = true;
        }
        for container in containers {
            if self.entries[&container].change == Change::Delete {
                continue; // it has ended, and its record goes
            }
            let (held, running) = held_by_container
                .get(&*container)
                .copied()
                .unwrap_or_default();
            self.greet(&container, router, held, running);
        }
        Ok(ended)
    }

    /// Takes up one share as a Hello tells it.
    fn greet(&mut self, container: &Name, router: &str, held: u32, running: u32) {
        let keep_planned = self.plant.is(Planted::NewestStream);
        let again = running > held && !self.plant.is(Planted::HelloMaxOnly);
        let stream = self.sessions[router].stream;
        let bound = self.entries[container]
            .proved(router)
            .min(held.max(running));
        let share = self.share(container, router);
        share.sent = None;
        if !(keep_planned && share.planned.is_some()) {
            share.target = held;
            share.planned = again.then_some(stream);
        }
        if share.staged != bound {
            share.staged = bound;
            self.stage(container, Change::Put);
        }
        if again {
            self.offer(container);
        }
    }

    /// The router uses no more than `holding` slots any more, for good. Stages the lowering to it.
    ///
    /// False if it does not count: not the newest order of the newest stream, or a raise overtook it. Where this stream
    /// has ordered nothing yet (the router gave slots back that an older stream or term had granted), the same amount
    /// is ordered, so that the next acknowledgement counts.
    pub fn acknowledge(
        &mut self,
        router: &str,
        stream: u64,
        container: &str,
        holding: u32,
        version: Version,
    ) -> Result<bool, LedgerError> {
        self.check_idle()?;
        let any = self.plant.is(Planted::AnyAck);
        let unheard = self.plant.is(Planted::GiveBackUnheard);
        if self.term.is_none() {
            return Ok(false);
        }
        let Some(session) = self.sessions.get(router) else {
            return Ok(false);
        };
        if !session.known || session.stream != stream {
            return Ok(false);
        }
        let Some((container, entry)) = self.entries.get_key_value(container) else {
            return Ok(false);
        };
        let Some(share) = entry.shares.get(router) else {
            return Ok(false);
        };
        let container = container.clone();
        if share.sent != Some(version) && !any {
            if entry.change != Change::Delete
                && share.sent.is_none()
                && share.planned.is_none()
                && holding < share.target
                && share.staged == share.recorded
                && !unheard
            {
                self.recall(&container, router, holding)?;
            }
            return Ok(false);
        }
        if share.staged > share.recorded {
            return Ok(false);
        }
        if holding < share.staged {
            self.lower(&container, router, holding);
        }
        Ok(true)
    }

    /// Stages a lowering on proof. A planned order for more would hand out what is no longer recorded: it is dropped.
    fn lower(&mut self, container: &Name, router: &str, holding: u32) {
        let outlives = self.plant.is(Planted::OrderOutlivesAck);
        let share = self.share(container, router);
        share.staged = holding;
        if share.target > holding && !(outlives && share.planned.is_some()) {
            share.target = holding;
            share.planned = None;
        }
        self.stage(container, Change::Put);
    }

    pub(super) fn share(&mut self, container: &Name, router: &str) -> &mut Share {
        let entry = self.entries.get_mut(container).expect("indexed container");
        entry.shares.get_mut(router).expect("indexed share")
    }

    /// Replaces the view.
    pub(super) fn replace(&mut self, entries: BTreeMap<Name, Entry>) {
        self.staged.clear();
        self.ready.clear();
        self.entries = entries;
        for session in self.sessions.values_mut() {
            session.containers.clear();
        }
        for (container, entry) in &self.entries {
            for router in entry.shares.keys() {
                let session = self.sessions.entry(router.clone());
                let session: &mut Session = session.or_default();
                session.containers.insert(container.clone());
            }
        }
    }

    /// The records as last read or written.
    fn records(&self) -> impl Iterator<Item = Record> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.recorded)
            .map(|(container, entry)| Record {
                container: container.clone(),
                capacity: entry.capacity,
                shares: entry
                    .shares
                    .iter()
                    .map(|(router, share)| (router.clone(), share.recorded))
                    .collect(),
            })
    }
}

/// Entries as recorded, with nothing staged. Refuses records that promise more than their capacity.
pub(super) fn load(
    records: impl IntoIterator<Item = Record>,
) -> Result<BTreeMap<Name, Entry>, LedgerError> {
    let mut entries = BTreeMap::new();
    for record in records {
        let shares = record.shares.into_iter().filter(|(_, slots)| *slots > 0);
        let entry = Entry {
            capacity: record.capacity,
            recorded: true,
            change: Change::None,
            shares: shares
                .map(|(router, slots)| {
                    let share = Share {
                        recorded: slots,
                        staged: slots,
                        target: slots,
                        ..Share::default()
                    };
                    (router, share)
                })
                .collect(),
        };
        if entry.staged_sum() > u64::from(entry.capacity) {
            return Err(LedgerError::AboveCapacity {
                container: record.container,
                shares: entry.staged_sum(),
                capacity: entry.capacity,
            });
        }
        entries.insert(record.container, entry);
    }
    Ok(entries)
}
