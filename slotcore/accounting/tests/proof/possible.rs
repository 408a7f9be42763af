//! The steps that can happen in a state.

use slotcore_accounting::Planted;

use crate::step::Step;
use crate::world::World;

impl World {
    pub fn possible(&self, steps: &mut Vec<Step>) {
        for r in 0..self.routers.len() {
            self.router_steps(r, steps);
        }
        for m in 0..2 {
            self.manager_steps(m, steps);
        }
        for at in 0..self.etcd.late.len() {
            steps.push(Step::Apply { at, answered: true });
            if self.etcd.late[at].awaited {
                steps.push(Step::Apply {
                    at,
                    answered: false,
                });
            }
            steps.push(Step::LoseTransaction { at });
        }
        for at in 0..self.net.len() {
            steps.push(Step::Deliver { at, again: false });
            steps.push(Step::Deliver { at, again: true });
            steps.push(Step::Lose { at });
        }
        for c in 0..self.containers.len() {
            if self.containers[c].orphans > 0 {
                steps.push(Step::OrphanEnds { c });
            }
            if self.bounds.kills > 0 && self.containers[c].alive {
                steps.push(Step::Kill { c });
            }
        }
    }

    fn router_steps(&self, r: usize, steps: &mut Vec<Step>) {
        let router = &self.routers[r];
        let idles = router.table.holdings().iter().any(|h| h.held > h.running);
        if idles || self.bug.is_some() {
            steps.push(Step::Start { r });
            if self.bounds.plans > 0 {
                steps.push(Step::GiveBack { r });
            }
        }
        let mut last = None;
        for (out, (slot, _)) in router.out.iter().enumerate() {
            if last.replace(slot.container()) == Some(slot.container()) {
                continue; // one of several alike
            }
            steps.push(Step::End { r, out });
            if self.bounds.strands > 0 {
                steps.push(Step::Strand { r, out });
            }
            if self.has(Planted::FreeOnHangup) {
                steps.push(Step::HangUp { r, out });
            }
        }
        for m in 0..2 {
            // Told to a Manager that does not lead it does nothing.
            if router.table.acknowledgements_due() && self.leads(m) {
                steps.push(Step::Acknowledge { r, to: (m, m + 1) });
            }
            if self.bounds.streams > 0 {
                steps.push(Step::Open { r, m });
            }
        }
        if self.bounds.crashes > 0 {
            steps.push(Step::Crash { r });
        }
    }

    fn manager_steps(&self, m: usize, steps: &mut Vec<Step>) {
        if self.bounds.takeovers > 0 {
            steps.push(Step::TakeOver { m });
        }
        let ledger = &self.ledgers[m];
        if ledger.term().is_none() {
            return;
        }
        for life in 0..self.lives {
            if ledger.known(&crate::world::name("r", life)) {
                steps.push(Step::Break { m, life });
            }
        }
        if !self.bounds.prompt {
            steps.push(Step::Orders { m });
        }
        if ledger.pending() {
            steps.push(Step::GiveUp { m });
            return;
        }
        if ledger.staged() {
            steps.push(Step::Begin { m });
        }
        for c in 0..self.containers.len() {
            let container = &self.containers[c];
            if !container.alive {
                steps.push(Step::Reap { m, c });
                steps.push(Step::Create { m });
                continue;
            }
            if self.bounds.plans == 0 {
                continue;
            }
            let shares = ledger.staged_shares(&container.id);
            let free = ledger.free(&container.id);
            for r in 0..self.routers.len() {
                let name = &self.routers[r].name;
                if !ledger.known(name) {
                    continue;
                }
                let share = shares.get(name).copied().unwrap_or(0);
                for target in share + 1..=share + free {
                    steps.push(Step::Grant { m, r, c, target });
                }
                if share > 0 {
                    for target in 0..=share {
                        steps.push(Step::Recall { m, r, c, target });
                    }
                }
            }
        }
    }
}
