//! The Python extension `slotway._slotcore`. It converts between Python and the pure crates; no decision is made here.

mod dataplane;
mod ledger;
mod load;
mod table;

use mimalloc::MiMalloc;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};
use slotcore_accounting as core;

/// A warm request allocates some dozen times, mostly in h2: with this allocator it takes 5 % less of the processor.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// (epoch, revision).
type Term = (i64, i64);
/// (epoch, revision, counter).
type Version = (i64, i64, i64);

fn term_of((epoch, revision): Term) -> core::Term {
    core::Term { epoch, revision }
}

fn term_to(term: core::Term) -> Term {
    (term.epoch, term.revision)
}

fn version_of((epoch, revision, counter): Version) -> core::Version {
    core::Version {
        term: term_of((epoch, revision)),
        counter,
    }
}

fn version_to(version: core::Version) -> Version {
    (version.term.epoch, version.term.revision, version.counter)
}

#[pymodule]
fn _slotcore(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    let (tuple, int) = (py.get_type::<PyTuple>(), py.get_type::<PyInt>());
    module.add("Term", tuple.get_item((&int, &int))?)?;
    module.add("Version", tuple.get_item((&int, &int, &int))?)?;
    module.add("LedgerError", py.get_type::<ledger::LedgerError>())?;
    module.add("CommitPending", py.get_type::<ledger::CommitPending>())?;
    module.add_class::<ledger::Order>()?;
    module.add_class::<ledger::Commit>()?;
    module.add_class::<ledger::Ledger>()?;
    module.add_class::<dataplane::DataPlane>()?;
    module.add_class::<dataplane::Events>()?;
    module.add_class::<load::Load>()?;
    module.add_class::<load::LoadReport>()?;
    module.add_class::<load::LoadedAction>()?;
    module.add_class::<table::Slot>()?;
    module.add_class::<table::SlotTable>()?;
    Ok(())
}
