//! The slot table against a naive model: queues as plain vectors, slots as plain numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use slotcore_accounting::{
    Grant, Lane, Limits, Name, Slot, SlotTable, Spec, Term, Ticket, Version,
};

const WAITERS_MAX: usize = 6;

#[derive(Clone, Debug)]
enum Event {
    Arrive { action: usize, lane: bool },
    Cancel { nth: usize },
    Release { nth: usize },
    Order { container: usize, target: u32 },
    GiveBack,
    Ended { container: usize },
    Acknowledge,
    Aside { nth: usize },
    Restore,
    Welcome,
    Report,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..2usize, any::<bool>()).prop_map(|(action, lane)| Event::Arrive { action, lane }),
        2 => (0..8usize).prop_map(|nth| Event::Cancel { nth }),
        6 => (0..8usize).prop_map(|nth| Event::Release { nth }),
        4 => (0..4usize, 0..4u32).prop_map(|(container, target)| Event::Order { container, target }),
        1 => Just(Event::GiveBack),
        1 => (0..4usize).prop_map(|container| Event::Ended { container }),
        3 => Just(Event::Acknowledge),
        1 => (0..8usize).prop_map(|nth| Event::Aside { nth }),
        1 => Just(Event::Restore),
        1 => Just(Event::Welcome),
        2 => Just(Event::Report),
    ];
    prop::collection::vec(event, 1..200)
}

/// Container `n` belongs to action `n % 2`.
fn action(number: usize) -> String {
    format!("a/{}", number % 2)
}

#[derive(Default)]
struct Naive {
    held: BTreeMap<usize, u32>,
    running: BTreeMap<usize, u32>,
    aside: BTreeMap<usize, u32>,
    /// By action and lane, the first served first.
    queues: BTreeMap<(usize, bool), Vec<u32>>,
    passed_over: BTreeMap<usize, u32>,
}

impl Naive {
    fn queue(&mut self, action: usize, blocking: bool) -> &mut Vec<u32> {
        self.queues.entry((action, blocking)).or_default()
    }

    fn count(map: &BTreeMap<usize, u32>, container: usize) -> u32 {
        map.get(&container).copied().unwrap_or(0)
    }

    fn idle(&self, container: usize) -> u32 {
        let used = Self::count(&self.running, container) + Self::count(&self.aside, container);
        Self::count(&self.held, container).saturating_sub(used)
    }

    /// Who is served next: blocking first, but every sixteenth is async where one waits.
    fn next(&mut self, action: usize) -> Option<u32> {
        let both = !self.queue(action, true).is_empty() && !self.queue(action, false).is_empty();
        let passed = self.passed_over.entry(action).or_default();
        let blocking = if both && *passed < 15 {
            *passed += 1;
            true
        } else if both {
            *passed = 0;
            false
        } else {
            let blocking = !self.queues.get(&(action, true)).is_none_or(Vec::is_empty);
            if !blocking && !self.queues.get(&(action, false)).is_none_or(Vec::is_empty) {
                self.passed_over.insert(action, 0);
            }
            blocking
        };
        let queue = self.queue(action, blocking);
        (!queue.is_empty()).then(|| queue.remove(0))
    }

    /// Everybody who can be served now by this container, in order.
    fn serve(&mut self, container: usize) -> Vec<u32> {
        let mut served = Vec::new();
        while self.idle(container) > 0 {
            let Some(waiter) = self.next(container % 2) else {
                break;
            };
            *self.running.entry(container).or_default() += 1;
            served.push(waiter);
        }
        served
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_table_does_what_the_naive_model_does(events in events()) {
        let mut table = SlotTable::<u32>::new(Limits { action_waiters_max: WAITERS_MAX, waiters_max: 100 });
        table.open_stream("m", 1);
        let mut naive = Naive::default();
        let mut out: Vec<(usize, Slot)> = Vec::new();
        let mut tickets: Vec<(u32, usize, bool, Ticket)> = Vec::new();
        let (mut waiter, mut counter) = (0, 0);
        let mut ids = [0usize; 4];
        let mut heard = BTreeMap::new(); // the newest report of each action since the Welcome
        let id = |ids: &[usize; 4], container: usize| -> Name { format!("c{container}.{}", ids[container]).into() };

        for event in events {
            match event {
                Event::Arrive { action: number, lane } => {
                    let idles: u32 = (0..4).filter(|c| c % 2 == number).map(|c| naive.idle(c)).sum();
                    if let Some(slot) = table.acquire(&action(number)) {
                            prop_assert!(idles > 0);
                            let of = table.id(slot.container()).expect("live").clone();
                            let container = (0..4).find(|c| id(&ids, *c) == of).expect("ours");
                            prop_assert!(naive.idle(container) > 0);
                            *naive.running.entry(container).or_default() += 1;
                            let twice = out.iter().any(|(_, other)| *other == slot);
                            prop_assert!(!twice, "one slot, twice out");
                            out.push((container, slot));
                        }
                        else {
                            prop_assert_eq!(idles, 0);
                            waiter += 1;
                            let full = naive.queue(number, true).len() + naive.queue(number, false).len() >= WAITERS_MAX;
                            let kind = if lane { Lane::Blocking } else { Lane::Async };
                            let ticket = table.enqueue(&action(number), kind, waiter);
                            prop_assert_eq!(ticket.is_err(), full);
                            if let Ok(ticket) = ticket {
                                naive.queue(number, lane).push(waiter);
                                tickets.push((waiter, number, lane, ticket));
                            }
                        }
                }
                Event::Cancel { nth } => {
                    if let Some((waiter, number, lane, ticket)) = tickets.get(nth).copied() {
                        let queue = naive.queue(number, lane);
                        let at = queue.iter().position(|other| *other == waiter);
                        if let Some(at) = at {
                            queue.remove(at);
                        }
                        prop_assert_eq!(table.cancel(ticket), at.map(|_| waiter));
                        prop_assert_eq!(table.cancel(ticket), None);
                        tickets.remove(nth);
                    }
                }
                Event::Release { nth } => {
                    if nth < out.len() {
                        let (container, slot) = out.swap_remove(nth);
                        let ended = table.id(slot.container()).is_none();
                        let next = table.release(slot);
                        if ended {
                            prop_assert!(next.is_none());
                            continue;
                        }
                        *naive.running.get_mut(&container).expect("running") -= 1;
                        let served = naive.serve(container);
                        prop_assert_eq!(next.as_ref().map(|(waiter, _)| *waiter), served.first().copied());
                        prop_assert!(served.len() <= 1);
                        out.extend(next.map(|(_, slot)| (container, slot)));
                    }
                }
                Event::Order { container, target } => {
                    counter += 1;
                    let version = Version { term: Term { epoch: 1, revision: 1 }, counter };
                    let spec = Arc::new(Spec { action: action(container).into(), capacity: 3, ..Spec::default() });
                    let order = Grant { container: id(&ids, container), target, version, spec };
                    let granted = table.order("m", 1, &order, 0).expect("newer than all");
                    prop_assert!(table.order("m", 1, &order, 0).is_err(), "a copy is stale");
                    let free = target.saturating_sub(Naive::count(&naive.running, container));
                    let aside = naive.aside.entry(container).or_default();
                    // What is set aside goes first.
                    let before = naive.held.insert(container, target).unwrap_or(0);
                    if target < before {
                        let idle = before.saturating_sub(Naive::count(&naive.running, container) + *aside);
                        let surplus = (idle + *aside).saturating_sub(free);
                        *aside -= surplus.min(*aside);
                    }
                    let served = naive.serve(container);
                    let got: Vec<u32> = granted.iter().map(|(waiter, _)| *waiter).collect();
                    prop_assert_eq!(got, served);
                    out.extend(granted.into_iter().map(|(_, slot)| (container, slot)));
                }
                Event::GiveBack => {
                    table.give_back_all();
                    for container in 0..4 {
                        let running = Naive::count(&naive.running, container);
                        let held = Naive::count(&naive.held, container);
                        naive.held.insert(container, held.min(running));
                        if running < held {
                            naive.aside.insert(container, 0);
                        }
                    }
                }
                Event::Ended { container } => {
                    table.ended(&id(&ids, container));
                    ids[container] += 1; // an id is never used again
                    naive.held.insert(container, 0);
                    naive.running.insert(container, 0);
                    naive.aside.insert(container, 0);
                }
                Event::Acknowledge => {
                    for ack in table.acknowledgements() {
                        let container = (0..4).find(|c| id(&ids, *c) == ack.container);
                        let container = container.expect("an ended container acknowledges nothing");
                        let used = Naive::count(&naive.held, container).max(Naive::count(&naive.running, container));
                        prop_assert_eq!(ack.holding, used);
                    }
                    prop_assert!(!table.acknowledgements_due());
                }
                Event::Aside { nth } => {
                    if nth < out.len() {
                        let (container, slot) = out.swap_remove(nth);
                        let ended = table.id(slot.container()).is_none();
                        table.set_aside(slot, 5);
                        if !ended {
                            let running = naive.running.get_mut(&container).expect("running");
                            *running -= 1;
                            if *running < Naive::count(&naive.held, container) {
                                *naive.aside.entry(container).or_default() += 1;
                            }
                        }
                    }
                }
                Event::Restore => {
                    prop_assert!(table.restore(4).is_empty());
                    let granted = table.restore(5);
                    for (waiter, slot) in granted {
                        let of = table.id(slot.container()).expect("live").clone();
                        let container = (0..4).find(|c| id(&ids, *c) == of).expect("ours");
                        *naive.aside.get_mut(&container).expect("aside") -= 1;
                        prop_assert_eq!(naive.next(container % 2), Some(waiter));
                        *naive.running.entry(container).or_default() += 1;
                        out.push((container, slot));
                    }
                    naive.aside.clear();
                }
                Event::Welcome => {
                    let term = Term { epoch: 1, revision: 1 };
                    prop_assert!(table.welcome("m", 1, term).is_some());
                    heard.clear();
                }
                Event::Report => {
                    heard.extend(table.demand().into_iter().map(|demand| (demand.action.clone(), demand)));
                    for number in 0..2 {
                        let demand = heard.get(&*action(number));
                        let waiting = demand.map_or((0, 0), |demand| (demand.waiting, demand.waiting_async));
                        let waits = (naive.queue(number, true).len(), naive.queue(number, false).len());
                        prop_assert_eq!(waiting, waits);
                        for container in (0..4).filter(|container| container % 2 == number) {
                            let mut idle = demand.iter().flat_map(|demand| &demand.idle);
                            let idle = idle.find(|(name, _)| *name == id(&ids, container));
                            prop_assert_eq!(idle.map_or(0, |(_, idle)| *idle), naive.idle(container));
                        }
                    }
                }
            }
            for container in 0..4 {
                let holding = table.holdings().into_iter().find(|h| h.container == id(&ids, container));
                let (held, running) = holding.map_or((0, 0), |h| (h.held, h.running));
                prop_assert_eq!(held, Naive::count(&naive.held, container));
                prop_assert_eq!(running, Naive::count(&naive.running, container));
                let mut indices: Vec<u32> = out.iter()
                    .filter(|(_, slot)| table.id(slot.container()) == Some(&id(&ids, container)))
                    .map(|(_, slot)| slot.index())
                    .collect();
                indices.sort_unstable();
                indices.dedup();
                prop_assert_eq!(indices.len(), running as usize, "every slot that is out has its own index");
            }
            for number in 0..2 {
                let waits = naive.queue(number, true).len() + naive.queue(number, false).len();
                prop_assert_eq!(table.waiting(&action(number)), waits);
            }
        }
        // Nothing is remembered once nothing is there.
        for (_, slot) in out {
            if let Some((_, slot)) = table.release(slot) {
                drop(slot);
            }
        }
        for number in 0..2 {
            table.drain(&action(number));
        }
        for container in 0..4 {
            table.ended(&id(&ids, container));
        }
        table.demand();
        prop_assert_eq!((table.actions_known(), table.waiting_total()), (0, 0));
    }
}

#[test]
fn only_a_blocking_request_is_told_at_once_and_an_async_one_does_not_hide_it() {
    let mut table: SlotTable<u32> = SlotTable::new(Limits {
        action_waiters_max: 10,
        waiters_max: 10,
    });
    table.enqueue("a/0", Lane::Async, 1).unwrap();
    assert!(!table.demand_rose());
    assert!(table.demand_changed());
    let report = table.demand();
    assert_eq!((report[0].waiting, report[0].waiting_async), (0, 1));
    table.enqueue("a/0", Lane::Blocking, 2).unwrap();
    assert!(table.demand_rose());
    assert_eq!(table.demand()[0].waiting, 1);
    table.enqueue("a/0", Lane::Blocking, 3).unwrap();
    assert!(!table.demand_rose());
}
