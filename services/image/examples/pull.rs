//! How fast a cold pull is, before a real docker-registry on the loopback, and what it costs: `cargo run --release
//! --example pull -p berth-image [MEGABYTES]`. Also how long `Get` takes, which every `run` waits for.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use berth_core::{Digest, config::Node, connect};
use berth_proto::berth::image::v1::{
    GetRequest, PullRequest, RemoveRequest, images_client::ImagesClient, pull_progress::Message,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const LAYERS: usize = 6;

/// A process that ends with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Seconds of processor time: in user space, in the kernel.
    fn cpu(&self) -> Result<(f64, f64)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        Ok((fields[11].parse::<f64>()? / 100.0, fields[12].parse::<f64>()? / 100.0))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, part, file] = arguments.as_slice() {
        let node = Node::load(Some(Path::new(file)))?;
        return match part.as_str() {
            "image" => Ok(berth_image::run(node).await?),
            _ => Ok(berth_snapshotter::run(node).await?),
        };
    }
    let megabytes = arguments.get(1).map_or(Ok(400), |text| text.parse::<usize>())?;
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    let (registry, address) = registry(at)?;
    let bytes = push(&at.join("layout"), &address, megabytes)?;
    let file = at.join("config.toml");
    fs::write(&file, format!("root = {:?}\nstate = {:?}\n", at.join("root"), at.join("state")))?;
    let service = |part: &str| Command::new(&arguments[0]).arg(part).arg(&file).spawn().map(Running);
    let (snapshotter, image) = (service("snapshotter")?, service("image")?);
    let reference = format!("{address}/bench:1");
    let mut client = ImagesClient::new(connect::lazy(&at.join("state/image.sock")));
    while client.get(GetRequest::default()).await.is_err_and(|status| status.code() == tonic::Code::Unavailable) {
        tokio::task::yield_now().await;
    }
    for round in 1..=3 {
        let parts = [("registry", &registry), ("image", &image), ("snapshotter", &snapshotter)];
        let before: Vec<_> = parts.iter().map(|(_, part)| part.cpu()).collect::<Result<_>>()?;
        let begun = Instant::now();
        let request = PullRequest { reference: reference.clone(), ..Default::default() };
        let mut stream = client.pull(request).await?.into_inner();
        let mut notices = 0;
        while let Some(progress) = stream.message().await? {
            notices += usize::from(matches!(progress.message, Some(Message::Notice(_))));
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "pull {round}: {seconds:.2} s, {:.0} MB/s compressed, {notices} notices",
            bytes as f64 / 1e6 / seconds
        );
        for ((name, part), before) in parts.iter().zip(before) {
            let now = part.cpu()?;
            println!("  {name}: {:.2} s in user space, {:.2} s in the kernel", now.0 - before.0, now.1 - before.1);
        }
        if round < 3 {
            client.remove(RemoveRequest { reference: reference.clone(), ..Default::default() }).await?;
        }
    }
    let mut times = Vec::new();
    for _ in 0..2000 {
        let begun = Instant::now();
        client.get(GetRequest { reference: reference.clone(), ..Default::default() }).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| -> Duration { times[times.len() * share / 100] };
    println!("Get: median {:?}, 99th percentile {:?}", at(50), at(99));
    Ok(())
}

/// docker-registry on a free port, which its log names.
fn registry(directory: &Path) -> Result<(Running, String)> {
    let config = directory.join("config.yml");
    let storage = directory.join("storage");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {storage:?}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n"
        ),
    )?;
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let log = child.stderr.take().ok_or("its log is piped")?;
    let running = Running(child);
    let mut lines = BufReader::new(log).lines();
    for line in lines.by_ref() {
        let line = line?;
        if let Some(rest) = line.split("listening on ").nth(1) {
            let address = rest.split(['"', ' ']).next().unwrap_or_default().to_owned();
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((running, address));
        }
    }
    Err("docker-registry ended at its start".into())
}

/// Makes an image of so many compressed megabytes, about twice as many unpacked, and pushes it; its compressed bytes.
fn push(layout: &Path, address: &str, megabytes: usize) -> Result<usize> {
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let put = |bytes: &[u8]| -> Result<serde_json::Value> {
        let digest = Digest::sha256(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes)?;
        Ok(serde_json::json!({ "digest": digest, "size": bytes.len() }))
    };
    let typed = |mut descriptor: serde_json::Value, media_type: &str| {
        descriptor["mediaType"] = media_type.into();
        descriptor
    };
    let (mut layers, mut diff_ids, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for layer in 0..LAYERS {
        let mut tar = tar::Builder::new(Vec::new());
        // Files of 32 KiB on average, half of each random.
        for file in 0..megabytes * 1_000_000 * 2 / LAYERS / 32_768 {
            let mut content = Vec::with_capacity(65_536);
            let length = 4096 + (file * 7919) % 57_344;
            while content.len() < length {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                content.extend_from_slice(&state.to_le_bytes());
                content.extend_from_slice(b"text and");
            }
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("layer{layer}/{}/{file}", file / 64), &*content)?;
        }
        let tar = tar.into_inner()?;
        diff_ids.push(Digest::sha256(&tar));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar)?;
        let blob = encoder.finish()?;
        bytes += blob.len();
        layers.push(typed(put(&blob)?, "application/vnd.oci.image.layer.v1.tar+gzip"));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = typed(put(config.to_string().as_bytes())?, "application/vnd.oci.image.config.v1+json");
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let document = serde_json::json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": layers });
    let mut entry = typed(put(document.to_string().as_bytes())?, manifest);
    entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "latest" });
    fs::write(layout.join("index.json"), serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let done = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
        .args([format!("oci:{}:latest", layout.display()), format!("docker://{address}/bench:1")])
        .status()?;
    fs::remove_dir_all(layout)?;
    if done.success() { Ok(bytes) } else { Err("skopeo could not push".into()) }
}
