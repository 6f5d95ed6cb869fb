//! The container's first process: who it is and what it may.

use oci_spec::runtime::{Capability, Process, User};

use super::{Error, Input, capabilities, environment, host::Host, rlimits, security::Security};

/// Where a container sees the init that it asked for; users look for Docker's name in `ps`.
pub(super) const INIT: &str = "/sbin/docker-init";

/// The first process of a container.
pub(super) fn of(
    input: &Input<'_>,
    capabilities: &[Capability],
    security: &Security,
    host: &Host,
) -> Result<Process, Error> {
    let spec = input.spec;
    let directory = if spec.working_dir.is_empty() { "/" } else { &spec.working_dir };
    let mut process = Process::default();
    process
        .set_terminal(Some(spec.tty))
        .set_user(user(&spec.user, &spec.group_add))
        .set_args(Some(args(input)))
        .set_env(Some(environment::first(&input.hostname(), spec.tty, &spec.env)))
        .set_cwd(directory.into())
        .set_capabilities(Some(capabilities::sets(capabilities)))
        .set_rlimits(rlimits::of(&spec.ulimits)?)
        .set_no_new_privileges(Some(security.no_new_privileges))
        .set_apparmor_profile(security.apparmor.clone().filter(|_| host.apparmor))
        .set_oom_score_adj(Some(oom_score(spec.oom_score_adj.unwrap_or(0), host)));
    Ok(process)
}

/// What is run: the program, or the init that runs it.
fn args(input: &Input<'_>) -> Vec<String> {
    let init = [INIT, "--"].map(str::to_owned);
    init.into_iter().filter(|_| input.spec.init).chain(input.args.iter().cloned()).collect()
}

/// Without the right to lower it, it stays as high as it is: a container that starts is worth more.
fn oom_score(wanted: i32, host: &Host) -> i32 {
    if host.has(Capability::SysResource) { wanted } else { wanted.max(host.oom_score_adj) }
}

/// Who that is, is looked up by the shim in the container's own files. Root is looked up too: its groups are there.
pub(super) fn user(name: &str, groups: &[String]) -> User {
    let numbers: Vec<u32> = groups.iter().filter_map(|group| group.parse().ok()).collect();
    let name = if name.is_empty() { "0" } else { name };
    let mut user = User::default();
    user.set_username(Some(name.into())).set_additional_gids(Some(numbers).filter(|numbers| !numbers.is_empty()));
    user
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::ContainerSpec;

    use super::*;

    #[test]
    fn who_it_is() {
        let user = user("web:logs", &["7".into(), "audio".into()]);
        assert_eq!(user.username().as_deref(), Some("web:logs"));
        assert_eq!(user.additional_gids().as_deref(), Some(&[7][..]));
        assert_eq!(super::user("", &[]).username().as_deref(), Some("0"));
    }

    #[test]
    fn what_it_gets() {
        let spec = ContainerSpec {
            tty: true,
            hostname: "h".into(),
            env: vec!["A=1".into()],
            oom_score_adj: Some(-5),
            ..ContainerSpec::default()
        };
        let mut host = Host::whole(true);
        let security = Security { no_new_privileges: true, apparmor: Some("p".into()), ..Security::default() };
        let process = of(&Input::of(&spec), &[Capability::Kill], &security, &host).unwrap();
        assert_eq!(process.env().as_ref().unwrap()[1..], ["HOSTNAME=h", "TERM=xterm", "A=1"]);
        assert_eq!((process.cwd().to_str(), process.oom_score_adj()), (Some("/"), Some(-5)));
        assert_eq!((process.no_new_privileges(), process.apparmor_profile()), (Some(true), &None));
        let args = ["p".to_owned(), "-x".to_owned()];
        let run = |init: bool| {
            let spec = ContainerSpec { init, ..spec.clone() };
            let input = Input { args: &args, ..Input::of(&spec) };
            of(&input, &[], &security, &host).unwrap().args().clone().unwrap()
        };
        assert_eq!(run(false), ["p", "-x"]);
        assert_eq!(run(true), ["/sbin/docker-init", "--", "p", "-x"]);
        host.capabilities = 0;
        host.oom_score_adj = 3;
        assert_eq!(oom_score(-5, &host), 3);
    }
}
