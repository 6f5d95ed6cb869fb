//! `resolv.conf` of a container: the host's, without what cannot work in another network namespace, and with what the
//! user asked for instead.

use std::{fs, net::IpAddr, path::PathBuf};

use berth_core::bundle::{NAME_SERVER, Upstream};

use crate::network::{Error, files::Names};

/// What is asked where the host names no name server that a container can reach.
const PUBLIC: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
const FILE: &str = "/etc/resolv.conf";
/// systemd-resolved's own listener, and where it says which servers it asks.
const STUB: &str = "127.0.0.53";
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The host's file to begin with. A listener at a loopback address can be asked in the host's network, and for who has a
/// name server of ours.
pub(super) fn host_file(loopback: bool) -> PathBuf {
    let text = if loopback { String::new() } else { fs::read_to_string(FILE).unwrap_or_default() };
    if only_stub(&text) { BEHIND_STUB.into() } else { FILE.into() }
}

fn only_stub(text: &str) -> bool {
    let servers: Vec<_> = read(text).servers;
    matches!(&servers[..], [only] if only == STUB)
}

/// A resolv.conf, by its lines.
#[derive(Debug, Default)]
struct Conf {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
    /// What nobody but the resolver understands.
    other: Vec<String>,
}

fn read(text: &str) -> Conf {
    let mut conf = Conf::default();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            None => {}
            Some("nameserver") => conf.servers.extend(words.next()),
            // The last one counts; "domain" is an old word for it.
            Some("search" | "domain") => conf.search = words.collect(),
            Some("options") => conf.options.extend(words),
            Some(_) => conf.other.push(line.into()),
        }
    }
    conf
}

/// Name servers that the user named.
pub(super) fn servers(texts: &[String]) -> Result<Vec<IpAddr>, Error> {
    let read = |text: &String| text.parse().map_err(|_| Error::BadServer { text: text.clone() });
    texts.iter().map(read).collect()
}

/// Who our name server asks for what it does not know, from the host's file, and whether names without a dot are to be
/// left to the search domains.
///
/// # Errors
/// A server that was named is none.
pub(super) fn upstreams(host: &str, names: &Names) -> Result<(Vec<Upstream>, bool), Error> {
    let conf = read(host);
    let ipv6 = names.addresses.iter().any(IpAddr::is_ipv6);
    let upstream = |address: IpAddr, from_host| Upstream { address: (address, 53).into(), from_host };
    let asked = servers(&names.dns)?;
    let mut all: Vec<_> = asked.into_iter().map(|address| upstream(address, false)).collect();
    if all.is_empty() {
        let servers = conf.servers.iter().filter_map(|text| text.parse::<IpAddr>().ok());
        all.extend(servers.map(|address| upstream(address, address.is_loopback() || address.is_ipv6() && !ipv6)));
    }
    if all.is_empty() {
        all.extend(PUBLIC.iter().filter_map(|text| text.parse().ok()).map(|address| upstream(address, false)));
    }
    let options = if names.dns_options.is_empty() { &conf.options } else { &names.dns_options };
    let ndots = options.iter().rev().find_map(|option| option.strip_prefix("ndots:"));
    Ok((all, ndots.is_some_and(|dots| dots != "0")))
}

/// The container's file, from the host's.
pub(super) fn file(host: &str, names: &Names) -> Result<String, Error> {
    let mut conf = read(host);
    let asked = servers(&names.dns)?;
    if names.served {
        conf.servers = vec![NAME_SERVER.to_string()];
    } else if !asked.is_empty() {
        conf.servers = asked.iter().map(IpAddr::to_string).collect();
    } else if !names.host_network && !names.addresses.is_empty() {
        let ipv6 = names.addresses.iter().any(IpAddr::is_ipv6);
        let reached = |text: &String| {
            let address = text.split('%').next().unwrap_or_default().parse::<IpAddr>();
            address.is_ok_and(|address| !address.is_loopback() && (address.is_ipv4() || ipv6))
        };
        conf.servers.retain(reached);
        if conf.servers.is_empty() {
            conf.servers = PUBLIC.map(Into::into).into();
        }
    }
    if !names.dns_search.is_empty() {
        // A single dot means none at all.
        conf.search = names.dns_search.iter().filter(|domain| *domain != ".").cloned().collect();
    }
    if !names.dns_options.is_empty() {
        conf.options.clone_from(&names.dns_options);
    }
    if names.served && !conf.options.iter().any(|option| option.starts_with("ndots:")) {
        // Names on the networks have no dots.
        conf.options.push("ndots:0".into());
    }
    let mut text: String = conf.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (word, values) in [("search", &conf.search), ("options", &conf.options)] {
        if !values.is_empty() {
            text += &format!("{word} {}\n", values.join(" "));
        }
    }
    for line in &conf.other {
        text += &format!("{line}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\ndomain old.example\nnameserver 127.0.0.1\nnameserver 10.1.1.1\nnameserver fd00::1\n\
                        search a.example b.example\noptions ndots:2\noptions edns0\nsortlist 10.0.0.0\n";

    fn bridged() -> Names {
        Names { addresses: vec!["10.0.0.2".parse().unwrap()], ..Names::default() }
    }

    #[test]
    fn what_a_container_cannot_reach_is_left_out() {
        let expected = "nameserver 10.1.1.1\nsearch a.example b.example\noptions ndots:2 edns0\nsortlist 10.0.0.0\n";
        assert_eq!(file(HOST, &bridged()).unwrap(), expected);
        let both =
            Names { addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()], ..Names::default() };
        assert!(file(HOST, &both).unwrap().contains("nameserver fd00::1"));
        assert!(file(HOST, &Names { host_network: true, ..bridged() }).unwrap().contains("nameserver 127.0.0.1"));
    }

    #[test]
    fn public_servers_where_none_is_left() {
        let expected = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        assert_eq!(file("nameserver 127.0.0.53\n", &bridged()).unwrap(), expected);
        assert_eq!(file("", &bridged()).unwrap(), expected);
    }

    #[test]
    fn a_name_server_of_ours_takes_their_place_and_asks_them() {
        let served = Names { served: true, ..bridged() };
        let host = "nameserver 127.0.0.53\nnameserver 10.1.1.1\nsearch a.example\n";
        assert_eq!(file(host, &served).unwrap(), "nameserver 127.0.0.11\nsearch a.example\noptions ndots:0\n");
        let asks = |names: &Names| {
            let (upstreams, ndots) = upstreams(host, names).unwrap();
            let shown = upstreams.iter().map(|one| format!("{} {}", one.address, one.from_host));
            (shown.collect::<Vec<_>>().join(", "), ndots)
        };
        assert_eq!(asks(&served), ("127.0.0.53:53 true, 10.1.1.1:53 false".into(), false));
        let named = Names { dns: vec!["10.9.8.7".into()], dns_options: vec!["ndots:2".into()], ..served };
        assert_eq!(asks(&named), ("10.9.8.7:53 false".into(), true));
        assert!(file(host, &named).unwrap().ends_with("options ndots:2\n"));
    }

    #[test]
    fn what_the_user_says_replaces() {
        let names = Names {
            dns: vec!["127.0.0.1".into(), "10.9.8.7".into()],
            dns_search: vec!["example.org".into()],
            dns_options: vec!["rotate".into()],
            ..bridged()
        };
        let expected =
            "nameserver 127.0.0.1\nnameserver 10.9.8.7\nsearch example.org\noptions rotate\nsortlist 10.0.0.0\n";
        assert_eq!(file(HOST, &names).unwrap(), expected);
        let none = Names { dns_search: vec![".".into()], ..bridged() };
        assert!(!file(HOST, &none).unwrap().contains("search"));
    }

    #[test]
    fn behind_the_stub() {
        assert!(only_stub("nameserver 127.0.0.53\n") && !only_stub(HOST));
    }
}
