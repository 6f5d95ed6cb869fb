//! What the image says where the user does not, merged as Docker merges it.

use std::collections::BTreeSet;

use berth_proto::berth::runtime::v1::{ContainerSpec, PortMapping};
use oci_spec::image::ImageConfiguration;

use super::{Error, environment, host::Host};

/// /dev/shm holds this much unless told otherwise.
const SHM_SIZE: u64 = 64 << 20;

/// What a completed specification amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completed {
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// "6379/tcp", by number.
    pub(crate) exposed_ports: Vec<String>,
    /// Where the image wants volumes.
    pub(crate) volumes: Vec<String>,
    /// What a person should be told, although it is no reason to refuse.
    pub(crate) warnings: Vec<String>,
}

/// Completes what was asked for with what the image says and with the defaults.
///
/// # Errors
/// Neither names a program, or the working directory is not absolute.
pub(crate) fn complete(spec: &mut ContainerSpec, image: &ImageConfiguration) -> Result<Completed, Error> {
    let config = image.config().clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    if spec.entrypoint.is_empty() {
        if spec.command.is_empty() {
            spec.command = list(config.cmd());
        }
        spec.entrypoint = list(config.entrypoint());
    }
    if matches!(&spec.entrypoint[..], [only] if only.is_empty()) {
        spec.entrypoint.clear();
    }
    let args = [&spec.entrypoint[..], &spec.command[..]].concat();
    if args.is_empty() {
        return Err(Error::NoCommand);
    }
    for variable in list(config.env()) {
        let name = environment::name(&variable);
        if !name.is_empty() && !spec.env.iter().any(|other| environment::name(other) == name) {
            spec.env.push(variable);
        }
    }
    let or = |ours: &mut String, theirs: &Option<String>| {
        if ours.is_empty() {
            theirs.clone().unwrap_or_default().clone_into(ours);
        }
    };
    or(&mut spec.working_dir, config.working_dir());
    or(&mut spec.user, config.user());
    or(&mut spec.stop_signal, config.stop_signal());
    check_working_dir(&spec.working_dir)?;
    for (name, value) in config.labels().iter().flatten() {
        spec.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    defaults(spec, &Host::look());
    Ok(Completed {
        args,
        exposed_ports: exposed(&[list(config.exposed_ports()), spec.exposed_ports.clone()].concat(), &spec.ports),
        volumes: list(config.volumes()),
        warnings: Vec::new(),
    })
}

pub(super) fn check_working_dir(directory: &str) -> Result<(), Error> {
    if directory.is_empty() || directory.starts_with('/') {
        return Ok(());
    }
    Err(Error::invalid(format!("the working directory '{directory}' is invalid, it needs to be an absolute path")))
}

fn defaults(spec: &mut ContainerSpec, host: &Host) {
    if spec.shm_size == 0 {
        spec.shm_size = SHM_SIZE;
    }
    if spec.ipc_mode.is_empty() {
        spec.ipc_mode = "private".into();
    }
    if spec.cgroupns_mode.is_empty() {
        spec.cgroupns_mode = if host.cgroup2 { "private" } else { "host" }.into();
    }
    if let Some(resources) = &mut spec.resources
        && resources.memory > 0
        && resources.memory_swap == 0
    {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
}

fn exposed(image: &[String], ports: &[PortMapping]) -> Vec<String> {
    let image = image.iter().map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
    let user = ports.iter().map(|port| {
        let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
        format!("{}/{protocol}", port.container_port)
    });
    let number = |port: &str| port.split(['/', '-']).next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(u32::MAX);
    let all: BTreeSet<(u32, String)> = image.chain(user).map(|port| (number(&port), port)).collect();
    all.into_iter().map(|(_, port)| port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{config}}}"#
        );
        ImageConfiguration::from_reader(text.as_bytes()).unwrap()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn entry_point_and_command_are_merged() {
        let image = image(r#"{"Entrypoint":["e"],"Cmd":["c"]}"#);
        let args = |entrypoint: &[&str], command: &[&str]| {
            let mut spec = ContainerSpec {
                entrypoint: strings(entrypoint),
                command: strings(command),
                ..ContainerSpec::default()
            };
            complete(&mut spec, &image).map(|completed| completed.args)
        };
        assert_eq!(args(&[], &[]).unwrap(), ["e", "c"]);
        assert_eq!(args(&[], &["x"]).unwrap(), ["e", "x"]);
        assert_eq!(args(&["n"], &[]).unwrap(), ["n"], "a new entry point drops the image's command");
        assert_eq!(args(&[""], &["x"]).unwrap(), ["x"]);
        assert_eq!(args(&[""], &[]).unwrap_err().to_string(), "no command specified");
    }

    #[test]
    fn the_user_wins_over_the_image() {
        let image = image(
            r#"{"Cmd":["c"],"Env":["A=i","B=i","C=i"],"User":"web","WorkingDir":"/w","StopSignal":"SIGQUIT",
                "Labels":{"l":"i","m":"i"},"ExposedPorts":{"6379/tcp":{},"53":{}},"Volumes":{"/data":{}}}"#,
        );
        let mut spec = ContainerSpec {
            env: strings(&["A=u", "C"]),
            user: "7".into(),
            labels: [("l".to_owned(), "u".to_owned())].into(),
            ports: vec![PortMapping { container_port: 80, ..PortMapping::default() }],
            ..ContainerSpec::default()
        };
        let completed = complete(&mut spec, &image).unwrap();
        assert_eq!(spec.env, ["A=u", "C", "B=i"]);
        assert_eq!((&*spec.user, &*spec.working_dir, &*spec.stop_signal), ("7", "/w", "SIGQUIT"));
        assert_eq!((&*spec.labels["l"], &*spec.labels["m"]), ("u", "i"));
        assert_eq!(completed.exposed_ports, ["53/tcp", "80/tcp", "6379/tcp"]);
        assert_eq!(completed.volumes, ["/data"]);
        assert_eq!(spec.shm_size, 64 << 20);
    }

    #[test]
    fn defaults_depend_on_the_machine() {
        let resources = berth_proto::berth::runtime::v1::Resources { memory: 10, ..Default::default() };
        let mut spec = ContainerSpec { resources: Some(resources), ..ContainerSpec::default() };
        defaults(&mut spec, &Host::whole(false));
        assert_eq!(spec.cgroupns_mode, "host");
        assert_eq!(spec.resources.as_ref().unwrap().memory_swap, 20);
        spec.cgroupns_mode.clear();
        defaults(&mut spec, &Host::whole(true));
        assert_eq!(spec.cgroupns_mode, "private");
    }

    #[test]
    fn an_image_without_a_configuration_needs_a_command() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let image = ImageConfiguration::from_reader(text.as_bytes()).unwrap();
        assert!(matches!(complete(&mut ContainerSpec::default(), &image), Err(Error::NoCommand)));
        let mut spec = ContainerSpec { command: strings(&["c"]), working_dir: "w".into(), ..ContainerSpec::default() };
        assert!(complete(&mut spec, &image).unwrap_err().to_string().contains("needs to be an absolute path"));
    }
}
