//! Topic names and topic filters (MQTT 5, 4.7 and 4.8.2).
//!
//! In: text that is already UTF-8 without NUL. Out: whether it is a filter, what it matches, what it covers. Must never
//! let a wildcard at the first level match a topic that begins with `$`.

/// A filter taken apart: the group of a shared subscription, and the filter proper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter<'a> {
    pub(super) share: Option<&'a str>,
    pub(super) filter: &'a str,
}

/// Takes a filter apart; `None` if it is none.
pub(super) fn parse(text: &str) -> Option<Filter<'_>> {
    let (share, filter) = match text.strip_prefix("$share/") {
        None => (None, text),
        Some(rest) => {
            let (group, filter) = rest.split_once('/')?;
            if group.is_empty() || group.contains(['+', '#']) {
                return None;
            }
            (Some(group), filter)
        }
    };
    (text != "$share" && is_valid(filter)).then_some(Filter { share, filter })
}

fn is_valid(filter: &str) -> bool {
    if filter.is_empty() {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        if level.contains('#') && (level != "#" || !last) || level.contains('+') && level != "+" {
            return false;
        }
    }
    true
}

/// Whether a topic name is matched by a filter (without `$share`).
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether every topic that `inner` matches is matched by `outer` too.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    if inner.starts_with('$') && outer.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = inner.split('/');
    for part in outer.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            (_, Some("#")) | (_, None) => return false,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// What every topic of a filter begins with: the levels before its first wildcard.
pub(super) fn prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    // `a/#` matches `a` as well
    let end = if filter.get(end..) == Some("#") { end.saturating_sub(1) } else { end };
    filter.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_well_formed_or_refused() {
        for (text, ok) in [
            ("#", true),
            ("+", true),
            ("/", true),
            ("a/+/b/#", true),
            ("+/+", true),
            ("$hw/#", true),
            ("$share/g/a/#", true),
            ("$share/g//", true),
            ("", false),
            ("a/#/b", false),
            ("a+/b", false),
            ("#a", false),
            ("a/b#", false),
            ("$share/g/", false),
            ("$share/g", false),
            ("$share//a", false),
            ("$share/g+/a", false),
            ("$share", false),
        ] {
            assert_eq!(parse(text).is_some(), ok, "{text}");
        }
    }

    #[test]
    fn matching_follows_the_specification_s_examples() {
        // MQTT 5, 4.7.1.2, 4.7.1.3 and 4.7.2
        for (filter, topic, matched) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor/Clients", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("ACCOUNTS", "Accounts", false),
        ] {
            assert_eq!(matches(filter, topic), matched, "{filter} {topic}");
            if matched {
                assert!(topic.starts_with(prefix(filter)), "{filter}");
            }
        }
    }

    #[test]
    fn a_filter_covers_only_what_lies_wholly_inside() {
        for (outer, inner, covered) in [
            ("#", "a/#", true),
            ("#", "#", true),
            ("#", "$SYS/#", false),
            ("+/b", "a/b", true),
            ("a/#", "a", true),
            ("a/#", "a/+/c", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("a/#", "#", false),
            ("a/+/c", "a/+/c", true),
            ("$hw/#", "$hw/events/#", true),
        ] {
            assert_eq!(covers(outer, inner), covered, "{outer} {inner}");
        }
    }
}
