//! What can be seen of a table, and what is to be reported.

use std::sync::Arc;

use super::lanes::Lane;
use super::{Holding, SlotTable, Spec};
use crate::slab::Key;
use crate::{Name, Term, Version};

/// What an action waits for and what idles, absolutely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// "namespace/name".
    pub action: Name,
    /// Blocking requests that wait.
    pub waiting: usize,
    /// Async requests that wait.
    pub waiting_async: usize,
    /// Idle slots, by container with a share here. Slots set aside do not count.
    pub idle: Vec<(Name, u32)>,
}

impl<W> SlotTable<W> {
    /// The demand of every action that changed since the last call, or for which somebody waits. Actions that idle
    /// cost nothing.
    pub fn demand(&mut self) -> Vec<Demand> {
        self.rose = false;
        let mut report = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            let Some(action) = self.actions.get_mut(key) else {
                continue;
            };
            let waits = !action.lanes.is_empty();
            action.changed = waits;
            action.reported = waits || !action.containers.is_empty();
            report.push(Demand {
                action: action.name.clone(),
                waiting: action.lanes.waiting(Lane::Blocking),
                waiting_async: action.lanes.waiting(Lane::Async),
                idle: action
                    .containers
                    .iter()
                    .filter_map(|key| self.containers.get(*key))
                    .map(|container| (container.id.clone(), container.idle))
                    .collect(),
            });
            if waits {
                self.changed.push(key);
            }
            self.forget_action(key);
        }
        report
    }

    /// Whether a blocking request waits for an action of which none waited before, since the last report.
    pub fn demand_rose(&self) -> bool {
        self.rose
    }

    /// Whether a report has anything to tell.
    pub fn demand_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// How many wait for the action, in both lanes.
    pub fn waiting(&self, action: &str) -> usize {
        let key = self.actions_by_name.get(action);
        let action = key.and_then(|key| self.actions.get(*key));
        action.map_or(0, |action| action.lanes.len())
    }

    /// How many wait in the whole table.
    pub fn waiting_total(&self) -> usize {
        self.waiters.len()
    }

    /// Whether the action has any share here, idle or not.
    pub fn has_share(&self, action: &str) -> bool {
        let key = self.actions_by_name.get(action);
        let action = key.and_then(|key| self.actions.get(*key));
        action.is_some_and(|action| {
            let mut containers = action.containers.iter();
            containers.any(|key| self.containers.get(*key).is_some_and(|c| c.held > 0))
        })
    }

    /// What is known of the container, for as long as it is.
    pub fn spec(&self, container: Key) -> Option<&Arc<Spec>> {
        self.containers
            .get(container)
            .map(|container| &container.spec)
    }

    /// The container's id, for as long as it is known.
    pub fn id(&self, container: Key) -> Option<&Name> {
        self.containers
            .get(container)
            .map(|container| &container.id)
    }

    /// The container's key, while it is known.
    pub fn container(&self, id: &str) -> Option<Key> {
        self.containers_by_id.get(id).copied()
    }

    /// Every container of which slots are held or run.
    pub fn holdings(&self) -> Vec<Holding> {
        self.containers
            .iter()
            .filter(|(_, container)| container.held > 0 || container.running > 0)
            .map(|(_, container)| Holding {
                container: container.id.clone(),
                held: container.held,
                running: container.running,
            })
            .collect()
    }

    /// Slots that are out, in the whole table.
    pub fn running_total(&self) -> u64 {
        let containers = self.containers.iter();
        containers
            .map(|(_, container)| u64::from(container.running))
            .sum()
    }

    /// The newest order obeyed; None before the first.
    pub fn obeyed(&self) -> Option<Version> {
        (self.obeyed != Version::default()).then_some(self.obeyed)
    }

    /// The newest term welcomed or obeyed.
    pub fn term(&self) -> Term {
        self.term
    }

    /// How many actions are remembered: those with waiters, with containers, or with a zero still to be reported.
    pub fn actions_known(&self) -> usize {
        self.actions.len()
    }
}
