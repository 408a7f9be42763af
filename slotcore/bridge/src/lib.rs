//! The Python extension `slotway._slotcore`. It converts between Python and the pure crates; no decision is made here.

use pyo3::prelude::*;

#[pymodule]
fn _slotcore(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
