//! Who has a name, and who has an address.
//!
//! Nothing is kept: the files are read for each query, which is cheap beside having every network's names in every shim.

use std::{io, net::IpAddr, path::Path};

use berth_core::bundle::{self, Host, NAMES, Names, Zone};

/// The container's names; without the file, none.
pub(super) fn read(bundle: &Path) -> io::Result<Names> {
    Ok(bundle::read(bundle, NAMES)?.unwrap_or_default())
}

fn zone(path: &Path) -> io::Result<Zone> {
    // Joining an absolute path leaves it as it is.
    Ok(bundle::read(Path::new("/"), path.to_str().unwrap_or_default())?.unwrap_or_default())
}

/// The addresses behind a name; `None` where nobody has it. The name is in lower case.
pub(super) fn addresses(names: &Names, name: &str) -> io::Result<Option<Vec<IpAddr>>> {
    if let Some(found) = among(&names.own, name) {
        return Ok(Some(found));
    }
    let mut qualified = None;
    for path in &names.zones {
        let zone = zone(path)?;
        if let Some(found) = among(&zone.hosts, name) {
            return Ok(Some(found));
        }
        if qualified.is_none()
            && let Some(short) = without(name, &zone.name)
        {
            qualified = among(&zone.hosts, short);
        }
    }
    Ok(qualified)
}

/// `name` of `name.zone`.
fn without<'a>(name: &'a str, zone: &str) -> Option<&'a str> {
    let (short, rest) = name.split_at_checked(name.len().checked_sub(zone.len())?)?;
    short.strip_suffix('.').filter(|short| !short.is_empty() && !zone.is_empty() && rest.eq_ignore_ascii_case(zone))
}

fn among(hosts: &[Host], name: &str) -> Option<Vec<IpAddr>> {
    let has = |host: &&Host| {
        std::iter::once(&host.name).chain(&host.aliases).any(|own| !own.is_empty() && own.eq_ignore_ascii_case(name))
    };
    let mut found = None;
    for host in hosts.iter().filter(has) {
        let found: &mut Vec<IpAddr> = found.get_or_insert_default();
        for address in &host.addresses {
            if !found.contains(address) {
                found.push(*address);
            }
        }
    }
    found
}

/// The name of whoever has an address.
pub(super) fn name(names: &Names, address: IpAddr) -> io::Result<Option<String>> {
    let has = |host: &&Host| host.addresses.contains(&address) && !host.name.is_empty();
    if let Some(host) = names.own.iter().find(has) {
        return Ok(Some(host.name.clone()));
    }
    for path in &names.zones {
        let zone = zone(path)?;
        if let Some(host) = zone.hosts.iter().find(has) {
            let dot = if zone.name.is_empty() { "" } else { "." };
            return Ok(Some(format!("{}{dot}{}", host.name, zone.name)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, aliases: &[&str], addresses: &[&str]) -> Host {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Host { name: name.into(), aliases: aliases.iter().map(|&alias| alias.into()).collect(), addresses }
    }

    #[test]
    fn own_names_then_the_zones_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let zones = [
            Zone {
                name: "Front".into(),
                hosts: vec![
                    host("web", &["www", "W3"], &["10.0.0.2", "fd00::2"]),
                    host("db", &[], &["10.0.0.3"]),
                    host("web2", &["www"], &["10.0.0.4"]),
                ],
            },
            Zone {
                name: "back".into(),
                hosts: vec![host("db", &["only"], &["10.1.0.3"]), host("v6", &[], &["fd01::6"])],
            },
        ];
        let mut paths = vec![directory.path().join("not-there")];
        for zone in &zones {
            bundle::write(directory.path(), &zone.name, zone).unwrap();
            paths.push(directory.path().join(&zone.name));
        }
        let names = Names { own: vec![host("link", &["web"], &["10.9.9.9"])], zones: paths, ..Names::default() };
        let find = |name: &str| {
            addresses(&names, name)
                .unwrap()
                .map(|found| found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(find("web").as_deref(), Some("10.9.9.9"));
        assert_eq!(find("web.front").as_deref(), Some("10.0.0.2 fd00::2"));
        assert_eq!(find("w3").as_deref(), Some("10.0.0.2 fd00::2"));
        assert_eq!(find("www").as_deref(), Some("10.0.0.2 fd00::2 10.0.0.4"));
        assert_eq!(find("db").as_deref(), Some("10.0.0.3"));
        assert_eq!(find("db.back").as_deref(), Some("10.1.0.3"));
        assert_eq!(find("only").as_deref(), Some("10.1.0.3"));
        for nobody in ["", "front", ".front", "only.front", "link.front", "db.example.org", "xdbxback"] {
            assert_eq!(find(nobody), None, "{nobody}");
        }
        let whose = |address: &str| name(&names, address.parse().unwrap()).unwrap();
        assert_eq!(whose("10.9.9.9").as_deref(), Some("link"));
        assert_eq!(whose("fd01::6").as_deref(), Some("v6.back"));
        assert_eq!(whose("10.0.0.9"), None);
        std::fs::write(&names.zones[1], "{").unwrap();
        assert!(addresses(&names, "db").unwrap_err().to_string().contains("Front"));
    }
}
