//! The ledger against a naive model: plain maps, and one rule for each step. A step that is refused changes nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use slotcore_accounting::{Ledger, Name, Record, Term, Version};

const ROUTERS: [&str; 3] = ["r0", "r1", "r2"];
const CONTAINERS: [&str; 3] = ["c0", "c1", "c2"];
const CAPACITY: u32 = 3;

#[derive(Clone, Debug)]
enum Event {
    Attach(usize),
    /// The router holds so many of each of its slots, at most what it has.
    Hello(usize, u32),
    Grant(usize, usize, u32),
    Recall(usize, usize, u32),
    /// The newest order is acknowledged, or one before it.
    Acknowledge(usize, usize, u32, bool),
    /// A stem cell, or not.
    Add(usize, bool),
    /// A stem cell gets its capacity.
    Give(usize),
    Remove(usize),
    Touch(usize),
    Begin(usize),
    Committed,
    /// The outcome is unknown; it had been applied, or not.
    Settled(bool),
    Rejected,
    Orders,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (r, c, n) = (0..ROUTERS.len(), 0..CONTAINERS.len(), 0..=CAPACITY);
    let event = prop_oneof![
        2 => r.clone().prop_map(Event::Attach),
        4 => (r.clone(), n.clone()).prop_map(|(r, n)| Event::Hello(r, n)),
        8 => (c.clone(), r.clone(), n.clone()).prop_map(|(c, r, n)| Event::Grant(c, r, n)),
        5 => (c.clone(), r.clone(), n.clone()).prop_map(|(c, r, n)| Event::Recall(c, r, n)),
        5 => (c.clone(), r, n, any::<bool>()).prop_map(|(c, r, n, newest)| {
            Event::Acknowledge(c, r, n, newest)
        }),
        3 => (c.clone(), any::<bool>()).prop_map(|(c, stem)| Event::Add(c, stem)),
        2 => c.clone().prop_map(Event::Give),
        1 => c.clone().prop_map(Event::Remove),
        1 => c.prop_map(Event::Touch),
        5 => (1..4usize).prop_map(Event::Begin),
        6 => Just(Event::Committed),
        1 => any::<bool>().prop_map(Event::Settled),
        1 => Just(Event::Rejected),
        5 => Just(Event::Orders),
    ];
    prop::collection::vec(event, 1..150)
}

type Shares = BTreeMap<Name, u32>;

/// What etcd has, and what it will have.
#[derive(Default)]
struct Books {
    recorded: BTreeMap<Name, Shares>,
    /// None: to be deleted.
    staged: BTreeMap<Name, Option<Shares>>,
    /// Capacities as recorded, and as staged where they are new.
    capacities: BTreeMap<Name, u32>,
    given: BTreeMap<Name, u32>,
    sent: BTreeMap<(usize, usize), Version>,
    known: [bool; 3],
    streams: [u64; 3],
    /// The containers of the pending transaction.
    pending: Option<Vec<Name>>,
    revision: i64,
}

impl Books {
    fn term(&self) -> Term {
        Term {
            epoch: 1,
            revision: self.revision,
        }
    }

    fn shares(&self, c: usize) -> Option<Shares> {
        match self.staged.get(CONTAINERS[c]) {
            Some(staged) => staged.clone(),
            None => self.recorded.get(CONTAINERS[c]).cloned(),
        }
    }

    fn capacity(&self, c: usize) -> u32 {
        let given = self.given.get(CONTAINERS[c]);
        let capacity = given.or_else(|| self.capacities.get(CONTAINERS[c]));
        capacity.copied().unwrap_or(0)
    }

    /// What is staged will not be.
    fn drop_staged(&mut self) {
        self.staged.clear();
        self.given.clear();
    }

    /// The most that an honest router can be using: nothing raises it before a commit.
    fn proved(&self, c: usize, r: usize) -> u32 {
        let recorded = self.recorded.get(CONTAINERS[c]).map_or(0, |s| slots(s, r));
        self.shares(c)
            .map_or(recorded, |shares| recorded.min(slots(&shares, r)))
    }

    fn stage(&mut self, c: usize, r: usize, slots: u32) {
        let mut shares = self.shares(c).expect("a live record");
        if slots == 0 {
            shares.remove(ROUTERS[r]);
        } else {
            shares.insert(ROUTERS[r].into(), slots);
        }
        self.staged.insert(CONTAINERS[c].into(), Some(shares));
    }

    fn records(&self) -> Vec<Record> {
        let records = self.recorded.iter();
        records
            .map(|(container, shares)| Record {
                container: container.clone(),
                capacity: self.capacities[container],
                shares: shares.clone(),
            })
            .collect()
    }

    /// The pending transaction is applied.
    fn apply(&mut self) {
        for container in self.pending.take().unwrap_or_default() {
            let given = self.given.remove(&container);
            if let Some(shares) = self.staged.remove(&container).expect("staged") {
                self.capacities
                    .extend(given.map(|c| (container.clone(), c)));
                self.recorded.insert(container, shares);
            } else {
                self.capacities.remove(&container);
                self.recorded.remove(&container);
            }
        }
    }
}

fn slots(shares: &Shares, r: usize) -> u32 {
    shares.get(ROUTERS[r]).copied().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn the_ledger_does_what_the_naive_model_does(events in events()) {
        let mut ledger = Ledger::new();
        let mut books = Books { revision: 1, ..Books::default() };
        ledger.lead(books.term(), books.revision, []).expect("the first term");
        let mut term = books.term();
        let acquainted = (0..3).flat_map(|r| [Event::Attach(r), Event::Hello(r, 0)]);
        for event in acquainted.chain(events) {
            let before = ledger.clone();
            let busy = books.pending.is_some();
            let refused = match event {
                Event::Attach(r) => {
                    books.streams[r] += 1;
                    books.known[r] = false;
                    prop_assert!(ledger.attach(ROUTERS[r], books.streams[r]));
                    prop_assert!(!ledger.attach(ROUTERS[r], books.streams[r]));
                    false
                }
                Event::Hello(r, most) => {
                    let first = books.streams[r] > 0 && !books.known[r];
                    if first && !busy {
                        let above = (0..3).find(|c| books.proved(*c, r) > 0).map(|c| (c, books.proved(c, r) + 1));
                        let above = above.map(|(c, slots)| (CONTAINERS[c], slots, 0));
                        if above.is_some() {
                            prop_assert!(ledger.hello(ROUTERS[r], books.streams[r], term, above).is_err());
                            prop_assert_eq!(&ledger, &before, "refused, yet something changed");
                        }
                    }
                    let holdings: Vec<(&str, u32, u32)> = (0..3)
                        .filter(|c| books.proved(*c, r) > 0)
                        .map(|c| (CONTAINERS[c], books.proved(c, r).min(most), 0))
                        .collect();
                    let said = ledger.hello(ROUTERS[r], books.streams[r], term, holdings);
                    prop_assert_eq!(said.is_err(), busy);
                    if !busy && first {
                        books.known[r] = true;
                        for c in 0..CONTAINERS.len() {
                            books.sent.remove(&(c, r));
                            let bound = books.proved(c, r).min(most);
                            if books.shares(c).is_some_and(|shares| slots(&shares, r) != bound) {
                                books.stage(c, r, bound);
                            }
                        }
                    }
                    said.is_err()
                }
                Event::Grant(c, r, target) => {
                    let shares = books.shares(c);
                    let legal = !busy && books.known[r] && shares.is_some_and(|shares| {
                        let sum: u32 = shares.values().sum();
                        target > slots(&shares, r) && sum - slots(&shares, r) + target <= books.capacity(c)
                    });
                    let done = ledger.grant(CONTAINERS[c], ROUTERS[r], target);
                    prop_assert_eq!(done.is_ok(), legal, "{:?}", done);
                    if legal {
                        books.stage(c, r, target);
                    }
                    !legal
                }
                Event::Recall(c, r, target) => {
                    let share = books.shares(c).map_or(0, |shares| slots(&shares, r));
                    let done = ledger.recall(CONTAINERS[c], ROUTERS[r], target);
                    if done.is_ok() {
                        prop_assert!(!busy && books.known[r] && target <= share);
                        let recorded = books.recorded.get(CONTAINERS[c]).map_or(0, |s| slots(s, r));
                        if share > recorded {
                            books.stage(c, r, recorded.max(target));
                        }
                        prop_assert_eq!(ledger.target(CONTAINERS[c], ROUTERS[r]), target);
                    } else {
                        prop_assert!(busy || !books.known[r] || target > share || share == 0);
                    }
                    done.is_err()
                }
                Event::Acknowledge(c, r, holding, newest) => {
                    let Some(mut version) = books.sent.get(&(c, r)).copied() else {
                        continue;
                    };
                    version.counter -= i64::from(!newest);
                    let said = ledger.acknowledge(ROUTERS[r], books.streams[r], CONTAINERS[c], holding, version);
                    if busy {
                        prop_assert!(said.is_err());
                    } else {
                        let recorded = books.recorded.get(CONTAINERS[c]).map_or(0, |s| slots(s, r));
                        let share = books.shares(c).map_or(0, |shares| slots(&shares, r));
                        let counted = said.expect("nothing is under way");
                        if counted {
                            prop_assert!(newest && books.known[r] && share <= recorded);
                            if holding < share {
                                books.stage(c, r, holding);
                                prop_assert!(ledger.target(CONTAINERS[c], ROUTERS[r]) <= holding);
                            }
                        }
                    }
                    busy
                }
                Event::Add(c, stem) => {
                    let capacity = if stem { 0 } else { CAPACITY };
                    let legal = !busy && !books.recorded.contains_key(CONTAINERS[c]) && !books.staged.contains_key(CONTAINERS[c]);
                    prop_assert_eq!(ledger.add(CONTAINERS[c], capacity).is_ok(), legal);
                    if legal {
                        books.staged.insert(CONTAINERS[c].into(), Some(Shares::new()));
                        books.given.insert(CONTAINERS[c].into(), capacity);
                    }
                    !legal
                }
                Event::Give(c) => {
                    let shares = books.shares(c);
                    let legal = !busy && shares.is_some() && books.capacity(c) == 0;
                    prop_assert_eq!(ledger.give(CONTAINERS[c], CAPACITY).is_ok(), legal);
                    if legal {
                        books.staged.insert(CONTAINERS[c].into(), shares);
                        books.given.insert(CONTAINERS[c].into(), CAPACITY);
                    }
                    !legal
                }
                Event::Remove(c) | Event::Touch(c) => {
                    let remove = matches!(event, Event::Remove(_));
                    let shares = books.shares(c);
                    let done = if remove { ledger.remove(CONTAINERS[c]) } else { ledger.touch(CONTAINERS[c]) };
                    let legal = !busy && shares.is_some();
                    prop_assert_eq!(done.is_ok(), legal);
                    if legal {
                        books.staged.insert(CONTAINERS[c].into(), shares.filter(|_| !remove));
                    }
                    !legal
                }
                Event::Begin(most) => {
                    let commit = ledger.begin(most);
                    prop_assert_eq!(commit.is_err(), busy);
                    if let Ok(Some(commit)) = commit {
                        prop_assert_eq!(commit.puts.len() + commit.deletes.len(), most.min(books.staged.len()));
                        for record in &commit.puts {
                            prop_assert_eq!(Some(&Some(record.shares.clone())), books.staged.get(&record.container));
                            let c = CONTAINERS.iter().position(|c| **c == *record.container).expect("ours");
                            prop_assert_eq!(record.capacity, books.capacity(c));
                            prop_assert!(record.shares.values().sum::<u32>() <= record.capacity);
                        }
                        for container in &commit.deletes {
                            prop_assert_eq!(Some(&None), books.staged.get(container));
                        }
                        let puts = commit.puts.into_iter().map(|record| record.container);
                        books.pending = Some(puts.chain(commit.deletes).collect());
                    }
                    busy
                }
                Event::Committed => {
                    prop_assert!(ledger.committed(books.revision).is_err(), "an old revision");
                    prop_assert_eq!(ledger.committed(books.revision + 1).is_ok(), busy);
                    if busy {
                        books.revision += 1;
                        books.apply();
                    }
                    !busy
                }
                Event::Settled(applied) => {
                    prop_assert_eq!(ledger.unknown().is_ok(), busy);
                    prop_assert!(ledger.orders().is_empty() || !busy);
                    if busy {
                        if applied {
                            books.apply();
                        }
                        books.pending = None;
                        books.drop_staged();
                        books.revision += 1;
                        ledger.settled(books.revision, books.records()).expect("it was unknown");
                        continue;
                    }
                    continue;
                }
                Event::Rejected => {
                    ledger.rejected();
                    prop_assert!(ledger.orders().is_empty());
                    prop_assert!(ledger.lead(term, 0, []).is_err(), "a term is led once");
                    (books.pending, books.known) = (None, [false; 3]);
                    books.drop_staged();
                    books.sent.clear();
                    books.revision += 1;
                    term = books.term();
                    ledger.lead(term, books.revision, books.records()).expect("a newer term");
                    false
                }
                Event::Orders => {
                    let mut newest = books.sent.values().max().copied().unwrap_or_default();
                    for order in ledger.orders() {
                        let c = CONTAINERS.iter().position(|c| **c == *order.container).expect("ours");
                        let r = ROUTERS.iter().position(|r| **r == *order.router).expect("ours");
                        prop_assert!(books.known[r] && order.stream == books.streams[r]);
                        prop_assert!(order.version > newest, "the newest sent is the greatest");
                        prop_assert!(order.target <= slots(&books.recorded[CONTAINERS[c]], r));
                        prop_assert!(!books.staged.contains_key(CONTAINERS[c]), "no order crosses a write");
                        newest = order.version;
                        books.sent.insert((c, r), order.version);
                    }
                    false
                }
            };
            if refused {
                prop_assert_eq!(&ledger, &before, "refused, yet something changed");
            }
            for (c, container) in CONTAINERS.iter().enumerate() {
                prop_assert_eq!(ledger.shares(container), books.recorded.get(*container).cloned().unwrap_or_default());
                prop_assert_eq!(ledger.staged_shares(container), books.shares(c).unwrap_or_default());
                let free = books.shares(c).map_or(0, |shares| books.capacity(c) - shares.values().sum::<u32>());
                prop_assert_eq!(ledger.free(container), free);
            }
            for (r, router) in ROUTERS.iter().enumerate() {
                prop_assert_eq!(ledger.known(router), books.known[r]);
            }
        }
    }
}
