//! KubeEdge's topics, device ids of one level and of two.
//!
//! In: a topic as text. Out: what is asked and of which device — and the topics of the answers, in the form that was
//! asked. Must never find an id by searching for text in the topic: a namespace called `device` is a namespace.

use std::fmt;

use crate::name::DeviceId;

/// First levels of device topics.
const DEVICE: &str = "$hw/events/device/";

/// First levels of node topics.
const NODE: &str = "$hw/events/node/";

/// A device as KubeEdge names it: `name`, or `namespace/name` since version 1.17.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubeId {
    /// The namespace, if one was written.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl KubeId {
    /// The id of a device of ours. `home` is the namespace of devices whose id names none; a device of another one is
    /// called `namespace:name` here. Without a `home`, ids have one level.
    pub fn of(device: &DeviceId, home: Option<&str>) -> Self {
        let text = device.as_str();
        match (home, text.split_once(':')) {
            (Some(_), Some((namespace, name))) if !namespace.is_empty() && !name.is_empty() => {
                Self { namespace: Some(namespace.to_owned()), name: name.to_owned() }
            }
            (home, _) => Self { namespace: home.map(str::to_owned), name: text.to_owned() },
        }
    }

    /// The device of ours that is meant, if its name can be one.
    pub fn device(&self, home: Option<&str>) -> Option<DeviceId> {
        match &self.namespace {
            Some(namespace) if Some(namespace.as_str()) != home => format!("{namespace}:{}", self.name).parse().ok(),
            _ => self.name.parse().ok(),
        }
    }
}

impl fmt::Display for KubeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `twin/update`: changes expected and actual values.
    TwinUpdate,
    /// `twin/get`.
    TwinGet,
    /// `twin/cloud_updated`: expected values with versions, as the old cloud sent them.
    CloudUpdated,
    /// `state/update`.
    StateUpdate,
}

/// A topic that Tidegate answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Something of a device.
    Device(KubeId, Action),
    /// `membership/get` of a node.
    Membership(String),
}

impl Asked {
    /// Which of KubeEdge's requests this topic is; `None` for all others, which pass like any message.
    pub fn parse(topic: &str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix(NODE) {
            let node = rest.strip_suffix("/membership/get")?;
            return (!node.is_empty() && !node.contains('/')).then(|| Self::Membership(node.to_owned()));
        }
        let levels: Vec<&str> = topic.strip_prefix(DEVICE)?.split('/').collect();
        let (id, action) = match levels.as_slice() {
            [name, section, verb] => (KubeId { namespace: None, name: (*name).to_owned() }, (*section, *verb)),
            [namespace, name, section, verb] => {
                (KubeId { namespace: Some((*namespace).to_owned()), name: (*name).to_owned() }, (*section, *verb))
            }
            _ => return None,
        };
        let empty = id.name.is_empty() || id.namespace.as_ref().is_some_and(String::is_empty);
        let action = match action {
            _ if empty => return None,
            ("twin", "update") => Action::TwinUpdate,
            ("twin", "get") => Action::TwinGet,
            ("twin", "cloud_updated") => Action::CloudUpdated,
            ("state", "update") => Action::StateUpdate,
            _ => return None,
        };
        Some(Self::Device(id, action))
    }
}

/// Whether a topic is an answer or a notice: the gateway alone writes those.
pub fn is_answer(topic: &str) -> bool {
    let node = topic.strip_prefix(NODE).and_then(|rest| rest.split_once('/'));
    if let Some((_, rest)) = node {
        return matches!(rest, "membership/get/result" | "membership/updated");
    }
    let Some(rest) = topic.strip_prefix(DEVICE) else { return false };
    const ENDS: [&str; 6] = [
        "/twin/update/result",
        "/twin/update/document",
        "/twin/update/delta",
        "/twin/get/result",
        "/state/update/result",
        "/updated",
    ];
    ENDS.iter().any(|end| rest.ends_with(end))
}

/// A topic below a device: `$hw/events/device/<id>/<end>`.
pub fn device(id: &KubeId, end: &str) -> String {
    format!("{DEVICE}{id}/{end}")
}

/// A topic below a node: `$hw/events/node/<node>/<end>`.
pub fn node(node: &str, end: &str) -> String {
    format!("{NODE}{node}/{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(namespace: &str, name: &str) -> KubeId {
        KubeId { namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }

    fn one(name: &str) -> KubeId {
        KubeId { namespace: None, name: name.to_owned() }
    }

    #[test]
    fn ids_of_one_level_and_of_two_are_told_apart_by_counting() {
        for (topic, asked) in [
            ("$hw/events/device/default/d1/twin/update", Asked::Device(two("default", "d1"), Action::TwinUpdate)),
            ("$hw/events/device/d1/twin/update", Asked::Device(one("d1"), Action::TwinUpdate)),
            ("$hw/events/device/d1/twin/get", Asked::Device(one("d1"), Action::TwinGet)),
            ("$hw/events/device/d1/twin/cloud_updated", Asked::Device(one("d1"), Action::CloudUpdated)),
            ("$hw/events/device/default/d1/state/update", Asked::Device(two("default", "d1"), Action::StateUpdate)),
            // A namespace and a node that are words of the prefix: edgecore drops these.
            ("$hw/events/device/device/d9/twin/get", Asked::Device(two("device", "d9"), Action::TwinGet)),
            ("$hw/events/device/twin/twin/twin/get", Asked::Device(two("twin", "twin"), Action::TwinGet)),
            ("$hw/events/node/node/membership/get", Asked::Membership("node".to_owned())),
            ("$hw/events/node/edge-1/membership/get", Asked::Membership("edge-1".to_owned())),
        ] {
            assert_eq!(Asked::parse(topic), Some(asked), "{topic}");
        }
        for topic in [
            "$hw/events/device/d1/twin/delete",
            "$hw/events/device//d1/twin/get",
            "$hw/events/device/a/b/c/twin/get",
            "$hw/events/device/d1/state/get",
            "$hw/events/node//membership/get",
            "$hw/events/node/a/b/membership/get",
            "$hw/events/upload/x",
            "twin/d1/get",
        ] {
            assert_eq!(Asked::parse(topic), None, "{topic}");
        }
    }

    #[test]
    fn answers_are_nobody_elses_to_write() {
        for topic in [
            "$hw/events/device/default/d1/twin/update/result",
            "$hw/events/device/d1/twin/update/delta",
            "$hw/events/device/d1/updated",
            "$hw/events/node/edge-1/membership/updated",
        ] {
            assert!(is_answer(topic), "{topic}");
        }
        for topic in ["$hw/events/device/d1/twin/update", "$ke/events/device/d1/data/update", "$hw/events/upload/x"] {
            assert!(!is_answer(topic), "{topic}");
        }
    }

    #[test]
    fn a_device_of_another_namespace_has_it_before_a_colon() {
        for (id, home, kube) in [
            ("d1", Some("default"), two("default", "d1")),
            ("hall:d1", Some("default"), two("hall", "d1")),
            ("d1", None, one("d1")),
            ("hall:d1", None, one("hall:d1")),
        ] {
            let device: DeviceId = id.parse().unwrap();
            assert_eq!(KubeId::of(&device, home), kube);
            assert_eq!(kube.device(home), Some(device));
        }
        // One level, whatever the home namespace is.
        assert_eq!(one("d1").device(Some("default")).unwrap().as_str(), "d1");
    }
}
