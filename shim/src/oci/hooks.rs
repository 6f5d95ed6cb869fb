//! Hooks of the configuration: programs that are told the container's state on their standard input.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use oci_spec::runtime::{Hook, Spec};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::error::{Error, Step as _};

/// A hook without a time-out of its own may take this long.
const LIMIT: Duration = Duration::from_secs(120);

/// When hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// The state's status at that moment.
fn status(moment: Moment) -> &'static str {
    match moment {
        Moment::Prestart | Moment::CreateRuntime | Moment::CreateContainer => "creating",
        Moment::StartContainer => "created",
        Moment::Poststart => "running",
        Moment::Poststop => "stopped",
    }
}

#[allow(deprecated)] // prestart hooks are deprecated and in use
fn of(spec: &Spec, moment: Moment) -> &[Hook] {
    let Some(hooks) = spec.hooks() else { return &[] };
    match moment {
        Moment::Prestart => hooks.prestart(),
        Moment::CreateRuntime => hooks.create_runtime(),
        Moment::CreateContainer => hooks.create_container(),
        Moment::StartContainer => hooks.start_container(),
        Moment::Poststart => hooks.poststart(),
        Moment::Poststop => hooks.poststop(),
    }
    .as_deref()
    .unwrap_or_default()
}

/// There are hooks for the moments before the root changes.
pub(crate) fn before_pivot(spec: &Spec) -> bool {
    [Moment::Prestart, Moment::CreateRuntime, Moment::CreateContainer]
        .iter()
        .any(|moment| !of(spec, *moment).is_empty())
}

/// Runs the hooks of a moment, one after the other; the first that fails ends it.
pub(crate) fn run(spec: &Spec, moment: Moment, id: &str, bundle: &Path, pid: u32) -> Result<(), Error> {
    let hooks = of(spec, moment);
    if hooks.is_empty() {
        return Ok(());
    }
    let mut state = serde_json::json!({
        "ociVersion": spec.version(),
        "id": id,
        "status": status(moment),
        "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    });
    if moment != Moment::Poststop {
        state["pid"] = pid.into();
    }
    let state = state.to_string();
    hooks.iter().try_for_each(|hook| run_one(hook, moment, &state, bundle))
}

fn run_one(hook: &Hook, moment: Moment, state: &str, bundle: &Path) -> Result<(), Error> {
    let what = || format!("running the {moment:?} hook {}", hook.path().display());
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    command.envs(hook.env().iter().flatten().filter_map(|variable| variable.split_once('=')));
    if !matches!(moment, Moment::StartContainer) {
        command.current_dir(bundle);
    }
    // What it prints goes to a file, not a pipe: a hook that leaves a daemon behind must not hold us up.
    let said = rustix::fs::memfd_create("hook", rustix::fs::MemfdFlags::CLOEXEC).step(what)?;
    let said = std::fs::File::from(said);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said.try_clone().step(what)?);
    let mut child = command.spawn().step(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It need not be interested.
        let _ = stdin.write_all(state.as_bytes());
    }
    let limit =
        hook.timeout().filter(|seconds| *seconds > 0).map_or(LIMIT, |seconds| Duration::from_secs(seconds as u64));
    let ended = wait(child.id(), limit);
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().step(what)?;
    if !ended {
        return Err(Error::step(what(), format!("it did not end within {} s", limit.as_secs())));
    }
    if !status.success() {
        use std::os::unix::fs::FileExt as _;
        let mut text = vec![0; 4096];
        let length = said.read_at(&mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        return Err(Error::step(what(), format!("{status}: {}", text.trim_end())));
    }
    Ok(())
}

/// Waits for a process to end; false where it does not in time.
fn wait(pid: u32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let Some(Ok(pidfd)) = Pid::from_raw(pid as i32).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return true;
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if let Ok(1..) = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
            return true;
        }
    }
}
