//! A cold pull of the `big` image, beside `tar` unpacking the same layers two at a time. Every round has fresh
//! directories and deletes nothing before the end: ext4 creates files slowly for a while after a large delete.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use berth_tests::{Node, Setup, netns::Netns, run};

use crate::{engine, measure::median};

const ROUNDS: usize = 3;

/// Prints the times of pulling `layout`, which the registry in `netns` has as library/big.
pub(crate) fn report(layout: &Path, netns: &Netns) -> anyhow::Result<()> {
    let layers = layers(layout)?;
    let (mut berth, mut tar, mut docker) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kept, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir()?;
        tar.push(untar(&layers, directory.path())?);
        kept.push(directory);
        let node = Node::within(Setup::default(), netns.clone());
        let started = Instant::now();
        node.berth(&["pull", "-q", "127.0.0.1:5000/library/big:latest"]).ok();
        berth.push(started.elapsed().as_secs_f64());
        node.shut_down();
        nodes.push(node);
    }
    if Path::new("/usr/sbin/dockerd").exists() {
        let engine = engine::docker(netns)?;
        let started = Instant::now();
        engine.ask(&["pull", "-q", "127.0.0.1:5000/library/big:latest"])?;
        docker.push(started.elapsed().as_secs_f64());
    }
    let (berth, tar) = (median(berth), median(tar));
    println!("\ncold pull of big ({} layers), overlay2", layers.len());
    println!("  tar, two at a time   {tar:>7.2} s");
    println!("  berth                {berth:>7.2} s   {:.2} × tar (target 1.3)", berth / tar);
    if let Some(docker) = docker.first() {
        println!("  Docker (one round)   {docker:>7.2} s   {:.1} × berth", docker / berth);
    }
    Ok(())
}

/// The compressed layers of a layout's image, lowest first.
fn layers(layout: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let json = |path: PathBuf| -> anyhow::Result<serde_json::Value> {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let blob = |digest: &serde_json::Value| {
        let digest = digest.as_str().unwrap_or_default();
        layout.join("blobs").join(digest.replace(':', "/"))
    };
    let index = json(layout.join("index.json"))?;
    let manifest = json(blob(&index["manifests"][0]["digest"]))?;
    Ok(manifest["layers"].as_array().into_iter().flatten().map(|layer| blob(&layer["digest"])).collect())
}

fn untar(layers: &[PathBuf], target: &Path) -> anyhow::Result<f64> {
    let started = Instant::now();
    for pair in layers.chunks(2) {
        thread::scope(|scope| -> anyhow::Result<()> {
            let threads: Vec<_> = pair
                .iter()
                .map(|layer| {
                    scope.spawn(move || -> anyhow::Result<()> {
                        let directory = target.join(layer.file_name().unwrap_or_default());
                        fs::create_dir(&directory)?;
                        let mut tar = Command::new("tar");
                        tar.arg("-xzf").arg(layer).arg("-C").arg(&directory).stdin(Stdio::null());
                        let finished = run(&mut tar, b"");
                        // umoci writes no padding behind the last file; GNU tar unpacks all of it and then complains.
                        let unpadded = finished.code == 2 && finished.error().contains("Unexpected EOF in archive");
                        ensure!(finished.code == 0 || unpadded, "tar failed: {}", finished.error());
                        Ok(())
                    })
                })
                .collect();
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("tar's thread panicked"))??;
            }
            Ok(())
        })?;
    }
    Ok(started.elapsed().as_secs_f64())
}
