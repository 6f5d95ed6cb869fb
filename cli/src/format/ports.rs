//! Ports as `ps` shows them: `0.0.0.0:8080->80/tcp`, ranges where they follow one another.

use berth_proto::berth::runtime::v1::PortMapping;

/// What one mapping is joined with the next by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    protocol: String,
    ip: String,
    container: (u32, u32),
    host: (u32, u32),
}

/// Published and exposed ports in one line.
pub(crate) fn shown(ports: &[PortMapping], exposed: &[String]) -> String {
    let mut ranges: Vec<Range> = Vec::new();
    let published = ports.iter().map(|mapping| Range {
        ip: address(&mapping.host_ip).to_owned(),
        protocol: protocol(mapping).to_owned(),
        container: (mapping.container_port, mapping.container_port),
        host: (mapping.host_port, mapping.host_port),
    });
    let only_exposed = exposed.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port: u32 = port.parse().ok()?;
        let published =
            ports.iter().any(|mapping| mapping.container_port == port && self::protocol(mapping) == protocol);
        let range = Range { ip: String::new(), protocol: protocol.into(), container: (port, port), host: (0, 0) };
        (!published).then_some(range)
    });
    let mut all: Vec<_> = published.chain(only_exposed).collect();
    all.sort();
    for next in all {
        match ranges.last_mut() {
            Some(last) if follows(last, &next) => {
                last.container.1 = next.container.1;
                last.host.1 = next.host.1;
            }
            _ => ranges.push(next),
        }
    }
    ranges.sort_by(|a, b| (a.container, &a.protocol, &a.ip).cmp(&(b.container, &b.protocol, &b.ip)));
    ranges.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn follows(last: &Range, next: &Range) -> bool {
    let host = if last.ip.is_empty() { next.host.0 == 0 } else { next.host.0 == last.host.1 + 1 };
    last.ip == next.ip && last.protocol == next.protocol && next.container.0 == last.container.1 + 1 && host
}

fn show(range: &Range) -> String {
    let ports = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let container = format!("{}/{}", ports(range.container), range.protocol);
    match range.ip.as_str() {
        "" => container,
        ip if ip.contains(':') => format!("[{ip}]:{}->{container}", ports(range.host)),
        ip => format!("{ip}:{}->{container}", ports(range.host)),
    }
}

/// The address a mapping binds, spelled out.
pub(crate) fn address(ip: &str) -> &str {
    if ip.is_empty() { "0.0.0.0" } else { ip }
}

/// A mapping's protocol, spelled out.
pub(crate) fn protocol(mapping: &PortMapping) -> &str {
    if mapping.protocol.is_empty() { "tcp" } else { &mapping.protocol }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(ip: &str, host: u32, container: u32) -> PortMapping {
        PortMapping {
            host_ip: ip.into(),
            host_port: host,
            container_port: container,
            protocol: "tcp".into(),
            ..PortMapping::default()
        }
    }

    #[test]
    fn as_docker_shows_them() {
        let exposed = ["80/tcp".to_owned(), "53/udp".to_owned()];
        let ports = [mapping("", 8080, 80), mapping("127.0.0.1", 9000, 80)];
        assert_eq!(shown(&ports, &exposed), "53/udp, 0.0.0.0:8080->80/tcp, 127.0.0.1:9000->80/tcp");
        let range = [mapping("", 8001, 81), mapping("", 8000, 80), mapping("", 7000, 82)];
        assert_eq!(shown(&range, &[]), "0.0.0.0:8000-8001->80-81/tcp, 0.0.0.0:7000->82/tcp");
        assert_eq!(shown(&[mapping("::1", 1, 2)], &[]), "[::1]:1->2/tcp");
        assert_eq!(shown(&[], &["80/tcp".into(), "81/tcp".into()]), "80-81/tcp");
    }
}
