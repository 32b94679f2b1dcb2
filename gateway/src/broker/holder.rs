//! Who holds a port: told when a listener cannot have it.
//!
//! In: a port. Out: the process that listens there, as far as the system says. Must never fail: this is the second half
//! of an error message.

use std::fs;

/// A process that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// The process that listens on a TCP port; `None` where that cannot be seen, as for another user's processes.
pub(super) fn of_port(port: u16) -> Option<Holder> {
    let inode =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|path| inode(&fs::read_to_string(path).ok()?, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |target: std::path::PathBuf| target.to_str() == Some(&wanted);
        if files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(holds)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(Holder { pid, name: name.trim().to_owned() });
        }
    }
    None
}

/// The socket that listens on a port, from the kernel's table (proc(5)): columns local address, remote address, state
/// (0A is listening), …, inode.
fn inode(table: &str, port: u16) -> Option<u64> {
    let end = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let listens = columns.get(1)?.ends_with(&end) && *columns.get(3)? == "0A";
        if listens { columns.get(9)?.parse().ok() } else { None }
    })
}
