//! What the documents say of the sources is so.

use std::collections::BTreeSet;
use std::path::Path;

/// The heading of the table in ARCHITECTURE.md.
const TABLE: &str = "## Faults of the earlier tool, and the tests";
/// So many faults are known.
const FAULTS: u32 = 31;

/// Whether there is a test of this name: `tests::file::name`, or `src::module::name`.
fn is_a_test(path: &str) -> bool {
    let (module, name) = path.rsplit_once("::").expect("a path");
    let file = module.replace("::", "/");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = [format!("{file}.rs"), format!("{file}/mod.rs")]
        .iter()
        .find_map(|file| std::fs::read_to_string(root.join(file)).ok());
    let Some(text) = text else { return false };
    let mut is_marked = false;
    for line in text.lines().map(str::trim) {
        let is_function = line.contains("fn ");
        if is_function && is_marked && line.contains(&format!("fn {name}(")) {
            return true;
        }
        is_marked = line.starts_with("#[test]")
            || line.starts_with("#[tokio::test")
            || is_marked && !is_function;
    }
    false
}

#[test]
fn each_fault_of_the_earlier_tool_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("it is there");
    let (_, table) = text.split_once(TABLE).expect("the table");
    let table = table.split("\n## ").next().expect("a section");
    let mut numbers = BTreeSet::new();
    for row in table.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(Ok(number)) = cells.get(1).map(|cell| cell.parse::<u32>()) else {
            continue;
        };
        let tests: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            assert!(is_a_test(test), "{number}: there is no test {test}");
        }
        numbers.insert(number);
    }
    assert_eq!(numbers, (1..=FAULTS).collect());
}

#[test]
fn a_test_that_is_not_there_is_none() {
    let here = "tests::documents::a_test_that_is_not_there_is_none";
    assert!(is_a_test(here));
    for none in [
        "tests::documents::is_a_test",
        "tests::documents::nowhere",
        "tests::nowhere::x",
    ] {
        assert!(!is_a_test(none), "{none}");
    }
}
