//! What the shim holds: one container with its processes, and what was asked of it.
//!
//! Everything here runs on one thread. Calls of the engine are synchronous, so nothing else happens while one runs: no
//! process is reaped, no request is served.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::PathBuf,
    rc::Rc,
};

use berth_core::bundle::Options;
use tokio::sync::Notify;

use crate::{
    error::Error,
    events::Events,
    oci::{Container, Engine, binary::Binary, native::Native},
    process::Process,
};

/// The shim.
pub(crate) struct Shim {
    /// Which of the caller's namespaces the container belongs to.
    pub(crate) namespace: String,
    /// The container's name.
    pub(crate) id: String,
    /// Its bundle; an absolute path.
    pub(crate) bundle: PathBuf,
    /// `None` where the bundle is another runtime service's.
    pub(crate) options: Option<Options>,
    /// The network namespace that was handed over, until the container is made.
    pub(crate) netns: RefCell<Option<OwnedFd>>,
    engine: OnceCell<Box<dyn Engine>>,
    /// There from `Create` to `Delete`.
    pub(crate) container: RefCell<Option<Container>>,
    /// Its first process.
    pub(crate) init: RefCell<Option<Rc<Process>>>,
    /// Others, by exec ID.
    pub(crate) execs: RefCell<BTreeMap<String, Rc<Exec>>>,
    /// Answers names in the container, while its first process lives.
    pub(crate) names: RefCell<Option<crate::names::Server>>,
    pub(crate) paused: Cell<bool>,
    /// The processes of the container have pids of the host's, so they outlive the first one.
    pub(crate) shares_pids: Cell<bool>,
    /// Tells the other runtime service what happens.
    pub(crate) events: Events,
    /// Told when the shim shall end.
    pub(crate) end: Notify,
}

/// A process that was asked for with `Exec`.
pub(crate) struct Exec {
    pub(crate) process: Rc<Process>,
    /// What to run, until it was.
    pub(crate) spec: RefCell<Option<oci_spec::runtime::Process>>,
}

impl Shim {
    pub(crate) fn new(
        namespace: String,
        id: String,
        bundle: PathBuf,
        options: Option<Options>,
        events: Events,
    ) -> Rc<Self> {
        Rc::new(Self {
            namespace,
            id,
            bundle,
            options,
            netns: RefCell::default(),
            engine: OnceCell::new(),
            container: RefCell::default(),
            init: RefCell::default(),
            execs: RefCell::default(),
            names: RefCell::default(),
            paused: Cell::new(false),
            shares_pids: Cell::new(false),
            events,
            end: Notify::new(),
        })
    }

    /// The engine; `runtime` is asked only the first time.
    pub(crate) fn engine_with(&self, runtime: Option<&str>) -> Result<&dyn Engine, Error> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine.as_ref());
        }
        let engine: Box<dyn Engine> = match runtime {
            Some(runtime) => Box::new(Binary::new(runtime.into(), self.bundle.join("runtime"))?),
            None => {
                let cache = self.options.as_ref().and_then(|options| options.seccomp_cache.as_ref());
                Box::new(Native::new(cache.map(PathBuf::from)))
            }
        };
        Ok(self.engine.get_or_init(|| engine).as_ref())
    }

    /// The engine that made the container.
    pub(crate) fn engine(&self) -> Result<&dyn Engine, Error> {
        self.engine_with(None)
    }

    /// The process of a request.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Rc<Process>, Error> {
        if exec_id.is_empty() {
            return self.init.borrow().clone().ok_or_else(|| Error::NoProcess(self.id.clone()));
        }
        let execs = self.execs.borrow();
        execs.get(exec_id).map(|exec| Rc::clone(&exec.process)).ok_or_else(|| Error::NoProcess(exec_id.to_owned()))
    }

    /// All processes that the shim knows.
    pub(crate) fn processes(&self) -> Vec<Rc<Process>> {
        let init = self.init.borrow();
        let execs = self.execs.borrow();
        init.iter().cloned().chain(execs.values().map(|exec| Rc::clone(&exec.process))).collect()
    }

    /// Does something with the container.
    pub(crate) fn with_container<T>(
        &self,
        act: impl FnOnce(&dyn Engine, &mut Container) -> Result<T, crate::oci::Error>,
    ) -> Result<T, Error> {
        let mut container = self.container.borrow_mut();
        let container = container.as_mut().ok_or_else(|| Error::NoProcess(self.id.clone()))?;
        Ok(act(self.engine()?, container)?)
    }
}
