//! The way out: results to stdout, everything else to stderr.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::failure::Failure;
use crate::yaml;

/// How results are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs: one JSON value
    Json,
    /// For programs and `apply`: YAML, several resources as several documents
    Yaml,
}

/// `-o`, for commands that have results.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputArgs {
    /// How to write results
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// Writes text to stdout and makes sure it is out.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::reader_left(),
        _ => Failure::new(format!("stdout cannot be written: {error}")),
    })
}

/// Writes a result: a value in the formats for programs, else what `table` makes of it.
pub(crate) fn result<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => print(&table()),
        Format::Json => print(&json(value)?),
        Format::Yaml => print(&yaml::document(&tree(value)?)),
    }
}

/// Writes a list: an array in JSON, one document for each item in YAML.
pub(crate) fn list<T: Serialize>(
    format: Format,
    items: &[T],
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => print(&table()),
        Format::Json => print(&json(&items)?),
        Format::Yaml => {
            let documents: Result<Vec<String>, Failure> =
                items.iter().map(|item| Ok(yaml::document(&tree(item)?))).collect();
            print(&documents?.join("---\n"))
        }
    }
}

/// Writes a value as one line of JSON.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(unwritable)?;
    print(&format!("{line}\n"))
}

/// A line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) cells: Vec<String>,
    /// Something is wrong with it: red where there are colours.
    pub(crate) alarm: bool,
}

impl From<Vec<String>> for Row {
    fn from(cells: Vec<String>) -> Self {
        Self { cells, alarm: false }
    }
}

/// Rows below a header, columns two spaces apart. A row stays one line, whatever its cells hold.
pub(crate) fn table(header: &[&str], rows: Vec<Row>) -> String {
    table_with(header, &rows, has_colours(io::stdout().is_terminal()))
}

fn table_with(header: &[&str], rows: &[Row], colours: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows.iter().map(|row| row.cells.iter().map(|cell| visible(cell))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    let alarms = std::iter::once(false).chain(rows.iter().map(|row| row.alarm));
    for (line, alarm) in table.lines().zip(alarms) {
        let (on, off) = if alarm && colours { (RED, PLAIN) } else { ("", "") };
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{on}{}{off}", line.trim_end());
    }
    text
}

/// SGR 31 of ECMA-48: red; and SGR 0: as it was.
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Whether to colour what goes to a terminal; see no-color.org.
pub(crate) fn has_colours(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Names and values, values below each other.
pub(crate) fn facts(indent: usize, facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{:indent$}{name:<width$}  {}", "", visible(value));
    }
    text
}

/// Text without the means to drive a terminal: much of what is shown was written by others.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// A value of a table, or a dash when there is none.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Something a person may want to know beside the result.
pub(crate) fn remark(text: &str) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Why the command failed.
pub(crate) fn error(text: &str) {
    if text.is_empty() {
        return;
    }
    let text = text.lines().map(visible).collect::<Vec<_>>().join("\n");
    let (on, off) = if has_colours(io::stderr().is_terminal()) { (RED, PLAIN) } else { ("", "") };
    remark(&format!("{on}error:{off} {text}"));
}

/// A value as JSON, with a newline behind it.
fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(unwritable)?;
    text.push('\n');
    Ok(text)
}

fn tree<T: Serialize>(value: &T) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(value).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::new(format!("the result cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const N: usize>(cells: [&str; N]) -> Row {
        cells.map(str::to_owned).to_vec().into()
    }

    #[test]
    fn columns_stand_below_each_other_without_trailing_spaces() {
        let rows = [row(["web-1", "up"]), row(["database-1", "-"])];
        let expected = "NAME        LINK\nweb-1       up\ndatabase-1  -\n";
        assert_eq!(table_with(&["NAME", "LINK"], &rows, true), expected);
    }

    #[test]
    fn what_is_wrong_is_red_where_there_are_colours() {
        let rows = [row(["a", "up"]), Row { alarm: true, ..row(["b", "down"]) }];
        let expected = "NAME  LINK\na     up\n\x1b[31mb     down\x1b[0m\n";
        assert_eq!(table_with(&["NAME", "LINK"], &rows, true), expected);
        assert!(!table_with(&["NAME", "LINK"], &rows, false).contains('\x1b'));
    }

    #[test]
    fn nothing_shown_can_drive_a_terminal() {
        let rows = [row(["\x1b[2J\nroot", "b\u{9b}1m"])];
        let shown = table_with(&["A", "B"], &rows, true);
        assert_eq!(shown.lines().count(), 2);
        for text in [shown, facts(0, &[("a", "\x1b[1m\r".into())])] {
            assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
        }
    }

    #[test]
    fn facts_align_their_values() {
        let facts = facts(2, &[("mac", "52:54:00:00:00:01".into()), ("link", "up".into())]);
        assert_eq!(facts, "  mac   52:54:00:00:00:01\n  link  up\n");
    }
}
