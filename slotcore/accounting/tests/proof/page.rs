//! The findings as tables, for people.

use std::fmt::Write;

use crate::Hunt;
use crate::exhaust::Search;
use crate::walk::Walks;
use crate::world::Bounds;

const BEGIN: &str = "<!-- findings: written by `make proof` -->";
const END: &str = "<!-- end of findings -->";

pub fn walks(walks: &Walks) -> String {
    match walks.broken {
        Some(broken) => format!("{broken}, after {} steps", walks.steps),
        None => format!("held for {} steps in {} walks", walks.steps, walks.count),
    }
}

pub fn search(search: &Search) -> String {
    let Search { states, depth, .. } = search;
    match (&search.broken, search.complete) {
        (Some((broken, steps)), _) => {
            format!(
                "{broken}, {} steps deep, after {states} states",
                steps.len()
            )
        }
        (None, true) => format!("held in all {states} states, depth {depth}"),
        (None, false) => format!("held in the first {states} states, to depth {depth}"),
    }
}

fn bounds(bounds: &Bounds) -> String {
    let turns = if bounds.prompt { "one event" } else { "any" };
    format!(
        "{} | {} | {} | {} | {} | {} | {} | {} | {turns}",
        bounds.capacity,
        bounds.messages,
        bounds.transactions,
        bounds.takeovers,
        bounds.crashes,
        bounds.streams,
        bounds.unknowns,
        bounds.plans,
    )
}

fn tables(
    searches: &[(&str, Bounds, Search)],
    random: &Walks,
    hunts: &[Hunt],
) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    writeln!(page, "### Every order of events")?;
    writeln!(page)?;
    writeln!(
        page,
        "| search | C | messages | late writes | takeovers | crashes | new streams | lost answers | plans | a turn | finding |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|---|---|")?;
    for (name, limits, found) in searches {
        writeln!(page, "| {name} | {} | {} |", bounds(limits), search(found))?;
    }
    let states: usize = searches.iter().map(|(_, _, search)| search.states).sum();
    writeln!(page)?;
    writeln!(page, "{states} states in all.")?;
    writeln!(page)?;
    writeln!(page, "### Random walks")?;
    writeln!(page)?;
    writeln!(page, "Two containers, C from 1 to 3: {}.", walks(random))?;
    writeln!(page)?;
    writeln!(page, "### Planted mistakes")?;
    writeln!(page)?;
    writeln!(page, "| mistake | what it does | random walks | search |")?;
    writeln!(page, "|---|---|---|---|")?;
    for hunt in hunts {
        let random = match hunt.walks.broken {
            Some(_) => walks(&hunt.walks),
            None => format!("not in {} steps", hunt.walks.steps),
        };
        let exhaustive = match hunt.search.broken {
            Some(_) => search(&hunt.search),
            None => format!("not in {} states", hunt.search.states),
        };
        let what = hunt.what.trim();
        writeln!(
            page,
            "| `{:?}` | {what} | {random} | {exhaustive} |",
            hunt.bug
        )?;
    }
    Ok(page)
}

/// Puts the findings between the page's markers.
pub fn write(path: &str, searches: &[(&str, Bounds, Search)], random: &Walks, hunts: &[Hunt]) {
    let page = std::fs::read_to_string(path).expect("the page is there");
    let (head, rest) = page.split_once(BEGIN).expect("the page's first marker");
    let (_, tail) = rest.split_once(END).expect("the page's last marker");
    let tables = tables(searches, random, hunts).expect("a string takes everything");
    let page = format!("{head}{BEGIN}\n\n{tables}\n{END}{tail}");
    std::fs::write(path, page).expect("the page can be written");
}
