//! What people and other programs write: YAML, profiles, expressions, dates, ids, topics, documents.

use protocols::expr::Expression;
use protocols::message::{DesiredSet, ReportedSet};
use protocols::name::{DeviceId, PropertyName};
use protocols::profile::{Library, Wish};
use protocols::topic::TwinTopic;
use protocols::value::Timestamp;
use protocols::yaml::{Complaints, Place, read};

/// A file that is no profile gets complaints; one that is, resolves or says why not.
pub fn profile(text: &str) {
    let mut complaints = Complaints::new();
    let mut library = Library::new();
    let Some(id) = library.add("fuzz.yaml", text, false, &mut complaints) else { return };
    let place = Place { file: "fuzz".into(), line: 1, column: 1 };
    let wish = Wish { profile: &id, place: &place, params: None, over: None, is_unsafe: false };
    let _ = library.resolve(&wish, &mut complaints);
    let _ = library.recordings(&id);
}

/// Every complaint has a place inside the text.
pub fn yaml(text: &str) {
    let mut complaints = Complaints::new();
    let tree = read("fuzz.yaml", text, &mut complaints);
    if let Some(tree) = tree {
        let _ = tree.to_json();
    }
    // A carriage return alone ends a line, too (YAML 1.2.2, 5.4).
    let lines = text.matches(['\r', '\n']).count() + 2;
    for complaint in complaints.into_sorted() {
        assert!(complaint.line as usize <= lines, "{complaint}");
    }
}

/// Ids, topics, times, documents, expressions.
pub fn words(text: &str) {
    if let Some(topic) = TwinTopic::parse("twin", text) {
        assert_eq!(TwinTopic::parse("twin", &topic.under("twin")), Some(topic));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        assert_eq!(at.to_string().parse(), Ok(at));
    }
    let _ = text.parse::<DeviceId>();
    let _ = text.parse::<PropertyName>();
    let _ = serde_json::from_str::<DesiredSet>(text);
    let _ = serde_json::from_str::<ReportedSet>(text);
    let _ = Expression::parse(text, &["a", "b"]);
}
