//! Expressions of profiles: conditions and formulas over a device's properties.
//!
//! In: the text of an expression when a file is checked; values when it runs. Out: a value. Must never run without a
//! bound on its cost, and never make a number out of a reading that is not there.
//!
//! The language is a part of CEL (the Common Expression Language) and is read by the `cel` crate's parser. It is run
//! here, not by that crate, because CEL tells integers from doubles (`power * 2` is an error there for a power of 1.5
//! W) and knows no missing readings, no windows of time and no bound on its cost. What a parser might do with hostile
//! text is bounded before it sees it: length, tokens, nesting.

mod error;
mod eval;
mod history;
mod parse;

pub use error::{EvalError, ExprError};
pub use history::{HISTORY_SAMPLES, History, WindowStore};

use crate::value::{Quality, Value};

/// The longest expression, in bytes; a longer one is an error of the profile.
pub const EXPRESSION_BYTES: usize = 1024;

/// The most words, numbers and signs in one expression, and so the most nodes of its tree; more is an error of the
/// profile.
pub const EXPRESSION_TOKENS: usize = 256;

/// How deep brackets may nest; deeper is an error of the profile.
pub const NESTING: usize = 16;

/// The longest window of `avg`, `min`, `max` and `rate`, in milliseconds (one week); a longer one is an error of the
/// profile, because a gateway that restarts now and then could not fill it.
pub const WINDOW_MS: u64 = 7 * 24 * 3_600_000;

/// What an expression sees while it runs.
///
/// A name that has no good value *now* — never read, bad, or stale — gives `None` from [`Scope::value`]; then the
/// expression ends with [`EvalError::Missing`]. Quality and age are known all the same.
pub trait Scope {
    /// The value of a property, if there is one that can be trusted.
    fn value(&self, name: &str) -> Option<Value>;

    /// The quality of its latest reading; `None` when it was never read.
    fn quality(&self, name: &str) -> Option<Quality>;

    /// Milliseconds since its latest good reading.
    fn age_ms(&self, name: &str) -> Option<u64>;

    /// What is known of its last `window_ms` milliseconds.
    fn window(&self, name: &str, window_ms: u64) -> Option<Window>;

    /// Its value before the latest one.
    fn previous(&self, name: &str) -> Option<Value>;
}

/// A property over a window of time, from its good readings in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Mean of the readings.
    pub avg: f64,
    /// Lowest reading.
    pub min: f64,
    /// Highest reading.
    pub max: f64,
    /// From the first reading to the last, per second; `None` while there is one reading only.
    pub rate: Option<f64>,
    /// How many readings there were; never 0.
    pub readings: u64,
}

/// What kind of value an expression gives, as far as its text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A number.
    Number,
    /// A condition.
    Condition,
    /// Text.
    Text,
    /// Whatever a property holds.
    Any,
}

/// A checked expression. Two of them are equal when their texts are.
#[derive(Debug)]
pub struct Expression {
    text: String,
    inputs: Vec<String>,
    windows: Vec<(String, u64)>,
    shape: Shape,
    root: Node,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expression {
    /// Reads and checks an expression in which `names` may stand.
    ///
    /// # Errors
    /// When it is no expression, names something unknown, or goes beyond a bound; the error knows where
    /// ([`ExprError::position`]) and, for a slip of the pen, what was meant ([`ExprError::hint`]).
    pub fn parse(text: &str, names: &[&str]) -> Result<Self, ExprError> {
        parse::parse(text, names)
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every name in it, each once, in the order of their first appearance.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// The windows of time it looks at: name and length in milliseconds.
    pub fn windows(&self) -> &[(String, u64)] {
        &self.windows
    }

    /// What kind of value it gives.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Runs it. Numbers that were calculated are doubles, also when they are whole; a property that is only passed on
    /// stays as it is, 64-bit integers included.
    ///
    /// # Errors
    /// When an input has no good value, has the wrong type, or the result is no number.
    pub fn eval(&self, scope: &dyn Scope) -> Result<Value, EvalError> {
        eval::Run { names: &self.inputs, scope }.node(&self.root)
    }

    /// Runs a condition.
    ///
    /// # Errors
    /// As [`Expression::eval`], and when the result is neither true nor false.
    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, EvalError> {
        match self.eval(scope)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(EvalError::Type { what: "a condition", got: eval::type_name(&other) }),
        }
    }
}

/// One node of the tree; names are indexes into [`Expression::inputs`].
#[derive(Debug)]
enum Node {
    Constant(Value),
    Name(usize),
    List(Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    Arithmetic(Operation, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Call(Function, Vec<Node>),
    Quality(usize),
    Age(usize),
    Previous(usize),
    Window(Statistic, usize, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Abs,
    Round,
    NaturalLog,
    DecimalLog,
    Exp,
    Root,
    Power,
    Bit,
    ShiftLeft,
    ShiftRight,
    ScaleTen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistic {
    Average,
    Lowest,
    Highest,
    Rate,
}

#[cfg(test)]
mod tests;
