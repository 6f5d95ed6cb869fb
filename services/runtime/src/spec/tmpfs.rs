//! Temporary file systems: `--tmpfs` and `--mount type=tmpfs`.

use berth_proto::berth::runtime::v1::Mount;

use super::Error;

/// Nothing runs, changes user or is a device there, unless the user says so.
const DEFAULT: [&str; 3] = ["noexec", "nosuid", "nodev"];
/// Options of the mount, each with its opposite.
const FLAGS: [(&str, &str); 10] = [
    ("ro", "rw"),
    ("noexec", "exec"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("sync", "async"),
    ("noatime", "atime"),
    ("nodiratime", "diratime"),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
    ("dirsync", "defaults"),
];
const DATA: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// The options of its mount. What is said later wins over what was said before.
pub(super) fn options(mount: &Mount) -> Result<Vec<String>, Error> {
    let mut options: Vec<String> = DEFAULT.map(str::to_owned).into();
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation };
    add(&mut options, propagation)?;
    if mount.tmpfs_size > 0 {
        add(&mut options, &format!("size={}", mount.tmpfs_size))?;
    }
    if mount.tmpfs_mode > 0 {
        if mount.tmpfs_mode > 0o7777 {
            return Err(Error::invalid(format!("invalid mode of a tmpfs: {:o}", mount.tmpfs_mode)));
        }
        add(&mut options, &format!("mode={:o}", mount.tmpfs_mode))?;
    }
    for option in mount.options.iter().flat_map(|options| options.split(',')) {
        add(&mut options, option)?;
    }
    if mount.read_only {
        add(&mut options, "ro")?;
    }
    Ok(options)
}

fn add(options: &mut Vec<String>, option: &str) -> Result<(), Error> {
    let option = option.trim();
    if option.is_empty() || option == "defaults" {
        return Ok(());
    }
    let invalid = || Error::invalid(format!("invalid tmpfs option {option:?}"));
    match option.split_once('=') {
        Some((name, value)) => {
            if !DATA.contains(&name) || value.is_empty() {
                return Err(invalid());
            }
            options.retain(|other| other.split_once('=').is_none_or(|(other, _)| other != name));
        }
        None if PROPAGATION.contains(&option) => options.retain(|other| !PROPAGATION.contains(&&**other)),
        None => {
            let (flag, opposite) =
                FLAGS.iter().find(|(one, two)| *one == option || *two == option).ok_or_else(invalid)?;
            options.retain(|other| other != flag && other != opposite);
        }
    }
    options.push(option.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options_given: &[&str]) -> Result<String, String> {
        let given = options_given.iter().map(|option| (*option).to_owned()).collect();
        let mount = Mount { options: given, ..Mount::default() };
        options(&mount).map(|options| options.join(",")).map_err(|error| error.to_string())
    }

    #[test]
    fn later_options_win() {
        assert_eq!(of(&[]).unwrap(), "noexec,nosuid,nodev,rprivate");
        assert_eq!(of(&["rw,exec,size=1m", "size=2m"]).unwrap(), "nosuid,nodev,rprivate,rw,exec,size=2m");
        let mount = Mount { tmpfs_size: 4096, tmpfs_mode: 0o1770, read_only: true, ..Mount::default() };
        assert_eq!(options(&mount).unwrap()[3..], ["rprivate", "size=4096", "mode=1770", "ro"]);
    }

    #[test]
    fn unknown_options_are_refused() {
        assert_eq!(of(&["fly"]).unwrap_err(), "invalid tmpfs option \"fly\"");
        assert!(of(&["bind"]).is_err() && of(&["size="]).is_err() && of(&["lowerdir=/etc"]).is_err());
    }
}
