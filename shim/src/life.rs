//! The container's first process: made, started, deleted.

use std::{fs, path::Path, rc::Rc};

use berth_core::bundle::{CONFIG, INIT_PID, Log, NETNS_FD, ROOTFS, SHM};
use containerd_shim_protos::api::CreateTaskRequest;
use oci_spec::runtime::{LinuxNamespaceType, Process as OciProcess, Spec};
use serde_json::Value;

use crate::{
    error::{During as _, Error},
    log::{JsonLog, Target},
    oci::{Container, Create, Stdio, native},
    process::{Exit, Plugs, Process},
    rootfs,
    shim::Shim,
    shm,
    streams::{Ends, Outputs, Plug, Want, feed, spill, wire},
};

impl Shim {
    /// Makes the container; its first process waits to be started.
    pub(crate) fn create(&self, request: &CreateTaskRequest) -> Result<u32, Error> {
        if self.container.borrow().is_some() {
            return Err(Error::Exists(format!("the container {}", self.id)));
        }
        if !request.checkpoint.is_empty() {
            return Err(Error::Unsupported("containers cannot be restored from checkpoints".into()));
        }
        let runtime = match &self.options {
            Some(options) => options.oci_runtime.clone(),
            None => binary_name(request),
        };
        let engine = self.engine_with(runtime.as_deref())?;
        let root = self.bundle.join(ROOTFS);
        rootfs::mount(&request.rootfs, &root)?;
        let shm = self.options.as_ref().and_then(|options| options.shm_of);
        let shared = shm.map_or(Ok(()), |pid| shm::share(pid, &self.bundle.join(SHM)));
        let made = shared.and_then(|()| self.make(engine, request, runtime.is_some()));
        if made.is_err() && !request.rootfs.is_empty() {
            rootfs::clear(&root);
        }
        let pid = made?;
        self.netns.borrow_mut().take();
        Ok(pid)
    }

    fn make(&self, engine: &dyn crate::oci::Engine, request: &CreateTaskRequest, other: bool) -> Result<u32, Error> {
        if other && self.netns.borrow().is_some() {
            reach_netns(&self.bundle)?;
        }
        let spec = native::read_spec(&self.bundle)?;
        self.shares_pids.set(!has_own_pids(&spec));
        let process =
            spec.process().as_ref().ok_or_else(|| Error::Invalid("the configuration has no process".into()))?;
        let (init, stdio, ends) = match &self.options {
            Some(options) => {
                let stdin = if options.open_stdin { Plug::Shim } else { Plug::Nothing };
                let plugs = Plugs { stdin, stdout: Plug::Shim, stderr: Plug::Shim };
                let tty = process.terminal().unwrap_or(false);
                let outputs = Outputs::new(log(&options.log));
                let init = Process::new("", tty, plugs, outputs);
                init.input.once.set(options.stdin_once);
                let (stdio, ends) = plug(&init, process)?;
                (init, stdio, ends)
            }
            None => {
                let plugs = Plugs {
                    stdin: fifo(&request.stdin)?,
                    stdout: fifo(&request.stdout)?,
                    stderr: fifo(&request.stderr)?,
                };
                let init = Process::new("", request.terminal, plugs, Outputs::new(None));
                let (stdio, ends) = plug(&init, process)?;
                (init, stdio, ends)
            }
        };
        let create = Create { id: &self.id, bundle: &self.bundle, spec: &spec, stdio };
        let mut container = engine.create(create)?;
        warn(&mut container.warnings);
        init.pid.set(container.pid);
        *init.pidfd.borrow_mut() = container.pidfd.try_clone().ok();
        let prepared = fs::write(self.bundle.join(INIT_PID), container.pid.to_string())
            .during(|| format!("writing {INIT_PID}"))
            .and_then(|()| connect(&init, ends, container.console.take()));
        if let Err(error) = prepared {
            let _ = engine.delete(&container);
            return Err(error);
        }
        let pid = container.pid;
        *self.init.borrow_mut() = Some(init);
        *self.container.borrow_mut() = Some(container);
        Ok(pid)
    }

    /// Lets the first process execute its program.
    pub(crate) fn start_init(&self) -> Result<u32, Error> {
        let init = self.process("")?;
        if init.exit().is_some() {
            return Err(crate::oci::Error::NotRunning.into());
        }
        let started = self.with_container(|engine, container| {
            engine.start(container)?;
            warn(&mut container.warnings);
            Ok(container.pid)
        });
        match started {
            Ok(pid) => {
                init.started.set(true);
                Ok(pid)
            }
            Err(error) => {
                init.failed.set(Some(error.exit_code()));
                Err(error)
            }
        }
    }

    /// Removes the container, whose first process has ended or was never started.
    pub(crate) async fn delete_init(&self) -> Result<(u32, Exit), Error> {
        let init = self.process("")?;
        if init.exit().is_none() {
            if init.started.get() && init.failed.get().is_none() {
                return Err(Error::Precondition(format!("the container {} is running, stop it first", self.id)));
            }
            init.signal(libc::SIGKILL).or_else(|error| match error {
                Error::Oci(crate::oci::Error::NotRunning) => Ok(()),
                other => Err(other),
            })?;
            init.wait().await;
        }
        let exit = init.wait().await;
        flushed(&init).await;
        self.with_container(|engine, container| engine.delete(container))?;
        rootfs::clear(&self.bundle.join(ROOTFS));
        init.outputs.close();
        self.execs.borrow_mut().clear();
        self.container.borrow_mut().take();
        self.init.borrow_mut().take();
        Ok((init.pid.get(), exit))
    }
}

/// What was printed goes to those who listen, but one that takes nothing for so long has given up. Of a FIFO nobody can
/// tell whether it has a reader at all.
pub(crate) async fn flushed(process: &Process) {
    let patience = if process.prints_to_fifos() { 2 } else { 10 };
    process.outputs.all_sent(std::time::Duration::from_secs(patience)).await;
}

/// The streams of a process as its plugs say.
pub(crate) fn plug(process: &Process, spec: &OciProcess) -> Result<(Stdio, Ends), Error> {
    if process.tty {
        let size = spec.console_size();
        let (columns, rows) = size.as_ref().map_or((0, 0), |size| (size.width() as u16, size.height() as u16));
        return Ok((Stdio::Terminal { columns, rows }, Ends::default()));
    }
    wire(&process.plugs.stdin, &process.plugs.stdout, &process.plugs.stderr)
}

/// Connects a process that exists with what it was plugged to.
pub(crate) fn connect(process: &Rc<Process>, ends: Ends, console: Option<std::os::fd::OwnedFd>) -> Result<(), Error> {
    if let Some(console) = &console {
        process.has_console(console);
    }
    for (plug, want) in [
        (&process.plugs.stdout, Want { stdout: true, stderr: false }),
        (&process.plugs.stderr, Want { stdout: false, stderr: true }),
    ] {
        if let Plug::Fifo(path) = plug {
            tokio::task::spawn_local(spill(process.outputs.listen(want), path.clone()));
        }
    }
    ends.begin(console, &process.outputs, &process.input)?;
    if let Plug::Fifo(path) = &process.plugs.stdin {
        tokio::task::spawn_local(feed(path.clone(), Rc::clone(&process.input), process.tty));
    }
    Ok(())
}

/// What could not be done as asked is told where people look.
pub(crate) fn warn(warnings: &mut Vec<String>) {
    for warning in warnings.drain(..) {
        crate::note::note!("warning: {warning}");
    }
}

/// A stream of another runtime service's: a FIFO, or nothing.
pub(crate) fn fifo(name: &str) -> Result<Plug, Error> {
    match name.strip_prefix("fifo://").unwrap_or(name) {
        "" => Ok(Plug::Nothing),
        path if path.starts_with('/') => Ok(Plug::Fifo(path.to_owned())),
        _ => Err(Error::Unsupported(format!("a stream cannot be {name}: only FIFOs are supported"))),
    }
}

fn log(log: &Log) -> Option<JsonLog> {
    match log {
        Log::None => None,
        Log::JsonFile { path, max_size, max_file, attributes } => {
            Some(JsonLog::new(Target::new(Path::new(path), *max_size, *max_file), attributes))
        }
    }
}

fn has_own_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|namespaces| {
        namespaces.iter().any(|one| one.typ() == LinuxNamespaceType::Pid && one.path().is_none())
    })
}

/// Which binary containerd's options name.
fn binary_name(request: &CreateTaskRequest) -> Option<String> {
    use containerd_shim_protos::{protobuf::Message as _, shim::oci};
    let options =
        request.options.as_ref().filter(|options| options.type_url.ends_with("containerd.runc.v1.Options"))?;
    let options = oci::Options::parse_from_bytes(&options.value).ok()?;
    Some(options.binary_name).filter(|name| !name.is_empty())
}

/// Another runtime's process finds the network namespace among the shim's descriptors, not among its own.
fn reach_netns(bundle: &Path) -> Result<(), Error> {
    let what = || format!("completing {CONFIG}");
    let own = format!("/proc/self/fd/{NETNS_FD}");
    let Some(mut spec) = berth_core::bundle::read::<Value>(bundle, CONFIG).during(what)? else { return Ok(()) };
    for namespace in spec["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        if namespace["path"] == own.as_str() {
            namespace["path"] = format!("/proc/{}/fd/{NETNS_FD}", std::process::id()).into();
        }
    }
    berth_core::bundle::write(bundle, CONFIG, &spec).during(what)
}

/// The container, for those who look at it.
pub(crate) fn oom_killed(container: &Container) -> bool {
    container.cgroup.oom_kills() > 0
}
