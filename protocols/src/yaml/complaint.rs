//! What is wrong in a file, where, and what would be right.
//!
//! In: places and words. Out: a sorted list without repetitions. Must never name a value that may be a secret.

use std::fmt;

use serde::Serialize;

use super::{COMPLAINTS, Place};

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Complaint {
    /// The file as it was named to the reader.
    pub file: String,
    /// The line, from 1; 0 where the complaint is about the file as a whole.
    pub line: u32,
    /// The column, from 1, in characters; 0 where the complaint is about the file as a whole.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right; empty where nothing can be said.
    pub hint: String,
}

impl Complaint {
    /// A complaint about a place.
    pub fn new(place: &Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            file: place.file.to_string(),
            line: place.line,
            column: place.column,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A complaint about a file as a whole.
    pub fn about_file(file: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into(), hint: hint.into() }
    }
}

/// `file:line:column: message`, and the hint on a line of its own.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message)?,
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message)?,
        }
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.hint) }
    }
}

/// Complaints as they are collected.
#[derive(Clone, Debug, Default)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    pub fn add(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Complaint::new(place, message, hint));
    }

    /// One more, already made.
    pub fn push(&mut self, complaint: Complaint) {
        self.0.push(complaint);
    }

    /// All of another collection.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Keeps those that `keep` says yes to.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Complaint) -> bool) {
        self.0.retain(keep);
    }

    /// Whether one of them stands here.
    pub(super) fn are_about(&self, place: &Place) -> bool {
        self.0.iter().any(|one| (one.line, one.column) == (place.line, place.column) && *one.file == *place.file)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By file, line and column, each once; of one file at most [`COMPLAINTS`], with the number of those left out.
    pub fn into_sorted(mut self) -> Vec<Complaint> {
        self.0.sort();
        self.0.dedup();
        let mut shown: Vec<Complaint> = Vec::new();
        for of_file in self.0.chunk_by(|a, b| a.file == b.file) {
            let (head, tail) = of_file.split_at(of_file.len().min(COMPLAINTS));
            shown.extend_from_slice(head);
            if let Some(first) = tail.first() {
                let message = format!("… and {} more", tail.len());
                shown.push(Complaint { message, hint: String::new(), ..first.clone() });
            }
        }
        shown
    }
}

/// The word of `known` that `word` is most likely meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 4);
    // `float` for float32, `integer` for int: three letters at the beginning say enough.
    let begins = |a: &str, b: &str| b.len() >= 3 && a.starts_with(b);
    known
        .into_iter()
        .map(|candidate| (candidate.to_lowercase(), candidate))
        .map(|(small, candidate)| {
            let distance = strsim::damerau_levenshtein(&lower, &small);
            (distance, distance <= limit || begins(&lower, &small) || begins(&small, &lower), candidate)
        })
        .filter(|(_, is_near, _)| *is_near)
        .min()
        .map(|(_, _, candidate)| candidate)
}

/// At most this many words stand in a hint; the rest is given as a number.
const LISTED_WORDS: usize = 30;

/// `a, b, c`, shortened when there are very many.
pub fn quoted_list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    let (head, tail) = words.split_at(words.len().min(LISTED_WORDS));
    let mut text = head.join(", ");
    if !tail.is_empty() {
        text.push_str(&format!(" and {} more", tail.len()));
    }
    text
}
