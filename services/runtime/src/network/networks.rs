//! All networks of the node: who is attached, with which address and ports.
//!
//! What is attached is in memory only; the containers' bundles (`network.json`) tell it again after a restart. Everything that talks to
//! the kernel runs on threads of its own, and the state's lock is held for look-ups only.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use berth_core::Digest;
use berth_proto::berth::runtime::v1::{Network, NetworkEndpoint, PortMapping};
use tokio::sync::oneshot;

use crate::network::{
    Attached, Error, Live, Mode, Request, Settings,
    addresses::Addresses,
    bridge::Bridge,
    link::{self, Plan},
    nft::{Rules, Target},
    ports::{self, HostPort, Published},
    request::DEFAULT,
};

/// The node's networks. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Networks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bridge: Bridge,
    opened: String,
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    addresses: Addresses,
    attached: HashMap<String, Place>,
}

/// What one container has.
#[derive(Debug, Default)]
struct Place {
    address: Option<Ipv4Addr>,
    published: Vec<Published>,
}

impl Networks {
    /// Makes the bridge where it is missing. Blocks; belongs on a blocking thread. Rules of what ran before are left as
    /// they are until [`Networks::recover`].
    ///
    /// # Errors
    /// The subnet is not free, or the kernel refuses.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        let bridge = Bridge::open(settings)?;
        let state = State { addresses: Addresses::new(bridge.subnet), attached: HashMap::new() };
        let rules = Rules::open(&bridge)?;
        let opened = jiff::Timestamp::now().to_string();
        Ok(Self(Arc::new(Inner { bridge, opened, rules, state: Mutex::new(state) })))
    }

    /// Takes over what was attached before, to be called once before anything is attached: its addresses and ports stay
    /// its own, its traffic is not interrupted, and what is not named here is freed.
    ///
    /// # Errors
    /// The kernel refuses the rules.
    pub(crate) async fn recover(&self, live: Vec<Live>) -> Result<(), Error> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || inner.recover(live));
        done.await.unwrap_or(Err(Error::Panicked { what: "taking over attached containers" }))
    }

    /// Whether a container could be attached like this.
    ///
    /// # Errors
    /// There is no such network, or a port cannot be meant.
    pub(crate) fn check(&self, mode: &Mode, ports: &[PortMapping]) -> Result<(), Error> {
        match mode {
            Mode::Bridge(name) if name != DEFAULT => Err(Error::NotFound { name: name.clone() }),
            _ => ports::check(ports),
        }
    }

    /// Gives a container its namespace, address and ports. Failed or cancelled, it leaves nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn attach(&self, request: Request) -> Result<Attached, Error> {
        self.check(&request.mode, &request.ports)?;
        match request.mode {
            Mode::Host => return Ok(Attached { netns: None, endpoints: Vec::new(), ports: Vec::new() }),
            Mode::Container { pid } => {
                let netns = Some(link::of_process(pid)?);
                return Ok(Attached { netns, endpoints: Vec::new(), ports: Vec::new() });
            }
            Mode::None | Mode::Bridge(_) => {}
        }
        let (answer, receiver) = oneshot::channel();
        let mut waiting = Waiting { receiver, inner: Arc::clone(&self.0), id: request.id.clone() };
        let inner = Arc::clone(&self.0);
        // The thread ends in the container's namespace, so it cannot be one that is used again.
        let started = thread::Builder::new().name("network".into()).spawn(move || {
            let attached = inner.attach(&request);
            let unused = Arc::downgrade(&inner);
            // Whoever gets the answer finds no trace of this thread.
            drop(inner);
            if let (Err(Ok(_unwanted)), Some(inner)) = (answer.send(attached), unused.upgrade()) {
                inner.release(&request.id);
            }
        });
        started.map_err(Error::io("cannot start a thread for", "a network namespace"))?;
        (&mut waiting.receiver).await.unwrap_or(Err(Error::Panicked { what: "attaching a container" }))
    }

    /// Frees a container's address and ports; one that is not attached is no error. The links go with the namespace.
    pub(crate) async fn detach(&self, id: &str) {
        let (inner, id) = (Arc::clone(&self.0), id.to_owned());
        // It cannot fail but by a panic, which the runtime reports.
        let _ = tokio::task::spawn_blocking(move || inner.release(&id)).await;
    }

    /// The host's address on the bridge: what "host-gateway" means, in every mode.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.0.bridge.subnet.gateway()
    }

    /// The networks: bridge, host, none.
    pub(crate) fn list(&self) -> Vec<Network> {
        let bridge = &self.0.bridge;
        let named = |name: &str, driver: &str| Network {
            id: network_id(name),
            name: name.into(),
            driver: driver.into(),
            created: self.0.opened.clone(),
            ..Network::default()
        };
        vec![
            Network {
                subnet: bridge.subnet.to_string(),
                gateway: bridge.subnet.gateway().to_string(),
                interface: bridge.name.clone(),
                ..named(DEFAULT, "bridge")
            },
            named("host", "host"),
            named("none", "null"),
        ]
    }
}

/// Nothing is stored, so an id follows from the name.
fn network_id(name: &str) -> String {
    Digest::sha256(format!("network {name}").as_bytes()).hex().into()
}

/// Waits for the thread that attaches. If nobody waits any more, what it made is given back.
struct Waiting {
    receiver: oneshot::Receiver<Result<Attached, Error>>,
    inner: Arc<Inner>,
    id: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // From here on the thread cannot hand anything over and cleans up itself; what it handed over before is ours.
        self.receiver.close();
        if let Ok(Ok(_unwanted)) = self.receiver.try_recv() {
            self.inner.release(&self.id);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole at every line, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the calling thread in the container's namespace.
    fn attach(&self, request: &Request) -> Result<Attached, Error> {
        let bridged = matches!(request.mode, Mode::Bridge(_));
        let address = self.reserve(&request.id, bridged)?;
        let done = match address {
            None => link::make(None).map(|netns| (netns, Vec::new(), Vec::new())),
            Some(address) => self.connect(request, address),
        };
        match done {
            Ok((netns, endpoints, ports)) => Ok(Attached { netns: Some(netns), endpoints, ports }),
            Err(error) => {
                self.release(&request.id);
                Err(error)
            }
        }
    }

    fn reserve(&self, id: &str, bridged: bool) -> Result<Option<Ipv4Addr>, Error> {
        let mut state = self.state();
        if state.attached.contains_key(id) {
            return Err(Error::Attached { id: id.into() });
        }
        let full = || Error::NoAddressLeft { subnet: self.bridge.subnet.to_string() };
        let address = if bridged { Some(state.addresses.take().ok_or_else(full)?) } else { None };
        state.attached.insert(id.into(), Place { address, published: Vec::new() });
        Ok(address)
    }

    fn connect(
        &self,
        request: &Request,
        address: Ipv4Addr,
    ) -> Result<(OwnedFd, Vec<NetworkEndpoint>, Vec<PortMapping>), Error> {
        let published = ports::hold(&request.ports, |host| self.is_published(host))?;
        let ports = published.iter().map(Published::mapping).collect();
        let redirects: Vec<_> = redirects(address, &published).collect();
        if let Some(place) = self.state().attached.get_mut(&request.id) {
            place.published = published;
        }
        let endpoint_id = hex::encode(rand::random::<[u8; 32]>());
        let Bridge { index, subnet, mtu, .. } = self.bridge;
        let plan = Plan { outside: link::outside(&endpoint_id), bridge: index, address, subnet, mtu };
        let netns = link::make(Some(&plan))?;
        self.rules.add(&redirects)?;
        let endpoint = NetworkEndpoint {
            network: DEFAULT.into(),
            network_id: network_id(DEFAULT),
            endpoint_id,
            ip_address: address.to_string(),
            ip_prefix_len: subnet.prefix().into(),
            gateway: subnet.gateway().to_string(),
            mac_address: link::mac_of(address).map(|byte| format!("{byte:02x}")).join(":"),
            ..NetworkEndpoint::default()
        };
        Ok((netns, vec![endpoint], ports))
    }

    fn is_published(&self, host: HostPort) -> bool {
        self.state().attached.values().flat_map(|place| &place.published).any(|p| p.host.clashes(host))
    }

    /// The rules go first: as long as they are there, nobody else may have the ports.
    fn release(&self, id: &str) {
        let hosts: Vec<_> = match self.state().attached.get(id) {
            Some(place) => place.published.iter().map(|published| published.host).collect(),
            None => return,
        };
        if let Err(error) = self.rules.remove(&hosts) {
            // They are no longer among those that should be, and go with the next change.
            tracing::error!(container = id, %error, "rules for published ports stay for now");
        }
        let mut state = self.state();
        if let Some(address) = state.attached.remove(id).and_then(|place| place.address) {
            state.addresses.free(address);
        }
    }

    fn recover(&self, live: Vec<Live>) -> Result<(), Error> {
        let mut all = Vec::new();
        for Live { id, endpoints, ports } in live {
            let address = endpoints.iter().find_map(|endpoint| endpoint.ip_address.parse().ok());
            let published = if address.is_some() { ports::hold_again(&ports) } else { Vec::new() };
            let mut state = self.state();
            if let Some(address) = address {
                state.addresses.keep(address);
                all.extend(redirects(address, &published));
            }
            state.attached.insert(id, Place { address, published });
        }
        self.rules.install(all)
    }
}

/// Where a container's published ports lead.
fn redirects(address: Ipv4Addr, published: &[Published]) -> impl Iterator<Item = (HostPort, Target)> {
    published.iter().map(move |published| (published.host, Target { address, port: published.container_port }))
}
