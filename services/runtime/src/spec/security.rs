//! `--security-opt`, in the form in which the CLI sends it.

use super::Error;

/// What the options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Seccomp,
    /// An AppArmor profile that is loaded already; `None` for the machine's own rules.
    pub(super) apparmor: Option<String>,
    /// Nothing below /proc and /sys is hidden or read-only.
    pub(super) system_paths_open: bool,
}

/// Which filter of system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Seccomp {
    #[default]
    Default,
    Unconfined,
    /// The profile's text.
    Profile(String),
}

impl Security {
    pub(super) fn parse(options: &[String]) -> Result<Self, Error> {
        let mut security = Self::default();
        for option in options {
            security.read(option)?;
        }
        Ok(security)
    }

    fn read(&mut self, option: &str) -> Result<(), Error> {
        let wrong = |which| Error::invalid(format!("invalid --security-opt {which}: {option:?}"));
        if option == "no-new-privileges" {
            self.no_new_privileges = true;
            return Ok(());
        }
        // The colon is the old form of the equals sign.
        let (name, value) = option.split_once(['=', ':']).ok_or_else(|| wrong(1))?;
        match (name, value) {
            ("no-new-privileges", value) => {
                self.no_new_privileges = value.parse().map_err(|_| wrong(2))?;
            }
            ("seccomp", "unconfined") => self.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin" | "") => self.seccomp = Seccomp::Default,
            ("seccomp", profile) => self.seccomp = Seccomp::Profile(profile.into()),
            ("apparmor", "") => return Err(wrong(2)),
            ("apparmor", profile) => self.apparmor = Some(profile.into()).filter(|_| profile != "unconfined"),
            ("systempaths", "unconfined") => self.system_paths_open = true,
            // No machine that this runs on labels its processes for us: without SELinux there is nothing to switch off.
            ("label", "disable") => {}
            _ => return Err(wrong(2)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(option: &str) -> Result<Security, String> {
        Security::parse(&[option.to_owned()]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_options() {
        assert!(of("no-new-privileges").unwrap().no_new_privileges);
        assert!(of("no-new-privileges=true").unwrap().no_new_privileges);
        assert!(!of("no-new-privileges:false").unwrap().no_new_privileges);
        assert_eq!(of("seccomp=unconfined").unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(of("seccomp={\"a\":1}").unwrap().seccomp, Seccomp::Profile("{\"a\":1}".into()));
        assert_eq!(of("apparmor=mine").unwrap().apparmor.as_deref(), Some("mine"));
        assert_eq!(of("apparmor=unconfined").unwrap().apparmor, None);
        assert!(of("systempaths=unconfined").unwrap().system_paths_open);
        assert_eq!(of("nonsense").unwrap_err(), "invalid --security-opt 1: \"nonsense\"");
        assert_eq!(of("a=b").unwrap_err(), "invalid --security-opt 2: \"a=b\"");
        assert!(of("no-new-privileges=maybe").is_err());
    }
}
