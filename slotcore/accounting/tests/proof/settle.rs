//! Liveness: faults stop, everything is delivered, and every slot has to come back.

use std::collections::BTreeMap;

use crate::world::{ACTION, World};

impl World {
    /// Delivers and applies everything until nothing is on its way.
    fn run_dry(&mut self, leader: usize) -> Result<(), &'static str> {
        for _ in 0..200 {
            while let Some(message) = self.net.pop_first() {
                if !self.deliver(message.clone()) {
                    self.net.insert(message);
                    self.apply_all();
                }
                self.verdict()?;
            }
            if self.etcd.late.is_empty() && self.ledgers[leader].pending() {
                self.fence(leader);
            }
            self.apply_all();
            self.verdict()?;
            self.begin(leader);
            self.send_orders(leader);
            for r in 0..self.routers.len() {
                self.send_acknowledgements(r, 0..2);
            }
            if self.net.is_empty() && self.etcd.late.is_empty() && !self.ledgers[leader].staged() {
                return Ok(());
            }
        }
        Err("the cluster does not come to rest")
    }

    fn apply_all(&mut self) {
        for m in 0..2 {
            if self.ledgers[m].pending() && !self.etcd.late.iter().any(|t| t.m == m && t.awaited) {
                self.fence(m);
            }
        }
        while !self.etcd.late.is_empty() {
            self.apply(0, true);
        }
    }

    /// One Manager takes over, streams are opened anew, everything arrives, requests end.
    pub fn settle(&self) -> Result<(), &'static str> {
        let mut world = self.clone();
        world.stop_faults(0)
    }

    fn stop_faults(&mut self, leader: usize) -> Result<(), &'static str> {
        self.apply_all();
        self.take_over(leader);
        for r in 0..self.routers.len() {
            for m in 0..2 {
                self.open_stream(r, m);
            }
        }
        self.run_dry(leader)?;
        for c in 0..self.containers.len() {
            self.reap(leader, c);
        }
        self.run_dry(leader)?;
        for r in 0..self.routers.len() {
            while self.end(r, 0) {}
        }
        for c in 0..self.containers.len() {
            self.containers[c].runs -= self.containers[c].orphans;
            self.containers[c].orphans = 0;
            if self.containers[c].runs > 0 {
                return Err("a request runs that nobody started");
            }
        }
        self.run_dry(leader)?;
        self.compare("a slot is lost: the ledger has more than its router")?;
        // Every slot is given back and comes to be free, but those that are stranded or their router's process died.
        for router in &mut self.routers {
            router.table.restore(u64::MAX);
            router.table.give_back_all();
        }
        self.run_dry(leader)?;
        self.compare("a slot that was given back is lost")?;
        for router in &self.routers {
            if router.table.holdings().iter().any(|h| h.held > h.running) {
                return Err("a slot that was given back is still held");
            }
        }
        self.use_everything(leader)
    }

    /// What the ledger grants each live router is what that router holds.
    fn compare(&self, complaint: &'static str) -> Result<(), &'static str> {
        for router in &self.routers {
            let holdings = router.table.holdings();
            let holdings: BTreeMap<_, _> = holdings
                .into_iter()
                .map(|h| (h.container, h.held.max(h.running)))
                .collect();
            for (id, record) in &self.etcd.records {
                let share = record.shares.get(&router.name).copied().unwrap_or(0);
                if share != holdings.get(id).copied().unwrap_or(0) {
                    return Err(complaint);
                }
            }
        }
        Ok(())
    }

    /// Kills what dead or stranded slots are left on, replaces it, and uses the whole capacity at once from one router.
    fn use_everything(&mut self, leader: usize) -> Result<(), &'static str> {
        for c in 0..self.containers.len() {
            let record = self.etcd.records.get(&self.containers[c].id);
            if record.is_some_and(|record| !record.shares.is_empty()) {
                self.kill(c);
            }
            self.reap(leader, c);
        }
        self.run_dry(leader)?;
        let alive = self.etcd.records.len();
        for number in 0..self.bounds.containers.saturating_sub(alive) {
            let id = crate::world::name("c", self.containers.len() + number);
            self.ledgers[leader]
                .add(&id, self.bounds.capacity)
                .expect("a new id");
        }
        self.run_dry(leader)?;
        let ids: Vec<_> = self.etcd.records.keys().cloned().collect();
        let router = self.routers[0].name.clone();
        for id in ids {
            let granted = self.ledgers[leader].grant(&id, &router, self.bounds.capacity);
            granted.map_err(|_| "a slot never becomes free")?;
        }
        self.run_dry(leader)?;
        let table = &mut self.routers[0].table;
        let all = self.bounds.capacity as usize * self.bounds.containers;
        for _ in 0..all {
            let Some(slot) = table.acquire(ACTION) else {
                return Err("the whole capacity cannot be used");
            };
            drop(slot);
        }
        match table.acquire(ACTION) {
            Some(_) => Err("more than the whole capacity can be used"),
            None => Ok(()),
        }
    }
}
