//! From text to a checked tree: bounds first, then the CEL parser, then what profiles allow of it.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::parser::Parser;

use super::{
    Comparison, EXPRESSION_BYTES, EXPRESSION_TOKENS, ExprError, Expression, Function, NESTING, Node, Operation, Shape,
    Statistic, WINDOW_MS,
};
use crate::value::Value;

/// The functions there are, for messages and documentation.
pub(super) const FUNCTIONS: [&str; 18] = [
    "min", "max", "abs", "round", "ln", "log10", "exp", "sqrt", "pow", "if", "bit", "shl", "shr", "scale10", "avg",
    "rate", "prev", "age",
];
const QUALITY: &str = "quality";
const QUALITIES: [&str; 3] = ["good", "uncertain", "bad"];

/// CEL reserves `if`, so `if(…)` reaches its parser under this name of the same length.
const IF: &str = "_?";
const IF_STAND_IN: &str = "_I";

/// Arguments of one call; a longer list would only hide a mistake.
const ARGUMENTS: usize = 32;

pub(super) fn parse(text: &str, names: &[&str]) -> Result<Expression, ExprError> {
    let readable = scan(text, names)?;
    let parser = Parser::new().max_recursion_depth(NESTING as u16 * 2);
    let (tree, source) = parser.parse_with_source_info(&readable).map_err(|errors| syntax(text, &errors))?;
    let mut builder = Builder { names, source, inputs: Vec::new(), windows: Vec::new() };
    let root = builder.node(&tree)?;
    let shape = shape(&root);
    let Builder { inputs, windows, .. } = builder;
    Ok(Expression { text: text.to_owned(), inputs, windows, shape, root })
}

/// Holds the text to its bounds before a parser sees it, and says what people of other languages write by habit.
/// Gives the text back with `if(` renamed.
fn scan(text: &str, names: &[&str]) -> Result<String, ExprError> {
    if text.trim().is_empty() {
        return Err(ExprError::Empty);
    }
    if text.len() > EXPRESSION_BYTES {
        return Err(ExprError::TooLong { bytes: text.len() });
    }
    let mut readable = text.to_owned();
    let (mut at, mut tokens, mut depth) = (0, 0, 0_usize);
    while let Some(token) = token(text, at)? {
        at = token.start + token.text.len();
        tokens += 1;
        if tokens > EXPRESSION_TOKENS {
            return Err(ExprError::TooManyParts { at: token.start });
        }
        match token.text {
            "(" | "[" | "{" if depth == NESTING => return Err(ExprError::TooDeep { at: token.start }),
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "if" => readable.replace_range(token.start..at, IF_STAND_IN),
            IF_STAND_IN => return Err(unknown_name(token.start, IF_STAND_IN, &[])),
            word => habit(word, token.start, names)?,
        }
    }
    Ok(readable)
}

/// What other languages write for a sign of CEL.
fn habit(word: &str, at: usize, names: &[&str]) -> Result<(), ExprError> {
    let right = match word {
        "and" | "AND" | "&" => "&&",
        "or" | "OR" | "|" => "||",
        "not" | "NOT" => "!",
        "=" => "==",
        "<>" => "!=",
        _ => return Ok(()),
    };
    if names.contains(&word) {
        return Ok(());
    }
    Err(ExprError::Syntax { at, text: format!("write {right} instead of {word}") })
}

struct Token<'a> {
    start: usize,
    text: &'a str,
}

/// The next word, number, text or sign from byte `at` on.
fn token(text: &str, at: usize) -> Result<Option<Token<'_>>, ExprError> {
    let rest = text.get(at..).unwrap_or_default();
    let start = at + (rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len());
    let rest = text.get(start..).unwrap_or_default();
    let Some(first) = rest.chars().next() else { return Ok(None) };
    let length = match first {
        '\'' | '"' => quoted(rest, first, start)?,
        'a'..='z' | 'A'..='Z' | '_' | '0'..='9' => {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if rest.get(length..).is_some_and(|rest| rest.starts_with(['\'', '"'])) {
                return Err(ExprError::Unsupported { at: start, what: "text with a prefix" });
            }
            length
        }
        '/' if rest.starts_with("//") => return Err(ExprError::Unsupported { at: start, what: "a comment" }),
        c if c.is_ascii_graphic() => {
            let pairs = ["&&", "||", "==", "!=", "<=", ">=", "<>"];
            if pairs.iter().any(|pair| rest.starts_with(pair)) { 2 } else { 1 }
        }
        c => {
            let text = format!("{:?} has no meaning outside of quotes", c.to_string());
            return Err(ExprError::Syntax { at: start, text });
        }
    };
    Ok(rest.get(..length).map(|text| Token { start, text }))
}

/// The length of a quoted text with its quotes. Escapes and triple quotes of CEL are left out, so that its parser and
/// this one cannot disagree about where a text ends.
fn quoted(rest: &str, quote: char, start: usize) -> Result<usize, ExprError> {
    let inner = rest.get(1..).unwrap_or_default();
    let unclosed = || ExprError::Syntax { at: start, text: "the quoted text does not end".to_owned() };
    let end = inner.find([quote, '\\', '\n', '\r']).ok_or_else(unclosed)?;
    match inner.get(end..).and_then(|rest| rest.chars().next()) {
        Some('\\') => Err(ExprError::Unsupported { at: start + 1 + end, what: "a backslash in text" }),
        Some(c) if c == quote => {
            let triple = inner.get(end + 1..).is_some_and(|rest| rest.starts_with(['\'', '"']));
            if triple { Err(ExprError::Unsupported { at: start, what: "text in triple quotes" }) } else { Ok(end + 2) }
        }
        _ => Err(unclosed()),
    }
}

/// The first complaint of the CEL parser in plain words.
fn syntax(text: &str, errors: &cel::ParseErrors) -> ExprError {
    let Some(error) = errors.errors.first() else {
        return ExprError::Syntax { at: 0, text: "this is no expression".to_owned() };
    };
    let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
    let before: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text.get(before..).unwrap_or_default();
    let at = before + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
    let message = match text.get(at..).map(str::trim_start) {
        None | Some("") => "the expression ends too early".to_owned(),
        Some(_) if error.msg.starts_with("reserved identifier") => {
            format!("{} is a reserved word", error.msg.trim_start_matches("reserved identifier: "))
        }
        Some(rest) => {
            let word = token(rest, 0).ok().flatten().map_or(rest, |token| token.text);
            format!("{word} does not belong here")
        }
    };
    ExprError::Syntax { at, text: message }
}

fn unknown_name(at: usize, name: &str, names: &[&str]) -> ExprError {
    ExprError::UnknownName { at, name: name.to_owned(), nearest: nearest(name, names) }
}

/// The name that was probably meant: the nearest one, if it is near.
fn nearest(name: &str, names: &[&str]) -> Option<String> {
    let distance = |other: &&&str| strsim::damerau_levenshtein(name, other);
    let nearest = names.iter().min_by_key(distance)?;
    (distance(&nearest) <= 1 + name.len() / 4).then(|| (*nearest).to_owned())
}

struct Builder<'a> {
    names: &'a [&'a str],
    source: SourceInfo,
    inputs: Vec<String>,
    windows: Vec<(String, u64)>,
}

impl Builder<'_> {
    /// Where a node stands, in bytes.
    fn at(&self, node: &IdedExpr) -> usize {
        let start = self.source.offset_for(node.id).map_or(0, |(start, _)| start as usize);
        start.min(self.source.source.len())
    }

    fn node(&mut self, node: &IdedExpr) -> Result<Node, ExprError> {
        let unsupported = |what| ExprError::Unsupported { at: self.at(node), what };
        match &node.expr {
            Expr::Literal(literal) => {
                constant(literal).map(Node::Constant).ok_or_else(|| unsupported("a literal of this kind"))
            }
            Expr::Ident(_) | Expr::Select(_) => self.name(node).map(Node::Name),
            Expr::List(list) => {
                list.elements.iter().map(|item| self.node(item)).collect::<Result<_, _>>().map(Node::List)
            }
            Expr::Call(call) if call.target.is_some() => Err(unsupported("a call with a dot")),
            Expr::Call(call) => self.call(node, call),
            Expr::Comprehension(_) => Err(unsupported("a loop")),
            Expr::Map(_) | Expr::Struct(_) => Err(unsupported("an object")),
            Expr::Unspecified => Err(unsupported("this")),
        }
    }

    /// A property's name; names with dots reach us as selections.
    fn name(&mut self, node: &IdedExpr) -> Result<usize, ExprError> {
        let at = self.at(node);
        let name = dotted(node).ok_or(ExprError::Unsupported { at, what: "a field of a value" })?;
        if !self.names.contains(&name.as_str()) {
            return Err(unknown_name(at, &name, self.names));
        }
        if let Some(index) = self.inputs.iter().position(|input| *input == name) {
            return Ok(index);
        }
        self.inputs.push(name);
        Ok(self.inputs.len() - 1)
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Node, ExprError> {
        let at = self.at(node);
        let arguments = call.args.as_slice();
        let name = if call.func_name == IF_STAND_IN { IF } else { call.func_name.as_str() };
        match (name, arguments) {
            (operators::LOGICAL_NOT, [inner]) => Ok(Node::Not(Box::new(self.typed(inner, Shape::Condition)?))),
            (operators::NEGATE, [inner]) => Ok(Node::Negate(Box::new(self.typed(inner, Shape::Number)?))),
            (operators::LOGICAL_AND, [left, right]) => Ok(Node::And(self.pair(left, right, Shape::Condition)?)),
            (operators::LOGICAL_OR, [left, right]) => Ok(Node::Or(self.pair(left, right, Shape::Condition)?)),
            (operators::CONDITIONAL | IF, [condition, then, otherwise]) => Ok(Node::If(Box::new([
                self.typed(condition, Shape::Condition)?,
                self.node(then)?,
                self.node(otherwise)?,
            ]))),
            (operators::IN, [item, list]) => {
                let sides = [self.node(item)?, self.node(list)?];
                if matches!(sides[1], Node::List(_) | Node::Name(_) | Node::Previous(_)) {
                    Ok(Node::In(Box::new(sides)))
                } else {
                    Err(ExprError::Type { at: self.at(list), what: "a list", got: "something else" })
                }
            }
            (operators::INDEX, _) => Err(ExprError::Unsupported { at, what: "an index" }),
            (name, [left, right]) if comparison(name).is_some() || operation(name).is_some() => {
                self.binary(name, left, right)
            }
            (name, arguments) => self.function(at, name, arguments),
        }
    }

    fn binary(&mut self, name: &str, left: &IdedExpr, right: &IdedExpr) -> Result<Node, ExprError> {
        if let Some(operation) = operation(name) {
            return Ok(Node::Arithmetic(operation, self.pair(left, right, Shape::Number)?));
        }
        let comparison = comparison(name).unwrap_or(Comparison::Equal);
        if !matches!(comparison, Comparison::Equal | Comparison::Unequal) {
            return Ok(Node::Compare(comparison, self.pair(left, right, Shape::Number)?));
        }
        let sides = Box::new([self.node(left)?, self.node(right)?]);
        let shapes = (shape(&sides[0]), shape(&sides[1]));
        if shapes.0 != shapes.1 && shapes.0 != Shape::Any && shapes.1 != Shape::Any {
            return Err(ExprError::Type { at: self.at(right), what: word(shapes.0), got: word(shapes.1) });
        }
        if let [Node::Quality(_), Node::Constant(Value::String(word))]
        | [Node::Constant(Value::String(word)), Node::Quality(_)] = sides.as_ref()
            && !QUALITIES.contains(&word.as_str())
        {
            return Err(ExprError::QualityWord { at: self.at(right), word: word.clone() });
        }
        Ok(Node::Compare(comparison, sides))
    }

    fn function(&mut self, at: usize, name: &str, arguments: &[IdedExpr]) -> Result<Node, ExprError> {
        let call = |function, nodes| Ok(Node::Call(function, nodes));
        let wrong = |function, usage| Err(ExprError::Arguments { at, function, usage });
        match (name, arguments) {
            ("min", [of, window]) if is_text(window) => self.window(Statistic::Lowest, of, window),
            ("max", [of, window]) if is_text(window) => self.window(Statistic::Highest, of, window),
            ("avg", [of, window]) => self.window(Statistic::Average, of, window),
            ("rate", [of, window]) => self.window(Statistic::Rate, of, window),
            ("min", [_, ..]) if arguments.len() <= ARGUMENTS => call(Function::Min, self.numbers(arguments)?),
            ("max", [_, ..]) if arguments.len() <= ARGUMENTS => call(Function::Max, self.numbers(arguments)?),
            ("abs", [_]) => call(Function::Abs, self.numbers(arguments)?),
            ("round", [_] | [_, _]) => call(Function::Round, self.numbers(arguments)?),
            ("ln", [_]) => call(Function::NaturalLog, self.numbers(arguments)?),
            ("log10", [_]) => call(Function::DecimalLog, self.numbers(arguments)?),
            ("exp", [_]) => call(Function::Exp, self.numbers(arguments)?),
            ("sqrt", [_]) => call(Function::Root, self.numbers(arguments)?),
            ("pow", [_, _]) => call(Function::Power, self.numbers(arguments)?),
            ("bit", [_, _]) => call(Function::Bit, self.numbers(arguments)?),
            ("shl", [_, _]) => call(Function::ShiftLeft, self.numbers(arguments)?),
            ("shr", [_, _]) => call(Function::ShiftRight, self.numbers(arguments)?),
            ("scale10", [_, _]) => call(Function::ScaleTen, self.numbers(arguments)?),
            (QUALITY, [of]) if dotted(of).is_some() => self.name(of).map(Node::Quality),
            ("age", [of]) if dotted(of).is_some() => self.name(of).map(Node::Age),
            ("prev", [of]) if dotted(of).is_some() => self.name(of).map(Node::Previous),
            ("min", _) => wrong("min", "min(a, b, …) with up to 32 numbers, or min(name, '15m')"),
            ("max", _) => wrong("max", "max(a, b, …) with up to 32 numbers, or max(name, '15m')"),
            ("avg", _) => wrong("avg", "avg(name, '15m')"),
            ("rate", _) => wrong("rate", "rate(name, '1m')"),
            ("abs", _) => wrong("abs", "abs(number)"),
            ("round", _) => wrong("round", "round(number) or round(number, digits)"),
            ("ln", _) => wrong("ln", "ln(number)"),
            ("log10", _) => wrong("log10", "log10(number)"),
            ("exp", _) => wrong("exp", "exp(number)"),
            ("sqrt", _) => wrong("sqrt", "sqrt(number)"),
            ("pow", _) => wrong("pow", "pow(number, exponent)"),
            ("bit", _) => wrong("bit", "bit(number, which), counted from 0"),
            ("shl", _) => wrong("shl", "shl(number, bits)"),
            ("shr", _) => wrong("shr", "shr(number, bits)"),
            ("scale10", _) => wrong("scale10", "scale10(number, exponent)"),
            (QUALITY, _) => wrong(QUALITY, "quality(name)"),
            ("age", _) => wrong("age", "age(name)"),
            ("prev", _) => wrong("prev", "prev(name)"),
            (IF, _) => wrong("if", "if(condition, then, otherwise)"),
            _ => {
                let known: Vec<&str> = FUNCTIONS.into_iter().chain([QUALITY]).collect();
                // A call stands at its bracket; the name stands before it.
                let at = at.saturating_sub(name.len());
                Err(ExprError::UnknownFunction { at, name: name.to_owned(), nearest: nearest(name, &known) })
            }
        }
    }

    fn window(&mut self, statistic: Statistic, of: &IdedExpr, window: &IdedExpr) -> Result<Node, ExprError> {
        let index = self.name(of)?;
        let text = match &window.expr {
            Expr::Literal(LiteralValue::String(text)) => text.inner().to_owned(),
            _ => "this".to_owned(),
        };
        let Some(window_ms) = milliseconds(&text) else {
            return Err(ExprError::Window { at: self.at(window), text });
        };
        let pair = (self.inputs.get(index).cloned().unwrap_or_default(), window_ms);
        if !self.windows.contains(&pair) {
            self.windows.push(pair);
        }
        Ok(Node::Window(statistic, index, window_ms))
    }

    fn numbers(&mut self, arguments: &[IdedExpr]) -> Result<Vec<Node>, ExprError> {
        arguments.iter().map(|argument| self.typed(argument, Shape::Number)).collect()
    }

    fn pair(&mut self, left: &IdedExpr, right: &IdedExpr, wanted: Shape) -> Result<Box<[Node; 2]>, ExprError> {
        Ok(Box::new([self.typed(left, wanted)?, self.typed(right, wanted)?]))
    }

    fn typed(&mut self, node: &IdedExpr, wanted: Shape) -> Result<Node, ExprError> {
        let built = self.node(node)?;
        let got = shape(&built);
        if got == wanted || got == Shape::Any {
            Ok(built)
        } else {
            Err(ExprError::Type { at: self.at(node), what: word(wanted), got: word(got) })
        }
    }
}

fn is_text(node: &IdedExpr) -> bool {
    matches!(node.expr, Expr::Literal(LiteralValue::String(_)))
}

/// A name, with dots or without.
fn dotted(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", dotted(&select.operand)?, select.field)),
        _ => None,
    }
}

fn constant(literal: &LiteralValue) -> Option<Value> {
    match literal {
        LiteralValue::Boolean(value) => Some(Value::Bool(*value.inner())),
        LiteralValue::Double(value) => value.inner().is_finite().then(|| crate::value::from_f64(*value.inner())),
        LiteralValue::Int(value) => Some(Value::from(*value.inner())),
        LiteralValue::UInt(value) => Some(Value::from(*value.inner())),
        LiteralValue::String(value) => Some(Value::from(value.inner())),
        LiteralValue::Bytes(_) | LiteralValue::Null => None,
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::Unequal,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn operation(name: &str) -> Option<Operation> {
    Some(match name {
        operators::ADD => Operation::Add,
        operators::SUBSTRACT => Operation::Subtract,
        operators::MULTIPLY => Operation::Multiply,
        operators::DIVIDE => Operation::Divide,
        operators::MODULO => Operation::Remainder,
        _ => return None,
    })
}

/// `30s`, `15m`: a whole number and one of `ms s m h d`, in milliseconds, from 1 to [`WINDOW_MS`].
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms).filter(|ms| (1..=WINDOW_MS).contains(ms))
}

fn shape(node: &Node) -> Shape {
    match node {
        Node::Constant(Value::Bool(_)) => Shape::Condition,
        Node::Constant(Value::Number(_)) => Shape::Number,
        Node::Constant(_) | Node::Quality(_) => Shape::Text,
        Node::Name(_) | Node::Previous(_) | Node::List(_) => Shape::Any,
        Node::Not(_) | Node::And(_) | Node::Or(_) | Node::Compare(..) | Node::In(_) => Shape::Condition,
        Node::Call(Function::Bit, _) => Shape::Condition,
        Node::Negate(_) | Node::Arithmetic(..) | Node::Call(..) | Node::Age(_) | Node::Window(..) => Shape::Number,
        Node::If(parts) => {
            let (then, otherwise) = (shape(&parts[1]), shape(&parts[2]));
            if then == otherwise { then } else { Shape::Any }
        }
    }
}

fn word(shape: Shape) -> &'static str {
    match shape {
        Shape::Number => "a number",
        Shape::Condition => "a condition",
        Shape::Text => "text",
        Shape::Any => "any value",
    }
}
