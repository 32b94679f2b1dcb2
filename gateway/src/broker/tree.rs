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

/// All subscriptions of the broker.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    stack: Vec<(u32, usize)>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::new(NONE, "")], free: Vec::new(), stack: Vec::new() }
    }

    fn node(&mut self, at: u32) -> Option<&mut Node> {
        self.nodes.get_mut(at as usize)
    }

    /// Adds a subscriber to a filter (without `$share`), or replaces the one it has there.
    pub(super) fn insert(&mut self, share: Option<&str>, filter: &str, subscriber: Subscriber) {
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
        let dollar = topic.starts_with('$');
        let Self { nodes, stack, .. } = self;
        stack.clear();
        stack.push((ROOT, 0));
        while let Some((at, offset)) = stack.pop() {
            let Some(node) = nodes.get_mut(at as usize) else { continue };
            // wildcards at the first level do not match `$` topics [MQTT-4.7.2-1]
            let wild = offset > 0 || !dollar;
            if wild && !node.below.is_empty() {
                each(&mut node.below);
            }
            let Some(rest) = topic.get(offset..) else {
                if !node.here.is_empty() {
                    each(&mut node.here);
                }
                continue;
            };
            let level = rest.split('/').next().unwrap_or_default();
            let next = offset + level.len() + 1;
            if wild && node.plus != NONE {
                stack.push((node.plus, next));
            }
            if let Some(&child) = node.children.get(level) {
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
    fn thirty_thousand_levels_do_no_harm() {
        let mut tree = Tree::new();
        let deep = "/".repeat(65_534);
        tree.insert(None, &deep, Subscriber { session: 1, options: 0, id: 0 });
        assert_eq!(found(&mut tree, &deep), [1]);
        tree.remove(None, &deep, 1);
        assert_eq!(tree.nodes_in_use(), 1);
    }
}
