//! docs/proof.md lists every planted mistake, and somebody found it.

use slotcore_accounting::Planted;

#[test]
fn the_page_tells_who_found_each_planted_mistake() {
    let page = include_str!("../../../docs/proof.md");
    for (bug, what) in Planted::ALL {
        let name = format!("| `{bug:?}` |");
        let row = page.lines().find(|line| line.starts_with(&name));
        let row = row.unwrap_or_else(|| panic!("{bug:?} is missing: run `make proof`"));
        assert!(row.contains(what.trim()), "{bug:?} is told otherwise");
        let findings: Vec<&str> = row.split('|').skip(3).collect();
        let found = findings.iter().any(|cell| cell.contains("after"));
        assert!(found, "nobody found {bug:?}: {row}");
    }
    assert!(page.contains("states in all"), "no search is on the page");
}
