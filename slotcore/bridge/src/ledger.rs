//! `Ledger`, `Order` and `Commit` for Python.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use slotcore_accounting as core;
use slotcore_accounting::{LedgerError as Refused, Name, Record};

use crate::{Term, Version, term_of, term_to, version_of, version_to};

pyo3::create_exception!(
    _slotcore,
    LedgerError,
    PyValueError,
    "The ledger refuses a step; nothing changed. The message says which rule it would break."
);
pyo3::create_exception!(
    _slotcore,
    CommitPending,
    LedgerError,
    "A commit is under way: events wait for the next turn."
);

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn py_err(error: Refused) -> PyErr {
    match error {
        Refused::CommitPending => CommitPending::new_err(error.to_string()),
        _ => LedgerError::new_err(error.to_string()),
    }
}

/// An absolute target to be sent on the stream it was planned for.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct Order(core::Order);

#[pymethods]
impl Order {
    #[getter]
    fn router(&self) -> &str {
        &self.0.router
    }
    #[getter]
    fn stream(&self) -> u64 {
        self.0.stream
    }
    #[getter]
    fn container(&self) -> &str {
        &self.0.container
    }
    #[getter]
    fn target(&self) -> u32 {
        self.0.target
    }
    #[getter]
    fn version(&self) -> Version {
        version_to(self.0.version)
    }
    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// One guarded transaction.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct Commit(core::Commit);

#[pymethods]
impl Commit {
    #[getter]
    fn term(&self) -> Term {
        term_to(self.0.term)
    }
    #[getter]
    fn turn(&self) -> i64 {
        self.0.turn
    }
    #[getter]
    fn puts(&self) -> Vec<(&str, HashMap<&str, u32>)> {
        let puts = self.0.puts.iter();
        puts.map(|record| (&*record.container, shares_to(&record.shares)))
            .collect()
    }
    #[getter]
    fn deletes(&self) -> Vec<&str> {
        self.0.deletes.iter().map(|id| &**id).collect()
    }
    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// (container, capacity, shares).
type PyRecord = (String, u32, HashMap<String, u32>);

fn shares_to(shares: &BTreeMap<Name, u32>) -> HashMap<&str, u32> {
    shares.iter().map(|(k, v)| (&**k, *v)).collect()
}

fn records_of(records: &Bound<'_, PyAny>) -> PyResult<Vec<Record>> {
    let mut taken = Vec::new();
    for record in records.try_iter()? {
        let (container, capacity, shares): PyRecord = record?.extract()?;
        taken.push(Record {
            container: container.into(),
            capacity,
            shares: shares.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        });
    }
    Ok(taken)
}

/// The Manager's side of the protocol.
#[pyclass(frozen, module = "slotway._slotcore")]
pub struct Ledger(Mutex<core::Ledger>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, core::Ledger> {
        // A panic under the lock is a broken promise of the ledger's own; it has been raised already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Ledger {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(core::Ledger::new()))
    }

    fn lead(
        &self,
        term: Term,
        turn: i64,
        records: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<(String, u64)>> {
        let records = records_of(records)?;
        let streams = self
            .lock()
            .lead(term_of(term), turn, records)
            .map_err(py_err)?;
        Ok(streams
            .into_iter()
            .map(|(router, stream)| (router.to_string(), stream))
            .collect())
    }

    fn depose(&self) {
        self.lock().depose();
    }

    #[getter]
    fn term(&self) -> Option<Term> {
        self.lock().term().map(term_to)
    }

    #[getter]
    fn pending(&self) -> bool {
        self.lock().pending()
    }

    #[getter]
    fn staged(&self) -> bool {
        self.lock().staged()
    }

    fn attach(&self, router: &str, stream: u64) -> bool {
        self.lock().attach(router, stream)
    }

    fn detach(&self, router: &str, stream: u64) {
        self.lock().detach(router, stream);
    }

    fn hello(
        &self,
        router: &str,
        stream: u64,
        term: Term,
        holdings: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<String>> {
        let holdings: Vec<(String, u32, u32)> = holdings
            .try_iter()?
            .map(|holding| holding?.extract())
            .collect::<PyResult<_>>()?;
        let holdings = holdings
            .iter()
            .map(|(container, held, running)| (container.as_str(), *held, *running));
        let ended = self
            .lock()
            .hello(router, stream, term_of(term), holdings)
            .map_err(py_err)?;
        Ok(ended.iter().map(ToString::to_string).collect())
    }

    fn acknowledge(
        &self,
        router: &str,
        stream: u64,
        container: &str,
        holding: u32,
        version: Version,
    ) -> PyResult<bool> {
        self.lock()
            .acknowledge(router, stream, container, holding, version_of(version))
            .map_err(py_err)
    }

    fn add(&self, container: &str, capacity: u32) -> PyResult<()> {
        self.lock().add(container, capacity).map_err(py_err)
    }

    fn give(&self, container: &str, capacity: u32) -> PyResult<()> {
        self.lock().give(container, capacity).map_err(py_err)
    }

    fn touch(&self, container: &str) -> PyResult<()> {
        self.lock().touch(container).map_err(py_err)
    }

    fn remove(&self, container: &str) -> PyResult<()> {
        self.lock().remove(container).map_err(py_err)
    }

    fn grant(&self, container: &str, router: &str, target: u32) -> PyResult<()> {
        self.lock().grant(container, router, target).map_err(py_err)
    }

    fn recall(&self, container: &str, router: &str, target: u32) -> PyResult<()> {
        self.lock()
            .recall(container, router, target)
            .map_err(py_err)
    }

    fn begin(&self, records_max: usize) -> PyResult<Option<Commit>> {
        let commit = self.lock().begin(records_max).map_err(py_err)?;
        Ok(commit.map(Commit))
    }

    fn begin_empty(&self) -> PyResult<Commit> {
        self.lock().begin_empty().map(Commit).map_err(py_err)
    }

    fn committed(&self, revision: i64) -> PyResult<()> {
        self.lock().committed(revision).map_err(py_err)
    }

    fn rejected(&self) {
        self.lock().rejected();
    }

    fn unknown(&self) -> PyResult<Term> {
        self.lock().unknown().map(term_to).map_err(py_err)
    }

    fn settled(&self, revision: i64, records: &Bound<'_, PyAny>) -> PyResult<()> {
        let records = records_of(records)?;
        self.lock().settled(revision, records).map_err(py_err)
    }

    fn orders(&self) -> Vec<Order> {
        self.lock().orders().into_iter().map(Order).collect()
    }

    fn shares(&self, container: &str) -> HashMap<String, u32> {
        owned(self.lock().shares(container))
    }

    fn staged_shares(&self, container: &str) -> HashMap<String, u32> {
        owned(self.lock().staged_shares(container))
    }

    fn target(&self, container: &str, router: &str) -> u32 {
        self.lock().target(container, router)
    }

    fn free(&self, container: &str) -> u32 {
        self.lock().free(container)
    }

    fn known(&self, router: &str) -> bool {
        self.lock().known(router)
    }

    fn version_sent(&self, container: &str, router: &str) -> Option<Version> {
        self.lock().version_sent(container, router).map(version_to)
    }

    fn containers_of(&self, router: &str) -> Vec<String> {
        let containers = self.lock().containers_of(router);
        containers.iter().map(ToString::to_string).collect()
    }
}

fn owned(shares: BTreeMap<Name, u32>) -> HashMap<String, u32> {
    shares
        .into_iter()
        .map(|(router, slots)| (router.to_string(), slots))
        .collect()
}
