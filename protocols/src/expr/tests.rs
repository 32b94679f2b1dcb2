//! Expected results are worked out by hand, or by the language's definition (cel-spec, "Semantics") where it applies.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::value::{Why, same};

const NAMES: [&str; 8] = ["power", "power_sum", "voltage_l1", "voltage_l2", "voltage_l3", "mode", "status", "value"];

#[derive(Default)]
struct Fixture {
    values: BTreeMap<&'static str, Value>,
    store: WindowStore,
    now_ms: u64,
}

impl Scope for Fixture {
    fn value(&self, name: &str) -> Option<Value> {
        self.values.get(name).cloned()
    }

    fn quality(&self, name: &str) -> Option<Quality> {
        Some(if self.values.contains_key(name) { Quality::Good } else { Quality::Bad(Why::Timeout) })
    }

    fn age_ms(&self, name: &str) -> Option<u64> {
        self.store.age_ms(name, self.now_ms)
    }

    fn window(&self, name: &str, window_ms: u64) -> Option<Window> {
        self.store.window(name, self.now_ms, window_ms)
    }

    fn previous(&self, name: &str) -> Option<Value> {
        self.store.previous(name)
    }
}

fn boiler() -> Fixture {
    let values = [
        ("power", json!(1.5)),
        ("power_sum", json!(4)),
        ("voltage_l1", json!(230)),
        ("voltage_l2", json!(254.5)),
        ("mode", json!("heat")),
        ("status", json!(0b1010)),
        ("value", json!(18_446_744_073_709_551_615_u64)),
    ];
    Fixture { values: values.into_iter().collect(), ..Fixture::default() }
}

fn run(text: &str, scope: &Fixture) -> Result<Value, EvalError> {
    Expression::parse(text, &NAMES).unwrap_or_else(|error| panic!("{text}: {error}")).eval(scope)
}

#[test]
fn formulas_and_conditions_give_what_people_expect() {
    let scope = boiler();
    for (text, expected) in [
        ("power * 2", json!(3)),
        ("power + power_sum / 8", json!(2)),
        ("7 / 2", json!(3.5)),
        ("7 % 4 - -1", json!(4)),
        ("2 + 3 * 4 - 1", json!(13)),
        ("(2 + 3) * 4", json!(20)),
        ("abs(power - power_sum)", json!(2.5)),
        ("ln(exp(2))", json!(2.0)),
        ("log10(1000)", json!(3.0)),
        ("sqrt(16) + pow(2, 10)", json!(1028.0)),
        ("max(voltage_l1, voltage_l2, 0) > 253", json!(true)),
        ("min(voltage_l1, voltage_l2)", json!(230)),
        ("round(2.5) + round(-2.5)", json!(0)),
        ("round(254.567, 1)", json!(254.6)),
        ("mode == 'heat' && power < 2", json!(true)),
        ("mode in ['heat', \"cool\"]", json!(true)),
        ("!(mode != 'heat') || false", json!(true)),
        ("mode == 'heat' ? 1 : 0", json!(1)),
        ("if(mode == 'cool', 1, if(power > 1, 2, 3))", json!(2)),
        ("bit(status, 1) && !bit(status, 2)", json!(true)),
        ("shl(status, 4) + shr(status, 1)", json!(165)),
        ("scale10(14152, -1)", json!(1415.2)),
        ("scale10(status, 2)", json!(1000)),
        ("shl(1, 62)", json!(4_611_686_018_427_387_904_u64)),
        ("value", json!(18_446_744_073_709_551_615_u64)),
        ("value > 18446744073709551614u", json!(true)),
        ("power == 1.5 && power_sum == 4.0", json!(true)),
        ("1e3 == 1000", json!(true)),
        ("power >\n 1", json!(true)),
        ("mode == 'häß' ? 1 : power_sum", json!(4)),
    ] {
        let got = run(text, &scope).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(same(&got, &expected), "{text}: {got}, not {expected}");
    }
}

#[test]
fn a_missing_input_gives_no_value_and_never_zero() {
    let scope = boiler();
    for (text, expected) in [
        ("voltage_l3 + 1", Err(EvalError::Missing("voltage_l3".into()))),
        ("max(voltage_l1, voltage_l3)", Err(EvalError::Missing("voltage_l3".into()))),
        ("voltage_l3", Err(EvalError::Missing("voltage_l3".into()))),
        ("voltage_l3 > 1 || mode == 'cool'", Err(EvalError::Missing("voltage_l3".into()))),
        ("avg(power, '15m')", Err(EvalError::Missing("power".into()))),
        ("prev(power)", Err(EvalError::Missing("power".into()))),
        ("age(power)", Err(EvalError::Missing("power".into()))),
        ("quality(voltage_l3) != 'good'", Ok(json!(true))),
        ("quality(voltage_l1) == 'good'", Ok(json!(true))),
        // cel-spec, "Logical Operators": a side that decides makes the other side's error void.
        ("voltage_l3 > 1 || mode == 'heat'", Ok(json!(true))),
        ("voltage_l3 > 1 && mode == 'cool'", Ok(json!(false))),
        ("mode == 'heat' ? 1 : voltage_l3", Ok(json!(1))),
        ("1 / 0", Err(EvalError::NotANumber)),
        ("ln(0)", Err(EvalError::NotANumber)),
        ("sqrt(-1)", Err(EvalError::NotANumber)),
        ("1e308 * 10", Err(EvalError::NotANumber)),
        ("shl(1, 64)", Err(EvalError::NotANumber)),
        ("scale10(1, 400)", Err(EvalError::NotANumber)),
        ("mode + 1", Err(EvalError::Type { what: "a number", got: "text" })),
        ("bit(power, 0)", Err(EvalError::Type { what: "a whole number", got: "a number" })),
        ("mode == 1", Err(EvalError::Type { what: "text", got: "a number" })),
    ] {
        let got = run(text, &scope);
        assert_eq!(got, expected, "{text}");
    }
    let condition = Expression::parse("power", &NAMES).unwrap();
    assert_eq!(condition.holds(&scope), Err(EvalError::Type { what: "a condition", got: "a number" }));
}

#[test]
fn a_wrong_text_is_told_where_and_what_would_be_right() {
    for (text, at, message, hint) in [
        ("", 0, "the expression is empty", None),
        ("  ", 0, "the expression is empty", None),
        ("1 + pwoer", 4, "there is no property \"pwoer\"", Some("did you mean \"power\"?")),
        ("'ä' == mode && pwoer > 1", 16, "there is no property \"pwoer\"", Some("did you mean \"power\"?")),
        ("1 + zebra", 4, "there is no property \"zebra\"", None),
        ("power +", 7, "the expression ends too early", None),
        ("power power", 6, "power does not belong here", None),
        ("'ä' == mode power", 13, "power does not belong here", None),
        ("power >\n 1 power", 11, "power does not belong here", None),
        ("(power", 6, "the expression ends too early", None),
        ("power = 1", 6, "write == instead of =", None),
        ("power > 1 and mode == 'heat'", 10, "write && instead of and", None),
        ("mode == 'heat", 8, "the quoted text does not end", None),
        ("maxi(power, 1)", 0, "there is no function \"maxi\"", Some("did you mean \"max\"?")),
        ("abs(1, 2)", 3, "abs is called as abs(number)", None),
        ("avg(power)", 3, "avg is called as avg(name, '15m')", None),
        ("if(power)", 2, "if is called as if(condition, then, otherwise)", None),
        ("power && true", 0, "", None),
        ("(power + 1) && true", 7, "a condition is wanted here, not a number", None),
        ("'a' + 1", 0, "a number is wanted here, not text", None),
        ("[1, 2].all(x, x > 0)", 10, "a loop cannot be used in a profile", None),
        ("mode.size()", 9, "a call with a dot cannot be used in a profile", None),
        ("{'a': 1}", 0, "an object cannot be used in a profile", None),
        ("power // watts", 6, "a comment cannot be used in a profile", None),
        ("mode == r'x'", 8, "text with a prefix cannot be used in a profile", None),
        ("mode == null", 8, "a literal of this kind cannot be used in a profile", None),
        ("while == 1", 0, "while is a reserved word", None),
        ("power > 1 ä", 10, "\"ä\" has no meaning outside of quotes", None),
        ("quality(power) == 'god'", 18, "a quality is never \"god\"", Some("it is 'good', 'uncertain' or 'bad'")),
    ] {
        match Expression::parse(text, &NAMES) {
            Ok(_) => assert_eq!(message, "", "{text} was taken"),
            Err(error) => {
                assert_eq!((error.to_string().as_str(), error.position()), (message, at), "{text}");
                assert_eq!(error.hint().as_deref(), hint, "{text}");
            }
        }
    }
    let windows = ["", "15", "m", "0s", "8d", "-1m", "1 m", "99999999999999999999h"];
    for window in windows {
        let text = format!("avg(power, '{window}')");
        assert!(matches!(Expression::parse(&text, &NAMES), Err(ExprError::Window { at: 11, .. })), "{text}");
    }
}

#[test]
fn an_expression_stays_inside_its_bounds() {
    let deep = format!("{}power{}", "(".repeat(NESTING), ")".repeat(NESTING));
    assert!(Expression::parse(&deep, &NAMES).is_ok());
    assert_eq!(Expression::parse(&format!("({deep})"), &NAMES), Err(ExprError::TooDeep { at: NESTING }));
    let long = format!("1{}", "+1".repeat(127));
    assert!(Expression::parse(&long, &NAMES).is_ok());
    assert_eq!(Expression::parse(&format!("{long}+1"), &NAMES), Err(ExprError::TooManyParts { at: 256 }));
    let wide = format!("power{}", " ".repeat(EXPRESSION_BYTES));
    assert_eq!(Expression::parse(&wide, &NAMES), Err(ExprError::TooLong { bytes: EXPRESSION_BYTES + 5 }));
    let nested = format!("{}1{}", "if(true,".repeat(NESTING), ",0)".repeat(NESTING));
    assert!(Expression::parse(&nested, &NAMES).is_ok(), "{:?}", Expression::parse(&nested, &NAMES));
    for hostile in ["!".repeat(255), "-".repeat(255), "a?".repeat(127), "[".repeat(200), "a.".repeat(127)] {
        assert!(Expression::parse(&hostile, &NAMES).is_err());
    }
}

#[test]
fn an_expression_tells_what_it_needs() {
    let text = "avg(power, '15m') > prev(mode) || quality(status) == 'bad' || avg(power, '15m') > rate(value, '1h')";
    let expression = Expression::parse(text, &NAMES).unwrap();
    assert_eq!(expression.inputs(), ["power", "mode", "status", "value"]);
    assert_eq!(expression.windows(), [("power".to_owned(), 900_000), ("value".to_owned(), 3_600_000)]);
    assert_eq!(expression.shape(), Shape::Condition);
    assert_eq!(Expression::parse("a.b + 1", &["a.b"]).unwrap().inputs(), ["a.b"]);
    let store = WindowStore::new([&expression]);
    assert_eq!(["power", "mode", "status", "value"].map(|name| store.keeps(name)), [true, true, false, true]);
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Expression>();
}

#[test]
fn windows_look_back_as_far_as_asked_and_no_further() {
    let expression = Expression::parse("avg(power, '1m') + age(power) + prev(power)", &NAMES).unwrap();
    let mut scope = Fixture { store: WindowStore::new([&expression]), ..Fixture::default() };
    for (tick_ms, power) in [(0, 1000.0), (10_000, 10.0), (20_000, 20.0), (70_000, 60.0)] {
        scope.store.push("power", tick_ms, &json!(power));
    }
    scope.now_ms = 72_000;
    // 20 and 60 are in the last minute; 10 and 1000 are older.
    let window = scope.window("power", 60_000).unwrap();
    assert_eq!((window.avg, window.min, window.max, window.readings), (40.0, 20.0, 60.0, 2));
    assert_eq!(window.rate, Some(0.8));
    assert_eq!(expression.eval(&scope), Ok(json!(40.0 + 2.0 + 20.0)));
    assert_eq!(scope.window("power", 1_000), None);
}

#[test]
fn a_history_is_bounded_and_its_mean_stays_exact() {
    let day_ms = 86_400_000;
    let mut history = History::new(day_ms);
    for second in 0..200_000_u64 {
        history.push(second * 1000, (second % 10) as f64);
    }
    let now_ms = 199_999_000;
    let window = history.window(now_ms, 3_600_000).unwrap();
    assert!((window.avg - 4.5).abs() < 0.05, "{window:?}");
    assert_eq!((window.min, window.max), (0.0, 9.0));
    let day = history.window(now_ms, day_ms).unwrap();
    let edge = day.readings.abs_diff(86_400);
    assert!(edge <= 86_400 / 1000, "{edge} readings too many or too few");
    history.push(5, f64::NAN);
    history.push(5, 1e9);
    assert_eq!(history.window(now_ms, day_ms), Some(day), "old readings and NaN are left out");
    assert_eq!(history.avg(now_ms, 3_600_000), Some(window.avg));
    let mut single = History::new(60_000);
    single.push(5, 1.0);
    assert_eq!((single.avg(5, 60_000), single.rate(5, 60_000)), (Some(1.0), None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,120}") {
        let _ = Expression::parse(&text, &NAMES);
    }

    #[test]
    fn no_mixture_of_its_own_words_makes_it_panic(words in prop::collection::vec(prop::sample::select(vec![
        "power", "mode", "(", ")", "[", "]", "{", "}", "+", "-", "*", "/", "%", "!", "==", "<", ">", "&&", "||", "?", ":",
        ",", ".", "'15m'", "\"x\"", "1", "2.5", "1e400", "0x10", "5u", "99999999999999999999", "in", "true", "null",
        "if(", "max(", "avg(", "bit(", "quality(", "has(", "all(", "map(", "exists_one(", "`", "$", "_", "b'x'", "\n", "..",
    ]), 0..40)) {
        let text = words.join(" ");
        if let Ok(expression) = Expression::parse(&text, &NAMES) {
            let _ = expression.eval(&boiler());
        }
        let _ = Expression::parse(&words.concat(), &NAMES);
    }
}
