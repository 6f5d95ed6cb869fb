//! Processes executed beside the first one.

use std::{cell::RefCell, rc::Rc};

use berth_core::bundle::ATTACHED;
use containerd_shim_protos::api::ExecProcessRequest;

use crate::{
    error::Error,
    life::{connect, fifo, flushed, plug, warn},
    process::{Exit, Plugs, Process},
    shim::{Exec, Shim},
    streams::{Outputs, Plug},
};

impl Shim {
    /// Takes note of a process that shall be executed. It is made by [`start_exec`](Self::start_exec).
    pub(crate) fn add_exec(&self, request: &ExecProcessRequest) -> Result<(), Error> {
        let init = self.process("")?;
        if !init.started.get() || init.exit().is_some() {
            return Err(crate::oci::Error::NotRunning.into());
        }
        if request.exec_id.is_empty() {
            return Err(Error::Invalid("an exec ID is needed".into()));
        }
        if self.execs.borrow().contains_key(&request.exec_id) {
            return Err(Error::Exists(format!("the process {}", request.exec_id)));
        }
        let bytes = request.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
        let spec: oci_spec::runtime::Process = serde_json::from_slice(bytes)
            .map_err(|error| Error::Invalid(format!("the process to execute cannot be read: {error}")))?;
        let ours = self.options.is_some();
        let tty = if ours { spec.terminal().unwrap_or(false) || request.terminal } else { request.terminal };
        let stream = |name: &str| if ours && name == ATTACHED { Ok(Plug::Shim) } else { fifo(name) };
        let plugs = Plugs {
            stdin: stream(&request.stdin)?,
            stdout: stream(&request.stdout)?,
            stderr: stream(&request.stderr)?,
        };
        let process = Process::new(&request.exec_id, tty, plugs, Outputs::new(None));
        process.input.once.set(true);
        let exec = Rc::new(Exec { process, spec: RefCell::new(Some(spec)) });
        self.execs.borrow_mut().insert(request.exec_id.clone(), exec);
        Ok(())
    }

    /// Executes it.
    pub(crate) fn start_exec(&self, exec_id: &str) -> Result<u32, Error> {
        let exec = self.execs.borrow().get(exec_id).cloned();
        let exec = exec.ok_or_else(|| Error::NoProcess(exec_id.to_owned()))?;
        let spec = exec.spec.borrow_mut().take();
        let spec = spec.ok_or_else(|| Error::Precondition(format!("the process {exec_id} was started already")))?;
        let process = &exec.process;
        let started = plug(process, &spec).and_then(|(stdio, ends)| {
            let started = self.with_container(|engine, container| engine.exec(container, &spec, stdio))?;
            Ok((started, ends))
        });
        let (mut started, ends) = match started {
            Ok(started) => started,
            Err(error) => {
                // It has ended before it began; a client that waits for its output is told.
                process.ended(Exit { code: error.exit_code(), at_ns: crate::log::now_ns() });
                process.outputs.finish();
                return Err(error);
            }
        };
        warn(&mut started.warnings);
        process.pid.set(started.pid);
        *process.pidfd.borrow_mut() = Some(started.pidfd);
        process.started.set(true);
        connect(process, ends, started.console.take())?;
        Ok(started.pid)
    }

    /// Forgets a process that has ended or was never started.
    pub(crate) async fn delete_exec(&self, exec_id: &str) -> Result<(u32, Exit), Error> {
        let process = self.process(exec_id)?;
        let exit = match process.exit() {
            Some(exit) => exit,
            None if process.started.get() => {
                return Err(Error::Precondition(format!("the process {exec_id} is running, stop it first")));
            }
            None => {
                process.outputs.finish();
                Exit { code: 0, at_ns: crate::log::now_ns() }
            }
        };
        flushed(&process).await;
        process.outputs.close();
        self.execs.borrow_mut().remove(exec_id);
        Ok((process.pid.get(), exit))
    }
}
