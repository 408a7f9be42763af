//! For the model: see `crate::renumber`.

use super::Ledger;
use crate::Version;
use crate::renumber::Numbers;

impl Ledger {
    /// The newest stream heard of.
    pub fn stream(&self, router: &str) -> u64 {
        self.sessions
            .get(router)
            .map_or(0, |session| session.stream)
    }

    /// Visits every number that only grows. What cannot matter any more is forgotten on the way.
    pub fn renumber(&mut self, numbers: &mut Numbers) {
        if let Some(term) = &mut self.term {
            let mut newest = Version {
                term: *term,
                counter: self.counter,
            };
            numbers.version(&mut newest);
            self.counter = newest.counter;
            numbers.term(term);
            numbers.revision(&mut self.turn);
        } else {
            (self.counter, self.turn) = (0, 0);
        }
        numbers.term(&mut self.newest_term);
        for session in self.sessions.values_mut() {
            numbers.stream(&mut session.stream);
        }
        for entry in self.entries.values_mut() {
            for (router, share) in &mut entry.shares {
                if !self.sessions[router].known {
                    share.sent = None; // a Hello comes first, and resets it
                }
                if let Some(sent) = &mut share.sent {
                    numbers.version(sent);
                }
                if let Some(stream) = &mut share.planned {
                    numbers.stream(stream);
                }
            }
        }
    }
}
