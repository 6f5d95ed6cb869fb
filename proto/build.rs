//! Compiles every .proto file below this directory with a compiler written in Rust, so that no `protoc` is needed.

const FILES: &[&str] = &[
    "berth/image/v1/image.proto",
    "berth/registry/v1/registry.proto",
    "berth/runtime/v1/runtime.proto",
    "berth/snapshotter/v1/snapshotter.proto",
    "containerd/services/snapshots/v1/snapshots.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-changed=containerd/types/mount.proto");
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
