//! What a command shows: tables and colours on a terminal, plain tab-separated lines elsewhere.
//!
//! In: rows. Out: text on standard output. Must never colour when `NO_COLOR` is set or nobody looks.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};

/// Standard output, and what it can do.
pub struct Screen {
    out: Box<dyn Write>,
    terminal: bool,
    colour: bool,
    /// Nobody has to listen: what cannot be written is let go.
    forgiving: bool,
}

/// How a cell is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// Look at it.
    Doubtful,
    /// Something is wrong.
    Bad,
    /// Less important.
    Faint,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a meaning.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Faint => Style::new().dimmed(),
        }
    }

    /// The tone of a device's or wire's state word.
    pub fn of_state(state: &str) -> Self {
        match state {
            "online" | "open" | "applied" | "good" | "synced" => Self::Good,
            "stale" | "pending" | "unknown" | "idle" | "superseded" | "degraded" | "connecting" | "syncing" => {
                Self::Doubtful
            }
            "offline" | "closed" | "failed" | "rejected" | "expired" | "away" => Self::Bad,
            _ => Self::Plain,
        }
    }
}

/// Whether colours may be shown on a stream: somebody looks, and `NO_COLOR` is not set.
pub fn shows_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Screen {
    /// Standard output.
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        Self { terminal: stdout.is_terminal(), colour: shows_colour(&stdout), forgiving: false, out: Box::new(stdout) }
    }

    /// From now on a reader that went away is no error: for commands that stay when nobody listens any more.
    pub fn forgive(&mut self) {
        self.forgiving = true;
    }

    fn told(&self, result: io::Result<()>) -> io::Result<()> {
        if self.forgiving { Ok(()) } else { result }
    }

    /// Whether somebody looks.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The text in its tone, if colours are shown.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        if self.colour && tone != Tone::Plain {
            let style = tone.style();
            format!("{}{text}{}", style.render(), style.render_reset())
        } else {
            text.to_owned()
        }
    }

    /// One line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        let written = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        self.told(written)
    }

    /// A table with a heading on a terminal; tab-separated rows elsewhere.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn table(&mut self, heading: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
        if !self.terminal {
            for row in rows {
                let cells: Vec<&str> = row.iter().map(|cell| cell.text.as_str()).collect();
                writeln!(self.out, "{}", cells.join("\t"))?;
            }
            return self.out.flush();
        }
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
            cells.chain(heading.get(column).map(|text| text.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        let heading: Vec<Cell> = heading.iter().map(|text| Cell::new(*text, Tone::Faint)).collect();
        for row in std::iter::once(&heading).chain(rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = width.saturating_sub(cell.text.chars().count());
                line.push_str(&self.paint(&cell.text, cell.tone));
                line.push_str(&" ".repeat(padding + 2));
            }
            writeln!(self.out, "{}", line.trim_end())?;
        }
        self.out.flush()
    }

    /// A JSON document on one line, for scripts.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn json(&mut self, document: &serde_json::Value) -> io::Result<()> {
        self.line(&document.to_string())
    }
}
