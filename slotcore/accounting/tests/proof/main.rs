//! The proof: `Ledger` and `SlotTable` together, on this very code, in a world that does its worst.
//!
//! Searches every order of events within bounds, walks at random beyond them, and shows with planted mistakes that
//! either would find them. `--write PATH` puts the findings into the page between its markers.

#![allow(
    unreachable_pub,
    reason = "a program of its own: nothing is reached from outside"
)]

mod deliver;
mod etcd;
mod exhaust;
mod page;
mod possible;
mod ranks;
mod settle;
mod step;
mod walk;
mod world;

use std::process::ExitCode;

use exhaust::Search;
use slotcore_accounting::Planted;
use walk::Walks;
use world::Bounds;

/// A check with fewer states than this checks nothing.
const STATES_MIN: usize = 100_000;
const WALK_STEPS: u64 = 4_000_000;
const HUNT_STEPS: u64 = 4_000_000;
const HUNT_VISITS: usize = 600_000;

const REST: Bounds = Bounds {
    capacity: 1,
    containers: 1,
    messages: 2,
    transactions: 2,
    takeovers: 0,
    crashes: 0,
    streams: 0,
    unknowns: 0,
    kills: 0,
    strands: 0,
    plans: 2,
    prompt: true,
};

/// What is searched without a planted mistake: a name, the bounds, and after how many visits to stop at the latest.
const SEARCHES: &[(&str, Bounds, usize)] = &[
    (
        "a takeover",
        Bounds {
            takeovers: 1,
            messages: 3,
            transactions: 1,
            ..REST
        },
        usize::MAX,
    ),
    (
        "two takeovers",
        Bounds {
            takeovers: 2,
            transactions: 1,
            plans: 1,
            ..REST
        },
        usize::MAX,
    ),
    ("a crash", Bounds { crashes: 1, ..REST }, usize::MAX),
    (
        "streams and lost answers",
        Bounds {
            streams: 1,
            unknowns: 1,
            ..REST
        },
        usize::MAX,
    ),
    (
        "turns of any size",
        Bounds {
            prompt: false,
            plans: 4,
            ..REST
        },
        usize::MAX,
    ),
    (
        "C = 2",
        Bounds {
            capacity: 2,
            messages: 3,
            plans: 3,
            transactions: 1,
            ..REST
        },
        usize::MAX,
    ),
    (
        "everything at once",
        Bounds {
            capacity: 2,
            messages: 3,
            takeovers: 2,
            crashes: 1,
            streams: 1,
            unknowns: 1,
            plans: 3,
            ..REST
        },
        1_200_000,
    ),
];

/// The bounds in which an exhaustive search looks for a mistake: the faults that it needs, and no others.
fn hunt(bug: Planted) -> Bounds {
    use Planted as P;
    match bug {
        P::NoTerm => Bounds {
            takeovers: 1,
            messages: 3,
            ..REST
        },
        P::NoGuard | P::OldHello | P::HelloHeldOnly | P::HelloMaxOnly => Bounds {
            takeovers: 1,
            ..REST
        },
        P::LateTxn => Bounds {
            unknowns: 1,
            ..REST
        },
        P::NoSession | P::FreeDeadRouter => Bounds { streams: 1, ..REST },
        P::NewestStream => Bounds {
            streams: 1,
            prompt: false,
            ..REST
        },
        P::OrderOutlivesAck => Bounds {
            prompt: false,
            plans: 3,
            ..REST
        },
        P::SameIncarnation => Bounds {
            crashes: 1,
            plans: 3,
            ..REST
        },
        P::AddressReused => Bounds { kills: 1, ..REST },
        P::StrandFrees => Bounds {
            strands: 1,
            plans: 3,
            ..REST
        },
        P::GiveBackKept | P::SameVersion => Bounds {
            capacity: 2,
            ..REST
        },
        P::FloorOnce => Bounds {
            capacity: 2,
            messages: 3,
            plans: 3,
            transactions: 1,
            ..REST
        },
        P::TellFirst
        | P::PersistBeforeAck
        | P::AckEarly
        | P::AnyAck
        | P::NoVersion
        | P::FreeOnHangup
        | P::ForgottenVersion
        | P::GiveBackUnheard => Bounds { plans: 3, ..REST },
    }
}

/// One planted mistake, and who found it.
struct Hunt {
    bug: Planted,
    what: &'static str,
    walks: Walks,
    search: Search,
}

impl Hunt {
    fn found(&self) -> bool {
        self.walks.broken.is_some() || self.search.broken.is_some()
    }
}

fn hunts() -> Vec<Hunt> {
    let hunts = Planted::ALL.iter().map(|&(bug, what)| {
        let walks = walk::walk(Some(bug), 1, HUNT_STEPS, 600);
        let search = exhaust::search(hunt(bug), Some(bug), HUNT_VISITS, 1);
        println!(
            "{bug:?}: {}; {}",
            page::walks(&walks),
            page::search(&search)
        );
        Hunt {
            bug,
            what,
            walks,
            search,
        }
    });
    hunts.collect()
}

fn searches() -> Vec<(&'static str, Bounds, Search)> {
    let searches = SEARCHES.iter().map(|&(name, bounds, visits_max)| {
        let search = exhaust::search(bounds, None, visits_max, 8);
        println!("{name}: {}, {:.1} s", page::search(&search), search.seconds);
        if let Some((_, steps)) = &search.broken {
            println!("{steps:#?}");
        }
        (name, bounds, search)
    });
    searches.collect()
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let path = args.find(|arg| arg == "--write").and_then(|_| args.next());
    // The searches take about as long as the hunts: one core each.
    let (searches, (walks, hunts)) = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let walks = walk::walk(None, 2, WALK_STEPS, 2_000);
            println!(
                "random walks: {}, {:.1} s",
                page::walks(&walks),
                walks.seconds
            );
            (walks, hunts())
        });
        (searches(), others.join().expect("the hunts"))
    });
    if let Some(path) = path {
        page::write(&path, &searches, &walks, &hunts);
    }
    let states: usize = searches.iter().map(|(_, _, search)| search.states).sum();
    let depth = searches.iter().map(|(_, _, search)| search.depth).max();
    println!("{states} states, depth {}", depth.unwrap_or_default());
    let mut failures = Vec::new();
    if states < STATES_MIN {
        failures.push(format!("only {states} states were seen, not {STATES_MIN}"));
    }
    for (name, _, search) in &searches {
        if search.broken.is_some() {
            failures.push(format!("{name}: {}", page::search(search)));
        }
    }
    if let Some(broken) = walks.broken {
        failures.push(format!("random walks: {broken}"));
    }
    for hunt in hunts.iter().filter(|hunt| !hunt.found()) {
        failures.push(format!("the planted mistake {:?} was not found", hunt.bug));
    }
    for failure in &failures {
        eprintln!("FAILED {failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
