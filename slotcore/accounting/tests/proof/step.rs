//! What can happen, one small step each.

use slotcore_accounting::Planted;

use crate::world::{ACTION, MANAGERS, Message, World, name};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request gets a slot and reaches its container.
    Start {
        r: usize,
    },
    /// The request of the slot ends.
    End {
        r: usize,
        out: usize,
    },
    /// A request ends of which no Router knows.
    OrphanEnds {
        c: usize,
    },
    /// A connection breaks; its request runs on.
    Strand {
        r: usize,
        out: usize,
    },
    /// A client leaves; its request runs on.
    HangUp {
        r: usize,
        out: usize,
    },
    /// A Router opens a stream anew.
    Open {
        r: usize,
        m: usize,
    },
    /// A Router gives all idle slots back.
    GiveBack {
        r: usize,
    },
    /// A Router tells one Manager (or all) which acknowledgements are due.
    Acknowledge {
        r: usize,
        to: (usize, usize),
    },
    /// A Router's process dies, and starts again.
    Crash {
        r: usize,
    },
    Grant {
        m: usize,
        r: usize,
        c: usize,
        target: u32,
    },
    Recall {
        m: usize,
        r: usize,
        c: usize,
        target: u32,
    },
    Begin {
        m: usize,
    },
    /// A Manager sends the orders that may be sent.
    Orders {
        m: usize,
    },
    /// A Manager gives up waiting for etcd's answer, and fences.
    GiveUp {
        m: usize,
    },
    /// A Manager sees that an incarnation's stream has broken.
    Break {
        m: usize,
        life: u8,
    },
    TakeOver {
        m: usize,
    },
    /// A container's end is seen.
    Kill {
        c: usize,
    },
    /// A Manager hears of the end of a container.
    Reap {
        m: usize,
        c: usize,
    },
    /// A Manager wants one container more.
    Create {
        m: usize,
    },
    /// etcd applies a write, or fails its compare.
    Apply {
        at: usize,
        answered: bool,
    },
    LoseTransaction {
        at: usize,
    },
    Deliver {
        at: usize,
        again: bool,
    },
    Lose {
        at: usize,
    },
}

impl World {
    /// Does a step. False: it cannot happen here, and nothing changed.
    #[allow(clippy::too_many_lines, reason = "one arm for each step")]
    pub fn step(&mut self, step: &Step) -> bool {
        match *step {
            Step::Start { r } => return self.start(r),
            Step::End { r, out } => return self.end(r, out),
            Step::OrphanEnds { c } => {
                let container = &mut self.containers[c];
                if container.orphans == 0 {
                    return false;
                }
                container.orphans -= 1;
                container.runs -= 1;
            }
            Step::Strand { r, out } => {
                if self.bounds.strands == 0 || out >= self.routers[r].out.len() {
                    return false;
                }
                self.bounds.strands -= 1;
                let (slot, at) = self.routers[r].out.remove(out);
                self.orphan(at);
                assert!(self.routers[r].table.strand(slot).is_none(), "nobody waits");
            }
            Step::HangUp { r, out } => {
                if !self.has(Planted::FreeOnHangup) || out >= self.routers[r].out.len() {
                    return false; // otherwise nothing happens: the slot is held until the answer
                }
                let (slot, at) = self.routers[r].out.remove(out);
                self.orphan(at);
                assert!(
                    self.routers[r].table.release(slot).is_none(),
                    "nobody waits"
                );
            }
            Step::Open { r, m } => {
                if self.bounds.streams == 0 {
                    return false;
                }
                self.bounds.streams -= 1;
                self.open_stream(r, m);
            }
            Step::GiveBack { r } => {
                let table = &mut self.routers[r].table;
                table.restore(u64::MAX);
                if self.bounds.plans == 0 || !table.holdings().iter().any(|h| h.held > h.running) {
                    return false;
                }
                table.give_back_all();
                self.bounds.plans -= 1;
            }
            Step::Acknowledge { r, to } => {
                if !self.routers[r].table.acknowledgements_due() {
                    return false;
                }
                self.send_acknowledgements(r, to.0..to.1);
            }
            Step::Crash { r } => {
                if self.bounds.crashes == 0 {
                    return false;
                }
                self.bounds.crashes -= 1;
                self.crash(r);
            }
            Step::Grant { m, r, c, target } => {
                let (container, router) = (&self.containers[c].id, &self.routers[r].name);
                if self.bounds.plans == 0 {
                    return false;
                }
                self.bounds.plans -= 1;
                return self.ledgers[m].grant(container, router, target).is_ok();
            }
            Step::Recall { m, r, c, target } => {
                let (container, router) = (&self.containers[c].id, &self.routers[r].name);
                let ledger = &mut self.ledgers[m];
                let share = ledger.staged_shares(container).get(router).copied();
                if self.bounds.plans == 0
                    || share.is_none()
                    || ledger.target(container, router) == target
                {
                    return false;
                }
                self.bounds.plans -= 1;
                return ledger.recall(container, router, target).is_ok();
            }
            Step::Begin { m } => return self.begin(m),
            Step::Orders { m } => self.send_orders(m),
            Step::GiveUp { m } => return self.give_up(m),
            Step::Break { m, life } => {
                let r = name("r", life);
                let newest = self.router(&r).map(|r| self.routers[r].streams[m]);
                for stream in (1..=self.stream).filter(|stream| Some(*stream) != newest) {
                    self.ledgers[m].detach(&r, stream);
                }
            }
            Step::TakeOver { m } => {
                if self.bounds.takeovers == 0 {
                    return false;
                }
                self.bounds.takeovers -= 1;
                self.take_over(m);
            }
            Step::Kill { c } => {
                if self.bounds.kills == 0 || !self.containers[c].alive {
                    return false;
                }
                self.bounds.kills -= 1;
                self.kill(c);
            }
            Step::Reap { m, c } => return self.reap(m, c),
            Step::Create { m } => {
                let alive = self.containers.iter().filter(|c| c.alive).count();
                if alive >= self.bounds.containers {
                    return false;
                }
                let id = name("c", self.containers.len());
                return self.ledgers[m].add(&id, self.bounds.capacity).is_ok();
            }
            Step::Apply { at, answered } => return self.apply(at, answered),
            Step::LoseTransaction { at } => {
                if at >= self.etcd.late.len() {
                    return false;
                }
                self.etcd.late.remove(at);
            }
            Step::Deliver { at, again } => {
                let Some(message) = self.net.iter().nth(at).cloned() else {
                    return false;
                };
                if !again {
                    self.net.remove(&message);
                }
                if !self.deliver(message.clone()) {
                    self.net.insert(message);
                    return false;
                }
            }
            Step::Lose { at } => {
                let Some(message) = self.net.iter().nth(at).cloned() else {
                    return false;
                };
                self.net.remove(&message);
            }
        }
        true
    }

    fn start(&mut self, r: usize) -> bool {
        let table = &mut self.routers[r].table;
        let Some(slot) = table.acquire(ACTION) else {
            return false;
        };
        let address = &table
            .spec(slot.container())
            .expect("of a live slot")
            .address;
        let at = self
            .containers
            .iter()
            .rposition(|c| c.alive && c.address == *address);
        let Some(at) = at else {
            table.set_aside(slot, 0); // refused: nothing listens there any more
            return true;
        };
        self.containers[at].runs += 1;
        self.routers[r].out.push((slot, at));
        self.routers[r]
            .out
            .sort_by_key(|(slot, _)| (slot.container(), slot.index()));
        true
    }

    pub fn end(&mut self, r: usize, out: usize) -> bool {
        if out >= self.routers[r].out.len() {
            return false;
        }
        let (slot, at) = self.routers[r].out.remove(out);
        if self.containers[at].alive {
            self.containers[at].runs -= 1;
        }
        assert!(
            self.routers[r].table.release(slot).is_none(),
            "nobody waits"
        );
        true
    }

    fn orphan(&mut self, at: usize) {
        if self.containers[at].alive {
            self.containers[at].orphans += 1;
        }
    }

    pub fn open_stream(&mut self, r: usize, m: usize) {
        self.stream += 1;
        let stream = self.stream;
        let router = &mut self.routers[r];
        router.streams[m] = stream;
        router.table.open_stream(MANAGERS[m], stream);
        let r = router.name.clone();
        self.send(Message::Attach { m, r, stream });
    }

    fn crash(&mut self, r: usize) {
        let born = self.be_born();
        let dead = std::mem::replace(&mut self.routers[r], born);
        for (_, at) in dead.out {
            self.orphan(at);
        }
        if self.has(Planted::SameIncarnation) {
            self.routers[r].name = dead.name;
        }
        // Its first streams are part of the same step.
        for m in 0..2 {
            self.open_stream(r, m);
        }
    }

    pub fn kill(&mut self, c: usize) {
        let container = &mut self.containers[c];
        (container.alive, container.runs, container.orphans) = (false, 0, 0);
    }

    pub fn reap(&mut self, m: usize, c: usize) -> bool {
        if self.containers[c].alive {
            return false;
        }
        let id = self.containers[c].id.clone();
        if self.ledgers[m].remove(&id).is_err() {
            return false;
        }
        for router in &self.routers {
            self.net.insert(Message::Ended {
                r: router.name.clone(),
                container: id.clone(),
            });
        }
        true
    }
}
