//! A real registry: Debian's docker-registry.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
};

use tempfile::TempDir;

use crate::{command::run, netns::Netns};

/// A registry process; it ends when this is dropped.
#[derive(Debug)]
pub struct Registry {
    /// Host and port.
    pub address: String,
    netns: Netns,
    child: Child,
    _config: TempDir,
}

impl Registry {
    /// Serves `storage` at `address` in `netns`; answers when it accepts connections.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn serve(netns: &Netns, storage: &Path, address: &str) -> Self {
        Self::serve_with(netns, storage, address, "")
    }

    /// The same for `user` with the password `secret` alone (basic authentication).
    ///
    /// # Panics
    /// It cannot be started.
    pub fn private(netns: &Netns, storage: &Path, address: &str) -> Self {
        Self::serve_with(netns, storage, address, "auth: {htpasswd: {realm: here, path: DIRECTORY/users}}\n")
    }

    /// With more lines of configuration, where `DIRECTORY/users` is a file with that user.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn serve_with(netns: &Netns, storage: &Path, address: &str, more: &str) -> Self {
        let config = tempfile::tempdir().expect("a temporary directory can be made");
        let file = config.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: {address:?}}}\n",
            storage
        );
        // bcrypt of "secret".
        let users = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
        fs::write(config.path().join("users"), users).expect("users can be written");
        let text = text + &more.replace("DIRECTORY", config.path().to_str().expect("plain paths"));
        fs::write(&file, text).expect("the configuration can be written");
        let mut command = netns.command("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("docker-registry is installed");
        let mut log = BufReader::new(child.stderr.take().expect("its log is piped"));
        // It says so just before it listens; connecting decides.
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("its log can be read"), 0, "docker-registry ended at its start");
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let reached = netns.within(|| (0..1000).any(|_| TcpStream::connect(address).is_ok()));
        assert!(reached, "docker-registry listens on {address}");
        Self { address: address.into(), netns: netns.clone(), child, _config: config }
    }

    /// Pushes the image `latest` of an OCI layout as `repository:tag`.
    ///
    /// # Panics
    /// skopeo fails.
    pub fn push(&self, layout: &Path, target: &str) {
        let mut skopeo = self.netns.command("skopeo");
        skopeo.args(["copy", "-q", "--dest-tls-verify=false"]).arg(format!("oci:{}:latest", layout.display()));
        run(skopeo.arg(format!("docker://{}/{target}", self.address)), b"").ok();
    }

    /// Where it listens.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Ends the process.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
