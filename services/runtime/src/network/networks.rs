//! All networks of the node.
//!
//! Which networks there are the store tells; who is attached is in memory only, and the containers' bundles
//! (`network.json`) tell it again after a restart. Everything that talks to the kernel runs on threads of its own, and the
//! state's lock is held for look-ups only.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_core::Digest;

use crate::network::{
    Error, Live, Settings, bridge,
    definition::{Definition, Pool},
    host::Host,
    netlink::Conversation,
    nft::{self, Rules},
    request::DEFAULT,
    state::{Net, State},
    zones::Zones,
};

/// The node's networks. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Networks(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) rules: Rules,
    pub(super) zones: Zones,
    /// When this service started: the networks of every node have no other time.
    pub(super) opened: String,
    /// Whoever makes or removes a bridge.
    pub(super) bridges: Mutex<()>,
    state: Mutex<State>,
}

impl Networks {
    /// Makes the bridges where they are missing. Blocks; belongs on a blocking thread. Rules of what ran before are left
    /// as they are until [`Networks::recover`]. `zones` is a directory for the names on each network.
    ///
    /// # Errors
    /// The default subnet is not free, or the kernel refuses.
    pub(crate) fn open(settings: &Settings, definitions: Vec<Definition>, zones: &Path) -> Result<Self, Error> {
        let failed = |what| Error::netlink(what, &settings.bridge);
        let mut kernel = Conversation::route().map_err(failed("cannot talk about the bridge"))?;
        let host = Host::look(&mut kernel).map_err(failed("cannot see what the host has beside"))?;
        let (wanted, subnet) = bridge::default(settings, &host)?;
        let opened = jiff::Timestamp::now().to_string();
        let mut default = Net::new(Definition {
            id: predefined_id(DEFAULT),
            name: DEFAULT.into(),
            created: opened.clone(),
            interface: settings.bridge.clone(),
            v4: Some(Pool::whole(subnet)),
            options: default_options(settings),
            ..Definition::default()
        });
        default.bridge = Some(wanted.make(&mut kernel, &host)?);
        let mut state = State::default();
        for net in definitions.into_iter().map(Net::new) {
            state.nets.insert(net.definition.id.clone(), net);
        }
        for net in state.nets.values_mut() {
            match net.wanted(&settings.bridge).make(&mut kernel, &host) {
                Ok(bridge) => net.bridge = Some(bridge),
                // It is tried again for the first container that is attached, which is then told.
                Err(error) => {
                    tracing::error!(network = net.definition.name, %error, "a network's bridge cannot be made");
                }
            }
        }
        state.nets.insert(default.definition.id.clone(), default);
        remove_strays(&mut kernel, &host, &settings.bridge, &state);
        let zones = Zones::open(zones, &state.nets.keys().cloned().collect())?;
        let rules = Rules::open(&settings.bridge)?;
        let settings = settings.clone();
        let inner = Inner { settings, rules, zones, opened, bridges: Mutex::default(), state: Mutex::new(state) };
        let inner = Arc::new(inner);
        nft::watch(Arc::downgrade(&inner))?;
        Ok(Self(inner))
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

    /// The host's address on the default bridge: what "host-gateway" means, in every mode.
    pub(crate) fn gateway(&self) -> IpAddr {
        let state = self.0.state();
        let pool = state.nets.get(&predefined_id(DEFAULT)).and_then(|net| net.definition.v4.clone());
        pool.map_or(IpAddr::from([127, 0, 0, 1]), |pool| pool.gateway)
    }
}

/// As Docker shows them of its own.
fn default_options(settings: &Settings) -> BTreeMap<String, String> {
    let mut options: BTreeMap<String, String> = [
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", "true"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.name", &settings.bridge),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    if settings.mtu != 0 {
        options.insert("com.docker.network.driver.mtu".into(), settings.mtu.to_string());
    }
    options
}

/// A network of every node is stored nowhere, so its id follows from its name.
pub(super) fn predefined_id(name: &str) -> String {
    Digest::sha256(format!("network {name}").as_bytes()).hex().into()
}

/// Bridges whose networks are gone: what a crash left between two steps.
fn remove_strays(kernel: &mut Conversation, host: &Host, node: &str, state: &State) {
    let of_node = format!("{node} network ");
    for link in host.links.iter().filter(|link| link.bridge) {
        let stray = link.alias.strip_prefix(&of_node).is_some_and(|id| !state.nets.contains_key(id));
        if !stray {
            continue;
        }
        tracing::info!(bridge = link.name, "a bridge of a network that is not there is removed");
        if let Err(error) = bridge::remove(kernel, &link.name) {
            tracing::warn!(%error, "a bridge of a network that is not there stays");
        }
    }
}

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole at every line, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
