//! Measures one acquire and release of a slot, in a table of 1,000 actions with 10 slots each. Prints JSON.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use slotcore_accounting::{Grant, Limits, Name, SlotTable, Spec, Term, Version};

const ACTIONS: usize = 1_000;
const PAIRS: usize = 20_000;
const ROUNDS: usize = 200;

// Many short rounds: the best one was not interrupted.
fn main() {
    let mut table = SlotTable::<u32>::new(Limits {
        action_waiters_max: 10,
        waiters_max: 10,
    });
    let term = Term {
        epoch: 1,
        revision: 1,
    };
    table.open_stream("manager", 1);
    let names: Vec<Name> = (0..ACTIONS)
        .map(|number| format!("namespace/action-{number}").into())
        .collect();
    for (counter, name) in (1..).zip(&names) {
        let order = Grant {
            container: format!("container-{counter}").into(),
            target: 10,
            version: Version { term, counter },
            spec: Arc::new(Spec {
                action: name.clone(),
                capacity: 10,
                ..Spec::default()
            }),
        };
        let granted = table.order("manager", 1, &order, 0);
        assert!(granted.is_ok_and(|granted| granted.is_empty()));
    }
    let mut best_ns = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        // A stride that visits every action, far apart: the caches see a table, not one entry.
        for pair in 0..PAIRS {
            let slot = table.acquire(black_box(&names[pair * 7 % ACTIONS]));
            assert!(table.release(slot.expect("it idles")).is_none());
        }
        let pairs = u32::try_from(PAIRS).expect("few");
        best_ns = best_ns.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(pairs));
    }
    println!(r#"{{"name": "table.acquire_release", "value": {best_ns:.1}, "unit": "ns"}}"#);
}
