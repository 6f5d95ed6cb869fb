//! `--network` in both forms, `--add-host`, `--dns`.

use std::net::IpAddr;

use crate::outcome::Error;

/// The network that `--network` names.
///
/// # Errors
/// More than one, or something about it that cannot be passed on.
pub(crate) fn mode(given: &[&str]) -> Result<String, Error> {
    let [text] = given else {
        return match given {
            [] => Ok(String::new()),
            _ => Err(unsupported("a container is connected to one network; give it once")),
        };
    };
    if !text.contains('=') {
        return Ok((*text).to_owned());
    }
    let mut name = "";
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("name", value)) => name = value,
            Some((
                key @ ("alias" | "ip" | "ip6" | "mac-address" | "driver-opt" | "gw-priority" | "link-local-ip"),
                _,
            )) => {
                return Err(unsupported(&format!("{key} cannot be chosen in this version; leave it out")));
            }
            _ => return Err(Error::Invalid(format!("invalid field {field:?} in --network {text:?}"))),
        }
    }
    if name.is_empty() {
        return Err(Error::Invalid(format!("invalid --network {text:?}: the name is missing")));
    }
    Ok(name.to_owned())
}

fn unsupported(why: &str) -> Error {
    Error::Unsupported { flag: "network".into(), why: why.into() }
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

    #[test]
    fn networks_by_name_and_by_fields() {
        assert_eq!(mode(&["host"]).unwrap(), "host");
        assert_eq!(mode(&["container:abc"]).unwrap(), "container:abc");
        assert_eq!(mode(&["name=bridge"]).unwrap(), "bridge");
        assert_eq!(mode(&[]).unwrap(), "");
        for wrong in [&["a", "b"][..], &["name=a,ip=1.2.3.4"], &["alias=x"], &["what=x"]] {
            assert!(mode(wrong).is_err(), "{wrong:?}");
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
