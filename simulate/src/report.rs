//! Tables and goals, as text.

use std::io::Write as _;

use crate::{Settings, runs::Times};

/// What was measured.
#[derive(Default)]
pub(crate) struct Report {
    tables: Vec<Table>,
    goals: Vec<Goal>,
}

struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

struct Goal {
    what: String,
    limit: f64,
    measured: Option<f64>,
}

impl Report {
    /// Begins a table.
    pub(crate) fn table(&mut self, title: &str, columns: &[&str]) {
        self.tables.push(Table {
            title: title.to_owned(),
            rows: vec![columns.iter().map(|&column| column.to_owned()).collect()],
        });
        progress(title);
    }

    /// Adds a line to the last table.
    pub(crate) fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        if let Some(table) = self.tables.last_mut() {
            let cells = std::iter::once(name.to_owned()).chain(cells);
            table.rows.push(cells.collect());
        }
    }

    /// Holds what was measured against the most it may be; nothing measured is a miss.
    pub(crate) fn at_most(&mut self, what: &str, limit: f64, measured: Option<f64>) {
        self.goals.push(Goal {
            what: what.to_owned(),
            limit,
            measured,
        });
    }

    /// Prints it all, and says whether a goal is missed.
    pub(crate) fn print(&self, settings: Settings) -> bool {
        let mut text = format!("{} runs a line, seed {}\n", settings.runs, settings.seed);
        for table in &self.tables {
            text.push_str(&format!("\n{}\n\n{}", table.title, table.text()));
        }
        text.push_str("\nGoals\n\n");
        text.push_str(&self.goals().text());
        let _ = std::io::stdout().write_all(text.as_bytes());
        self.goals.iter().any(|goal| !goal.is_met())
    }

    fn goals(&self) -> Table {
        let head = ["goal", "at most", "measured", ""]
            .map(str::to_owned)
            .to_vec();
        let each = self.goals.iter().map(|goal| {
            let measured = goal.measured.map_or("never".to_owned(), number);
            let word = if goal.is_met() { "met" } else { "missed" };
            vec![
                goal.what.clone(),
                number(goal.limit),
                measured,
                word.to_owned(),
            ]
        });
        Table {
            title: String::new(),
            rows: std::iter::once(head).chain(each).collect(),
        }
    }
}

impl Goal {
    fn is_met(&self) -> bool {
        self.measured.is_some_and(|measured| measured <= self.limit)
    }
}

impl Table {
    /// As a table of Markdown, in columns.
    fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<_> = (0..columns)
            .map(|column| {
                let lengths = self
                    .rows
                    .iter()
                    .map(|row| cell(row, column).chars().count());
                lengths.max().unwrap_or(0).max(3)
            })
            .collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                text.push_str(&format!("| {:width$} ", cell(row, column)));
            }
            text.push_str("|\n");
            if index == 0 {
                text.push_str(&"| --- ".repeat(columns));
                text.push_str("|\n");
            }
        }
        text
    }
}

/// A number of at most two digits behind the point, without zeros at the end.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A percentage: two digits behind the point where it is small.
pub(crate) fn percent(value: f64) -> String {
    if value < 9.95 {
        format!("{value:.2} %")
    } else {
        format!("{value:.0} %")
    }
}

/// How often something happened.
pub(crate) fn often(times: &Times) -> String {
    percent(times.percent())
}

/// How often something happened, and the median time.
pub(crate) fn often_and_median(times: &Times) -> String {
    let median = times
        .median()
        .map_or("–".to_owned(), |units| units.to_string());
    format!("{}; {median}", percent(times.percent()))
}

/// Says what is being done; on stderr, since stdout is for the report.
fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "simulate: {line}");
}
