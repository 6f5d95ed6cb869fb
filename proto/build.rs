//! Compiles every .proto file below this directory with a compiler written in Rust, so that no `protoc` is needed.

const FILES: &[&str] = &[
    "berth/image/v1/image.proto",
    "berth/registry/v1/registry.proto",
    "berth/runtime/v1/runtime.proto",
    "berth/snapshotter/v1/snapshotter.proto",
    "containerd/services/snapshots/v1/snapshots.proto",
];

/// What a container is made from and where it is attached: the runtime service keeps these in its records, as JSON that
/// an older record's missing fields do not break.
const KEPT: &[&str] = &[
    "ContainerSpec",
    "HealthCheck",
    "Ulimit",
    "Resources",
    "DeviceWeight",
    "DeviceRate",
    "Mount",
    "Device",
    "PortMapping",
    "LogConfig",
    "NetworkAttachment",
    "NetworkEndpoint",
    "MountPoint",
];

/// Messages with passwords in them.
const SECRET: &[&str] = &[".berth.image.v1.Auth"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-changed=containerd/types/mount.proto");
    let descriptors = protox::compile(FILES, ["."])?;
    let mut build = tonic_prost_build::configure().bytes(".");
    for message in KEPT {
        let path = format!(".berth.runtime.v1.{message}");
        build = build.message_attribute(path, "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(default)]");
    }
    // Printed nowhere by accident: the crate says how this one is shown.
    build = build.skip_debug(SECRET);
    build.compile_fds(descriptors)?;
    Ok(())
}
