//! For the model: numbers that only ever grow are replaced by their ranks, so that a state that differs from another
//! in nothing but the passage of time is the same state.
//!
//! The protocol compares terms, versions, turns and streams with each other and makes new ones greater than all; so
//! two states with the same ranks behave alike. One pass collects the numbers, a second one replaces them.

use crate::{Term, Version};

/// The numbers of a whole world.
#[derive(Debug, Default)]
pub struct Numbers {
    revisions: Vec<i64>,
    versions: Vec<Version>,
    streams: Vec<u64>,
    replacing: bool,
}

impl Numbers {
    /// Ends the collecting pass.
    pub fn replace(&mut self) {
        // Zero is "none" everywhere, and keeps its place.
        self.revisions.push(0);
        self.revisions.sort_unstable();
        self.revisions.dedup();
        self.versions.sort_unstable();
        self.versions.dedup();
        self.streams.push(0);
        self.streams.sort_unstable();
        self.streams.dedup();
        self.replacing = true;
    }

    /// Visits an etcd revision.
    pub fn revision(&mut self, revision: &mut i64) {
        if self.replacing {
            let rank = self.revisions.binary_search(revision).expect("collected");
            *revision = i64::try_from(rank).expect("few");
        } else {
            self.revisions.push(*revision);
        }
    }

    /// Visits a term.
    pub fn term(&mut self, term: &mut Term) {
        self.revision(&mut term.revision);
    }

    /// Visits a version.
    pub fn version(&mut self, version: &mut Version) {
        if self.replacing {
            if version.counter > 0 {
                let at = self.versions.binary_search(version).expect("collected");
                let older = self.versions[..at].iter().rev();
                let rank = older
                    .take_while(|other| other.term == version.term && other.counter > 0)
                    .count();
                version.counter = 1 + i64::try_from(rank).expect("few");
            }
        } else {
            self.versions.push(*version);
        }
        self.term(&mut version.term);
    }

    /// Visits a stream's number.
    pub fn stream(&mut self, stream: &mut u64) {
        if self.replacing {
            let rank = self.streams.binary_search(stream).expect("collected");
            *stream = rank as u64;
        } else {
            self.streams.push(*stream);
        }
    }
}
