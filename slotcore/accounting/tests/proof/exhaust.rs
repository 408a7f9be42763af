//! Every order in which things can happen, within bounds.

use slotcore_accounting::Planted;
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::step::Step;
use crate::world::{Bounds, World};

#[derive(Clone)]
struct Protocol {
    bounds: Bounds,
    bug: Option<Planted>,
    /// Liveness is checked from every state whose hash is a multiple of this.
    settle_every: u64,
}

/// What an exhaustive search came to.
#[derive(Clone, Debug)]
pub struct Search {
    pub states: usize,
    pub depth: usize,
    pub seconds: f64,
    /// The broken promise, and the steps that lead to it.
    pub broken: Option<(String, Vec<Step>)>,
    /// Every state within the bounds was seen.
    pub complete: bool,
}

const EXACT: &str = "exact";
const COMES_BACK: &str = "every slot comes back";

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::new(self.bounds, self.bug);
        world.renumber();
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.possible(steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        if !world.step(&step) {
            return None;
        }
        if self.bounds.prompt {
            for m in 0..2 {
                world.begin(m);
                world.send_orders(m);
            }
        }
        let small = world.net.len() <= self.bounds.messages
            && world.etcd.late.len() <= self.bounds.transactions;
        small.then(|| {
            world.renumber();
            world
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXACT, |_, world: &World| world.verdict().is_ok()),
            Property::always(COMES_BACK, |model: &Protocol, world: &World| {
                let mut hash = std::hash::DefaultHasher::new();
                std::hash::Hash::hash(world, &mut hash);
                !std::hash::Hasher::finish(&hash).is_multiple_of(model.settle_every)
                    || world.verdict().is_err()
                    || world.settle().is_ok()
            }),
        ]
    }
}

/// Searches, breadth first, until a promise is broken, everything was seen, or states were come to so many times.
pub fn search(
    bounds: Bounds,
    bug: Option<Planted>,
    visits_max: usize,
    settle_every: u64,
) -> Search {
    let start = std::time::Instant::now();
    let protocol = Protocol {
        bounds,
        bug,
        settle_every,
    };
    let checker = protocol
        .checker()
        .finish_when(HasDiscoveries::Any)
        .target_state_count(visits_max)
        .spawn_bfs()
        .join();
    let broken = checker
        .discoveries()
        .into_iter()
        .next()
        .map(|(property, path)| {
            let last = path.last_state();
            let verdict = last.verdict().and_then(|()| last.settle());
            (
                verdict.err().unwrap_or(property).to_owned(),
                path.into_actions(),
            )
        });
    Search {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds: start.elapsed().as_secs_f64(),
        complete: broken.is_none() && checker.state_count() < visits_max,
        broken,
    }
}
