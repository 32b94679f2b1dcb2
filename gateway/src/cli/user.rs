//! `tidegate user add|remove|list`: keeps the users file.
//!
//! The file belongs to the person: it is edited line by line, so that comments and order stay. What cannot be edited
//! safely is left alone and said.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHasher, SaltString};
use clap::{Args, Subcommand};
use protocols::config::users::{self, Users};
use protocols::yaml::{self, Complaints, Node};

use super::failure::{Failure, Kind};
use super::screen::{Cell, Screen};

/// The shortest password that is taken, in characters.
const PASSWORD_CHARACTERS: usize = 8;

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
    /// The users file.
    #[arg(short, long, default_value = "users.yaml", global = true)]
    file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Adds a user, or gives one a new password.
    Add {
        /// The user's name.
        name: String,
        /// mapper, app, reader, admin, or a role of the file.
        #[arg(long, default_value = "app")]
        role: String,
        /// Read the password from standard input instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
        /// Let the holder of this certificate subject in; no password is needed then.
        #[arg(long, value_name = "SUBJECT")]
        certificate: Option<String>,
    },
    /// Removes a user.
    Remove {
        /// The user's name.
        name: String,
    },
    /// Lists the users.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, understood or written, or the user is not what is expected.
pub(super) fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let path = &command.file;
    match command.action {
        Action::Add { name, role, password_stdin, certificate } => {
            known_role(path, &role)?;
            let hash = match &certificate {
                Some(_) if !password_stdin => None,
                _ => Some(hash(&password(password_stdin)?)?),
            };
            let entry = entry(&name, &role, hash.as_deref(), certificate.as_deref())?;
            add(path, &name, &role, &entry)?;
            Ok(screen.line(&format!("{name} is in {} with the role {role}", path.display()))?)
        }
        Action::Remove { name } => {
            let text = read(path)?;
            let changed = without(&text, path, &name)?;
            keep(path, &changed)?;
            Ok(screen.line(&format!("{name} is no longer in {}", path.display()))?)
        }
        Action::List { json } => list(path, json, screen),
    }
}

/// Refuses a role that neither the program nor the file has, before anybody types a password for it.
fn known_role(path: &Path, role: &str) -> Result<(), Failure> {
    let users = if path.exists() { understand(&read(path)?, path)?.0 } else { Users::default() };
    if users.roles.contains_key(role) {
        return Ok(());
    }
    let roles: Vec<&str> = users.roles.keys().map(String::as_str).collect();
    let roles = format!("the roles are {}; others can be written into {}", roles.join(", "), path.display());
    Err(Failure::new(Kind::Usage, format!("there is no role \"{role}\"")).hint(roles))
}

fn password(from_stdin: bool) -> Result<String, Failure> {
    let password = if from_stdin || !std::io::stdin().is_terminal() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text.trim_end_matches(['\n', '\r']).to_owned()
    } else {
        let first = rpassword::prompt_password("password: ")?;
        if rpassword::prompt_password("once more: ")? != first {
            return Err(Failure::new(Kind::Data, "the two passwords differ"));
        }
        first
    };
    if password.chars().count() < PASSWORD_CHARACTERS {
        return Err(Failure::new(Kind::Data, format!("a password has at least {PASSWORD_CHARACTERS} characters")));
    }
    Ok(password)
}

fn hash(password: &str) -> Result<String, Failure> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| Failure::new(Kind::Internal, error.to_string()))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Kind::Io, format!("cannot read {}: {error}", path.display())))
}

/// Writes the whole file beside the old one and swaps them, so that a power cut leaves one of the two.
fn keep(path: &Path, text: &str) -> Result<(), Failure> {
    let told = |error| Failure::new(Kind::Io, format!("cannot write {}: {error}", path.display()));
    let fresh = path.with_extension("yaml.new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh).map_err(told)?;
    #[cfg(unix)]
    keep_readers(path, &file).map_err(told)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(told)?;
    file.sync_all().map_err(told)?;
    std::fs::rename(&fresh, path).map_err(told)
}

/// Whoever could read the old file by its group can read the new one; a first file is its folder's group's to read where the
/// folder hands its group on (set-group-ID), as /etc/tidegate does. Nobody else can.
#[cfg(unix)]
fn keep_readers(path: &Path, fresh: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    const HANDS_ON: u32 = 0o2000;
    const GROUP_READS: u32 = 0o040;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let group = match (std::fs::metadata(path), std::fs::metadata(folder)) {
        (Ok(old), _) => (old.mode() & GROUP_READS != 0).then_some(old.gid()),
        (Err(_), Ok(folder)) => (folder.mode() & HANDS_ON != 0).then_some(folder.gid()),
        (Err(_), Err(_)) => None,
    };
    // Who may not give the file to that group keeps it to themselves.
    if let Some(group) = group
        && fchown(fresh, None, Some(group)).is_ok()
    {
        fresh.set_permissions(std::fs::Permissions::from_mode(0o640))?;
    }
    Ok(())
}

/// The users of a text and the tree they stand in, or every complaint about it.
fn understand(text: &str, path: &Path) -> Result<(Users, Node), Failure> {
    let mut complaints = Complaints::new();
    let tree = yaml::read(&path.display().to_string(), text, &mut complaints);
    let users = tree.as_ref().and_then(|tree| users::read(tree, &mut complaints));
    match (users, tree) {
        (Some(users), Some(tree)) if complaints.is_empty() => Ok((users, tree)),
        _ => Err(super::complain(&complaints.into_sorted())),
    }
}

fn entry(name: &str, role: &str, hash: Option<&str>, certificate: Option<&str>) -> Result<Vec<String>, Failure> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Failure::new(Kind::Usage, "a user's name is a line of text"));
    }
    let mut lines = vec![format!("- name: {}", quoted(name)), format!("  role: {}", quoted(role))];
    lines.extend(hash.map(|hash| format!("  password: {}", quoted(hash))));
    lines.extend(certificate.map(|subject| format!("  certificate: {}", quoted(subject))));
    Ok(lines)
}

fn add(path: &Path, name: &str, role: &str, entry: &[String]) -> Result<(), Failure> {
    let text = if path.exists() { read(path)? } else { "schema: 1\nusers: []\n".to_owned() };
    let known = path.exists() && understand(&text, path)?.0.find(name).is_some();
    let text = if known { without(&text, path, name)? } else { text };
    let changed = with(&text, path, entry)?;
    let (users, _) = understand(&changed, path)?;
    match users.find(name) {
        Some(user) if user.role == role => keep(path, &changed),
        _ => Err(by_hand(path)),
    }
}

fn by_hand(path: &Path) -> Failure {
    Failure::new(Kind::Data, format!("{} is not laid out as a plain list, so it is left as it is", path.display()))
        .hint("write users: with one \"- name: …\" entry below the other")
}

/// The text with one more entry at the end of the list.
fn with(text: &str, path: &Path, entry: &[String]) -> Result<String, Failure> {
    let mut complaints = Complaints::new();
    let tree = yaml::read(&path.display().to_string(), text, &mut complaints);
    let list = tree.as_ref().and_then(|tree| tree.get("users")).ok_or_else(|| by_hand(path))?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (at, indent) = match list.items().first() {
        Some(first) => (end_of_list(text, list), first.place.column.saturating_sub(3) as usize),
        None => {
            let key = list_key_line(text);
            if let Some(line) = key.checked_sub(1).and_then(|line| lines.get_mut(line)) {
                "users:".clone_into(line);
            }
            (key, 2)
        }
    };
    let at = at.min(lines.len());
    let entry = entry.iter().map(|line| format!("{}{line}", " ".repeat(indent)));
    lines.splice(at..at, entry);
    Ok(lines.join("\n") + "\n")
}

/// The number of lines up to and including the one that says `users:`.
fn list_key_line(text: &str) -> usize {
    text.lines().position(|line| line.starts_with("users:")).map_or(usize::MAX, |line| line + 1)
}

/// The number of lines up to the end of the list: up to the next line at the margin, less empty lines and comments.
fn end_of_list(text: &str, list: &Node) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let last = list.items().last().map_or(0, |item| item.place.line as usize);
    let after = lines.iter().skip(last).position(|line| starts_at_margin(line));
    let mut end = after.map_or(lines.len(), |after| last + after);
    while end > last && lines.get(end - 1).is_some_and(|line| is_empty_or_comment(line)) {
        end -= 1;
    }
    end
}

fn starts_at_margin(line: &str) -> bool {
    !line.is_empty() && !line.starts_with([' ', '-', '#'])
}

fn is_empty_or_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// The text without the entry of that user.
fn without(text: &str, path: &Path, name: &str) -> Result<String, Failure> {
    let (before, tree) = understand(text, path)?;
    if before.find(name).is_none() {
        let names: Vec<&str> = before.users.iter().map(|user| user.name.as_str()).collect();
        return Err(Failure::new(Kind::Data, format!("there is no user {name} in {}", path.display()))
            .hint(format!("the file has: {}", names.join(", "))));
    }
    let list = tree.get("users").ok_or_else(|| by_hand(path))?;
    let items = list.items();
    let index = items.iter().position(|item| item.get("name").and_then(Node::text) == Some(name));
    let index = index.ok_or_else(|| by_hand(path))?;
    let line = |index: usize| items.get(index).map(|item: &Node| item.place.line as usize - 1);
    let first = line(index).ok_or_else(|| by_hand(path))?;
    let last = line(index + 1).unwrap_or_else(|| end_of_list(text, list));
    let kept: Vec<&str> =
        text.lines().enumerate().filter(|(number, _)| !(first..last).contains(number)).map(|(_, line)| line).collect();
    let mut changed = kept.join("\n") + "\n";
    if items.len() == 1 {
        changed = changed.replacen("users:", "users: []", 1);
    }
    let (after, _) = understand(&changed, path)?;
    if after.users.len() + 1 == before.users.len() && after.find(name).is_none() {
        Ok(changed)
    } else {
        Err(by_hand(path))
    }
}

fn list(path: &Path, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let (users, _) = understand(&read(path)?, path)?;
    if json {
        let rows: Vec<_> = users
            .users
            .iter()
            .map(|user| serde_json::json!({"name": user.name, "role": user.role, "certificate": user.certificate}))
            .collect();
        return Ok(screen.json(&serde_json::json!({"users": rows}))?);
    }
    let rows: Vec<Vec<Cell>> = users
        .users
        .iter()
        .map(|user| {
            let by = match (&user.password, &user.certificate) {
                (Some(_), Some(_)) => "password, certificate",
                (None, Some(_)) => "certificate",
                _ => "password",
            };
            vec![user.name.as_str().into(), user.role.as_str().into(), by.into()]
        })
        .collect();
    Ok(screen.table(&["USER", "ROLE", "LOGS IN BY"], &rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
schema: 1
# who may come in
users:
  - name: anna   # the electrician
    role: admin
    password: \"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$8WfYPHHrnTM\"

  - name: hmi
    role: reader
    certificate: CN=hmi
# the end
";

    #[test]
    fn adding_and_removing_keeps_comments_and_the_others() {
        let path = Path::new("users.yaml");
        let entry = entry("bo", "app", None, Some("CN=bo")).unwrap();
        let more = with(FILE, path, &entry).unwrap();
        let (users, _) = understand(&more, path).unwrap();
        let names: Vec<&str> = users.users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["anna", "hmi", "bo"]);
        assert!(more.contains("# the electrician") && more.ends_with("# the end\n"));
        assert_eq!(without(&more, path, "bo").unwrap(), FILE);
        let less = without(FILE, path, "anna").unwrap();
        assert_eq!(understand(&less, path).unwrap().0.users.len(), 1);
        assert!(less.contains("# who may come in"));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_stays_readable_for_the_group_that_could_read_it_and_for_nobody_else() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.yaml");
        let allow = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let kept = || {
            keep(&path, FILE).unwrap();
            std::fs::metadata(&path).unwrap().mode() & 0o777
        };
        // folder, old file, new file; an old file of mode 0 is none
        for (folder_mode, old, new) in [
            (0o700, 0, 0o600),
            (0o2700, 0, 0o640),
            (0o700, 0o640, 0o640),
            (0o2700, 0o600, 0o600),
            (0o700, 0o664, 0o640),
        ] {
            allow(folder.path(), folder_mode);
            let _ = std::fs::remove_file(&path);
            if old != 0 {
                std::fs::write(&path, "").unwrap();
                allow(&path, old);
            }
            assert_eq!(kept(), new, "folder {folder_mode:o}, file {old:o}");
        }
    }

    #[test]
    fn the_first_user_makes_the_list() {
        let path = Path::new("users.yaml");
        let entry = entry("bo", "app", None, Some("CN=bo")).unwrap();
        let empty = "schema: 1\nusers: []\n";
        let text = with(empty, path, &entry).unwrap();
        assert_eq!(understand(&text, path).unwrap().0.users.len(), 1);
        assert_eq!(without(&text, path, "bo").unwrap(), empty);
    }

    #[test]
    fn a_list_written_in_one_line_is_left_alone() {
        let text = "schema: 1\nusers: [{name: anna, role: admin, certificate: CN=a}, {name: bo, role: app, certificate: CN=b}]\n";
        assert!(without(text, Path::new("users.yaml"), "anna").is_err());
        assert!(without(FILE, Path::new("users.yaml"), "nobody").is_err());
    }
}
