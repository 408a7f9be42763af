//! For the model: see `crate::renumber`.

use std::hash::{Hash, Hasher};

use super::{Slot, SlotTable};
use crate::renumber::Numbers;
use crate::slab::Slab;
use crate::{Planted, Version};

impl<W> SlotTable<W> {
    /// Visits every number that only grows, and labels the slots of each container in the order out, idle, spare: which
    /// of them is which does not matter. `out` are all slots that are out, of containers that have not ended.
    pub fn renumber(&mut self, numbers: &mut Numbers, out: &mut [Slot]) {
        self.obeyed = Version::default(); // only told
        if self.floor.term < self.term && !self.plant.is(Planted::NoTerm) {
            self.floor = Version::default(); // no order that old is obeyed anyway
        }
        numbers.term(&mut self.term);
        numbers.version(&mut self.floor);
        for stream in self.streams.values_mut() {
            numbers.stream(stream);
        }
        for (_, container) in self.containers.iter_mut() {
            if container.floor < container.version {
                container.floor = Version::default(); // only newer orders are obeyed anyway
            }
            numbers.version(&mut container.version);
            numbers.version(&mut container.floor);
        }
        self.due.retain(|key| self.containers.get(*key).is_some());
        self.changed.retain(|key| self.actions.get(*key).is_some());
        self.due.sort_unstable();
        self.changed.sort_unstable();
        let keys: Vec<_> = self.containers.iter().map(|(key, _)| key).collect();
        for key in keys {
            let mut labels = 0..;
            let mut label = |slot: &mut Slot| {
                if slot.container == key {
                    slot.index = labels.next().expect("endless");
                }
            };
            out.iter_mut().for_each(&mut label);
            for (_, action) in self.actions.iter_mut() {
                action.idle.iter_mut().for_each(&mut label);
            }
            let container = self.containers.get_mut(key).expect("listed");
            let rest = labels.start..container.spec.capacity;
            if self.aside.is_empty() {
                container.spare = rest.rev().collect();
            }
        }
        // No key of an empty slab is known to anybody.
        if self.containers.len() == 0 && out.is_empty() {
            self.containers = Slab::default();
        }
        if self.actions.len() == 0 {
            self.actions = Slab::default();
        }
    }
}

impl<W: Hash> Hash for SlotTable<W> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The indexes by name say nothing that the entries do not.
        (self.limits, self.term, self.obeyed, self.floor).hash(state);
        (&self.streams, &self.containers, &self.actions).hash(state);
        (&self.waiters, &self.due, &self.changed, self.rose).hash(state);
        (&self.aside, self.plant).hash(state);
    }
}
