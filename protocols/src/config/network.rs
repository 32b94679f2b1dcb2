//! How a gateway on a board of its own meets its network: `network.yaml`, the file beside `tidegate.yaml` on the card.
//!
//! In: a located tree of `network.yaml`. Out: a [`Network`], or every complaint at once. Must never show a password, neither
//! in a complaint nor in a debug print, and must never let a text through that would be two lines in a system's file.

use std::net::IpAddr;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::raw::one;
use crate::yaml::schema::of;
use crate::yaml::{Complaints, Node, Strictness, Told, prune_whole, walk};

/// The name of a gateway whose file names none.
pub const DEFAULT_HOSTNAME: &str = "tidegate";
/// The shortest and longest passphrase of a wireless network, in characters (IEEE 802.11-2020, annex J.4).
const PASSPHRASE_CHARACTERS: (usize, usize) = (8, 63);
/// The longest name of a wireless network, in bytes (IEEE 802.11-2020, section 9.4.2.2).
const SSID_BYTES: usize = 32;
/// The shortest password to log in with, in characters; it is asked for over the network.
const LOGIN_CHARACTERS: usize = 8;

/// The network settings of a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The board's name; it is found as `NAME.local`.
    pub hostname: String,
    /// The wired network.
    pub ethernet: Addressing,
    /// The wireless networks, if there are any.
    pub wifi: Option<Wifi>,
    /// Time servers, as names or addresses; the system's own when empty.
    pub ntp: Vec<String>,
    /// Who may log in; nobody when absent.
    pub login: Option<Login>,
}

/// How an interface gets its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// From the network, by DHCP and router advertisements.
    #[default]
    Automatic,
    /// As written.
    Fixed {
        /// The address with the length of its prefix in bits.
        address: (IpAddr, u8),
        /// The way to other networks.
        gateway: Option<IpAddr>,
        /// Name servers.
        dns: Vec<IpAddr>,
    },
}

/// Wireless networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wifi {
    /// The country whose rules the radio keeps, two capital letters (ISO 3166-1).
    pub country: String,
    /// The networks, the preferred one first.
    pub networks: Vec<Access>,
    /// How the radio's interface gets its address.
    pub addressing: Addressing,
}

/// One wireless network.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Its name.
    pub ssid: String,
    /// Its passphrase; an open network has none.
    pub password: Option<String>,
    /// It does not tell its name.
    pub hidden: bool,
}

/// Never shows the passphrase.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("ssid", &self.ssid).field("hidden", &self.hidden).finish_non_exhaustive()
    }
}

/// Who may log in, at the console and by SSH, as the board's administrator.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The password; with none, only keys open.
    pub password: Option<String>,
    /// Public SSH keys, one line each.
    pub ssh_keys: Vec<String>,
}

/// Never shows the password.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("ssh_keys", &self.ssh_keys).finish_non_exhaustive()
    }
}

/// The JSON Schema of `network.yaml`, as `tidegate schema network` prints it.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(of::<RawNetwork>);
    &SCHEMA
}

/// The network settings of a gateway on a board of its own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tidegate network")]
struct RawNetwork {
    /// The form of this file; always 1.
    #[serde(rename = "schema")]
    #[schemars(schema_with = "one")]
    _schema: Value,
    /// The board's name; it is found as NAME.local.
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"), extend("examples" = ["plant-7"]))]
    hostname: Option<String>,
    /// The wired network; automatic when absent.
    ethernet: Option<RawAddressing>,
    /// The wireless networks.
    wifi: Option<RawWifi>,
    /// Time servers.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[A-Za-z0-9.:-]{1,253}$")))]
    ntp: Vec<String>,
    /// Who may log in as root, at the console and by SSH; nobody when absent.
    login: Option<RawLogin>,
}

/// A fixed address.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawAddressing {
    /// Address and length of the prefix.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$"), extend("examples" = ["192.168.1.50/24"]))]
    address: String,
    /// The router.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f.:]+$"), extend("examples" = ["192.168.1.1"]))]
    gateway: Option<String>,
    /// Name servers.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[0-9A-Fa-f.:]+$")))]
    dns: Vec<String>,
}

/// Wireless networks.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawWifi {
    /// The country whose rules the radio keeps.
    #[schemars(regex(pattern = r"^[A-Z]{2}$"), extend("examples" = ["DE"]))]
    country: String,
    /// The networks, the preferred one first.
    #[schemars(length(min = 1, max = 16))]
    networks: Vec<RawAccess>,
    /// A fixed address; automatic when absent.
    ip: Option<RawAddressing>,
}

/// One wireless network.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawAccess {
    /// Its name.
    ssid: String,
    /// Its passphrase, 8 to 63 characters; none for an open network.
    password: Option<String>,
    /// It does not tell its name.
    #[serde(default)]
    hidden: bool,
}

/// Who may log in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawLogin {
    /// The password, 8 characters or more; with none, only keys open.
    password: Option<String>,
    /// Public SSH keys, as in the file id_ed25519.pub.
    #[serde(default)]
    #[schemars(
        length(max = 32),
        inner(regex(pattern = r"^(ssh|sk-ssh|ecdsa|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\n\r]*)?$"))
    )]
    ssh_keys: Vec<String>,
}

/// Reads `network.yaml`.
pub fn read(tree: &Node, complaints: &mut Complaints) -> Option<Network> {
    let mut found = Complaints::new();
    walk(tree, schema(), Strictness::Whole, &mut found);
    // Looked at without what does not fit, so that one mistake does not hide another.
    let (pruned, told) = prune_whole(tree, schema(), false);
    let raw: Option<RawNetwork> = serde_json::from_value(pruned.to_json()).ok();
    let mut later = Complaints::new();
    let network = raw.map(|raw| Reader { tree: &pruned, told: &told, complaints: &mut later }.network(raw));
    told.filter(&mut later);
    found.extend(later);
    let is_clean = found.is_empty();
    complaints.extend(found);
    network.filter(|_| is_clean)
}

struct Reader<'a> {
    tree: &'a Node,
    told: &'a Told,
    complaints: &'a mut Complaints,
}

impl Reader<'_> {
    fn network(&mut self, raw: RawNetwork) -> Network {
        Network {
            hostname: raw.hostname.unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned()),
            ethernet: raw.ethernet.map(|raw| self.addressing(&raw, &["ethernet"])).unwrap_or_default(),
            wifi: raw.wifi.map(|raw| self.wifi(raw)),
            ntp: raw.ntp,
            login: raw.login.map(|raw| self.login(raw)),
        }
    }

    fn addressing(&mut self, raw: &RawAddressing, path: &[&str]) -> Addressing {
        let mut one = |text: &str, key: &str| {
            let read = text.parse::<IpAddr>();
            if read.is_err() {
                let place = self.tree.place_of(&[path, &[key]].concat());
                self.complaints.add(place, format!("\"{text}\" is no address"), "write one such as 192.168.1.1");
            }
            read.ok()
        };
        let (text, bits) = raw.address.split_once('/').unwrap_or((&raw.address, ""));
        let address = one(text, "address");
        let gateway = raw.gateway.as_deref().and_then(|text| one(text, "gateway"));
        let dns = raw.dns.iter().filter_map(|text| one(text, "dns")).collect();
        let Some(address) = address else { return Addressing::Automatic };
        let most = if address.is_ipv4() { 32 } else { 128 };
        match bits.parse::<u8>().ok().filter(|bits| (1..=most).contains(bits)) {
            Some(bits) => Addressing::Fixed { address: (address, bits), gateway, dns },
            None => {
                let place = self.tree.place_of(&[path, &["address"]].concat());
                let message = format!("\"/{bits}\" is no length of a prefix");
                self.complaints.add(place, message, format!("write 1 to {most}, most often /24"));
                Addressing::Automatic
            }
        }
    }

    fn wifi(&mut self, raw: RawWifi) -> Wifi {
        let addressing = raw.ip.map(|raw| self.addressing(&raw, &["wifi", "ip"])).unwrap_or_default();
        let nodes = self.tree.find(&["wifi", "networks"]).map(Node::items).unwrap_or_default();
        for (access, node) in raw.networks.iter().zip(nodes) {
            self.access(access, node);
        }
        let networks = raw.networks.into_iter();
        let networks =
            networks.map(|raw| Access { ssid: raw.ssid, password: raw.password, hidden: raw.hidden }).collect();
        Wifi { country: raw.country, networks, addressing }
    }

    fn access(&mut self, access: &RawAccess, node: &Node) {
        if access.ssid.is_empty() || access.ssid.len() > SSID_BYTES {
            let message = format!("the name of a wireless network has 1 to {SSID_BYTES} bytes");
            self.complaints.add(node.place_of(&["ssid"]), message, "write it as other devices show it");
        }
        let (least, most) = PASSPHRASE_CHARACTERS;
        let fits = |text: &String| {
            (least..=most).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if access.password.as_ref().is_some_and(|text| !fits(text)) {
            let message = format!("the password of a wireless network has {least} to {most} plain characters");
            self.complaints.add(node.place_of(&["password"]), message, "letters, digits and signs without accents");
        }
    }

    fn login(&mut self, raw: RawLogin) -> Login {
        let fits = |text: &String| text.chars().count() >= LOGIN_CHARACTERS && !text.chars().any(char::is_control);
        if raw.password.as_ref().is_some_and(|text| !fits(text)) {
            let place = self.tree.place_of(&["login", "password"]);
            let message = format!("a password to log in with has at least {LOGIN_CHARACTERS} characters");
            self.complaints.add(place, message, "write a longer one, on one line");
        }
        let place = self.tree.place_of(&["login"]);
        if raw.password.is_none() && raw.ssh_keys.is_empty() && !self.told.lost_at(place, &["password", "ssh_keys"]) {
            self.complaints.add(place, "this lets nobody in", "write a password, or ssh_keys with a public key");
        }
        Login { password: raw.password, ssh_keys: raw.ssh_keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Network, Vec<String>> {
        let mut complaints = Complaints::new();
        let tree = crate::yaml::read("network.yaml", text, &mut complaints);
        let network = tree.and_then(|tree| read(&tree, &mut complaints));
        let told: Vec<String> = complaints.into_sorted().iter().map(ToString::to_string).collect();
        network.filter(|_| told.is_empty()).ok_or(told)
    }

    #[test]
    fn an_empty_file_is_a_gateway_on_a_wire_that_lets_nobody_in() {
        let network = check("schema: 1\n").unwrap();
        assert_eq!(network.hostname, "tidegate");
        assert_eq!(network.ethernet, Addressing::Automatic);
        assert_eq!((network.wifi, network.login), (None, None));
    }

    #[test]
    fn what_is_written_is_what_is_meant() {
        let network = check(
            "schema: 1\r\nhostname: plant-7\r\nethernet: {address: 192.168.1.50/24, gateway: 192.168.1.1, dns: [9.9.9.9]}\r\n\
             wifi: {country: DE, networks: [{ssid: 'Halle \"3\"', password: secret-word}, {ssid: guests}]}\r\n\
             login: {ssh_keys: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here']}\r\n",
        )
        .unwrap();
        let addressing = Addressing::Fixed {
            address: ("192.168.1.50".parse().unwrap(), 24),
            gateway: Some("192.168.1.1".parse().unwrap()),
            dns: vec!["9.9.9.9".parse().unwrap()],
        };
        assert_eq!(network.ethernet, addressing);
        let wifi = network.wifi.unwrap();
        let names: Vec<&str> = wifi.networks.iter().map(|access| access.ssid.as_str()).collect();
        assert_eq!(names, ["Halle \"3\"", "guests"]);
        assert!(network.login.is_some_and(|login| login.password.is_none() && login.ssh_keys.len() == 1));
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_no_password() {
        let told = check(
            "schema: 1\nhostnme: x\nethernet: {address: 300.1.1.1/24}\nwifi:\n  country: DE\n  networks:\n    - {ssid: home, password: hush}\n\
             login: {password: sesame}\n",
        )
        .unwrap_err();
        let all = told.join("\n");
        for wanted in ["network.yaml:2:1", "hostname", "network.yaml:3:", "network.yaml:7:", "network.yaml:8:"] {
            assert!(all.contains(wanted), "{wanted} is not in:\n{all}");
        }
        assert!(!all.contains("hush") && !all.contains("sesame"), "{all}");
    }

    #[test]
    fn a_text_of_two_lines_gets_nowhere() {
        let wrong = [
            "schema: 1\nhostname: \"a\\nb\"\n",
            "schema: 1\nntp: [\"a\\nFallbackNTP=b\"]\n",
            "schema: 1\nlogin: {ssh_keys: [\"ssh-ed25519 AAAA\\nssh-rsa BBBB\"]}\n",
            "schema: 1\nlogin: {password: \"longenough\\nroot:x\"}\n",
            "schema: 1\nwifi: {country: DE, networks: [{ssid: a, password: \"12345678\\n}\"}]}\n",
            "schema: 1\nwifi: {country: DE, networks: [{ssid: a, password: short}]}\n",
            "schema: 1\nlogin: {}\n",
            "schema: 1\nethernet: {address: 10.0.0.1/40}\n",
        ];
        for text in wrong {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_file_on_the_card_checks_and_so_does_what_its_remarks_offer() {
        let card = include_str!("../../../configs/image/card/network.yaml");
        assert_eq!(check(card).unwrap().hostname, DEFAULT_HOSTNAME);
        // Remarks that are YAML: everything from the first key on that begins one.
        let offered: Vec<&str> = card
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| {
                line.starts_with("  ")
                    || ["ethernet:", "wifi:", "ntp:", "login:"].iter().any(|key| line.starts_with(key))
            })
            .collect();
        let network = check(&format!("schema: 1\n{}\n", offered.join("\n")).replace("AAAA…", "AAAA")).unwrap();
        assert!(network.wifi.is_some() && network.login.is_some() && !network.ntp.is_empty());
        assert_ne!(network.ethernet, Addressing::Automatic);
    }

    #[test]
    fn a_debug_print_shows_no_password() {
        let text = "schema: 1\nwifi: {country: DE, networks: [{ssid: home, password: hush-hush}]}\nlogin: {password: sesame-open}\n";
        let shown = format!("{:?}", check(text).unwrap());
        assert!(!shown.contains("hush-hush") && !shown.contains("sesame-open"), "{shown}");
    }
}
