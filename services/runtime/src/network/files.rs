//! The files that tell a container its names: `hosts`, `hostname`, `resolv.conf`, as Docker writes them.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use berth_core::bundle::Upstream;

use crate::network::{Error, resolver};

/// What the files say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The container's host name.
    pub(crate) hostname: String,
    /// Its domain; may be empty.
    pub(crate) domainname: String,
    /// Its own addresses; none in the modes "none" and "host".
    pub(crate) addresses: Vec<IpAddr>,
    /// The host's address, for "host-gateway".
    pub(crate) gateway: Option<IpAddr>,
    /// "name:address", as `ContainerSpec.extra_hosts`.
    pub(crate) extra_hosts: Vec<String>,
    /// As in `ContainerSpec`; replaces what the host's resolv.conf says.
    pub(crate) dns: Vec<String>,
    /// As in `ContainerSpec`; replaces what the host's resolv.conf says.
    pub(crate) dns_search: Vec<String>,
    /// As in `ContainerSpec`; replaces what the host's resolv.conf says.
    pub(crate) dns_options: Vec<String>,
    /// The container is in the host's network: the host's own files hold, loopback name servers too.
    pub(crate) host_network: bool,
    /// A name server of ours answers in the container, and asks the others.
    pub(crate) served: bool,
}

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n";
const LOOPBACK_6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
                          ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Writes the three files into a directory. They keep their inodes, for they are mounted in containers.
///
/// # Errors
/// An extra host or a name server that is none, or the files cannot be written.
pub(crate) fn write(directory: &Path, names: &Names) -> Result<(), Error> {
    let put = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(Error::io("cannot write", &path))
    };
    put("hosts", hosts(names)?)?;
    put("hostname", format!("{}\n", full_name(names)))?;
    let source = resolver::host_file(names.host_network || names.served);
    let host = read(&source)?;
    put("resolv.conf", resolver::file(&host, names)?)
}

/// Who our name server asks for what it does not know, and whether names without a dot are left to the search domains.
///
/// # Errors
/// A name server that is none, or the host's file cannot be read.
pub(crate) fn upstreams(names: &Names) -> Result<(Vec<Upstream>, bool), Error> {
    resolver::upstreams(&read(&resolver::host_file(true))?, names)
}

/// Whether extra hosts and name servers can be meant; for refusing at create.
///
/// # Errors
/// One cannot.
pub(crate) fn check(extra_hosts: &[String], dns: &[String]) -> Result<(), Error> {
    let any_gateway = Some(IpAddr::from([0; 4]));
    extra_hosts.iter().try_for_each(|text| extra_host(text, any_gateway).map(|_| ()))?;
    resolver::servers(dns).map(|_| ())
}

/// A file of the host's; one that is not there is empty.
fn read(path: &PathBuf) -> Result<String, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::io("cannot read", path)(error)),
    }
}

fn hosts(names: &Names) -> Result<String, Error> {
    if names.host_network && names.extra_hosts.is_empty() {
        return read(&"/etc/hosts".into());
    }
    let mut text = LOOPBACK.to_owned();
    if Path::new("/proc/sys/net/ipv6").exists() {
        text += LOOPBACK_6;
    }
    for extra in &names.extra_hosts {
        let (name, address) = extra_host(extra, names.gateway)?;
        text += &format!("{address}\t{name}\n");
    }
    // Somebody may give a full name as host name: both have the full name first, then the first part of it.
    let full = full_name(names);
    let both = match full.split_once('.') {
        Some((first, _)) => format!("{full} {first}"),
        None => full,
    };
    for address in &names.addresses {
        text += &format!("{address}\t{both}\n");
    }
    Ok(text)
}

fn full_name(names: &Names) -> String {
    match names.domainname.as_str() {
        "" => names.hostname.clone(),
        domain => format!("{}.{domain}", names.hostname),
    }
}

/// Reads "name:address" or "name=address"; an IPv6 address may be in brackets.
fn extra_host(text: &str, gateway: Option<IpAddr>) -> Result<(&str, IpAddr), Error> {
    let bad = |why| Error::BadHost { text: text.into(), why };
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or(bad("bad format for add-host"))?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(bad("bad format for add-host"));
    }
    if address == "host-gateway" {
        return Ok((name, gateway.ok_or(bad("the network has no address of the host's for host-gateway"))?));
    }
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    Ok((name, address.parse().map_err(|_| bad("invalid IP address in add-host"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { hostname: "me".into(), addresses: vec!["10.0.0.2".parse().unwrap()], ..Names::default() }
    }

    #[test]
    fn hosts_with_tabs_and_own_name_last() {
        let mut names = names();
        names.extra_hosts = vec!["db:10.1.2.3".into(), "six=[::5]".into(), "host:host-gateway".into()];
        names.gateway = Some("10.0.0.1".parse().unwrap());
        let text = hosts(&names).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("\n10.1.2.3\tdb\n::5\tsix\n10.0.0.1\thost\n10.0.0.2\tme\n"), "{text}");
        names.domainname = "example.org".into();
        assert!(hosts(&names).unwrap().ends_with("10.0.0.2\tme.example.org me\n"));
    }

    #[test]
    fn what_is_no_host() {
        for (text, why) in [
            ("db", "bad format"),
            (":10.0.0.1", "bad format"),
            ("db:x", "invalid IP address"),
            ("a b:10.0.0.1", "bad format"),
            ("db\n:10.0.0.1", "bad format"),
        ] {
            let refused = check(&[text.into()], &[]).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        check(&["db:host-gateway".into()], &["fd00::1".into()]).unwrap();
        assert!(check(&[], &["x".into()]).is_err());
    }

    #[test]
    fn files_keep_their_inodes() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &names()).unwrap();
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(directory.path().join("hosts")).unwrap());
        let before = inode();
        write(directory.path(), &Names { domainname: "d".into(), ..names() }).unwrap();
        assert_eq!(inode(), before);
        assert_eq!(fs::read_to_string(directory.path().join("hostname")).unwrap(), "me.d\n");
    }
}
