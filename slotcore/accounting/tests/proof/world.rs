//! A small cluster: two Managers, each a real `Ledger`; Routers, each a real `SlotTable`; an etcd, a network, and
//! containers that count for themselves how many requests they run.

use std::collections::{BTreeMap, BTreeSet};

use slotcore_accounting::{
    Acknowledgement, Commit, Holding, Ledger, Limits, Name, Order, Plant, Planted, Record, Slot,
    SlotTable, Spec, Term, Version,
};

pub const MANAGERS: [&str; 2] = ["m0", "m1"];
pub const ACTION: &str = "a/b";
pub const EPOCH: i64 = 1;

/// How often each fault may happen, and how large the world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    pub capacity: u32,
    pub containers: usize,
    pub messages: usize,
    pub transactions: usize,
    pub takeovers: u8,
    pub crashes: u8,
    /// Streams opened anew.
    pub streams: u8,
    /// Answers of etcd that do not come.
    pub unknowns: u8,
    /// Containers that end, and are replaced.
    pub kills: u8,
    /// Connections that break while their request runs on, and clients that leave.
    pub strands: u8,
    /// Raises and lowerings that Managers plan, and gifts back.
    pub plans: u8,
    /// A Manager's turn holds one event, and it sends at once what it may. Otherwise turns of any size.
    pub prompt: bool,
}

/// What is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    Attach {
        m: usize,
        r: Name,
        stream: u64,
    },
    Welcome {
        m: usize,
        r: Name,
        stream: u64,
        term: Term,
    },
    Hello {
        m: usize,
        r: Name,
        stream: u64,
        term: Term,
        holdings: Vec<(Name, u32, u32)>,
    },
    Order {
        m: usize,
        r: Name,
        stream: u64,
        container: Name,
        target: u32,
        version: Version,
    },
    Ack {
        m: usize,
        r: Name,
        stream: u64,
        container: Name,
        holding: u32,
        version: Version,
    },
    Ended {
        r: Name,
        container: Name,
    },
}

/// A write that etcd may apply at any time, or never.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Commit(Commit),
    Fence(Term),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    pub m: usize,
    pub write: Write,
    /// The Manager still waits for its answer.
    pub awaited: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Etcd {
    /// The newest revision of all.
    pub revision: i64,
    /// The leader key: who, and its revision.
    pub leader: usize,
    pub term: i64,
    /// The turn key's revision.
    pub turn: i64,
    pub records: BTreeMap<Name, Record>,
    pub late: Vec<Transaction>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Router {
    pub name: Name,
    pub table: SlotTable<u8>,
    /// The newest stream to each Manager; 0: none.
    pub streams: [u64; 2],
    /// Requests that run: the slot, and the container that really has them.
    pub out: Vec<(Slot, usize)>,
}

/// A container as it is, whatever anybody believes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    pub id: Name,
    pub address: Name,
    pub alive: bool,
    /// Requests that its own code sees: the witness.
    pub runs: u32,
    /// Those of them of which no Router knows any more.
    pub orphans: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub bounds: Bounds,
    pub bug: Option<Planted>,
    pub etcd: Etcd,
    pub ledgers: [Ledger; 2],
    pub routers: Vec<Router>,
    pub net: BTreeSet<Message>,
    pub containers: Vec<Container>,
    /// The newest stream of all.
    pub stream: u64,
    /// Incarnations so far.
    pub lives: u8,
    /// What was seen that no check of numbers would show.
    pub broken: Option<&'static str>,
}

pub fn name(prefix: &str, number: impl std::fmt::Display) -> Name {
    format!("{prefix}{number}").into()
}

impl World {
    /// A cluster at rest: Manager 0 leads, both Routers have said Hello, every container is ready and unshared.
    pub fn new(bounds: Bounds, bug: Option<Planted>) -> Self {
        let plant = Plant::new(bug);
        let mut world = Self {
            bounds,
            bug,
            etcd: Etcd {
                revision: 1,
                ..Etcd::default()
            },
            ledgers: [Ledger::planted(plant), Ledger::planted(plant)],
            routers: Vec::new(),
            net: BTreeSet::new(),
            containers: Vec::new(),
            stream: 0,
            lives: 0,
            broken: None,
        };
        for number in 0..bounds.containers {
            world.build(name("c", number));
        }
        for _ in 0..2 {
            let router = world.be_born();
            world.routers.push(router);
        }
        for r in 0..2 {
            for m in 0..2 {
                world.open_stream(r, m);
            }
        }
        world.take_over(0);
        while let Some(message) = world.net.pop_first() {
            world.deliver(message);
        }
        world
    }

    pub fn has(&self, bug: Planted) -> bool {
        self.bug == Some(bug)
    }

    /// A container and its record.
    pub fn build(&mut self, id: Name) {
        let ended = self.containers.iter().find(|other| !other.alive);
        let address = match ended {
            Some(ended) if self.has(Planted::AddressReused) => ended.address.clone(),
            _ => name("unix:/", &id),
        };
        self.containers.push(Container {
            id: id.clone(),
            address,
            alive: true,
            runs: 0,
            orphans: 0,
        });
        let record = Record {
            container: id.clone(),
            capacity: self.bounds.capacity,
            shares: BTreeMap::new(),
        };
        self.etcd.records.insert(id, record);
    }

    /// A Router's process starts, under an incarnation of its own.
    pub fn be_born(&mut self) -> Router {
        let life = self.lives;
        self.lives += 1;
        let limits = Limits {
            action_waiters_max: 8,
            waiters_max: 8,
        };
        Router {
            name: name("r", life),
            table: SlotTable::planted(limits, Plant::new(self.bug)),
            streams: [0, 0],
            out: Vec::new(),
        }
    }

    pub fn router(&self, name: &str) -> Option<usize> {
        self.routers.iter().position(|router| &*router.name == name)
    }

    pub fn spec(&self, container: &str) -> Spec {
        let container = self.containers.iter().find(|other| &*other.id == container);
        Spec {
            action: ACTION.into(),
            address: container
                .expect("built before it is granted")
                .address
                .clone(),
            capacity: self.bounds.capacity,
            ..Spec::default()
        }
    }

    /// Whoever leads, by etcd.
    pub fn leads(&self, m: usize) -> bool {
        self.ledgers[m].term().is_some()
    }

    pub fn send(&mut self, message: Message) {
        self.net.insert(message);
    }

    pub fn send_orders(&mut self, m: usize) {
        for order in self.ledgers[m].orders() {
            let Order {
                router,
                stream,
                container,
                target,
                version,
            } = order;
            self.send(Message::Order {
                m,
                r: router,
                stream,
                container,
                target,
                version,
            });
        }
    }

    pub fn send_acknowledgements(&mut self, r: usize, to: std::ops::Range<usize>) {
        let router = &mut self.routers[r];
        for ack in router.table.acknowledgements() {
            let Acknowledgement {
                container,
                holding,
                version,
            } = ack;
            for m in to.clone() {
                if router.streams[m] != 0 {
                    self.net.insert(Message::Ack {
                        m,
                        r: router.name.clone(),
                        stream: router.streams[m],
                        container: container.clone(),
                        holding,
                        version,
                    });
                }
            }
        }
    }

    pub fn send_hello(&mut self, r: usize, m: usize, stream: u64, term: Term) {
        let router = &mut self.routers[r];
        let Some(holdings) = router.table.welcome(MANAGERS[m], stream, term) else {
            return;
        };
        let mut holdings: Vec<_> = holdings
            .into_iter()
            .map(
                |Holding {
                     container,
                     held,
                     running,
                 }| (container, held, running),
            )
            .collect();
        holdings.sort();
        let r = router.name.clone();
        self.send(Message::Hello {
            m,
            r,
            stream,
            term,
            holdings,
        });
    }

    /// The broken promise, if there is one.
    pub fn verdict(&self) -> Result<(), &'static str> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let capacity = self.bounds.capacity;
        if self
            .containers
            .iter()
            .any(|container| container.runs > capacity)
        {
            return Err("more than C requests run");
        }
        for record in self.etcd.records.values() {
            if record.shares.values().sum::<u32>() > capacity {
                return Err("the ledger promises more than C");
            }
        }
        for router in &self.routers {
            for holding in router.table.holdings() {
                let Some(record) = self.etcd.records.get(&holding.container) else {
                    continue; // it has ended
                };
                let share = record.shares.get(&router.name).copied().unwrap_or(0);
                if holding.held.max(holding.running) > share {
                    return Err("a router may use more than the ledger says");
                }
            }
        }
        Ok(())
    }
}
