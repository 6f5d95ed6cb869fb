//! Published and exposed ports: `[ip:]host[-range]:container[-range][/protocol]`, or the container's alone.

use std::net::IpAddr;

use berth_proto::berth::runtime::v1::PortMapping;

/// The mappings that one `--publish` means.
///
/// # Errors
/// It is none; the message is Docker's.
pub(crate) fn publish(text: &str) -> Result<Vec<PortMapping>, String> {
    if text.contains('=') {
        return long(text);
    }
    let (rest, protocol) = split_protocol(text)?;
    let (rest, container) = match rest.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, rest),
    };
    let (ip, host) = match rest {
        None => ("", ""),
        // The address may be IPv6, in brackets or bare.
        Some(rest) => match rest.rsplit_once(':') {
            Some((ip, host)) => (ip, host),
            None => ("", rest),
        },
    };
    mappings(ip, host, container, protocol)
}

/// `published=8080,target=80,protocol=tcp`
fn long(text: &str) -> Result<Vec<PortMapping>, String> {
    let (mut host, mut container, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => container = value,
            Some(("published", value)) => host = value,
            Some(("protocol", value)) => protocol = value,
            Some(("mode", "host" | "ingress")) => {}
            _ => return Err(format!("invalid field {field:?} in the port specification {text:?}")),
        }
    }
    let (_, protocol) = split_protocol(&format!("1/{protocol}")).map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    mappings("", host, container, &protocol)
}

fn mappings(ip: &str, host: &str, container: &str, protocol: &str) -> Result<Vec<PortMapping>, String> {
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    if container.is_empty() {
        return Err("no port specified: it is written [[ip:]host-port:]container-port".into());
    }
    let (first, last) = range(container).ok_or(format!("invalid containerPort: {container}"))?;
    let (host_first, host_last) = match host {
        "" => (0, 0),
        host => range(host).ok_or(format!("invalid hostPort: {host}"))?,
    };
    if last == 0 || first == 0 {
        return Err(format!("invalid containerPort: {container}"));
    }
    // A range of the host's for one port of the container's: any of them that is free will do.
    if host_first != 0 && host_last - host_first != last - first && first != last {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    let mapping = |n: u16| PortMapping {
        host_ip: ip.to_owned(),
        host_port: if host_first == 0 { 0 } else { u32::from(host_first) + u32::from(n) },
        container_port: u32::from(first) + u32::from(n),
        protocol: protocol.to_owned(),
        host_port_last: if first == last && host_first != host_last { host_last.into() } else { 0 },
    };
    Ok((0..=last - first).map(mapping).collect())
}

/// The ports that one `--expose` means, as `80/tcp`.
///
/// # Errors
/// It is none.
pub(crate) fn expose(text: &str) -> Result<Vec<(u16, String)>, String> {
    let (ports, protocol) = split_protocol(text)?;
    let (first, last) =
        range(ports).filter(|(first, _)| *first > 0).ok_or(format!("invalid range format for --expose: {text}"))?;
    Ok((first..=last).map(|port| (port, protocol.to_owned())).collect())
}

fn split_protocol(text: &str) -> Result<(&str, &str), String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol {
        "tcp" | "udp" | "sctp" => Ok((rest, protocol)),
        "TCP" => Ok((rest, "tcp")),
        "UDP" => Ok((rest, "udp")),
        "SCTP" => Ok((rest, "sctp")),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (digits(first)?, digits(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let show = |m: PortMapping| format!("{}:{}:{}/{}", m.host_ip, m.host_port, m.container_port, m.protocol);
        publish(text).map(|all| all.into_iter().map(show).collect())
    }

    #[test]
    fn all_forms() {
        for (text, mappings) in [
            ("80", &[":0:80/tcp"][..]),
            ("8080:80", &[":8080:80/tcp"]),
            ("127.0.0.1::80", &["127.0.0.1:0:80/tcp"]),
            ("127.0.0.1:8080:80/udp", &["127.0.0.1:8080:80/udp"]),
            ("[::1]:53:53/UDP", &["::1:53:53/udp"]),
            ("::1:53:53", &["::1:53:53/tcp"]),
            ("8000-8001:80-81", &[":8000:80/tcp", ":8001:81/tcp"]),
            ("80-81", &[":0:80/tcp", ":0:81/tcp"]),
            ("8000-8009:80", &[":8000:80/tcp"]),
            ("published=8080,target=80,protocol=udp", &[":8080:80/udp"]),
        ] {
            assert_eq!(read(text).unwrap(), mappings, "{text}");
        }
    }

    #[test]
    fn a_range_for_one_port_is_left_to_the_node() {
        let of = |text| publish(text).unwrap().into_iter().map(|m| (m.host_port, m.host_port_last)).collect::<Vec<_>>();
        assert_eq!(of("8000-8009:80"), [(8000, 8009)]);
        assert_eq!(of("8000-8001:80-81"), [(8000, 0), (8001, 0)]);
        assert_eq!(of("8000:80"), [(8000, 0)]);
    }

    #[test]
    fn errors_are_dockers() {
        for (text, why) in [
            ("70000:1", "invalid hostPort: 70000"),
            ("1:70000", "invalid containerPort: 70000"),
            ("1:0", "invalid containerPort: 0"),
            ("80/icmp", "invalid proto: icmp"),
            ("x:1:2", "invalid IP address: x"),
            ("8000-8002:80-81", "invalid ranges"),
            ("", "no port specified"),
            ("8080:", "no port specified"),
            ("9-8:1", "invalid hostPort: 9-8"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(expose("80-81/udp").unwrap(), [(80, "udp".to_owned()), (81, "udp".to_owned())]);
        assert!(expose("0").is_err() && expose("a").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9a-f:./\\[\\]=,-]{0,24}") {
            let _ = publish(&text);
            let _ = expose(&text);
        }
    }
}
