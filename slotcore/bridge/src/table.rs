//! `SlotTable` for Python: the table by itself, for tests and measurements. The Router uses `DataPlane`, which has one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use slotcore_accounting as core;
use slotcore_accounting::{Grant, Lane, Limits, OrderError, QueueFull, Spec, Ticket};

use crate::{Term, Version, plant_of, term_of, term_to, version_of, version_to};

/// The right to have one request in flight on one container; of use once.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct Slot {
    slot: Mutex<Option<core::Slot>>,
    #[pyo3(get)]
    index: u32,
    #[pyo3(get)]
    container: String,
}

impl Slot {
    fn new(table: &Table, slot: core::Slot) -> Self {
        let container = table.id(slot.container());
        Self {
            index: slot.index(),
            container: container.expect("a slot's container").to_string(),
            slot: Mutex::new(Some(slot)),
        }
    }

    fn take(&self) -> PyResult<core::Slot> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take()
            .ok_or_else(|| PyValueError::new_err("the slot was given back before"))
    }
}

/// (action, waiting, [(container, idle)]).
type PyDemand = (String, usize, Vec<(String, u32)>);
type Table = core::SlotTable<u64>;
type Tickets = std::collections::HashMap<u64, Ticket>;

/// The Router's side of the protocol, and its queues.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct SlotTable(Mutex<(Table, Tickets)>);

impl SlotTable {
    fn lock(&self) -> MutexGuard<'_, (Table, Tickets)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waiters with their slots.
fn served(
    table: &Table,
    tickets: &mut Tickets,
    granted: impl IntoIterator<Item = (u64, core::Slot)>,
) -> Vec<(u64, Slot)> {
    let granted = granted.into_iter().map(|(waiter, slot)| {
        tickets.remove(&waiter);
        (waiter, Slot::new(table, slot))
    });
    granted.collect()
}

#[pymethods]
impl SlotTable {
    #[new]
    #[pyo3(signature = (*, action_waiters_max = 10_000, waiters_max = 100_000, planted = ""))]
    fn new(action_waiters_max: usize, waiters_max: usize, planted: &str) -> PyResult<Self> {
        let limits = Limits {
            action_waiters_max,
            waiters_max,
        };
        #[cfg(feature = "planted")]
        let table = Table::planted(limits, plant_of(planted)?);
        #[cfg(not(feature = "planted"))]
        let table = plant_of(planted).map(|()| Table::new(limits))?;
        Ok(Self(Mutex::new((table, Tickets::new()))))
    }

    fn open_stream(&self, manager: &str, stream: u64) {
        self.lock().0.open_stream(manager, stream);
    }

    fn close_stream(&self, manager: &str, stream: u64) {
        self.lock().0.close_stream(manager, stream);
    }

    fn welcome(&self, manager: &str, stream: u64, term: Term) -> Option<Vec<(String, u32, u32)>> {
        let holdings = self.lock().0.welcome(manager, stream, term_of(term))?;
        let holdings = holdings.into_iter();
        Some(
            holdings
                .map(|holding| (holding.container.to_string(), holding.held, holding.running))
                .collect(),
        )
    }

    #[pyo3(signature = (manager, stream, version, container, target, action, capacity, now_ms = 0))]
    #[allow(clippy::too_many_arguments, reason = "an order's fields")]
    fn order(
        &self,
        manager: &str,
        stream: u64,
        version: Version,
        container: &str,
        target: u32,
        action: &str,
        capacity: u32,
        now_ms: u64,
    ) -> PyResult<Option<Vec<(u64, Slot)>>> {
        let order = Grant {
            container: container.into(),
            target,
            version: version_of(version),
            spec: Arc::new(Spec {
                action: action.into(),
                capacity,
                ..Spec::default()
            }),
        };
        let (table, tickets) = &mut *self.lock();
        match table.order(manager, stream, &order, now_ms) {
            Ok(granted) => Ok(Some(served(table, tickets, granted))),
            Err(OrderError::Stale) => Ok(None),
            Err(error @ OrderError::AboveCapacity) => Err(PyValueError::new_err(error.to_string())),
        }
    }

    fn ended(&self, container: &str) -> bool {
        self.lock().0.ended(container).is_some()
    }

    fn acknowledgements(&self) -> Vec<(String, u32, Version)> {
        let due = self.lock().0.acknowledgements();
        due.into_iter()
            .map(|ack| {
                (
                    ack.container.to_string(),
                    ack.holding,
                    version_to(ack.version),
                )
            })
            .collect()
    }

    fn acquire(&self, action: &str) -> Option<Slot> {
        let (table, _) = &mut *self.lock();
        let slot = table.acquire(action)?;
        Some(Slot::new(table, slot))
    }

    fn enqueue(&self, action: &str, waiter: u64, blocking: bool) -> bool {
        let lane = if blocking {
            Lane::Blocking
        } else {
            Lane::Async
        };
        let (table, tickets) = &mut *self.lock();
        match table.enqueue(action, lane, waiter) {
            Ok(ticket) => {
                tickets.insert(waiter, ticket);
                true
            }
            Err(QueueFull) => false,
        }
    }

    fn cancel(&self, waiter: u64) -> bool {
        let (table, tickets) = &mut *self.lock();
        let ticket = tickets.remove(&waiter);
        ticket.and_then(|ticket| table.cancel(ticket)).is_some()
    }

    fn release(&self, slot: &Slot) -> PyResult<Option<(u64, Slot)>> {
        let slot = slot.take()?;
        let (table, tickets) = &mut *self.lock();
        let granted = table.release(slot);
        Ok(served(table, tickets, granted).pop())
    }

    fn set_aside(&self, slot: &Slot, until_ms: u64) -> PyResult<()> {
        let slot = slot.take()?;
        self.lock().0.set_aside(slot, until_ms);
        Ok(())
    }

    fn restore(&self, now_ms: u64) -> Vec<(u64, Slot)> {
        let (table, tickets) = &mut *self.lock();
        let granted = table.restore(now_ms);
        served(table, tickets, granted)
    }

    fn strand(&self, slot: &Slot) -> PyResult<Option<(u64, Slot)>> {
        let slot = slot.take()?;
        let (table, tickets) = &mut *self.lock();
        let granted = table.strand(slot);
        Ok(served(table, tickets, granted).pop())
    }

    fn drain(&self, action: &str) -> Vec<u64> {
        let (table, tickets) = &mut *self.lock();
        let drained = table.drain(action);
        for waiter in &drained {
            tickets.remove(waiter);
        }
        drained
    }

    fn give_back(&self, idle_ms: u64, now_ms: u64) {
        let (table, _) = &mut *self.lock();
        if idle_ms == 0 {
            table.give_back_all();
        } else {
            table.give_back(idle_ms, now_ms);
        }
    }

    #[getter]
    fn term(&self) -> Term {
        term_to(self.lock().0.term())
    }

    #[getter]
    fn obeyed(&self) -> Option<Version> {
        self.lock().0.obeyed().map(version_to)
    }

    #[getter]
    fn demand_rose(&self) -> bool {
        self.lock().0.demand_rose()
    }

    #[getter]
    fn demand_changed(&self) -> bool {
        self.lock().0.demand_changed()
    }

    #[getter]
    fn acknowledgements_due(&self) -> bool {
        self.lock().0.acknowledgements_due()
    }

    fn has_share(&self, action: &str) -> bool {
        self.lock().0.has_share(action)
    }

    fn demand(&self) -> Vec<PyDemand> {
        let report = self.lock().0.demand();
        report
            .into_iter()
            .map(|demand| {
                let idle = demand.idle.into_iter();
                (
                    demand.action.to_string(),
                    demand.waiting,
                    idle.map(|(id, slots)| (id.to_string(), slots)).collect(),
                )
            })
            .collect()
    }

    fn holdings(&self) -> Vec<(String, u32, u32)> {
        let holdings = self.lock().0.holdings();
        holdings
            .into_iter()
            .map(|holding| (holding.container.to_string(), holding.held, holding.running))
            .collect()
    }
}
