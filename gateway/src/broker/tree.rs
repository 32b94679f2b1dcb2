//! The subscription tree: who wants a topic.
//!
//! In: filters with their subscribers; a topic name. Out: the subscribers whose filters match it. Must never recurse —
//! a filter may have 65,535 levels — nor keep a node that nobody needs.

use std::collections::HashMap;
use std::sync::Arc;

/// One subscription as the tree holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    /// The session's place.
    pub(super) session: u32,
    /// The options byte of SUBSCRIBE.
    pub(super) options: u8,
    /// The subscription identifier; 0 for none.
    pub(super) id: u32,
}

/// The members of one shared subscription.
#[derive(Debug)]
pub(super) struct Group {
    name: Box<str>,
    /// The whole filter, `$share/…` included.
    pub(super) text: Arc<str>,
    pub(super) members: Vec<Subscriber>,
    /// Whose turn it is.
    pub(super) next: usize,
}

/// Those who subscribed to one filter.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) groups: Vec<Group>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.groups.is_empty()
    }

    fn insert(&mut self, share: Option<&str>, filter: &str, subscriber: Subscriber) {
        let members = match share {
            None => &mut self.subscribers,
            Some(name) => {
                let at = match self.groups.iter().position(|group| &*group.name == name) {
                    Some(at) => at,
                    None => {
                        let text = format!("$share/{name}/{filter}").into();
                        self.groups.push(Group { name: name.into(), text, members: Vec::new(), next: 0 });
                        self.groups.len() - 1
                    }
                };
                match self.groups.get_mut(at) {
                    Some(group) => &mut group.members,
                    None => return,
                }
            }
        };
        match members.iter_mut().find(|member| member.session == subscriber.session) {
            Some(member) => *member = subscriber,
            None => members.push(subscriber),
        }
    }

    fn remove(&mut self, share: Option<&str>, session: u32) {
        match share {
            None => self.subscribers.retain(|member| member.session != session),
            Some(name) => {
                for group in self.groups.iter_mut().filter(|group| &*group.name == name) {
                    group.members.retain(|member| member.session != session);
                }
                self.groups.retain(|group| !group.members.is_empty());
            }
        }
    }
}

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    parent: u32,
    /// Its level; `+` for the wildcard child.
    name: Box<str>,
    children: HashMap<Box<str>, u32>,
    plus: u32,
    /// Filters that end here.
    here: Leaf,
    /// Filters that go on with `/#`.
    below: Leaf,
}

impl Node {
    fn new(parent: u32, name: &str) -> Self {
        Self {
            parent,
            name: name.into(),
            children: HashMap::new(),
            plus: NONE,
            here: Leaf::default(),
            below: Leaf::default(),
        }
    }

    fn is_idle(&self) -> bool {
        self.children.is_empty() && self.plus == NONE && self.here.is_empty() && self.below.is_empty()
    }
}

/// How far the tree was walked for a topic's levels but the last. What one device says goes to topics that differ in the
/// last level only, so most topics go on from where the one before them was.
#[derive(Debug, Default)]
struct Trail {
    /// The levels but the last, with the slash behind them; `None` when the tree has changed since.
    above: Option<Box<str>>,
    /// Nodes that were reached by exactly these levels.
    reached: Vec<u32>,
    /// Nodes on the way, these included, whose `below` matches.
    below: Vec<u32>,
}

/// All subscriptions of the broker.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    stack: Vec<(u32, usize)>,
    trail: Trail,
}

impl Tree {
    pub(super) fn new() -> Self {
        let nodes = vec![Node::new(NONE, "")];
        Self { nodes, free: Vec::new(), stack: Vec::new(), trail: Trail::default() }
    }

    fn node(&mut self, at: u32) -> Option<&mut Node> {
        self.nodes.get_mut(at as usize)
    }

    /// Adds a subscriber to a filter (without `$share`), or replaces the one it has there.
    pub(super) fn insert(&mut self, share: Option<&str>, filter: &str, subscriber: Subscriber) {
        self.trail.above = None;
        let mut at = ROOT;
        for level in filter.split('/') {
            if level == "#" {
                if let Some(node) = self.node(at) {
                    node.below.insert(share, filter, subscriber);
                }
                return;
            }
            at = self.child_or_new(at, level);
        }
        if let Some(node) = self.node(at) {
            node.here.insert(share, filter, subscriber);
        }
    }

    fn child(&self, at: u32, level: &str) -> Option<u32> {
        let node = self.nodes.get(at as usize)?;
        if level == "+" { (node.plus != NONE).then_some(node.plus) } else { node.children.get(level).copied() }
    }

    fn child_or_new(&mut self, at: u32, level: &str) -> u32 {
        if let Some(child) = self.child(at, level) {
            return child;
        }
        let node = Node::new(at, level);
        let child = match self.free.pop() {
            Some(free) => {
                if let Some(place) = self.node(free) {
                    *place = node;
                }
                free
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        if let Some(parent) = self.node(at) {
            if level == "+" {
                parent.plus = child;
            } else {
                parent.children.insert(level.into(), child);
            }
        }
        child
    }

    /// Takes a session's subscription to a filter away.
    pub(super) fn remove(&mut self, share: Option<&str>, filter: &str, session: u32) {
        self.trail.above = None;
        let mut at = ROOT;
        let mut below = false;
        for level in filter.split('/') {
            if level == "#" {
                below = true;
                break;
            }
            match self.child(at, level) {
                Some(child) => at = child,
                None => return,
            }
        }
        if let Some(node) = self.node(at) {
            let leaf = if below { &mut node.below } else { &mut node.here };
            leaf.remove(share, session);
        }
        self.prune(at);
    }

    fn prune(&mut self, mut at: u32) {
        while at != ROOT {
            let Some(node) = self.node(at) else { return };
            if !node.is_idle() {
                return;
            }
            let (parent, name) = (node.parent, std::mem::take(&mut node.name));
            node.children = HashMap::new();
            self.free.push(at);
            if let Some(parent) = self.node(parent) {
                if &*name == "+" {
                    parent.plus = NONE;
                } else {
                    parent.children.remove(&name);
                }
            }
            at = parent;
        }
    }

    /// Hands out every leaf whose filter matches the topic.
    pub(super) fn matches(&mut self, topic: &str, mut each: impl FnMut(&mut Leaf)) {
        let (above, last) = topic.split_at(topic.bytes().rposition(|byte| byte == b'/').map_or(0, |slash| slash + 1));
        if self.trail.above.as_deref() != Some(above) {
            self.walk(above);
        }
        // wildcards at the first level do not match `$` topics [MQTT-4.7.2-1]
        let wild = !above.is_empty() || !last.starts_with('$');
        let Self { nodes, trail, .. } = self;
        for at in trail.below.iter().filter(|at| wild || **at != ROOT) {
            if let Some(node) = nodes.get_mut(*at as usize) {
                each(&mut node.below);
            }
        }
        for at in &trail.reached {
            let Some(node) = nodes.get(*at as usize) else { continue };
            let plus = Some(node.plus).filter(|plus| wild && *plus != NONE);
            let exact = node.children.get(last).copied();
            for child in plus.into_iter().chain(exact) {
                let Some(Node { here, below, .. }) = nodes.get_mut(child as usize) else { continue };
                for leaf in [below, here] {
                    if !leaf.is_empty() {
                        each(leaf);
                    }
                }
            }
        }
    }

    /// Lays the trail of these levels, each with its slash.
    fn walk(&mut self, above: &str) {
        let Self { nodes, stack, trail, .. } = self;
        let dollar = above.starts_with('$');
        trail.above = Some(above.into());
        trail.reached.clear();
        trail.below.clear();
        stack.clear();
        stack.push((ROOT, 0));
        while let Some((at, offset)) = stack.pop() {
            let Some(node) = nodes.get(at as usize) else { continue };
            let wild = offset > 0 || !dollar;
            if wild && !node.below.is_empty() {
                trail.below.push(at);
            }
            let rest = above.get(offset..).unwrap_or_default();
            let Some(slash) = rest.bytes().position(|byte| byte == b'/') else {
                trail.reached.push(at);
                continue;
            };
            let next = offset + slash + 1;
            if wild && node.plus != NONE {
                stack.push((node.plus, next));
            }
            if let Some(&child) = rest.get(..slash).and_then(|level| node.children.get(level)) {
                stack.push((child, next));
            }
        }
    }

    /// The members of a shared subscription.
    pub(super) fn group(&mut self, share: &str, filter: &str) -> Option<&mut Group> {
        let mut at = ROOT;
        let mut below = false;
        for level in filter.split('/') {
            if level == "#" {
                below = true;
                break;
            }
            at = self.child(at, level)?;
        }
        let node = self.node(at)?;
        let leaf = if below { &mut node.below } else { &mut node.here };
        leaf.groups.iter_mut().find(|group| &*group.name == share)
    }

    #[cfg(test)]
    fn nodes_in_use(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter;
    use super::*;

    fn found(tree: &mut Tree, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        tree.matches(topic, |leaf| found.extend(leaf.subscribers.iter().map(|one| one.session)));
        found.sort_unstable();
        found
    }

    #[test]
    fn the_tree_finds_what_comparing_every_filter_finds() {
        let filters = [
            "#", "+", "+/+", "/#", "/+", "a", "a/#", "a/+", "a/b", "a/+/c", "a/b/#", "+/b/+", "$hw/#", "$hw/+/x", "/",
            "//", "a//", "a//#", "+/+/+",
        ];
        let topics =
            ["a", "a/b", "a/b/c", "/", "//", "/a", "a/", "a//", "a//c", "$hw", "$hw/e/x", "$SYS/a", "b/b/b", "é/b/ü"];
        let mut tree = Tree::new();
        for (session, text) in filters.iter().enumerate() {
            tree.insert(None, text, Subscriber { session: session as u32, options: 0, id: 0 });
        }
        for topic in topics {
            let expected: Vec<u32> =
                (0..filters.len() as u32).filter(|&at| filter::matches(filters[at as usize], topic)).collect();
            assert_eq!(found(&mut tree, topic), expected, "{topic}");
        }
        for (session, text) in filters.iter().enumerate() {
            tree.remove(None, text, session as u32);
        }
        assert_eq!(tree.nodes_in_use(), 1, "nothing stays behind");
    }

    #[test]
    fn a_subscription_made_or_given_up_between_two_topics_of_one_device_counts() {
        let mut tree = Tree::new();
        let filters = ["twin/d/reported/+", "twin/#", "+/d/reported/b", "twin/d/reported/b/#", "#"];
        for (session, filter) in (0..).zip(filters) {
            for topic in ["twin/d/reported/a", "twin/d/reported/b"] {
                let before = (0..session).filter(|at| filter::matches(filters[*at as usize], topic));
                assert_eq!(found(&mut tree, topic), before.collect::<Vec<u32>>(), "{topic} before {filter}");
            }
            tree.insert(None, filter, Subscriber { session, options: 0, id: 0 });
        }
        assert_eq!(found(&mut tree, "twin/d/reported/b"), [0, 1, 2, 3, 4]);
        assert_eq!(found(&mut tree, "twin/d/reported/a"), [0, 1, 4]);
        tree.remove(None, "twin/#", 1);
        assert_eq!(found(&mut tree, "twin/d/reported/a"), [0, 4]);
        // the last level alone, with and without a dollar
        assert_eq!(found(&mut tree, "a"), [4]);
        assert_eq!(found(&mut tree, "$a"), [0; 0]);
        assert_eq!(found(&mut tree, "a"), [4]);
    }

    #[test]
    fn thirty_thousand_levels_do_no_harm() {
        let mut tree = Tree::new();
        let deep = "/".repeat(65_534);
        tree.insert(None, &deep, Subscriber { session: 1, options: 0, id: 0 });
        assert_eq!(found(&mut tree, &deep), [1]);
        tree.remove(None, &deep, 1);
        assert_eq!(tree.nodes_in_use(), 1);
    }
}
