//! How fast stored content is served, beside Debian's docker-registry: one blob read by many clients at once, and small
//! manifests by digest, in turns, so that a noisy machine is noisy for both. Ratios count.
//!
//! `cargo run --release -p berth-registry-proxy --example throughput`

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use berth_core::{Digest, config::Node, connect};
use berth_proto::berth::registry::v1::{StatusRequest, registry_client::RegistryClient};

const CLIENTS: usize = 32;
const BLOB: usize = 100 << 20;
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const MIRROR: &str = "BERTH_BENCH_MIRROR";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A server, and the processor time that it used.
struct Server {
    name: &'static str,
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Processor time in seconds.
    fn used(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        (ticks(11) + ticks(12)) / 100.0
    }

    fn memory(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    if let Some(file) = std::env::var_os(MIRROR) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        return Ok(runtime.block_on(berth_registry_proxy::run(Node::load(Some(Path::new(&file)))?))?);
    }
    let directory = tempfile::tempdir()?;
    let registry = registry(directory.path())?;
    let (blob, manifest) = fill(&registry.address)?;
    let mirror = mirror(directory.path(), &registry.address)?;
    let servers = [registry, mirror];
    for server in &servers {
        // Into the mirror, and into both page caches.
        get(&mut TcpStream::connect(&server.address)?, &server.address, &blob)?;
    }
    let mut results: HashMap<(usize, &str), Vec<(f64, f64)>> = HashMap::new();
    for _ in 0..ROUNDS {
        for (what, path) in [("blob", &blob), ("manifest", &manifest)] {
            for (at, server) in servers.iter().enumerate() {
                results.entry((at, what)).or_default().push(round(server, path)?);
            }
        }
    }
    for (at, server) in servers.iter().enumerate() {
        let median = |what: &str| {
            let mut all = results[&(at, what)].clone();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            all[all.len() / 2]
        };
        let ((blobs, blob_cpu), (manifests, manifest_cpu)) = (median("blob"), median("manifest"));
        let gigabytes = blobs * BLOB as f64 / 1e9;
        println!(
            "{:16} blobs {gigabytes:5.2} GB/s ({:.2} CPU-s/GB)   manifests {manifests:7.0}/s ({:.0} CPU-us each)   PSS {:.1} MiB",
            server.name,
            blob_cpu / (BLOB as f64 / 1e9),
            manifest_cpu * 1e6,
            server.memory()
        );
    }
    Ok(())
}

/// Requests a second, and the server's processor time for each.
fn round(server: &Server, path: &str) -> Result<(f64, f64)> {
    let (begin, used) = (Instant::now(), server.used());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, path) = (server.address.clone(), path.to_owned());
            std::thread::spawn(move || -> Result<usize> {
                let mut stream = TcpStream::connect(&address)?;
                stream.set_nodelay(true)?;
                let mut count = 0;
                while begin.elapsed() < ROUND {
                    get(&mut stream, &address, &path)?;
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let mut count = 0;
    for client in clients {
        count += client.join().map_err(|_| "a client broke off")??;
    }
    Ok((count as f64 / begin.elapsed().as_secs_f64(), (server.used() - used) / count as f64))
}

/// One request on a kept connection; the body is read and dropped.
fn get(stream: &mut TcpStream, host: &str, path: &str) -> Result<()> {
    write!(stream, "GET /v2/{path} HTTP/1.1\r\nHost: {host}\r\nAccept: {MANIFEST}\r\n\r\n")?;
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0;
    let head = loop {
        let read = stream.read(&mut buffer[got..])?;
        got += read;
        if let Some(end) = buffer[..got].windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if read == 0 {
            return Err("the server closed the connection".into());
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(format!("{path}: {text}").into());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
    let mut left = length.trim().parse::<usize>()? - (got - head);
    while left > 0 {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err("the body is short".into());
        }
        left -= read;
    }
    Ok(())
}

fn registry(directory: &Path) -> Result<Server> {
    let config = directory.join("registry.yml");
    let storage = directory.join("storage");
    let text = format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {storage:?}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n"
    );
    fs::write(&config, text)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no log")?).lines().map_while(std::result::Result::ok);
    let line = lines.by_ref().find(|line| line.contains("listening on ")).ok_or("docker-registry does not start")?;
    let address = line.split("listening on ").nth(1).and_then(|rest| rest.split(['"', ' ']).next()).unwrap_or_default();
    std::thread::spawn(move || lines.for_each(drop));
    Ok(Server { name: "docker-registry", child, address: address.into() })
}

/// Pushes a large blob and a manifest; their paths.
fn fill(address: &str) -> Result<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build()?;
        let base = format!("http://{address}/v2/bench/a");
        let mut state = 1u64;
        let content: Vec<u8> = (0..BLOB / 8)
            .flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_le_bytes()
            })
            .collect();
        let mut digests = Vec::new();
        for content in [content, b"{}".to_vec()] {
            let digest = Digest::sha256(&content);
            let started = http.post(format!("{base}/blobs/uploads/")).send().await?.error_for_status()?;
            let location = started.headers()["location"].to_str()?.to_owned();
            let url = format!("{location}&digest={digest}");
            http.put(url).body(content).send().await?.error_for_status()?;
            digests.push(digest);
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digests[1], "size": 2 },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digests[0], "size": BLOB,
            }],
        })
        .to_string();
        let digest = Digest::sha256(manifest.as_bytes());
        let put = http.put(format!("{base}/manifests/1")).header("content-type", MANIFEST).body(manifest);
        put.send().await?.error_for_status()?;
        Ok((format!("bench/a/blobs/{}", digests[0]), format!("bench/a/manifests/{digest}")))
    })
}

fn mirror(directory: &Path, upstream: &str) -> Result<Server> {
    let text = format!(
        "root = {:?}\nstate = {:?}\n[registry-proxy]\nlisten = '127.0.0.1:0'\n\
         [registry-proxy.upstream.'docker.io']\nurl = 'http://{upstream}'\n",
        directory.join("root"),
        directory.join("state")
    );
    let file = directory.join("config.toml");
    fs::write(&file, text)?;
    let ready = directory.join("ready");
    let notified = std::os::unix::net::UnixDatagram::bind(&ready)?;
    notified.set_read_timeout(Some(Duration::from_secs(10)))?;
    let child = Command::new(std::env::current_exe()?).env(MIRROR, &file).env("NOTIFY_SOCKET", &ready).spawn()?;
    notified.recv(&mut [0; 64])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = directory.join("state/registry.sock");
    let address = runtime.block_on(async {
        let mut client = RegistryClient::new(connect::lazy(&socket));
        client.status(StatusRequest {}).await.map(|answer| answer.into_inner().address)
    })?;
    Ok(Server { name: "berth", child, address })
}
