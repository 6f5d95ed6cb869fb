//! The name server in the container's network namespace.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use berth_core::bundle::{Host, NAMES, NAMES_CAME, Names, Upstream, Zone, write};
use containerd_shim_protos::{api::UpdateTaskRequest, ttrpc::Code};

use super::client::{Node, limit, refused};

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
/// Response codes.
const FINE: u8 = 0;
const MALFORMED: u8 = 1;
const FAILURE: u8 = 2;
const NOBODY: u8 = 3;

/// A container that ends when its input does, and whose network namespace is its own.
fn waiting() -> Node {
    let mut node = Node::script("cat; exit 3");
    node.options.open_stdin = true;
    node.options.stdin_once = true;
    node
}

fn host(name: &str, aliases: &[&str], addresses: &[&str]) -> Host {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Host { name: name.into(), aliases: aliases.iter().map(|&alias| alias.into()).collect(), addresses }
}

fn put(node: &Node, hosts: Vec<Host>, upstreams: Vec<Upstream>, forward: bool) {
    write(node.bundle.path(), "zone", &Zone { name: "net".into(), hosts }).unwrap();
    let names = Names { zones: vec![node.path("zone")], upstreams, forward, ..Names::default() };
    write(node.bundle.path(), NAMES, &names).unwrap();
}

/// Does something in the container's network namespace.
fn inside<T: Send>(pid: u32, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// Code, number of answers and the last answer's bytes.
type Answer = (u8, u16, Vec<u8>);

fn read(query: &[u8], answer: &[u8]) -> Answer {
    assert_eq!(answer[..2], query[..2]);
    assert!(answer[2] & 0x80 != 0, "it is an answer");
    (answer[3] & 15, u16::from_be_bytes([answer[6], answer[7]]), answer[query.len().min(answer.len())..].to_vec())
}

fn by_datagram(query: &[u8]) -> Answer {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    socket.send(query).unwrap();
    let mut answer = [0; 65535];
    let length = socket.recv(&mut answer).unwrap();
    read(query, &answer[..length])
}

fn by_stream(stream: &mut TcpStream, query: &[u8]) -> Answer {
    stream.write_all(&(query.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(query).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    read(query, &answer)
}

fn ask(pid: u32, name: &str, kind: u16) -> Answer {
    inside(pid, || by_datagram(&query(name, kind)))
}

/// A name server that answers whatever it is asked with a code and, where that is none, an address.
fn upstream(from_host: bool, code: u8, address: Ipv4Addr) -> Upstream {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = socket.local_addr().unwrap();
    let listener = TcpListener::bind(own).unwrap();
    let answer = move |query: &[u8]| {
        let mut answer = query.to_vec();
        (answer[2], answer[3]) = (0x81, 0x80 | code);
        if code == FINE {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            answer.extend(address.octets());
        }
        answer
    };
    std::thread::spawn(move || {
        let mut query = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            // Somebody else's answer comes first.
            let mut false_one = answer(&query[..length]);
            false_one[0] ^= 0xff;
            socket.send_to(&false_one, from).unwrap();
            let mut answer = answer(&query[..length]);
            if query[..length].windows(4).any(|bytes| bytes == b"long") {
                answer[2] |= 2;
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).unwrap();
            let answer = answer(&query);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    Upstream { address: own, from_host }
}

#[test]
fn names_and_aliases_in_both_families_and_back() {
    let mut node = waiting();
    let hosts = vec![host("Web", &["www", "shared"], &["10.0.0.2", "fd00::2"]), host("db", &["shared"], &["10.0.0.3"])];
    node.serve();
    put(&node, hosts, vec![], true);
    let pid = node.create().unwrap().pid;
    let mut client = node.attach("", true).attached();
    node.start("").unwrap();
    for name in ["web", "WEB", "www", "web.net", "www.NET"] {
        let (code, count, data) = ask(pid, name, A);
        assert!(code == FINE && count == 1 && data.ends_with(&[10, 0, 0, 2]), "{name}");
    }
    let (code, count, data) = ask(pid, "web", AAAA);
    assert!(code == FINE && count == 1 && data.ends_with(&[0, 0, 2]));
    assert_eq!(ask(pid, "db", AAAA).1, 0, "it has none");
    assert_eq!(ask(pid, "shared", A).1, 2);
    assert!(ask(pid, "2.0.0.10.in-addr.arpa", PTR).2.ends_with(b"\x03Web\x03net\0"));
    assert_eq!(ask(pid, "elsewhere.example", A).0, FAILURE, "there is nobody to ask");
    // Nonsense is answered or passed over, and harms nobody.
    let (code, ..) = inside(pid, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let whole = query("web", A);
        for length in 0..whole.len() {
            socket.send_to(&whole[..length], "127.0.0.11:53").unwrap();
        }
        socket.send_to(&[0xff; 5000], "127.0.0.11:53").unwrap();
        by_datagram(&whole[..14])
    });
    assert_eq!(code, MALFORMED);
    inside(pid, || {
        let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
        for _ in 0..2 {
            assert_eq!(by_stream(&mut stream, &query("db", A)).2[12..], [10, 0, 0, 3]);
        }
        let mut broken = TcpStream::connect("127.0.0.11:53").unwrap();
        broken.write_all(&[0xff, 0xff, 1]).unwrap();
    });
    // A rename is all it takes.
    put(&node, vec![host("new", &[], &["10.0.0.4"])], vec![], true);
    assert_eq!(ask(pid, "new", A).1, 1);
    assert_eq!(ask(pid, "web", A).0, FAILURE);
    client.send(berth_core::stream::Kind::CloseStdin, b"");
    assert_eq!(node.wait("").exit_status, 3);
    for fd in fs::read_dir(format!("/proc/{}/fd", node.shim_pid())).unwrap() {
        let link = fs::read_link(fd.unwrap().path()).unwrap_or_default();
        assert!(!link.to_string_lossy().starts_with("net:"), "the shim holds the namespace");
    }
    let (code, ended) = node.finish();
    assert_eq!((code, ended.shim_log.as_str()), (3, ""));
}

#[test]
fn other_names_are_asked_for_outside() {
    let mut node = waiting();
    node.serve();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = (Upstream { address: silent.local_addr().unwrap(), from_host: true }, silent);
    let gone: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let good = upstream(true, FINE, Ipv4Addr::new(1, 2, 3, 4));
    let upstreams = vec![silent.0.clone(), Upstream { address: gone, from_host: true }, good.clone()];
    put(&node, vec![host("web", &[], &["10.0.0.2"])], upstreams.clone(), true);
    let pid = node.create().unwrap().pid;
    let client = node.attach("", true).attached();
    node.start("").unwrap();
    for _ in 0..20 {
        let (code, count, data) = ask(pid, "elsewhere.example", A);
        assert!(code == FINE && count == 1 && data.ends_with(&[1, 2, 3, 4]));
    }
    // What does not fit is asked for again by a stream.
    let long = query("long.example", A);
    let cut = inside(pid, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&long, "127.0.0.11:53").unwrap();
        let mut answer = [0; 512];
        socket.recv(&mut answer).unwrap();
        let whole = by_stream(&mut TcpStream::connect("127.0.0.11:53").unwrap(), &long);
        assert!(whole.2.ends_with(&[1, 2, 3, 4]));
        answer[2] & 2
    });
    assert_eq!(cut, 2);
    // A server's own trouble is no answer where another knows better; that there is no such name is one.
    let bad = upstream(true, FAILURE, Ipv4Addr::UNSPECIFIED);
    put(&node, vec![], vec![bad.clone(), good.clone()], true);
    assert_eq!(ask(pid, "elsewhere.example", A).1, 1);
    put(&node, vec![], vec![bad], true);
    assert_eq!(ask(pid, "elsewhere.example", A).0, FAILURE);
    put(&node, vec![], vec![upstream(true, NOBODY, Ipv4Addr::UNSPECIFIED), good.clone()], true);
    assert_eq!(ask(pid, "elsewhere.example", A).0, NOBODY);
    // Nothing leaves the host where it must not.
    put(&node, vec![], vec![good], false);
    assert_eq!(ask(pid, "elsewhere.example", A).0, FAILURE);
    let within = inside(pid, || upstream(false, FINE, Ipv4Addr::new(5, 6, 7, 8)));
    put(&node, vec![], vec![within], false);
    assert!(ask(pid, "elsewhere.example", A).2.ends_with(&[5, 6, 7, 8]));
    drop(client);
    assert_eq!(node.finish().0, 3);
}

#[test]
fn names_that_come_later() {
    let mut node = waiting();
    node.serve();
    let update = || {
        let mut request = UpdateTaskRequest { id: node.bundle.id.clone(), ..Default::default() };
        request.annotations.insert(NAMES_CAME.into(), String::new());
        node.task().update(limit(), &request)
    };
    let pid = node.create().unwrap().pid;
    node.start("").unwrap();
    update().unwrap();
    inside(pid, || TcpStream::connect("127.0.0.11:53").unwrap_err());
    put(&node, vec![host("web", &[], &["10.0.0.2"])], vec![], true);
    // Another program listens there.
    let taken = inside(pid, || UdpSocket::bind("0.0.0.0:53").unwrap());
    refused(update(), Code::INTERNAL, "127.0.0.11:53");
    drop(taken);
    for _ in 0..2 {
        update().unwrap();
        assert_eq!(ask(pid, "web", A).1, 1);
    }
    node.kill("", 9).unwrap();
    assert_eq!(node.finish().0, 137);
}
