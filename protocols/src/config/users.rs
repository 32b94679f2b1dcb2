//! Who may do what on the broker: the users file as it was meant.
//!
//! In: a located tree of `users.yaml`. Out: [`Users`], or every complaint at once. Must never hold a password, only its
//! argon2id hash, and must never let a user through whose role does not exist.

use std::collections::BTreeMap;

use super::raw;
use crate::yaml::{Complaints, Node, Strictness, Told, nearest, prune_whole, quoted_list, walk};

/// Everybody the broker knows by name, and the roles they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// The users, in the order of the file. Names are unique, certificates too.
    pub users: Vec<User>,
    /// The roles: the built-in ones, and the file's own.
    pub roles: BTreeMap<String, Role>,
}

/// One user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The MQTT user name.
    pub name: String,
    /// The argon2id hash of the password, in PHC form (`$argon2id$v=19$…`).
    pub password: Option<String>,
    /// The subject of the client certificate that stands for this user, as `CN=…`.
    pub certificate: Option<String>,
    /// The role's name; [`Users::role_of`] finds it.
    pub role: String,
    /// Topic filters that may be published to, besides the role's.
    pub publish: Vec<String>,
    /// Topic filters that may be subscribed to, besides the role's.
    pub subscribe: Vec<String>,
}

/// Never shows the hash: what is printed ends up in logs.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What the users of a role may do. In filters `%c` stands for the client id, `%u` for the user name and `%r` for the
/// root of the twin topics (`twin` by default).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Topic filters that may be published to.
    pub publish: Vec<String>,
    /// Topic filters that may be subscribed to; a subscription must lie inside one of them.
    pub subscribe: Vec<String>,
    /// Whether they may act as a mapper: report readings and acknowledge desired values.
    pub mapper: bool,
}

impl Default for Users {
    /// Nobody, and the built-in roles.
    fn default() -> Self {
        Self { users: Vec::new(), roles: built_in_roles() }
    }
}

impl Users {
    /// The user of that name.
    pub fn find(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The user that this certificate subject stands for, written as `CN=…`.
    pub fn by_certificate(&self, subject: &str) -> Option<&User> {
        self.users.iter().find(|user| user.certificate.as_deref() == Some(subject))
    }

    /// The role of a user; what the file was checked for.
    pub fn role_of(&self, user: &User) -> Option<&Role> {
        self.roles.get(&user.role)
    }
}

/// The roles that are always there.
///
/// * `mapper` — everything under the twins' root, `gateway` and KubeEdge's `$hw` and `$ke`, and acting as a mapper;
/// * `app` — everything that does not begin with `$`; sets desired values, cannot act as a mapper;
/// * `reader` — subscribes to everything that does not begin with `$`, publishes nothing but `…/get`;
/// * `admin` — everything, `$` topics included.
pub fn built_in_roles() -> BTreeMap<String, Role> {
    let filters = |list: &[&str]| list.iter().map(|filter| (*filter).to_owned()).collect::<Vec<_>>();
    let role = |publish: &[&str], subscribe: &[&str], mapper| Role {
        publish: filters(publish),
        subscribe: filters(subscribe),
        mapper,
    };
    let all = ["#", "$SYS/#", "$hw/#"];
    [
        ("mapper", role(&["%r/#", "gateway/#", "$hw/#", "$ke/#"], &["%r/#", "gateway/#", "$hw/#", "$ke/#"], true)),
        ("app", role(&["#"], &["#"], false)),
        ("reader", role(&["%r/+/get"], &["#"], false)),
        ("admin", role(&all, &all, true)),
    ]
    .into_iter()
    .map(|(name, role)| (name.to_owned(), role))
    .collect()
}

/// Reads a users file.
pub fn read(tree: &Node, complaints: &mut Complaints) -> Option<Users> {
    let mut found = Complaints::new();
    walk(tree, raw::users_schema(), Strictness::Whole, &mut found);
    // Looked at without what does not fit, so that one mistake does not hide another.
    let (pruned, told) = prune_whole(tree, raw::users_schema(), false);
    let raw: Option<raw::RawUsers> = serde_json::from_value(pruned.to_json()).ok();
    let mut later = Complaints::new();
    let users = raw.map(|raw| check(&pruned, raw, &told, &mut later));
    told.filter(&mut later);
    found.extend(later);
    let is_clean = found.is_empty();
    complaints.extend(found);
    users.filter(|_| is_clean)
}

fn check(tree: &Node, raw: raw::RawUsers, told: &Told, complaints: &mut Complaints) -> Users {
    let mut roles = built_in_roles();
    for (name, role) in raw.roles {
        let path = ["roles", name.as_str()];
        if roles.contains_key(&name) {
            let message = format!("the role \"{name}\" is built in");
            complaints.add(tree.place_of(&path), message, "take another name");
            continue;
        }
        for key in ["publish", "subscribe"] {
            filters(tree.find(&["roles", &name, key]), complaints);
        }
        roles.insert(name, Role { publish: role.publish, subscribe: role.subscribe, mapper: role.mapper });
    }
    let nodes = tree.get("users").map(Node::items).unwrap_or_default();
    let mut users: Vec<User> = Vec::new();
    for (raw, node) in raw.users.into_iter().zip(nodes) {
        if users.iter().any(|other| other.name == raw.name) {
            complaints.add(node.place_of(&["name"]), format!("a second user \"{}\"", raw.name), "names are unique");
        }
        if raw.certificate.is_some() && users.iter().any(|other| other.certificate == raw.certificate) {
            let message = "this certificate stands for another user already";
            complaints.add(node.place_of(&["certificate"]), message, "a certificate stands for one user");
        }
        let is_told = told.lost_at(&node.place, &["password", "certificate"]);
        if raw.password.is_none() && raw.certificate.is_none() && !is_told {
            let hint = "run tidegate user add, or write certificate: \"CN=…\"";
            complaints.add(node.place_of(&["name"]), format!("\"{}\" has no way to prove who it is", raw.name), hint);
        }
        if !roles.contains_key(&raw.role) {
            let known = || roles.keys().map(String::as_str);
            let hint = match nearest(&raw.role, known()) {
                Some(meant) => format!("did you mean \"{meant}\"? roles: {}", quoted_list(known())),
                None => format!("roles: {}", quoted_list(known())),
            };
            complaints.add(node.place_of(&["role"]), format!("there is no role \"{}\"", raw.role), hint);
        }
        filters(node.get("publish"), complaints);
        filters(node.get("subscribe"), complaints);
        users.push(User {
            name: raw.name,
            password: raw.password,
            certificate: raw.certificate,
            role: raw.role,
            publish: raw.publish,
            subscribe: raw.subscribe,
        });
    }
    Users { users, roles }
}

/// Checks a list of topic filters (MQTT 5, section 4.7.1).
fn filters(list: Option<&Node>, complaints: &mut Complaints) {
    for item in list.map(Node::items).unwrap_or_default() {
        let filter = item.text().unwrap_or_default();
        let levels: Vec<&str> = filter.split('/').collect();
        let fits = !filter.is_empty()
            && filter.len() <= 65_535
            && !filter.contains('\0')
            && levels.iter().enumerate().all(|(index, level)| match *level {
                "#" => index + 1 == levels.len(),
                "+" => true,
                other => !other.contains(['#', '+']),
            });
        if !fits {
            let message = format!("\"{filter}\" is no topic filter");
            complaints.add(&item.place, message, "\"+\" and \"#\" stand alone between slashes, \"#\" at the end");
        }
    }
}
