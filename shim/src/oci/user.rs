//! `name`, `uid`, `name:group`, `uid:gid`: who that is, from the container's own /etc/passwd and /etc/group.

use std::{fmt, path::Path};

use berth_core::bundle::GROUP_ADD;
use oci_spec::runtime::Spec;

use super::{
    error::{Error, Step as _},
    mount::Root,
};

/// More than this is no passwd file.
const LIMIT: u64 = 16 << 20;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Its home, where the files say so.
    pub home: Option<String>,
}

/// Looks a user up beneath the container's root.
pub(crate) fn look_up(root: &Root, user: &str, additional: &[String]) -> Result<Identity, Error> {
    let file = |path: &str| root.read(Path::new(path), LIMIT).step(|| format!("reading {path} of the container"));
    let (passwd, group) = (file("/etc/passwd")?.unwrap_or_default(), file("/etc/group")?.unwrap_or_default());
    resolve(user, additional, &String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group))
        .map_err(|missing| Error::Spec(missing.to_string()))
}

/// The groups that were asked for by name beside the user's own; numbers are in `process.user` already.
pub(crate) fn asked_groups(spec: &Spec) -> Vec<String> {
    let list = spec.annotations().as_ref().and_then(|annotations| annotations.get(GROUP_ADD));
    let named = |group: &&str| !group.is_empty() && group.parse::<u32>().is_err();
    list.into_iter().flat_map(|list| list.split(',')).filter(named).map(str::to_owned).collect()
}

/// The home of a uid, as the container's passwd says.
pub(crate) fn home(root: &Root, uid: u32) -> Option<String> {
    let passwd = root.read(Path::new("/etc/passwd"), LIMIT).ok()??;
    let passwd = String::from_utf8_lossy(&passwd);
    users(&passwd).find(|user| user.uid == uid).map(|user| user.home.to_owned()).filter(|home| !home.is_empty())
}

/// A user or group that is not there, in Docker's words.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    kind: &'static str,
    name: String,
    file: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, file } = self;
        write!(f, "unable to find {kind} {name}: no matching entries in {file} file")
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(User { name, uid: number(uid)?, gid: number(gid)?, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Group { name, gid: number(gid)?, members: fields.next().unwrap_or_default() })
    })
}

fn number(text: &str) -> Option<u32> {
    // No higher: -1 would mean "leave as it is" to the kernel.
    text.parse().ok().filter(|number| *number <= i32::MAX as u32)
}

/// The rules, over the files' text. A name is looked for before a number, because a name may be made of digits.
///
/// # Errors
/// A name, or a named group, that the files do not have.
pub fn resolve(user: &str, additional: &[String], passwd: &str, group: &str) -> Result<Identity, Missing> {
    let (name, group_name) = user.split_once(':').unwrap_or((user, ""));
    let name = if name.is_empty() { "0" } else { name };
    let wanted = number(name);
    let found = users(passwd).find(|user| user.name == name || wanted == Some(user.uid));
    let mut identity = Identity::default();
    match (&found, wanted) {
        (Some(user), _) => {
            identity.uid = user.uid;
            identity.gid = user.gid;
            identity.home = Some(user.home.to_owned()).filter(|home| !home.is_empty());
        }
        (None, Some(uid)) => identity.uid = uid,
        (None, None) => return Err(Missing { kind: "user", name: name.into(), file: "passwd" }),
    }
    if group_name.is_empty() {
        // A group asked for takes the place of all that the user is a member of.
        if let Some(user) = &found {
            let member = |group: &Group<'_>| group.members.split(',').any(|member| member == user.name);
            identity.groups = groups(group).filter(member).map(|group| group.gid).collect();
        }
    } else {
        identity.gid = find_group(group_name, group)?;
    }
    for name in additional {
        let gid = find_group(name, group)?;
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    // A program that takes on another group must not leave its own behind: files that its group may not read would open
    // (CVE-2022-36109).
    if !identity.groups.contains(&identity.gid) {
        identity.groups.insert(0, identity.gid);
    }
    Ok(identity)
}

fn find_group(name: &str, group: &str) -> Result<u32, Missing> {
    let wanted = number(name);
    groups(group).find(|group| group.name == name).map(|group| group.gid).or(wanted).ok_or_else(|| Missing {
        kind: "group",
        name: name.into(),
        file: "group",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nweb:x:33:34:Web:/var/www:/bin/false\n7:x:70:71::/seven:";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:4:web,other\nssl:x:5:other,web\n";

    fn of(user: &str) -> Result<Identity, String> {
        resolve(user, &[], PASSWD, GROUP).map_err(|missing| missing.to_string())
    }

    #[test]
    fn follows_dockers_rules() {
        let web = Identity { uid: 33, gid: 34, groups: vec![34, 4, 5], home: Some("/var/www".into()) };
        assert_eq!(of("web").unwrap(), web);
        assert_eq!(of("33").unwrap(), web);
        assert_eq!(of("web:ssl").unwrap(), Identity { gid: 5, groups: vec![5], ..web.clone() });
        assert_eq!(of("1000").unwrap(), Identity { uid: 1000, groups: vec![0], ..Identity::default() });
        assert_eq!(of("1000:1001").unwrap(), Identity { uid: 1000, gid: 1001, groups: vec![1001], home: None });
        assert_eq!(of("7").unwrap().uid, 70, "a name made of digits");
        assert_eq!(of(":ssl").unwrap().gid, 5);
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(of("nobody").unwrap_err(), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(of("web:nogroup").unwrap_err(), "unable to find group nogroup: no matching entries in group file");
        assert!(of("4294967295").is_err());
        assert!(of("-1").is_err());
    }

    #[test]
    fn groups_are_asked_for_by_name() {
        let mut spec = Spec::default();
        assert!(asked_groups(&spec).is_empty());
        spec.set_annotations(Some([(GROUP_ADD.to_owned(), "7,logs,,ssl".to_owned())].into()));
        assert_eq!(asked_groups(&spec), ["logs", "ssl"]);
    }

    #[test]
    fn additional_groups_come_once() {
        let identity = resolve("web", &["logs".into(), "99".into()], PASSWD, GROUP).unwrap();
        assert_eq!(identity.groups, [34, 4, 5, 99]);
    }
}
