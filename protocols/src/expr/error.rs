//! What can be wrong with an expression: as a text, and while it runs.

use super::{EXPRESSION_BYTES, EXPRESSION_TOKENS, NESTING, WINDOW_MS};

/// Why a text is no expression. Positions are bytes from the start of the text, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// There is nothing.
    #[error("the expression is empty")]
    Empty,
    /// It is longer than [`EXPRESSION_BYTES`].
    #[error("the expression has {bytes} bytes, more than {EXPRESSION_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It has more parts than [`EXPRESSION_TOKENS`].
    #[error("the expression has more than {EXPRESSION_TOKENS} words, numbers and signs")]
    TooManyParts {
        /// Where the first one too many stands.
        at: usize,
    },
    /// Brackets nest deeper than [`NESTING`].
    #[error("brackets nest deeper than {NESTING}")]
    TooDeep {
        /// The bracket that goes too deep.
        at: usize,
    },
    /// The grammar has no place for this.
    #[error("{text}")]
    Syntax {
        /// Where it stands.
        at: usize,
        /// What stands there.
        text: String,
    },
    /// CEL has this, profiles have not.
    #[error("{what} cannot be used in a profile")]
    Unsupported {
        /// Where it stands.
        at: usize,
        /// What it is.
        what: &'static str,
    },
    /// No property of that name.
    #[error("there is no property \"{name}\"")]
    UnknownName {
        /// Where it stands.
        at: usize,
        /// The name.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// No function of that name.
    #[error("there is no function \"{name}\"")]
    UnknownFunction {
        /// Where it stands.
        at: usize,
        /// The name.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// A function is called in another way than it can be.
    #[error("{function} is called as {usage}")]
    Arguments {
        /// Where it stands.
        at: usize,
        /// The function.
        function: &'static str,
        /// How it is called.
        usage: &'static str,
    },
    /// A window of time that is none.
    #[error("\"{text}\" is no window of time; write '30s', '15m' or '1h', up to {} days", WINDOW_MS / 86_400_000)]
    Window {
        /// Where it stands.
        at: usize,
        /// What stands there.
        text: String,
    },
    /// A part gives the wrong kind of value.
    #[error("{what} is wanted here, not {got}")]
    Type {
        /// Where it stands.
        at: usize,
        /// What is wanted.
        what: &'static str,
        /// What stands there.
        got: &'static str,
    },
    /// A quality is compared with a word that it never has.
    #[error("a quality is never \"{word}\"")]
    QualityWord {
        /// Where it stands.
        at: usize,
        /// The word.
        word: String,
    },
}

impl ExprError {
    /// Where it is wrong: bytes from the start of the text, from 0.
    pub fn position(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::TooLong { .. } => EXPRESSION_BYTES,
            Self::TooManyParts { at }
            | Self::TooDeep { at }
            | Self::Syntax { at, .. }
            | Self::Unsupported { at, .. }
            | Self::UnknownName { at, .. }
            | Self::UnknownFunction { at, .. }
            | Self::Arguments { at, .. }
            | Self::Window { at, .. }
            | Self::Type { at, .. }
            | Self::QualityWord { at, .. } => *at,
        }
    }

    /// What would be right, where that can be told.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownName { nearest: Some(nearest), .. } | Self::UnknownFunction { nearest: Some(nearest), .. } => {
                Some(format!("did you mean \"{nearest}\"?"))
            }
            Self::UnknownFunction { .. } => Some(format!("functions are {}", super::parse::FUNCTIONS.join(", "))),
            Self::QualityWord { .. } => Some("it is 'good', 'uncertain' or 'bad'".to_owned()),
            _ => None,
        }
    }
}

/// Why an expression has no value now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An input has no good value, or not enough history yet.
    #[error("{0} has no good value")]
    Missing(String),
    /// A value has the wrong type.
    #[error("{what} is wanted, not {got}")]
    Type {
        /// What is wanted.
        what: &'static str,
        /// What there is.
        got: &'static str,
    },
    /// A division by zero, or a result beyond what a number can hold.
    #[error("the result is no number")]
    NotANumber,
}
