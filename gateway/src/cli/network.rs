//! `tidegate network`: turns `network.yaml` of a gateway's card into the files of the system it runs on.
//!
//! In: a `network.yaml`. Out: a folder with what systemd-networkd, wpa_supplicant, systemd-timesyncd and sshd read. Must
//! never touch the running system: whoever calls it puts the files in their places.

use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use protocols::config::network::{self, Access, Addressing, Network, Wifi};
use protocols::yaml::{self, Complaints};

use super::failure::{Failure, Kind};
use super::screen::Screen;

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// The file.
    file: PathBuf,
    /// The folder to write into; without it, the file is only checked.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// One file of the system.
struct Made {
    /// Its path, from the root of the system.
    path: &'static str,
    text: String,
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, does not check, or the folder cannot be written.
pub(super) fn run(command: &Command, screen: &mut Screen) -> Result<(), Failure> {
    let network = read(&command.file)?;
    let Some(into) = &command.into else {
        return Ok(screen.line(&format!("{} is fine", command.file.display()))?);
    };
    for made in files(&network) {
        keep(&into.join(made.path), &made.text)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Network, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Kind::Io, format!("cannot read {}: {error}", path.display())))?;
    let mut complaints = Complaints::new();
    // Editors of some systems begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let tree = yaml::read(&path.display().to_string(), text, &mut complaints);
    let network = tree.as_ref().and_then(|tree| network::read(tree, &mut complaints));
    match network {
        Some(network) if complaints.is_empty() => Ok(network),
        _ => Err(super::complain(&complaints.into_sorted())),
    }
}

/// Writes a file that only its owner may read: some of them hold passwords.
fn keep(path: &Path, text: &str) -> Result<(), Failure> {
    let told = |error| Failure::new(Kind::Io, format!("cannot write {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(told)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(told)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(told)
}

/// All files that these settings make.
fn files(network: &Network) -> Vec<Made> {
    let mut made = vec![
        Made { path: "etc/hostname", text: format!("{}\n", network.hostname) },
        Made { path: "etc/hosts", text: hosts(&network.hostname) },
        Made {
            path: "etc/systemd/network/20-wire.network",
            text: interface("Type=ether\nKind=!*", &network.ethernet, 100),
        },
    ];
    if let Some(wifi) = &network.wifi {
        made.push(Made {
            path: "etc/systemd/network/25-wireless.network",
            text: interface("Type=wlan", &wifi.addressing, 600),
        });
        made.push(Made { path: "etc/wpa_supplicant/wpa_supplicant-wlan0.conf", text: supplicant(wifi) });
    }
    if !network.ntp.is_empty() {
        let text = format!("[Time]\nNTP={}\n", network.ntp.join(" "));
        made.push(Made { path: "etc/systemd/timesyncd.conf.d/network-yaml.conf", text });
    }
    if let Some(login) = &network.login {
        let keys: String = login.ssh_keys.iter().map(|key| format!("{key}\n")).collect();
        made.push(Made { path: "etc/ssh/authorized_keys", text: keys });
        let (root, passwords) = if login.password.is_some() { ("yes", "yes") } else { ("prohibit-password", "no") };
        let text = format!("PermitRootLogin {root}\nPasswordAuthentication {passwords}\n");
        made.push(Made { path: "etc/ssh/sshd_config.d/network-yaml.conf", text });
        if let Some(password) = &login.password {
            // One line for chpasswd.
            made.push(Made { path: "chpasswd", text: format!("root:{password}\n") });
        }
    }
    made
}

fn hosts(name: &str) -> String {
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
}

/// A `.network` file of systemd-networkd (systemd.network(5)); of several ways out, the one of the lowest metric is taken.
fn interface(which: &str, addressing: &Addressing, metric: u32) -> String {
    let mut text = format!("[Match]\n{which}\n\n[Network]\nMulticastDNS=yes\n");
    let mut say = |line: String| writeln!(text, "{line}").expect("a String takes all");
    match addressing {
        Addressing::Automatic => {
            say("DHCP=yes\nIPv6AcceptRA=yes".to_owned());
            say(format!("\n[DHCPv4]\nRouteMetric={metric}\n\n[IPv6AcceptRA]\nRouteMetric={metric}"));
        }
        Addressing::Fixed { address: (address, bits), gateway, dns } => {
            say(format!("Address={address}/{bits}"));
            for server in dns {
                say(format!("DNS={server}"));
            }
            if let Some(gateway) = gateway {
                say(format!("\n[Route]\nGateway={gateway}\nMetric={metric}"));
            }
        }
    }
    text
}

/// A configuration of wpa_supplicant (its README's form). Names go in as bytes in hexadecimal, so that no sign in one can
/// end it; a passphrase ends at the last quote of its line, and was checked to be one line.
fn supplicant(wifi: &Wifi) -> String {
    let mut text = format!("country={}\nctrl_interface=/run/wpa_supplicant\nupdate_config=0\n", wifi.country);
    let count = wifi.networks.len();
    for (index, Access { ssid, password, hidden }) in wifi.networks.iter().enumerate() {
        let ssid: String = ssid.bytes().map(|byte| format!("{byte:02x}")).collect();
        // WPA2 and WPA3 alike; frames of management are protected where the other side can.
        let proof = match password {
            Some(password) => format!("key_mgmt=WPA-PSK SAE\n\tieee80211w=1\n\tpsk=\"{password}\""),
            None => "key_mgmt=NONE".to_owned(),
        };
        let scan = u8::from(*hidden);
        let block =
            format!("\nnetwork={{\n\tssid={ssid}\n\tscan_ssid={scan}\n\tpriority={}\n\t{proof}\n}}\n", count - index);
        text.push_str(&block);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Made> {
        let mut complaints = Complaints::new();
        let tree = yaml::read("network.yaml", text, &mut complaints).unwrap();
        files(&network::read(&tree, &mut complaints).unwrap())
    }

    fn text<'a>(files: &'a [Made], path: &str) -> &'a str {
        files.iter().find(|made| made.path == path).map_or("", |made| made.text.as_str())
    }

    #[test]
    fn nothing_written_is_dhcp_on_the_wire_and_no_door() {
        let files = of("schema: 1\n");
        assert_eq!(text(&files, "etc/hostname"), "tidegate\n");
        assert!(text(&files, "etc/systemd/network/20-wire.network").contains("\nDHCP=yes\n"));
        let paths: Vec<&str> = files.iter().map(|made| made.path).collect();
        assert_eq!(paths, ["etc/hostname", "etc/hosts", "etc/systemd/network/20-wire.network"]);
    }

    #[test]
    fn a_fixed_address_asks_nobody() {
        let files = of(
            "schema: 1\nethernet: {address: 192.168.1.50/24, gateway: 192.168.1.1, dns: [9.9.9.9, 149.112.112.112]}\n",
        );
        let network = text(&files, "etc/systemd/network/20-wire.network");
        for line in ["Address=192.168.1.50/24", "DNS=9.9.9.9", "DNS=149.112.112.112", "Gateway=192.168.1.1"] {
            assert!(network.lines().any(|written| written == line), "{line} is not in:\n{network}");
        }
        assert!(!network.contains("DHCP"));
    }

    #[test]
    fn a_wireless_network_with_any_sign_in_its_name_stays_one_network() {
        let files = of(
            "schema: 1\nwifi:\n  country: DE\n  networks:\n    - {ssid: \"a\\\"\\n}\", password: 'q\"uo te}'}\n    - {ssid: guests, hidden: true}\n",
        );
        let written = text(&files, "etc/wpa_supplicant/wpa_supplicant-wlan0.conf");
        // Bytes of the name in hexadecimal, as wpa_supplicant.conf(5) allows.
        for line in
            ["\tssid=61220a7d", "\tpsk=\"q\"uo te}\"", "\tssid=677565737473", "\tscan_ssid=1", "\tkey_mgmt=NONE"]
        {
            assert!(written.lines().any(|other| other == line), "{line} is not in:\n{written}");
        }
        assert_eq!(written.matches("network={").count(), 2);
    }

    #[test]
    fn a_door_opens_only_as_wide_as_written() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here";
        let keyed = of(&format!("schema: 1\nlogin: {{ssh_keys: [{key}]}}\n"));
        assert_eq!(text(&keyed, "etc/ssh/authorized_keys"), format!("{key}\n"));
        assert!(text(&keyed, "etc/ssh/sshd_config.d/network-yaml.conf").contains("PasswordAuthentication no"));
        assert_eq!(text(&keyed, "chpasswd"), "");
        let worded = of("schema: 1\nlogin: {password: correct horse}\n");
        assert_eq!(text(&worded, "chpasswd"), "root:correct horse\n");
        assert!(text(&worded, "etc/ssh/sshd_config.d/network-yaml.conf").contains("PermitRootLogin yes"));
    }
}
