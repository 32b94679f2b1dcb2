//! Running a checked expression. Its cost is bounded by the size of its tree: there are no loops.

use std::cmp::Ordering;

use super::{Comparison, EvalError, Function, Node, Operation, Scope, Statistic};
use crate::value::{self, Quality, Value};

/// Digits that `round` can keep; a double has no more.
const DIGITS: f64 = 15.0;

/// What a type is called in messages.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a condition",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// One run.
pub(super) struct Run<'a> {
    pub(super) names: &'a [String],
    pub(super) scope: &'a dyn Scope,
}

impl Run<'_> {
    pub(super) fn node(&self, node: &Node) -> Result<Value, EvalError> {
        Ok(match node {
            Node::Constant(value) => value.clone(),
            Node::Name(name) => {
                let name = self.name(*name);
                match self.scope.value(name) {
                    None | Some(Value::Null) => return Err(missing(name)),
                    Some(value) => value,
                }
            }
            Node::List(items) => Value::Array(items.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?),
            Node::Not(inner) => Value::Bool(!self.condition(inner)?),
            Node::Negate(inner) => number(-self.number(inner)?)?,
            Node::And(sides) => Value::Bool(self.junction(sides, false)?),
            Node::Or(sides) => Value::Bool(self.junction(sides, true)?),
            Node::If(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                return self.node(if self.condition(condition)? { then } else { otherwise });
            }
            Node::Compare(comparison, sides) => Value::Bool(self.compare(*comparison, sides)?),
            Node::Arithmetic(operation, sides) => self.arithmetic(*operation, sides)?,
            Node::In(sides) => Value::Bool(self.contains(sides)?),
            Node::Call(function, arguments) => self.call(*function, arguments)?,
            Node::Quality(name) => Value::from(match self.scope.quality(self.name(*name)) {
                Some(Quality::Good) => "good",
                Some(Quality::Uncertain(_)) => "uncertain",
                Some(Quality::Bad(_)) | None => "bad",
            }),
            Node::Age(name) => {
                let name = self.name(*name);
                value::from_f64(self.scope.age_ms(name).ok_or_else(|| missing(name))? as f64 / 1000.0)
            }
            Node::Previous(name) => {
                let name = self.name(*name);
                self.scope.previous(name).filter(|value| !value.is_null()).ok_or_else(|| missing(name))?
            }
            Node::Window(statistic, name, window_ms) => self.window(*statistic, *name, *window_ms)?,
        })
    }

    fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    fn number(&self, node: &Node) -> Result<f64, EvalError> {
        let value = self.node(node)?;
        value.as_f64().ok_or_else(|| EvalError::Type { what: "a number", got: type_name(&value) })
    }

    fn condition(&self, node: &Node) -> Result<bool, EvalError> {
        let value = self.node(node)?;
        value.as_bool().ok_or_else(|| EvalError::Type { what: "a condition", got: type_name(&value) })
    }

    /// A whole number, also when it comes as a double.
    fn whole(&self, node: &Node) -> Result<i128, EvalError> {
        let value = self.node(node)?;
        let whole = value.as_number().and_then(|number| {
            let double = number.as_f64().filter(|double| double.fract() == 0.0 && double.abs() < 1e38);
            number.as_i128().or(double.map(|double| double as i128))
        });
        whole.ok_or_else(|| EvalError::Type { what: "a whole number", got: type_name(&value) })
    }

    /// `&&` (`decides` is false) and `||` (`decides` is true). As in CEL a side that decides makes the other one's
    /// error void, whichever side it is: `bad && false` is false.
    fn junction(&self, sides: &[Node; 2], decides: bool) -> Result<bool, EvalError> {
        let [left, right] = sides;
        let left = self.condition(left);
        if left == Ok(decides) {
            return left;
        }
        let right = self.condition(right);
        if right == Ok(decides) { right } else { left.and(right) }
    }

    fn compare(&self, comparison: Comparison, sides: &[Node; 2]) -> Result<bool, EvalError> {
        let [left, right] = [self.node(&sides[0])?, self.node(&sides[1])?];
        if std::mem::discriminant(&left) != std::mem::discriminant(&right) {
            return Err(EvalError::Type { what: type_name(&left), got: type_name(&right) });
        }
        let ordering = match comparison {
            Comparison::Equal => return Ok(value::same(&left, &right)),
            Comparison::Unequal => return Ok(!value::same(&left, &right)),
            _ => order(&left, &right)?,
        };
        Ok(match comparison {
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            _ => ordering.is_ge(),
        })
    }

    fn arithmetic(&self, operation: Operation, sides: &[Node; 2]) -> Result<Value, EvalError> {
        let [left, right] = [self.number(&sides[0])?, self.number(&sides[1])?];
        number(match operation {
            Operation::Add => left + right,
            Operation::Subtract => left - right,
            Operation::Multiply => left * right,
            Operation::Divide => left / right,
            Operation::Remainder => left % right,
        })
    }

    fn contains(&self, sides: &[Node; 2]) -> Result<bool, EvalError> {
        let [item, list] = [self.node(&sides[0])?, self.node(&sides[1])?];
        let list = list.as_array().ok_or_else(|| EvalError::Type { what: "a list", got: type_name(&list) })?;
        Ok(list.iter().any(|other| value::same(&item, other)))
    }

    fn call(&self, function: Function, arguments: &[Node]) -> Result<Value, EvalError> {
        match (function, arguments) {
            (Function::Min | Function::Max, [first, rest @ ..]) => {
                let mut best = self.number(first)?;
                for argument in rest {
                    let next = self.number(argument)?;
                    best = if function == Function::Min { best.min(next) } else { best.max(next) };
                }
                number(best)
            }
            (Function::Abs, [argument]) => number(self.number(argument)?.abs()),
            (Function::Round, [argument]) => number(self.number(argument)?.round()),
            (Function::Round, [argument, digits]) => {
                let factor = 10f64.powi(self.number(digits)?.clamp(0.0, DIGITS) as i32);
                number((self.number(argument)? * factor).round() / factor)
            }
            // Outside their domain they give NaN or an infinity, and that is no number.
            (Function::NaturalLog, [argument]) => number(self.number(argument)?.ln()),
            (Function::DecimalLog, [argument]) => number(self.number(argument)?.log10()),
            (Function::Exp, [argument]) => number(self.number(argument)?.exp()),
            (Function::Root, [argument]) => number(self.number(argument)?.sqrt()),
            (Function::Power, [argument, exponent]) => number(self.number(argument)?.powf(self.number(exponent)?)),
            (Function::Bit, [argument, bit]) => {
                let (whole, bit) = (self.whole(argument)?, self.whole(bit)?);
                let bit = u32::try_from(bit).ok().filter(|bit| *bit < 64).ok_or(EvalError::NotANumber)?;
                Ok(Value::Bool((whole >> bit) & 1 == 1))
            }
            (Function::ShiftLeft | Function::ShiftRight, [argument, by]) => {
                let (whole, by) = (self.whole(argument)?, self.whole(by)?);
                let by = u32::try_from(by).ok().filter(|by| *by < 64).ok_or(EvalError::NotANumber)?;
                let shifted = match function {
                    Function::ShiftRight => Some(whole >> by),
                    _ => whole.checked_mul(1 << by),
                };
                let number = shifted.and_then(serde_json::Number::from_i128).ok_or(EvalError::NotANumber)?;
                Ok(Value::Number(number))
            }
            (Function::ScaleTen, [argument, exponent]) => {
                let (mantissa, exponent) = (self.number(argument)?, self.whole(exponent)?);
                let places = i32::try_from(exponent.unsigned_abs()).unwrap_or(i32::MAX);
                // A division by 1000 rounds once, a multiplication with 0.001 twice.
                let factor = 10f64.powi(places);
                number(if exponent < 0 { mantissa / factor } else { mantissa * factor })
            }
            // The number of arguments was checked when the text was read.
            _ => Err(EvalError::NotANumber),
        }
    }

    fn window(&self, statistic: Statistic, name: usize, window_ms: u64) -> Result<Value, EvalError> {
        let name = self.name(name);
        let window = self.scope.window(name, window_ms).ok_or_else(|| missing(name))?;
        number(match statistic {
            Statistic::Average => window.avg,
            Statistic::Lowest => window.min,
            Statistic::Highest => window.max,
            Statistic::Rate => window.rate.ok_or_else(|| missing(name))?,
        })
    }
}

fn missing(name: &str) -> EvalError {
    EvalError::Missing(name.to_owned())
}

fn number(result: f64) -> Result<Value, EvalError> {
    if result.is_finite() { Ok(value::from_f64(result)) } else { Err(EvalError::NotANumber) }
}

/// Which of two numbers is larger; integers are compared as integers, so that 64-bit counters keep their last digit.
fn order(left: &Value, right: &Value) -> Result<Ordering, EvalError> {
    let integers = (left.as_number().and_then(|n| n.as_i128()), right.as_number().and_then(|n| n.as_i128()));
    if let (Some(left), Some(right)) = integers {
        return Ok(left.cmp(&right));
    }
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.partial_cmp(&right).ok_or(EvalError::NotANumber),
        _ => Err(EvalError::Type { what: "a number", got: type_name(left) }),
    }
}
