//! The names on each network, in a file for each: the shims of its containers answer from it, and look anew for each query.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use berth_core::bundle::{self, Host, Names, Upstream, Zone};
use berth_proto::berth::runtime::v1::NetworkEndpoint;

use super::{
    Error, Networks,
    networks::Inner,
    request,
    state::{State, dns_names},
};

/// Where the files are.
#[derive(Debug)]
pub(super) struct Zones {
    directory: PathBuf,
    /// One at a time is written, from what holds then, so that the last one written is right.
    writing: Mutex<()>,
}

impl Zones {
    /// Opens the directory; files of networks that are not there go.
    pub(super) fn open(directory: &Path, networks: &BTreeSet<String>) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(Error::io("cannot make", directory))?;
        for file in fs::read_dir(directory).map_err(Error::io("cannot list", directory))?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if !name.strip_suffix(".json").is_some_and(|id| networks.contains(id)) {
                let _ = fs::remove_file(file.path());
            }
        }
        Ok(Self { directory: directory.into(), writing: Mutex::default() })
    }

    fn path(&self, network: &str) -> PathBuf {
        self.directory.join(format!("{network}.json"))
    }
}

/// Whether names are answered on the network of an endpoint: on all but those of every node.
pub(crate) fn has_names(endpoint: &NetworkEndpoint) -> bool {
    !endpoint.dns_names.is_empty()
}

impl Networks {
    /// Which names a container with these endpoints can ask for.
    pub(crate) fn names(&self, endpoints: &[NetworkEndpoint], upstreams: Vec<Upstream>, ndots: bool) -> Names {
        let named = endpoints.iter().filter(|endpoint| has_names(endpoint));
        Names {
            own: Vec::new(),
            zones: named.map(|endpoint| self.0.zones.path(&endpoint.network_id)).collect(),
            upstreams,
            forward: endpoints.iter().any(|one| !one.gateway.is_empty() || !one.ipv6_gateway.is_empty()),
            ndots,
        }
    }

    /// A container has another name.
    pub(crate) async fn rename(&self, id: &str, name: &str) {
        let (inner, id, name) = (std::sync::Arc::clone(&self.0), id.to_owned(), name.to_owned());
        let rename = move || {
            let networks = inner.state().rename(&id, &name);
            inner.tell_names(&networks);
        };
        // It cannot fail but by a panic, which the runtime reports.
        let _ = tokio::task::spawn_blocking(rename).await;
    }
}

impl Inner {
    /// Writes down who is on these networks, as far as they have names.
    pub(super) fn tell_names<'a>(&self, networks: impl IntoIterator<Item = &'a String>) {
        for network in networks {
            let _one_at_a_time = self.zones.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(zone) = self.state().zone(network) else { continue };
            let name = format!("{network}.json");
            if let Err(error) = bundle::write(&self.zones.directory, &name, &zone) {
                tracing::error!(network = zone.name, %error, "who is on a network cannot be told to its containers");
            }
        }
    }

    /// Forgets the names of a network that is gone.
    pub(super) fn forget_names(&self, network: &str) {
        let _one_at_a_time = self.zones.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // What stays goes at the next start.
        let _ = fs::remove_file(self.zones.path(network));
    }
}

impl State {
    /// The names on a network; `None` where it has none.
    fn zone(&self, network: &str) -> Option<Zone> {
        let net = self.nets.get(network).filter(|net| !net.is_default())?;
        let places = net.members.iter().filter_map(|id| self.places.get(id));
        let endpoints = places.filter_map(|place| place.endpoints.iter().find(|one| one.network_id == network));
        let hosts = endpoints.filter_map(|endpoint| {
            let (name, aliases) = endpoint.dns_names.split_first()?;
            let addresses = request::addresses(endpoint).collect();
            Some(Host { name: name.clone(), aliases: aliases.to_vec(), addresses })
        });
        Some(Zone { name: net.definition.name.clone(), hosts: hosts.collect() })
    }

    /// Gives an attached container another name; answers with the networks that it is on.
    fn rename(&mut self, id: &str, name: &str) -> Vec<String> {
        let Some(place) = self.places.get_mut(id) else { return Vec::new() };
        place.name = name.to_owned();
        let named = place.endpoints.iter_mut().filter(|endpoint| has_names(endpoint));
        named.for_each(|endpoint| endpoint.dns_names = dns_names(name, &endpoint.aliases, id));
        place.endpoints.iter().map(|endpoint| endpoint.network_id.clone()).collect()
    }
}
