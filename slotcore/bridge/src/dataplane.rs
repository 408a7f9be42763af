//! `DataPlane` for Python.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use slotcore_accounting::{Grant, Spec};
use slotcore_dataplane as core;
use slotcore_dataplane::{ArgumentError, PlantedBug, Settings};

use crate::{Term, Version, term_of, version_of, version_to};

/// What happened at the data plane since the last call.
#[pyclass(frozen, get_all, module = "slotway._slotcore")]
pub struct Events {
    acknowledgements: Vec<(String, u32, Version)>,
    demand_rose: bool,
    demand_changed: bool,
    troubles: Vec<(String, &'static str, u32)>,
}

/// (action, waiting, [(container, idle)]).
type Demand = (String, usize, Vec<(String, u32)>);

/// The Router's data plane.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct DataPlane(core::DataPlane);

fn refused(error: ArgumentError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

#[pymethods]
impl DataPlane {
    #[new]
    #[pyo3(signature = (*, listen, upstream, incarnation, queue_max = 10_000, max_wait_ms = 60_000,
        request_bytes_max = 1_048_576, response_bytes_max = 5_242_880, idle_close_ms = 1_000, threads = 1,
        planted_bug = "", nested_max_wait_ms = 5_000, actions_listen = None))]
    #[allow(clippy::too_many_arguments, reason = "they are all by name")]
    fn new(
        listen: &str,
        upstream: &str,
        incarnation: String,
        queue_max: usize,
        max_wait_ms: u64,
        request_bytes_max: usize,
        response_bytes_max: usize,
        idle_close_ms: u64,
        threads: usize,
        planted_bug: &str,
        nested_max_wait_ms: u64,
        actions_listen: Option<String>,
    ) -> PyResult<Self> {
        let planted_bug = match planted_bug {
            "" => PlantedBug::None,
            "one_too_many" => PlantedBug::OneTooMany,
            other => return Err(PyValueError::new_err(format!("no such bug: {other}"))),
        };
        if !(1..=64).contains(&threads) {
            return Err(PyValueError::new_err("threads: 1 to 64"));
        }
        let settings = Settings {
            upstream: upstream.into(),
            incarnation,
            queue_max,
            max_wait: Duration::from_millis(max_wait_ms),
            nested_max_wait: Duration::from_millis(nested_max_wait_ms),
            actions_listen,
            request_bytes_max,
            response_bytes_max,
            idle_close: Duration::from_millis(idle_close_ms),
            threads,
            planted_bug,
        };
        Ok(Self(core::DataPlane::bind(listen, settings)?))
    }

    #[getter]
    fn address(&self) -> String {
        self.0.address().to_string()
    }

    fn start(&self) -> PyResult<()> {
        Ok(self.0.start()?)
    }

    fn fileno(&self) -> RawFd {
        self.0.fileno()
    }

    fn open_stream(&self, manager: &str, stream: u64) {
        self.0.open_stream(manager, stream);
    }

    fn close_stream(&self, manager: &str, stream: u64) {
        self.0.close_stream(manager, stream);
    }

    fn welcome(&self, manager: &str, stream: u64, term: Term) -> Option<Vec<(String, u32, u32)>> {
        let holdings = self.0.welcome(manager, stream, term_of(term))?.into_iter();
        let told =
            holdings.map(|holding| (holding.container.to_string(), holding.held, holding.running));
        Some(told.collect())
    }

    #[allow(clippy::too_many_arguments, reason = "an order's fields")]
    fn order(
        &self,
        manager: &str,
        stream: u64,
        version: Version,
        container: &str,
        target: u32,
        action: &str,
        revision: i64,
        address: &str,
        capacity: u32,
        timeout_ms: u64,
        parameters: &[u8],
    ) -> PyResult<bool> {
        let spec = Spec {
            action: action.into(),
            revision,
            address: address.into(),
            capacity,
            timeout_ms,
            parameters: parameters.into(),
        };
        let (container, version) = (container.into(), version_of(version));
        let order = Grant {
            container,
            target,
            version,
            spec: spec.into(),
        };
        self.0.order(manager, stream, &order).map_err(refused)
    }

    #[pyo3(signature = (manager, stream, term, container, how = ""))]
    fn ended(&self, manager: &str, stream: u64, term: Term, container: &str, how: &str) -> bool {
        // The end of a container is proof, whichever stream tells it; only an older term is not listened to.
        let _ = (manager, stream);
        self.0.ended(term_of(term), container, how)
    }

    fn peers(&self, action: &str, peers: Vec<(String, String, u32)>) {
        self.0.peers(action, peers);
    }

    fn drop_peers(&self) {
        self.0.drop_peers();
    }

    fn refuse(&self, action: &str, reason: &str, message: String, retry_ms: i64) -> PyResult<()> {
        let retry = u64::try_from(retry_ms).ok().map(Duration::from_millis);
        self.0
            .refuse(action, reason, message, retry)
            .map_err(refused)
    }

    fn give_back(&self, idle_ms: u64) {
        self.0.give_back(Duration::from_millis(idle_ms));
    }

    fn events(&self) -> Events {
        let events = self.0.events();
        let acknowledgements = events.acknowledgements.into_iter();
        Events {
            acknowledgements: acknowledgements
                .map(|ack| {
                    (
                        ack.container.to_string(),
                        ack.holding,
                        version_to(ack.version),
                    )
                })
                .collect(),
            demand_rose: events.demand_rose,
            demand_changed: events.demand_changed,
            troubles: events
                .troubles
                .into_iter()
                .map(|(container, kind, slots)| (container.to_string(), kind, slots))
                .collect(),
        }
    }

    fn demand(&self) -> Vec<Demand> {
        let demand = self.0.demand().into_iter();
        demand
            .map(|demand| {
                let idle = demand
                    .idle
                    .iter()
                    .map(|(container, idle)| (container.to_string(), *idle));
                (demand.action.to_string(), demand.waiting, idle.collect())
            })
            .collect()
    }

    #[getter]
    fn obeyed(&self) -> Option<Version> {
        self.0.obeyed().map(version_to)
    }

    fn stop_accepting(&self) {
        self.0.stop_accepting();
    }

    fn running(&self) -> usize {
        self.0.running()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn holdings(&self) -> Vec<(String, String, u32, u32)> {
        let holdings = self.0.holdings().into_iter();
        holdings
            .map(|(holding, action)| {
                let container = holding.container.to_string();
                (container, action.to_string(), holding.held, holding.running)
            })
            .collect()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.0.counters()
    }
}
