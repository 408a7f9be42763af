//! Random walks through a larger world, and further than any exhaustive search.

use slotcore_accounting::Planted;

use crate::step::Step;
use crate::world::{Bounds, World};

/// What random walks came to.
#[derive(Clone, Debug)]
pub struct Walks {
    pub steps: u64,
    pub count: u64,
    pub seconds: f64,
    /// The broken promise.
    pub broken: Option<&'static str>,
}

/// A small generator (splitmix64): the same walks on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `end` − 1; 0 if there is nothing.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("small")
    }
}

/// Makes a step of one kind up.
type Choose = fn(&World, &mut Chance) -> Step;

/// Step kinds and how often each is tried, of a thousand or so.
const WEIGHTS: [(u64, Choose); 21] = [
    (150, |w, c| Step::Start {
        r: any_router(w, c),
    }),
    (110, |w, c| with_out(w, c, |r, out| Step::End { r, out })),
    (10, |w, c| Step::OrphanEnds {
        c: c.below(w.containers.len()),
    }),
    (2, |w, c| with_out(w, c, |r, out| Step::Strand { r, out })),
    (20, |w, c| with_out(w, c, |r, out| Step::HangUp { r, out })),
    (6, |w, c| Step::Open {
        r: any_router(w, c),
        m: c.below(2),
    }),
    (25, |w, c| Step::GiveBack {
        r: any_router(w, c),
    }),
    (80, |w, c| Step::Acknowledge {
        r: any_router(w, c),
        to: (0, 2),
    }),
    (1, |w, c| Step::Crash {
        r: any_router(w, c),
    }),
    (90, |w, c| Step::Grant {
        m: c.below(2),
        r: any_router(w, c),
        c: c.below(w.containers.len()),
        target: 1 + small(w, c),
    }),
    (70, |w, c| Step::Recall {
        m: c.below(2),
        r: any_router(w, c),
        c: c.below(w.containers.len()),
        target: small(w, c),
    }),
    (60, |_, c| Step::Begin { m: c.below(2) }),
    (120, |_, c| Step::Orders { m: c.below(2) }),
    (10, |_, c| Step::GiveUp { m: c.below(2) }),
    (2, |w, c| Step::Break {
        m: c.below(2),
        life: u8::try_from(c.below(w.lives.into())).expect("small"),
    }),
    (2, |_, c| Step::TakeOver { m: c.below(2) }),
    (1, |w, c| Step::Kill {
        c: c.below(w.containers.len()),
    }),
    (60, |w, c| Step::Reap {
        m: c.below(2),
        c: c.below(w.containers.len()),
    }),
    (60, |_, c| Step::Create { m: c.below(2) }),
    (120, |w, c| match c.below(20) {
        0 => Step::LoseTransaction {
            at: c.below(w.etcd.late.len()),
        },
        n => Step::Apply {
            at: c.below(w.etcd.late.len()),
            answered: n > 3,
        },
    }),
    (330, |w, c| match c.below(40) {
        0 => Step::Lose {
            at: c.below(w.net.len()),
        },
        n => Step::Deliver {
            at: c.below(w.net.len()),
            again: n < 14,
        },
    }),
];

fn any_router(world: &World, chance: &mut Chance) -> usize {
    chance.below(world.routers.len())
}

fn small(world: &World, chance: &mut Chance) -> u32 {
    u32::try_from(chance.below(world.bounds.capacity as usize + 1)).expect("small")
}

fn with_out(world: &World, chance: &mut Chance, step: fn(usize, usize) -> Step) -> Step {
    let r = any_router(world, chance);
    step(r, chance.below(world.routers[r].out.len()))
}

/// Walks until a promise is broken or so many steps were done. Each walk ends with a check that every slot comes back.
pub fn walk(bug: Option<Planted>, seed: u64, steps_max: u64, walk_steps: u64) -> Walks {
    let start = std::time::Instant::now();
    let total: u64 = WEIGHTS.iter().map(|(weight, _)| weight).sum();
    let mut chance = Chance(seed);
    let (mut steps, mut walks, mut broken) = (0, 0, None);
    while steps < steps_max && broken.is_none() {
        walks += 1;
        // Every third walk is spared what voids messages, so that old ones get to play their tricks.
        let often = if walks % 3 == 0 { 0 } else { u8::MAX };
        let bounds = Bounds {
            capacity: 1 + u32::try_from(chance.below(3)).expect("small"),
            containers: 2,
            messages: 12,
            transactions: 4,
            takeovers: often,
            crashes: often.min(3),
            streams: often,
            unknowns: u8::MAX,
            kills: often.min(8),
            strands: often.min(8),
            plans: u8::MAX,
            prompt: false,
        };
        let mut world = World::new(bounds, bug);
        for _ in 0..walk_steps {
            let mut at = chance.next() % total;
            let kind = WEIGHTS.iter().find(|(weight, _)| {
                let here = at < *weight;
                at = at.wrapping_sub(*weight);
                here
            });
            let step = kind.expect("within the total").1(&world, &mut chance);
            if !world.step(&step) {
                continue;
            }
            steps += 1;
            // Plans have no end here, and too much on its way is lost.
            world.bounds.plans = u8::MAX;
            while world.net.len() > bounds.messages {
                let at = chance.below(world.net.len());
                world.step(&Step::Lose { at });
            }
            while world.etcd.late.len() > bounds.transactions {
                world.step(&Step::LoseTransaction { at: 0 });
            }
            if let Err(verdict) = world.verdict() {
                broken = Some(verdict);
                break;
            }
        }
        if broken.is_none() {
            broken = world.settle().err();
        }
    }
    Walks {
        steps,
        count: walks,
        seconds: start.elapsed().as_secs_f64(),
        broken,
    }
}
