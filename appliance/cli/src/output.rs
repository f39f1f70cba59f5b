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

/// Rows below a header, columns two spaces apart.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, values below each other.
pub(crate) fn facts(indent: usize, facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{:indent$}{name:<width$}  {value}", "");
    }
    text
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
    let red = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (on, off) = if red { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
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

    #[test]
    fn columns_stand_below_each_other_without_trailing_spaces() {
        let rows = vec![vec!["web-1".into(), "up".into()], vec!["database-1".into(), "-".into()]];
        assert_eq!(table(&["NAME", "LINK"], rows), "NAME        LINK\nweb-1       up\ndatabase-1  -\n");
    }

    #[test]
    fn facts_align_their_values() {
        let facts = facts(2, &[("mac", "52:54:00:00:00:01".into()), ("link", "up".into())]);
        assert_eq!(facts, "  mac   52:54:00:00:00:01\n  link  up\n");
    }
}
