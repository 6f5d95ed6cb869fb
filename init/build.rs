//! Compiles the program: without the standard library, and without the flags that the rest of the build may have.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=program");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name} for build scripts"));
    let program = PathBuf::from(variable("OUT_DIR")).join("docker-init");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "docker_init", "program/main.rs"])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "codegen-units=1", "-C", "strip=symbols"])
        // Where the program begins is its own affair,.
        .args(["-C", "relocation-model=static", "-C", "link-arg=-static", "-C", "link-arg=-nostartfiles"])
        .args(["-C", "link-arg=-Wl,--build-id=none"])
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(&program);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let status = rustc.status().unwrap_or_else(|error| panic!("{rustc:?} cannot be run: {error}"));
    assert!(status.success(), "{rustc:?}: {status}");
}
