//! Who may do what: from a user, a role and a client id to topic filters.
//!
//! In: the users file as it was meant, and who a client turned out to be. Out: an [`Access`]. Must never allow what no
//! rule allows.

use protocols::config::users::{User, Users};

use super::filter;

/// The role anonymous clients have while there is no users file: everything that can reach the broker is trusted then,
/// and by default that is this machine.
const TRUSTED: &str = "admin";
/// The role they have beside a users file: to act as a mapper or to touch `$` topics takes a name.
const ANONYMOUS: &str = "app";

/// What one client may do.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) user: Option<String>,
    pub(super) role: String,
    pub(super) mapper: bool,
    everything: bool,
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Access {
    /// Everything: the gateway itself, and anybody on an installation without users.
    pub(super) fn everything(role: &str) -> Self {
        Self {
            user: None,
            role: role.to_owned(),
            mapper: true,
            everything: true,
            publish: Vec::new(),
            subscribe: Vec::new(),
        }
    }

    /// Nothing: a session of somebody who no longer exists.
    pub(super) fn nothing() -> Self {
        Self { everything: false, mapper: false, ..Self::everything("") }
    }

    /// An anonymous client's.
    pub(super) fn anonymous(users: Option<&Users>, client: &str, root: &str) -> Self {
        let Some(users) = users else { return Self::everything(TRUSTED) };
        Self::of_role(users, ANONYMOUS, client, None, root)
    }

    /// A user's.
    pub(super) fn of(users: &Users, user: &User, client: &str, root: &str) -> Self {
        let mut access = Self::of_role(users, &user.role, client, Some(&user.name), root);
        access.publish.extend(user.publish.iter().filter_map(|rule| fill(rule, client, Some(&user.name), root)));
        access.subscribe.extend(user.subscribe.iter().filter_map(|rule| fill(rule, client, Some(&user.name), root)));
        access
    }

    /// A role's, for a client inside the gateway.
    pub(super) fn of_role(users: &Users, role: &str, client: &str, user: Option<&str>, root: &str) -> Self {
        let rules = users.roles.get(role);
        let fill_all = |filters: Option<&Vec<String>>| {
            filters.into_iter().flatten().filter_map(|rule| fill(rule, client, user, root)).collect()
        };
        Self {
            user: user.map(str::to_owned),
            role: role.to_owned(),
            mapper: rules.is_some_and(|role| role.mapper),
            everything: false,
            publish: fill_all(rules.map(|role| &role.publish)),
            subscribe: fill_all(rules.map(|role| &role.subscribe)),
        }
    }

    /// Whether it may publish to a topic. `$SYS` is the broker's own.
    pub(super) fn may_publish(&self, topic: &str) -> bool {
        if topic.starts_with("$SYS/") || topic.starts_with("$share/") {
            return false;
        }
        self.everything || self.publish.iter().any(|rule| filter::matches(rule, topic))
    }

    /// Whether it may subscribe to a filter (without `$share`): it must lie inside one rule.
    pub(super) fn may_subscribe(&self, filter: &str) -> bool {
        self.everything || self.subscribe.iter().any(|rule| filter::covers(rule, filter))
    }
}

/// Puts client id, user name and root into a rule. A name with a wildcard or a level separator in it would widen the
/// rule, so there is no rule for it.
fn fill(rule: &str, client: &str, user: Option<&str>, root: &str) -> Option<String> {
    let mut text = rule.replace("%r", root);
    for (mark, name) in [("%c", Some(client)), ("%u", user)] {
        if text.contains(mark) {
            let name = name.filter(|name| !name.is_empty() && !name.contains(['+', '#', '/', '$']))?;
            text = text.replace(mark, name);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(role: &str) -> User {
        User {
            name: "ann".to_owned(),
            password: None,
            certificate: None,
            role: role.to_owned(),
            publish: vec!["own/%u/%c/#".to_owned()],
            subscribe: Vec::new(),
        }
    }

    #[test]
    fn built_in_roles_may_what_they_say() {
        let users = Users::default();
        for (role, topic, may) in [
            ("app", "a/b", true),
            ("app", "$hw/x", false),
            ("app", "$SYS/x", false),
            ("admin", "$hw/x", true),
            ("admin", "$SYS/x", false),
            ("mapper", "twin/d/reported/set", true),
            ("mapper", "a", false),
            ("reader", "a", false),
            ("reader", "twin/d/get", true),
            ("nobody", "a", false),
            ("reader", "own/ann/c1/x", true),
            ("reader", "own/bob/c1/x", false),
        ] {
            let access = Access::of(&users, &user(role), "c1", "twin");
            assert_eq!(access.may_publish(topic), may, "{role} {topic}");
        }
        let reader = Access::of(&users, &user("reader"), "c1", "twin");
        assert!(reader.may_subscribe("#") && reader.may_subscribe("twin/+/event"));
        assert!(!reader.may_subscribe("$SYS/#"));
    }

    #[test]
    fn a_client_id_with_a_wildcard_opens_nothing() {
        let access = Access::of(&Users::default(), &user("reader"), "+/x", "twin");
        assert!(!access.may_publish("own/ann/anything/x"));
    }
}
