//! `DataPlane` for Python.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
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

/// (id, action, payload, key).
type Submitted<'py> = (String, String, Bound<'py, PyBytes>, Option<String>);

/// (id, token, when it started, the answer, or reason and message).
type Ended<'py> = (
    String,
    i64,
    u64,
    Option<Bound<'py, PyBytes>>,
    &'static str,
    String,
);

/// ([(action, slots, timeout)], ended, [(action, reason, message)]).
type LaneEvents<'py> = (
    Vec<(String, usize, u64)>,
    Vec<Ended<'py>>,
    Vec<(String, &'static str, String)>,
);

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

    fn open_submissions(&self, is_open: bool) {
        self.0.open_submissions(is_open);
    }

    fn take_submissions<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        patience_ms: u64,
    ) -> Option<Vec<Submitted<'py>>> {
        let patience = Duration::from_millis(patience_ms);
        let batch = py.detach(|| self.0.take_submissions(max, patience))?;
        let told = batch.into_iter().map(|one| {
            let payload = PyBytes::new(py, &one.payload);
            (one.id, one.action, payload, one.key)
        });
        Some(told.collect())
    }

    fn acknowledge(&self, ids: Vec<String>) {
        self.0.acknowledge(ids);
    }

    fn refuse_submissions(&self, reason: &str, message: String, retry_ms: i64) -> PyResult<()> {
        let retry = u64::try_from(retry_ms).ok().map(Duration::from_millis);
        self.0
            .refuse_submissions(reason, message, retry)
            .map_err(refused)
    }

    fn want(&self, action: &str, count: usize, is_urgent: bool) {
        self.0.want(action, count, is_urgent);
    }

    fn wait_for_lane<'py>(&self, py: Python<'py>, patience_ms: u64) -> LaneEvents<'py> {
        let patience = Duration::from_millis(patience_ms);
        let core::Happened {
            slots,
            ended,
            refused,
        } = py.detach(|| self.0.wait_for_lane(patience));
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let slots = slots
            .into_iter()
            .map(|(action, count, timeout)| (action, count, millis(timeout)));
        let ended = ended.into_iter().map(|one| {
            let (response, reason, message) = match one.outcome {
                Ok(answer) => (Some(PyBytes::new(py, &answer)), "", String::new()),
                Err((reason, message)) => (None, reason, message),
            };
            let (id, token, started) = (one.id, one.token, one.started_at_ms);
            (id, token, started, response, reason, message)
        });
        (slots.collect(), ended.collect(), refused)
    }

    fn ring(&self) {
        self.0.ring();
    }

    fn run(&self, attempts: Vec<(String, i64, String, Vec<u8>)>) -> Vec<String> {
        let attempts = attempts
            .into_iter()
            .map(|(id, token, action, payload)| core::Attempt {
                id,
                token,
                action,
                payload,
            });
        self.0.run(attempts.collect())
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.0.counters()
    }
}
