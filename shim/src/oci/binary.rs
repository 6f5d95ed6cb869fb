//! An engine that drives another OCI runtime's binary (runc, crun, youki) through its command line.
//!
//! The runtime makes processes and ends; they become children of the caller, which is made a subreaper. Cgroups are
//! asked directly: where they are does not depend on who made them.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio as Redirect},
    rc::Rc,
    time::Instant,
};

use oci_spec::runtime::{LinuxResources, Process, Spec};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::Deserialize;

use super::{
    Container, Create, DEADLINE, Engine, OomEvents, Started, Stats, Stdio,
    cgroup::Cgroup,
    error::{Error, Step as _},
    mount::{Root, root_path},
    state::{self, State},
    user,
};

/// Where the runtime hands over the terminal, in the bundle.
const CONSOLE: &str = "console.sock";

/// Drives a binary.
#[derive(Debug)]
pub struct Binary {
    runtime: PathBuf,
    root: PathBuf,
}

impl Binary {
    /// With the runtime's binary and a directory for its state. Makes this process a subreaper.
    pub fn new(runtime: PathBuf, root: PathBuf) -> Result<Self, Error> {
        nix::sys::prctl::set_child_subreaper(true).step(|| "becoming a subreaper")?;
        fs::create_dir_all(&root).step(|| format!("making {}", root.display()))?;
        Ok(Self { runtime, root })
    }

    /// A command; what it complains about goes to a file in the bundle.
    fn command(&self, bundle: &Path) -> (Command, PathBuf) {
        let log = bundle.join("oci-runtime.log");
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(&self.root).arg("--log").arg(&log).args(["--log-format", "json"]);
        command.current_dir(bundle);
        (command, log)
    }

    /// Runs a command that makes no process.
    fn simply(&self, container: &Container, arguments: &[&str]) -> Result<(), Error> {
        let (mut command, log) = self.command(&container.bundle);
        command.args(arguments).stdin(Redirect::null());
        run(command, None, &log).map(|_| ())
    }

    /// Runs a command that makes a process: its streams or its terminal are set up here.
    fn make(
        &self,
        bundle: &Path,
        arguments: &[&str],
        id: &str,
        stdio: Stdio,
    ) -> Result<(u32, OwnedFd, Option<OwnedFd>), Error> {
        let (mut command, log) = self.command(bundle);
        let name = format!("pid-{}", std::process::id());
        let pid_file = bundle.join(&name);
        let socket = bundle.join(CONSOLE);
        command.args(arguments).arg("--pid-file").arg(&pid_file);
        let mut listener = None;
        match stdio {
            Stdio::Streams { stdin, stdout, stderr } => {
                command.stdin(stdin.map_or_else(Redirect::null, Redirect::from));
                command.stdout(stdout).stderr(stderr);
            }
            Stdio::Terminal { .. } => {
                let _ = fs::remove_file(&socket);
                // A socket's address holds 107 bytes, and a bundle's path may be longer: we go through the open
                // directory, the runtime, whose working directory it is, by the bare name.
                let directory = fs::File::open(bundle).step(|| format!("opening {}", bundle.display()))?;
                let address = format!("/proc/self/fd/{}/{CONSOLE}", directory.as_raw_fd());
                listener = Some(UnixListener::bind(address).step(|| format!("listening on {}", socket.display()))?);
                command.arg("--console-socket").arg(CONSOLE);
                command.stdin(Redirect::null()).stdout(Redirect::null()).stderr(Redirect::null());
            }
        }
        command.arg(id);
        let console = run(command, listener.as_ref(), &log);
        let _ = fs::remove_file(&socket);
        let console = console?;
        let pid = fs::read_to_string(&pid_file).step(|| "reading the pid that the runtime wrote")?;
        let _ = fs::remove_file(&pid_file);
        let pid: u32 = pid.trim().parse().step(|| "reading the pid that the runtime wrote")?;
        let what = || "opening the process that the runtime made";
        let own = Pid::from_raw(pid as i32).ok_or_else(|| Error::step(what(), "it has no pid"))?;
        let pidfd = pidfd_open(own, PidfdFlags::empty()).step(what)?;
        Ok((pid, pidfd, console))
    }
}

impl Engine for Binary {
    fn create(&self, request: Create<'_>) -> Result<Container, Error> {
        let spec = with_user(request.spec, request.bundle)?;
        let size = match &request.stdio {
            Stdio::Terminal { columns, rows } => Some((*columns, *rows)),
            Stdio::Streams { .. } => None,
        };
        // Without a path, the runtimes take the id.
        let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
        let cgroup = Cgroup::of(Some(&path.unwrap_or_else(|| PathBuf::from("/").join(request.id))), request.id)?;
        let mut record = State {
            id: request.id.to_owned(),
            cgroup: cgroup.clone(),
            init: None,
            binary: Some((self.runtime.clone(), self.root.clone())),
        };
        record.write(request.bundle)?;
        let bundle = request.bundle.to_string_lossy();
        let made = self.make(request.bundle, &["create", "--bundle", &bundle], request.id, request.stdio);
        let (pid, pidfd, console) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = state::remove(request.bundle);
                return Err(error);
            }
        };
        record.init = state::started_at(pid).map(|started| (pid, started));
        record.write(request.bundle)?;
        resize(console.as_ref(), size);
        Ok(Container {
            id: request.id.to_owned(),
            bundle: request.bundle.to_owned(),
            pid,
            pidfd,
            console,
            warnings: Vec::new(),
            cgroup,
            gate: None,
            namespaces: 0,
            seccomp: None,
            spec: Rc::new(spec),
        })
    }

    fn start(&self, container: &mut Container) -> Result<(), Error> {
        self.simply(container, &["start", &container.id])
    }

    fn exec(&self, container: &Container, process: &Process, stdio: Stdio) -> Result<Started, Error> {
        if container.cgroup.is_frozen() {
            return Err(Error::Paused);
        }
        let mut process = process.clone();
        let root = root_path(&container.spec, &container.bundle)?;
        settle_user(&mut process, &user::asked_groups(&container.spec), &root)?;
        let size = match &stdio {
            Stdio::Terminal { columns, rows } => Some((*columns, *rows)),
            Stdio::Streams { .. } => None,
        };
        process.set_terminal(Some(size.is_some()));
        let name = "process.json";
        berth_core::bundle::write(&container.bundle, name, &process).step(|| "writing the process's configuration")?;
        let arguments = ["exec", "--detach", "--process", name];
        let made = self.make(&container.bundle, &arguments, &container.id, stdio);
        let _ = fs::remove_file(container.bundle.join(name));
        let (pid, pidfd, console) = made?;
        resize(console.as_ref(), size);
        Ok(Started { pid, pidfd, console, warnings: Vec::new() })
    }

    fn kill(&self, container: &Container, signal: i32, all: bool) -> Result<(), Error> {
        if all {
            return container.cgroup.signal(signal);
        }
        self.simply(container, &["kill", &container.id, &signal.to_string()]).map_err(|error| {
            let text = error.to_string();
            let gone = ["not running", "already finished", "does not exist", "no such process"];
            if gone.iter().any(|words| text.contains(words)) { Error::NotRunning } else { error }
        })
    }

    fn pause(&self, container: &Container) -> Result<(), Error> {
        self.simply(container, &["pause", &container.id])
    }

    fn resume(&self, container: &Container) -> Result<(), Error> {
        self.simply(container, &["resume", &container.id])
    }

    fn update(&self, container: &Container, resources: &LinuxResources) -> Result<(), Error> {
        let name = "resources.json";
        berth_core::bundle::write(&container.bundle, name, resources).step(|| "writing the limits")?;
        let updated = self.simply(container, &["update", "--resources", name, &container.id]);
        let _ = fs::remove_file(container.bundle.join(name));
        updated
    }

    fn pids(&self, container: &Container) -> Result<Vec<u32>, Error> {
        container.cgroup.pids()
    }

    fn stats(&self, container: &Container) -> Result<Stats, Error> {
        Ok(container.cgroup.stats())
    }

    fn oom_events(&self, container: &Container) -> Result<OomEvents, Error> {
        container.cgroup.oom_events()
    }

    fn delete(&self, container: &Container) -> Result<(), Error> {
        state::remove(&container.bundle)
    }
}

/// Has the runtime delete a container, which need not be there any more.
pub(crate) fn remove(runtime: &Path, root: &Path, id: &str) -> Result<(), Error> {
    let mut command = Command::new(runtime);
    command.arg("--root").arg(root).args(["delete", "--force", id]).stdin(Redirect::null());
    let output = command.output().step(|| format!("executing {}", runtime.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || said.contains("does not exist") {
        return Ok(());
    }
    Err(Error::step(format!("deleting the container with {}", runtime.display()), said.trim()))
}

/// The runtimes know numbers alone, so a named user is looked up here, and the bundle's configuration says the result.
fn with_user(spec: &Spec, bundle: &Path) -> Result<Spec, Error> {
    let mut spec = spec.clone();
    let root = root_path(&spec, bundle)?;
    let groups = user::asked_groups(&spec);
    if let Some(process) = spec.process_mut()
        && settle_user(process, &groups, &root)?
    {
        berth_core::bundle::write(bundle, berth_core::bundle::CONFIG, &spec).step(|| "completing the configuration")?;
    }
    Ok(spec)
}

/// True where something changed.
fn settle_user(process: &mut Process, groups: &[String], root: &Path) -> Result<bool, Error> {
    let Some(name) = process.user().username().clone().filter(|name| !name.is_empty()) else { return Ok(false) };
    let root = Root::open(root).step(|| format!("opening {}", root.display()))?;
    let mut identity = user::look_up(&root, &name, groups)?;
    let others = process.user().additional_gids().iter().flatten().filter(|gid| !identity.groups.contains(gid));
    let others: Vec<_> = others.copied().collect();
    identity.groups.extend(others);
    process.user_mut().set_uid(identity.uid).set_gid(identity.gid).set_username(None);
    process.user_mut().set_additional_gids(Some(identity.groups));
    let environment = process.env_mut().get_or_insert_default();
    if let Some(home) = identity.home
        && !environment.iter().any(|variable| variable.starts_with("HOME="))
    {
        environment.push(format!("HOME={home}"));
    }
    Ok(true)
}

fn resize(console: Option<&OwnedFd>, size: Option<(u16, u16)>) {
    if let (Some(console), Some((columns, rows))) = (console, size)
        && (columns, rows) != (0, 0)
    {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // A terminal of the wrong size is still a terminal.
        let _ = rustix::termios::tcsetwinsize(console, size);
    }
}

/// Runs the runtime to its end, within the deadline, and receives the terminal it may send.
fn run(mut command: Command, listener: Option<&UnixListener>, log: &Path) -> Result<Option<OwnedFd>, Error> {
    // What an earlier command said is not ours.
    let _ = fs::remove_file(log);
    let program = command.get_program().to_string_lossy().into_owned();
    let what = || format!("executing {program}");
    let mut child = command.spawn().step(what)?;
    // The command holds our copies of the streams.
    drop(command);
    let own = Pid::from_raw(child.id() as i32).ok_or_else(|| Error::step(what(), "it has no pid"))?;
    let pidfd = pidfd_open(own, PidfdFlags::empty()).step(what)?;
    let deadline = Instant::now() + DEADLINE;
    let mut console = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if let (Some(listener), None) = (listener, &console) {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::step(what(), format!("it did not end within {} s", DEADLINE.as_secs())));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).step(what),
        }
        if fds.get(1).is_some_and(|fd| fd.revents().contains(PollFlags::IN))
            && let Some(listener) = listener
        {
            console = Some(receive(listener).step(|| "receiving the terminal from the runtime")?);
            continue;
        }
        if fds[0].revents().contains(PollFlags::IN) {
            break;
        }
    }
    let status = child.wait().step(what)?;
    if status.success() {
        return Ok(console);
    }
    Err(complaint(log, &program, &status.to_string()))
}

fn receive(listener: &UnixListener) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (stream, _) = listener.accept()?;
    let mut name = [0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream.as_fd(), &mut [io::IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("it sent none"))
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// What the runtime itself says about its failure.
fn complaint(log: &Path, program: &str, status: &str) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let said = lines.rev().find(|line| line.level == "error").map(|line| line.msg).unwrap_or_default();
    classify(program, if said.is_empty() { status } else { &said })
}

fn classify(program: &str, said: &str) -> Error {
    // runc says `exec: "x": …`, crun says "executable file `x` not found in $PATH".
    let about_program = said.contains("exec: ") || said.contains("executable file") || said.contains("exec ");
    let short = said.find("exec: \"").map_or(said, |at| &said[at..]).to_owned();
    if about_program && (said.contains("not found in $PATH") || said.contains("no such file or directory")) {
        return Error::CommandNotFound(short);
    }
    if about_program
        && (said.contains("permission denied") || said.contains("exec format error") || said.contains("is a directory"))
    {
        return Error::NotExecutable(short);
    }
    Error::step(format!("executing {program}"), said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_out_what_the_runtime_means() {
        let missing = r#"unable to start container process: exec: "nope": executable file not found in $PATH"#;
        assert_eq!(classify("runc", missing).to_string(), r#"exec: "nope": executable file not found in $PATH"#);
        assert!(matches!(
            classify("crun", "executable file `nope` not found in $PATH: No such file or directory"),
            Error::CommandNotFound(_)
        ));
        assert!(matches!(classify("runc", r#"exec: "/x": permission denied"#), Error::NotExecutable(_)));
        assert!(matches!(classify("runc", "cgroup: no such file or directory"), Error::Step { .. }));
    }
}
