//! How fast layers are laid down, beside GNU tar unpacking the same blobs on the same disk, two at a time, in turns:
//! `unpack DIRECTORY ROUNDS BLOB...`. Blobs are gzip. Trees stay where they are until the end, because a file system that
//! has just deleted many files is slow to make new ones.

use std::{
    error::Error,
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use berth_core::{config::Node, connect, digest::Algorithm};
use berth_proto::{
    berth::snapshotter::v1::{
        ApplyFinish, ApplyRequest, ApplyStart, ComposeRequest, apply_request::Message, layers_client::LayersClient,
    },
    containerd::services::snapshots::v1::{PrepareSnapshotRequest, snapshots_client::SnapshotsClient},
};

struct Blob {
    path: PathBuf,
    diff_id: String,
    bytes: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rounds, blobs @ ..] = arguments.as_slice() else {
        return Err("usage: unpack DIRECTORY ROUNDS BLOB...".into());
    };
    let directory = Path::new(directory);
    let blobs: Vec<Blob> = blobs.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let megabytes = blobs.iter().map(|blob| blob.bytes).sum::<u64>() as f64 / 1e6;
    let mut ratios = Vec::new();
    for round in 0..rounds.parse::<u32>()? {
        let home = directory.join(format!("round-{round}"));
        let (ours, theirs) = if round % 2 == 0 {
            let ours = berth(&home, &blobs).await?;
            (ours, tar(&home, &blobs)?)
        } else {
            let theirs = tar(&home, &blobs)?;
            (berth(&home, &blobs).await?, theirs)
        };
        let speed = |time: Duration| megabytes / time.as_secs_f64();
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("berth {:6.0} MB/s   tar {:6.0} MB/s   time {ratio:.2} of tar's", speed(ours), speed(theirs));
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median {:.2}", ratios[ratios.len() / 2]);
    prepare(directory, &blobs).await
}

fn read(path: &str) -> Result<Blob, Box<dyn Error>> {
    let mut tar = flate2::read::MultiGzDecoder::new(File::open(path)?);
    let (mut hasher, mut bytes, mut buffer) = (Algorithm::Sha256.hasher(), 0, vec![0; 1 << 20]);
    loop {
        match tar.read(&mut buffer)? {
            0 => break,
            size => {
                hasher.update(&buffer[..size]);
                bytes += size as u64;
            }
        }
    }
    Ok(Blob { path: std::path::absolute(path)?, diff_id: hasher.finish().to_string(), bytes })
}

fn start(home: &Path) -> Result<connect::Channel, Box<dyn Error>> {
    let mut node = Node::default();
    (node.root, node.state) = (std::path::absolute(home)?.join("root"), std::path::absolute(home)?.join("state"));
    let socket = node.socket(berth_snapshotter::NAME);
    tokio::spawn(async {
        if let Err(error) = berth_snapshotter::run(node).await {
            eprintln!("{error}");
            std::process::exit(1);
        }
    });
    Ok(connect::lazy(&socket))
}

/// The service may not have its socket yet.
async fn ready(layers: &mut LayersClient<connect::Channel>) {
    while layers.stat(berth_proto::berth::snapshotter::v1::StatRequest::default()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

async fn berth(home: &Path, blobs: &[Blob]) -> Result<Duration, Box<dyn Error>> {
    let mut layers = LayersClient::new(start(home)?);
    ready(&mut layers).await;
    let started = Instant::now();
    for pair in blobs.chunks(2) {
        let applied = pair.iter().map(|blob| {
            let mut layers = layers.clone();
            let start = ApplyStart {
                diff_id: blob.diff_id.clone(),
                path: blob.path.display().to_string(),
                ..ApplyStart::default()
            };
            let messages = [Message::Start(start), Message::Finish(ApplyFinish {})];
            let messages = messages.map(|message| ApplyRequest { message: Some(message) });
            async move {
                let mut answers = layers.apply(futures::stream::iter(messages)).await?.into_inner();
                while answers.message().await?.is_some() {}
                Ok::<_, tonic::Status>(())
            }
        });
        futures::future::try_join_all(applied).await?;
    }
    Ok(started.elapsed())
}

fn tar(home: &Path, blobs: &[Blob]) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    for (pair, blobs) in blobs.chunks(2).enumerate() {
        let mut running = Vec::new();
        for (n, blob) in blobs.iter().enumerate() {
            let target = home.join(format!("tar-{pair}-{n}"));
            std::fs::create_dir_all(&target)?;
            let arguments = ["--extract", "--gzip", "--numeric-owner", "--same-permissions", "--file"];
            running.push(Command::new("tar").args(arguments).arg(&blob.path).arg("--directory").arg(target).spawn()?);
        }
        for mut tar in running {
            tar.wait()?;
        }
    }
    Ok(started.elapsed())
}

/// How long it takes to make what a container writes to, one call after the other.
async fn prepare(directory: &Path, blobs: &[Blob]) -> Result<(), Box<dyn Error>> {
    let home = directory.join("prepare");
    let channel = start(&home)?;
    let mut layers = LayersClient::new(channel.clone());
    ready(&mut layers).await;
    berth_one(&mut layers, &blobs[0]).await?;
    let request = ComposeRequest { diff_ids: vec![blobs[0].diff_id.clone()], ..Default::default() };
    let started = Instant::now();
    let parent = layers.compose(request).await?.into_inner().chain_ids.remove(0);
    println!("compose {:?}", started.elapsed());
    let mut snapshots = SnapshotsClient::new(channel);
    let mut times = Vec::new();
    for n in 0..200 {
        let request =
            PrepareSnapshotRequest { key: n.to_string(), parent: parent.clone(), ..PrepareSnapshotRequest::default() };
        let started = Instant::now();
        snapshots.prepare(request).await?;
        times.push(started.elapsed());
    }
    times.sort();
    println!("prepare median {:?}, of a hundred the slowest {:?}", times[100], times[198]);
    Ok(std::io::stdout().flush()?)
}

async fn berth_one(layers: &mut LayersClient<connect::Channel>, blob: &Blob) -> Result<(), Box<dyn Error>> {
    let start =
        ApplyStart { diff_id: blob.diff_id.clone(), path: blob.path.display().to_string(), ..ApplyStart::default() };
    let messages = [Message::Start(start), Message::Finish(ApplyFinish {})];
    let messages = messages.map(|message| ApplyRequest { message: Some(message) });
    let mut answers = layers.apply(futures::stream::iter(messages)).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}
