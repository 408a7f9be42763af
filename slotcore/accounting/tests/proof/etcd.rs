//! What Managers and etcd do with each other.

use slotcore_accounting::{Planted, Record, Term};

use crate::world::{EPOCH, Message, Transaction, World, Write};

impl World {
    pub fn take_over(&mut self, m: usize) {
        self.etcd.revision += 1;
        (self.etcd.leader, self.etcd.term) = (m, self.etcd.revision);
        for transaction in &mut self.etcd.late {
            transaction.awaited &= transaction.m != m;
        }
        let term = Term {
            epoch: EPOCH,
            revision: self.etcd.term,
        };
        let records: Vec<Record> = self.etcd.records.values().cloned().collect();
        let ledger = &mut self.ledgers[m];
        ledger.depose();
        let streams = ledger
            .lead(term, self.etcd.turn, records)
            .expect("a newer term");
        for (r, stream) in streams {
            self.send(Message::Welcome { m, r, stream, term });
        }
    }

    pub fn begin(&mut self, m: usize) -> bool {
        match self.ledgers[m].begin(126) {
            Ok(Some(commit)) => {
                let write = Write::Commit(commit);
                self.etcd.late.push(Transaction {
                    m,
                    write,
                    awaited: true,
                });
                true
            }
            _ => false,
        }
    }

    pub fn give_up(&mut self, m: usize) -> bool {
        if self.bounds.unknowns == 0 || !self.ledgers[m].pending() {
            return false;
        }
        self.bounds.unknowns -= 1;
        self.fence(m);
        true
    }

    /// Asks etcd what became of the transaction: by a write that the transaction compares.
    pub fn fence(&mut self, m: usize) {
        let Ok(term) = self.ledgers[m].unknown() else {
            return;
        };
        for transaction in &mut self.etcd.late {
            transaction.awaited &= transaction.m != m;
        }
        let write = Write::Fence(term);
        self.etcd.late.push(Transaction {
            m,
            write,
            awaited: true,
        });
    }

    pub fn apply(&mut self, at: usize, answered: bool) -> bool {
        if at >= self.etcd.late.len() {
            return false;
        }
        let Transaction { m, write, awaited } = self.etcd.late.remove(at);
        let answered = answered && awaited;
        match write {
            Write::Commit(commit) => {
                let leads = self.etcd.term == commit.term.revision || self.has(Planted::NoGuard);
                let chained = self.etcd.turn == commit.turn || self.has(Planted::NoGuard);
                let applied = leads && chained;
                if applied {
                    self.etcd.revision += 1;
                    self.etcd.turn = self.etcd.revision;
                    for record in commit.puts {
                        if !self.containers.iter().any(|c| c.id == record.container) {
                            self.build(record.container.clone());
                        }
                        self.etcd.records.insert(record.container.clone(), record);
                    }
                    for id in &commit.deletes {
                        self.etcd.records.remove(id);
                    }
                }
                if !answered {
                    return true;
                }
                if applied {
                    self.ledgers[m]
                        .committed(self.etcd.turn)
                        .expect("it waits for this");
                } else if leads {
                    self.fence(m); // still the leader: an older fence was applied late
                } else {
                    self.ledgers[m].rejected();
                }
            }
            Write::Fence(term) => {
                if self.etcd.term != term.revision {
                    if answered {
                        self.ledgers[m].rejected();
                    }
                    return true;
                }
                if !self.has(Planted::LateTxn) {
                    self.etcd.revision += 1;
                    self.etcd.turn = self.etcd.revision;
                }
                if answered {
                    let records: Vec<Record> = self.etcd.records.values().cloned().collect();
                    let settled = self.ledgers[m].settled(self.etcd.turn, records);
                    settled.expect("it waits for this");
                }
            }
        }
        true
    }
}
