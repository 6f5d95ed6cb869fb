//! A further process in a running container.

use berth_proto::berth::runtime::v1::ExecStart;
use oci_spec::runtime::{Process, Spec};

use super::{Error, capabilities, complete, environment, host::Host, process};

/// The process, made from the container's first one: what is not asked for is as there.
///
/// # Errors
/// There is no program, the working directory is not absolute, or the bundle's configuration has no process.
pub(crate) fn exec(bundle: &Spec, asked: &ExecStart) -> Result<Process, Error> {
    exec_on(bundle, asked, &Host::look())
}

fn exec_on(bundle: &Spec, asked: &ExecStart, host: &Host) -> Result<Process, Error> {
    if asked.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    if asked.args.iter().chain(&asked.env).any(|text| text.contains('\0')) {
        return Err(Error::invalid("arguments and environment cannot hold a zero byte"));
    }
    complete::check_working_dir(&asked.working_dir)?;
    let first = bundle.process().as_ref();
    let mut process = first.cloned().ok_or_else(|| Error::invalid("the bundle's configuration has no process"))?;
    let mut variables = process.env().clone().unwrap_or_default();
    terminal(&mut variables, process.terminal() == Some(true), asked.tty);
    if !asked.user.is_empty() {
        // A low-level runtime that knows no names was given the first user's numbers and home.
        if process.user().username().is_none() && variables.last().is_some_and(|last| last.starts_with("HOME=")) {
            variables.pop();
        }
        let groups = bundle.annotations().as_ref().and_then(|all| all.get(berth_core::bundle::GROUP_ADD));
        let groups: Vec<String> = groups.into_iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
        process.set_user(process::user(&asked.user, &groups));
    }
    environment::put_over(&mut variables, &asked.env);
    process.set_args(Some(asked.args.clone())).set_env(Some(variables)).set_terminal(Some(asked.tty));
    if !asked.working_dir.is_empty() {
        process.set_cwd(asked.working_dir.clone().into());
    }
    if asked.privileged {
        let all = capabilities::of(true, &[], &[], host)?;
        process.set_capabilities(Some(capabilities::sets(&all))).set_apparmor_profile(None);
    }
    Ok(process)
}

/// TERM is there because of a terminal, and only then.
fn terminal(variables: &mut Vec<String>, had: bool, has: bool) {
    let place = variables.iter().position(|variable| environment::name(variable) == "TERM");
    match place {
        Some(place) if had && !has && variables[place] == environment::TERM => {
            variables.remove(place);
        }
        None if has => variables.push(environment::TERM.into()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::ContainerSpec;

    use super::*;
    use crate::spec::{Input, build};

    fn of(spec: &ContainerSpec, asked: ExecStart) -> Result<Process, String> {
        let bundle = build(&Input::of(spec)).unwrap();
        let asked = ExecStart { args: if asked.args.is_empty() { vec!["p".into()] } else { asked.args }, ..asked };
        exec_on(&bundle, &asked, &Host::whole(true)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_asked_for_is_the_first_ones() {
        let spec = ContainerSpec {
            env: vec!["A=1".into(), "B=1".into()],
            user: "web".into(),
            working_dir: "/w".into(),
            tty: true,
            ..ContainerSpec::default()
        };
        let process = of(&spec, ExecStart { env: vec!["B=2".into()], ..ExecStart::default() }).unwrap();
        let variables = process.env().clone().unwrap();
        assert!(!variables.contains(&"TERM=xterm".into()));
        assert_eq!(variables[2..], ["A=1", "B=2"]);
        assert_eq!((process.cwd().to_str(), process.terminal()), (Some("/w"), Some(false)));
        assert_eq!(process.user().username().as_deref(), Some("web"));
        assert_eq!(process.capabilities().as_ref().unwrap().effective().as_ref().unwrap().len(), 14);
    }

    #[test]
    fn what_is_asked_for() {
        let spec = ContainerSpec { group_add: vec!["7".into(), "audio".into()], ..ContainerSpec::default() };
        let asked = ExecStart {
            user: "5:6".into(),
            working_dir: "/x".into(),
            tty: true,
            privileged: true,
            ..ExecStart::default()
        };
        let process = of(&spec, asked).unwrap();
        assert!(process.env().as_ref().unwrap().contains(&"TERM=xterm".into()));
        assert_eq!(process.user().username().as_deref(), Some("5:6"));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[7][..]));
        assert_eq!(process.capabilities().as_ref().unwrap().effective().as_ref().unwrap().len(), 41);
        assert_eq!(process.cwd().to_str(), Some("/x"));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let spec = ContainerSpec::default();
        let bundle = build(&Input::of(&spec)).unwrap();
        assert!(exec(&bundle, &ExecStart::default()).unwrap_err().to_string().contains("No exec command"));
        let relative = ExecStart { working_dir: "x".into(), ..ExecStart::default() };
        assert!(of(&spec, relative).unwrap_err().contains("absolute path"));
        assert!(of(&spec, ExecStart { args: vec![String::new()], ..ExecStart::default() }).is_err());
    }
}
