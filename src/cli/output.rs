//! Results on stdout: text and tables for people, one JSON document for programs.

use std::io::{self, BufWriter, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    is_json: bool,
    is_terminal: bool,
}

impl Output {
    /// JSON when `is_json`; tables fold to the width of a terminal when `is_terminal`.
    pub fn new(is_json: bool, is_terminal: bool) -> Self {
        Self {
            is_json,
            is_terminal,
        }
    }

    /// Whether the result is to be one JSON document.
    pub fn is_json(self) -> bool {
        self.is_json
    }

    /// Prints a line for people; nothing in JSON form.
    pub fn line(self, text: impl AsRef<str>) {
        if !self.is_json {
            write_out(text.as_ref());
        }
    }

    /// Prints a table for people; nothing in JSON form.
    pub fn table(self, header: &[&str], rows: Vec<Vec<String>>) {
        if self.is_json {
            return;
        }
        let mut table = Table::new();
        table
            .load_preset(NOTHING)
            .set_header(header.iter().copied())
            .add_rows(rows);
        if !self.is_terminal {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.line(table.trim_fmt());
    }

    /// Prints the one JSON document as it is made, however long it is; nothing in text form.
    pub fn json(self, document: &impl Serialize) {
        if self.is_json {
            let mut stdout = BufWriter::new(io::stdout().lock());
            match serde_json::to_writer_pretty(&mut stdout, document) {
                Ok(()) => drop(writeln!(stdout).and_then(|()| stdout.flush())),
                // As of `write_out`.
                Err(error) if error.is_io() => {}
                Err(error) => tracing::error!(%error, "cannot print the result as JSON"),
            }
        }
    }

    /// Prints a shell's completions.
    pub fn completions(self, shell: clap_complete::Shell, command: &mut clap::Command) {
        let mut script = Vec::new();
        clap_complete::generate(shell, command, "cellarman", &mut script);
        write_out(String::from_utf8_lossy(&script).trim_end());
    }
}

/// A reader that went away (`| head`) is no failure of the command.
fn write_out(text: &str) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}
