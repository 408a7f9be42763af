//! `Load` for Python: the open-loop load generator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use pyo3::exceptions::{PyConnectionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use slotway_load as core;
use slotway_load::{Arrivals, Plan, Target};

/// (arrived, succeeded, failed, greatest latency in µs).
type Bucket = (u32, u32, u32, u64);

/// What became of one action's requests.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct LoadedAction(core::ActionReport);

#[pymethods]
impl LoadedAction {
    #[getter]
    fn action(&self) -> &str {
        &self.0.action
    }
    #[getter]
    fn outcomes(&self) -> BTreeMap<&str, u64> {
        let outcomes = self.0.outcomes.iter();
        outcomes.map(|(name, count)| (&**name, *count)).collect()
    }
    #[getter]
    fn late(&self) -> u64 {
        self.0.late
    }
    #[getter]
    fn seen_max(&self) -> u64 {
        self.0.seen_max
    }
    #[getter]
    fn gap_ns(&self) -> (u64, u64) {
        self.0.gap_ns
    }
    #[getter]
    fn buckets(&self) -> Vec<Bucket> {
        let of = |b: &core::Bucket| (b.arrived, b.ok, b.failed, b.latency_us_max);
        self.0.buckets.iter().map(of).collect()
    }
    fn latency_us(&self, quantile: f64) -> u64 {
        self.0.latency.value_at_quantile(quantile)
    }
}

/// What became of all requests.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct LoadReport(core::Report);

#[pymethods]
impl LoadReport {
    #[getter]
    fn began_ns(&self) -> u64 {
        self.0.began_ns
    }
    #[getter]
    fn ended_ns(&self) -> u64 {
        self.0.ended_ns
    }
    #[getter]
    fn actions(&self) -> Vec<LoadedAction> {
        self.0.actions.iter().cloned().map(LoadedAction).collect()
    }
    fn lag_us(&self, quantile: f64) -> u64 {
        self.0.lag.value_at_quantile(quantile)
    }
}

/// The load generator.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct Load(core::Load);

fn seconds(value: f64, name: &str) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|error| PyValueError::new_err(format!("{name}: {error}")))
}

fn arrivals_of(shape: &str, factor: f64, period_s: f64) -> PyResult<Arrivals> {
    let period = seconds(period_s, "period_s")?;
    match shape {
        "constant" => Ok(Arrivals::Constant),
        "poisson" => Ok(Arrivals::Poisson),
        "bursty" => Ok(Arrivals::Bursty { factor, period }),
        "wave" => Ok(Arrivals::Wave {
            depth: factor,
            period,
        }),
        other => Err(PyValueError::new_err(format!("no such arrivals: {other}"))),
    }
}

#[pymethods]
impl Load {
    #[new]
    #[pyo3(signature = (*, endpoints, targets, rate, duration_s, arrivals = "poisson", factor = 1.0, period_s = 1.0,
        connections = 1, deadline_s = 60.0, outstanding_max = 10_000, late_s = 1.0, bucket_s = 0.1, seed = 0))]
    #[allow(clippy::too_many_arguments, reason = "they are all by name")]
    fn new(
        endpoints: Vec<String>,
        targets: Vec<(String, Vec<u8>, f64)>,
        rate: f64,
        duration_s: f64,
        arrivals: &str,
        factor: f64,
        period_s: f64,
        connections: usize,
        deadline_s: f64,
        outstanding_max: usize,
        late_s: f64,
        bucket_s: f64,
        seed: u64,
    ) -> PyResult<Self> {
        let address = |text: &String| {
            text.parse::<SocketAddr>()
                .map_err(|_| PyValueError::new_err(format!("not an IP address and a port: {text}")))
        };
        let plan = Plan {
            endpoints: endpoints.iter().map(address).collect::<PyResult<_>>()?,
            connections,
            targets: targets
                .into_iter()
                .map(|(action, payload, weight)| Target {
                    action,
                    payload,
                    weight,
                })
                .collect(),
            arrivals: arrivals_of(arrivals, factor, period_s)?,
            rate,
            duration: seconds(duration_s, "duration_s")?,
            deadline: seconds(deadline_s, "deadline_s")?,
            outstanding_max,
            late: seconds(late_s, "late_s")?,
            bucket: seconds(bucket_s, "bucket_s")?,
            seed,
        };
        let load = core::Load::new(plan);
        load.map(Self)
            .map_err(|error| PyValueError::new_err(error.0))
    }

    fn run(&self, py: Python<'_>) -> PyResult<LoadReport> {
        let done = py.detach(|| self.0.run());
        done.map(LoadReport).map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => PyConnectionError::new_err(error.to_string()),
            _ => PyRuntimeError::new_err(error.to_string()),
        })
    }

    fn stop(&self) {
        self.0.stop();
    }

    fn progress(&self) -> (u64, u64, u64) {
        self.0.progress()
    }
}
