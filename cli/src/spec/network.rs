//! `--network` in both forms and what belongs to it, `--add-host`, `--dns`.

use std::net::IpAddr;

use berth_proto::berth::runtime::v1::NetworkAttachment;

use crate::{args::Given, outcome::Error};

/// What `--network`, `--network-alias`, `--ip`, `--ip6` and `--mac-address` mean: the mode, which is the first network, and how
/// the container is connected to each. No connections where there is nothing to say but the mode.
///
/// # Errors
/// A field that there is not, or flags that exclude each other.
pub(crate) fn networks(given: &Given) -> Result<(String, Vec<NetworkAttachment>), Error> {
    let asked: Vec<NetworkAttachment> = given.all("network").into_iter().map(one).collect::<Result<_, _>>()?;
    let mode = asked.first().map(|first| first.network.clone()).unwrap_or_default();
    let mut networks = asked;
    if networks.len() > 1
        && let Some(other) = networks.iter().find(|one| !is_bridge(&one.network))
    {
        let what = format!("cannot attach both to {:?} and to other networks", other.network);
        return Err(Error::Invalid(format!("conflicting options: {what}")));
    }
    let mut first = networks.first().cloned().unwrap_or_default();
    let text = |flag: &str| given.text_or_empty(flag);
    for (flag, field, value) in [
        ("ip", &mut first.ip, text("ip")),
        ("ip6", &mut first.ip6, text("ip6")),
        ("mac-address", &mut first.mac_address, text("mac-address")),
    ] {
        if !value.is_empty() && !field.is_empty() {
            let what = format!("cannot specify both --{flag} and the same in --network");
            return Err(Error::Invalid(format!("conflicting options: {what}")));
        }
        if !value.is_empty() {
            *field = value;
        }
    }
    first.aliases.extend(given.owned("network-alias"));
    if networks.len() < 2 && first == (NetworkAttachment { network: mode.clone(), ..NetworkAttachment::default() }) {
        return Ok((mode, Vec::new()));
    }
    match networks.first_mut() {
        Some(place) => *place = first,
        None => networks.push(first),
    }
    Ok((mode, networks))
}

/// Whether it is a bridge's name, and not one of the other modes.
fn is_bridge(network: &str) -> bool {
    !matches!(network, "host" | "none") && !network.starts_with("container:")
}

/// One `--network`, in either form.
fn one(text: &str) -> Result<NetworkAttachment, Error> {
    let mut network = NetworkAttachment::default();
    if !text.contains('=') {
        network.network = text.to_owned();
        return Ok(network);
    }
    let wrong = |field: &str| Error::Invalid(format!("invalid field {field:?} in --network {text:?}"));
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong(field))?;
        let value = value.to_owned();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => network.network = value,
            "alias" => network.aliases.push(value),
            "ip" => network.ip = value,
            "ip6" => network.ip6 = value,
            "mac-address" => network.mac_address = value,
            "gw-priority" => network.gw_priority = value.parse().map_err(|_| wrong(field))?,
            "driver-opt" => {
                let (name, value) = value.split_once('=').ok_or_else(|| wrong(field))?;
                network.driver_opts.insert(name.to_owned(), value.to_owned());
            }
            "link-local-ip" => {
                let why = "link-local addresses are the kernel's to choose; leave it out".into();
                return Err(Error::Unsupported { flag: "network".into(), why });
            }
            _ => return Err(wrong(field)),
        }
    }
    if network.network.is_empty() {
        return Err(Error::Invalid(format!("invalid --network {text:?}: the name is missing")));
    }
    Ok(network)
}

/// What one `--add-host` means, as `name:address`; `name=address` is the same.
///
/// # Errors
/// There is no name, or no address.
pub(crate) fn extra_host(text: &str) -> Result<String, String> {
    let wrong = || format!("bad format for add-host: \"{text}\"");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if name.is_empty() {
        return Err(wrong());
    }
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: \"{address}\""));
    }
    Ok(format!("{name}:{bare}"))
}

/// A resolver's address.
///
/// # Errors
/// It is none.
pub(crate) fn resolver(text: &str) -> Result<String, String> {
    text.trim()
        .parse::<IpAddr>()
        .map(|ip| ip.to_string())
        .map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<(String, Vec<NetworkAttachment>), String> {
        let words = ["run"].iter().chain(words).chain(&["image"]).map(|word| (*word).to_owned()).collect();
        match crate::args::parse(&crate::args::Global::default(), words).map_err(|error| error.to_string())? {
            crate::args::Parsed::Run { given, .. } => networks(&given).map_err(|error| error.to_string()),
            crate::args::Parsed::Print(_) => Err("printed".into()),
        }
    }

    #[test]
    fn networks_by_name_and_by_fields() {
        for mode in ["host", "container:abc", "front"] {
            assert_eq!(of(&["--network", mode]).unwrap(), (mode.to_owned(), vec![]));
        }
        assert_eq!(of(&["--network", "name=bridge"]).unwrap(), ("bridge".into(), vec![]));
        assert_eq!(of(&[]).unwrap(), (String::new(), vec![]));
        let (mode, two) = of(&[
            "--network",
            "name=a,alias=x,alias=y,ip=10.0.0.7,gw-priority=-2,driver-opt=k=v",
            "--network",
            "b",
            "--network-alias",
            "z",
            "--mac-address",
            "02:42:ac:11:00:02",
        ])
        .unwrap();
        assert_eq!((mode.as_str(), two.len(), two[1].network.as_str()), ("a", 2, "b"));
        assert_eq!((two[0].ip.as_str(), two[0].gw_priority, two[0].driver_opts["k"].as_str()), ("10.0.0.7", -2, "v"));
        assert_eq!((two[0].aliases.join(" "), two[0].mac_address.len()), ("x y z".into(), 17));
        let alone = of(&["--ip", "10.0.0.7"]).unwrap();
        assert_eq!((alone.0.as_str(), alone.1[0].network.as_str(), alone.1[0].ip.as_str()), ("", "", "10.0.0.7"));
        for wrong in [
            &["--network", "a", "--network", "host"][..],
            &["--network", "alias=x"],
            &["--network", "what=x"],
            &["--network", "name=a,ip=10.0.0.7", "--ip", "10.0.0.8"],
            &["--network", "name=a,gw-priority=x"],
            &["--network", "name=a,link-local-ip=169.254.0.1"],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn hosts_and_resolvers() {
        assert_eq!(extra_host("db:10.1.2.3").unwrap(), "db:10.1.2.3");
        assert_eq!(extra_host("db=[::1]").unwrap(), "db:::1");
        assert_eq!(extra_host("db:host-gateway").unwrap(), "db:host-gateway");
        assert!(extra_host("db").is_err() && extra_host(":1.2.3.4").is_err() && extra_host("db:x").is_err());
        assert!(resolver("10.9.8.7").is_ok() && resolver("x").is_err());
    }
}
