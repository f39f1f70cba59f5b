//! docs/pipeline.md says what the code says.

use std::path::Path;

use pipeline::DropReason;

#[test]
fn the_table_of_drop_reasons_is_the_enums() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pipeline.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let wanted: Vec<String> = DropReason::ALL
        .iter()
        .map(|reason| format!("| `{reason}` | {} | {} |", reason.stage().name(), reason.meaning().trim()))
        .collect();
    assert_eq!(rows, wanted, "the table of docs/pipeline.md should be:\n{}", wanted.join("\n"));
}
