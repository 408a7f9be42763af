//! The session's side of a data plane: what Managers order, and what is reported to them.

use std::sync::Arc;
use std::time::Duration;

use slotcore_accounting::{Acknowledgement, Demand, Grant, Holding, OrderError, Term, Version};
use thiserror::Error;

use crate::asked::check_action;
use crate::container::{Address, AddressError};
use crate::failure::{Failure, Reason};
use crate::json::JsonError;
use crate::plane::DataPlane;
use crate::splice::Frame;

/// C, at most.
const CAPACITY_MAX: u32 = 1_000;
/// The action's timeout, in milliseconds.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1..=86_400_000;

/// Why an argument is refused. Nothing has changed.
#[derive(Debug, Error)]
pub enum ArgumentError {
    /// Not `namespace/name`.
    #[error("{0:?} is not the name of an action")]
    Action(String),
    /// Neither `unix:/path` nor `host:port`.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Default parameters that are not one JSON object.
    #[error("the default parameters: {0}")]
    Parameters(#[from] JsonError),
    /// Capacity, target or timeout.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// No reason that a data plane can give.
    #[error("{0:?} is not a reason")]
    Reason(String),
}

/// What happened since the last call.
#[derive(Debug, Default)]
pub struct Events {
    /// Due to every Manager's newest stream.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Some action's demand left zero.
    pub demand_rose: bool,
    /// Some action's demand or idle slots changed.
    pub demand_changed: bool,
    /// (container, "overrun" or "refused", slots newly affected).
    pub troubles: Vec<(Arc<str>, &'static str, u32)>,
}

impl DataPlane {
    /// A stream to a Manager was opened; it voids the older one.
    pub fn open_stream(&self, manager: &str, stream: u64) {
        self.shared.state().table.open_stream(manager, stream);
    }

    /// The stream has broken: nothing that still arrives from it counts.
    pub fn close_stream(&self, manager: &str, stream: u64) {
        self.shared.state().table.close_stream(manager, stream);
    }

    /// Obeys no older term from now on; the holdings for the Hello, or None: say nothing.
    pub fn welcome(&self, manager: &str, stream: u64, term: Term) -> Option<Vec<Holding>> {
        self.shared.state().table.welcome(manager, stream, term)
    }

    /// Obeys an order; false if it is stale.
    pub fn order(&self, manager: &str, stream: u64, order: &Grant) -> Result<bool, ArgumentError> {
        let spec = &*order.spec;
        if check_action(spec.action.as_bytes()).is_err() {
            return Err(ArgumentError::Action(spec.action.to_string()));
        }
        if !(1..=CAPACITY_MAX).contains(&spec.capacity) {
            return Err(ArgumentError::Range("the capacity"));
        }
        if !TIMEOUT_MS.contains(&spec.timeout_ms) {
            return Err(ArgumentError::Range("the timeout"));
        }
        let address: Address = spec.address.parse()?;
        let frame = Frame::new(&spec.action, &spec.parameters)?;
        self.shared.change(|state| {
            let now_ms = state.now_ms();
            let known = state.table.container(&order.container);
            let granted = match state.table.order(manager, stream, order, now_ms) {
                Ok(granted) => granted,
                Err(OrderError::Stale) => return Ok(false),
                Err(OrderError::AboveCapacity) => return Err(ArgumentError::Range("the target")),
            };
            if known.is_none()
                && let Some(key) = state.table.container(&order.container)
            {
                state.know(key, &order.container, spec, Arc::new(address), frame);
            }
            state.deliver(granted);
            state.send_back(&spec.action);
            Ok(true)
        })
    }

    /// The container has ended: its slots are void, what runs on it is lost, and is told `how` (which may be empty).
    /// False if an older term says so.
    pub fn ended(&self, term: Term, container: &str, how: &str) -> bool {
        self.shared.change(|state| {
            if term < state.table.term() {
                return false;
            }
            if let Some(key) = state.table.ended(container)
                && let Some(target) = state.forget(key)
            {
                target.end(how);
                state.send_back(&target.action);
            }
            true
        })
    }

    /// Replaces the action's peers: (incarnation, address, waiting).
    pub fn peers(&self, action: &str, peers: Vec<(String, String, u32)>) {
        let own = &self.shared.settings.incarnation;
        let others = peers
            .into_iter()
            .filter(|(incarnation, _, _)| incarnation != own)
            .collect();
        self.shared.state().peers.replace(action, others);
    }

    /// Forgets all peers.
    pub fn drop_peers(&self) {
        self.shared.state().peers.clear();
    }

    /// Ends the action's waiting requests with this reason.
    pub fn refuse(
        &self,
        action: &str,
        reason: &str,
        message: String,
        retry: Option<Duration>,
    ) -> Result<(), ArgumentError> {
        let reason =
            Reason::named(reason).ok_or_else(|| ArgumentError::Reason(reason.to_owned()))?;
        let failure = Failure::new(reason, message).retry(retry);
        self.shared.change(|state| state.refuse(action, &failure));
        Ok(())
    }

    /// Gives shares back that idled for so long; all that idles, if the duration is zero.
    pub fn give_back(&self, idle: Duration) {
        self.shared.change(|state| {
            if idle.is_zero() {
                state.table.give_back_all();
            } else {
                let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
                state.table.give_back(idle_ms, state.now_ms());
            }
        });
    }

    /// Takes what happened since the last call.
    pub fn events(&self) -> Events {
        self.shared.signal.clear();
        self.shared.state().take_events()
    }

    /// Absolute demand of every action that is not quite idle, or changed since the last call.
    pub fn demand(&self) -> Vec<Demand> {
        let mut state = self.shared.state();
        state.has_told_rise = false;
        state.table.demand()
    }

    /// The newest order obeyed.
    pub fn obeyed(&self) -> Option<Version> {
        self.shared.state().table.obeyed()
    }

    /// The share of every container, with its action.
    pub fn holdings(&self) -> Vec<(Holding, Arc<str>)> {
        let state = self.shared.state();
        let holdings = state.table.holdings().into_iter();
        let with_action = holdings.filter_map(|holding| {
            let spec = state
                .table
                .spec(state.table.container(&holding.container)?)?;
            Some((holding, spec.action.clone()))
        });
        with_action.collect()
    }
}
