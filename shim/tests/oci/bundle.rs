//! Bundles for the tests: Docker's defaults over busybox in a private directory.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const APPLETS: [&str; 24] = [
    "sh", "cat", "true", "false", "echo", "id", "ls", "mount", "stat", "sleep", "hostname", "grep", "sort", "tty",
    "stty", "kill", "touch", "mkdir", "env", "pwd", "readlink", "head", "sysctl", "mknod",
];

/// A bundle that goes away with its cgroups.
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    pub(crate) config: Value,
    pub(crate) id: String,
}

pub(crate) fn capabilities() -> Value {
    json!({"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES})
}

impl Bundle {
    /// One that runs a shell script.
    pub(crate) fn script(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    pub(crate) fn new(arguments: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("oci-test-{}-{number}", std::process::id());
        let directory = tempfile::Builder::new().prefix(&id).tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for path in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "var"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:4:web\n").unwrap();
        let seccomp: Value = serde_json::from_str(include_str!("../data/seccomp.json")).unwrap();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": arguments, "cwd": "/",
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "capabilities": capabilities(),
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}],
                "noNewPrivileges": false,
            },
            "root": {"path": "rootfs", "readonly": false},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                 "options": ["ro", "nosuid", "noexec", "nodev"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                 "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                 "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]},
            ],
            "linux": {
                "cgroupsPath": format!("/{id}"),
                "resources": {
                    "devices": [
                        {"allow": false, "access": "rwm"},
                        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                        {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                    ],
                    "memory": {"limit": 134_217_728i64},
                    "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
                    "pids": {"limit": 64},
                },
                "namespaces": [
                    {"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"},
                    {"type": "cgroup"},
                ],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                "seccomp": seccomp,
            },
        });
        Self { directory, config, id }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    pub(crate) fn write(&self) {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
    }

    /// Runs it with our engine.
    pub(crate) fn run(&self, options: &[&str]) -> Ran {
        self.write();
        let mut command = Command::new(program());
        command.args(["run", self.path().to_str().unwrap(), &self.id]).args(options);
        Ran::from(command.output().unwrap())
    }

    /// Runs it with runc itself.
    pub(crate) fn run_with_runc(&self) -> Ran {
        self.write();
        let mut command = Command::new("runc");
        let state = self.path().join("runc-state");
        command.arg("--root").arg(state).args(["run", "--bundle"]).arg(self.path()).arg(format!("{}-r", self.id));
        Ran::from(command.output().unwrap())
    }

    /// A process to execute in it, as a file.
    pub(crate) fn process(&self, name: &str, arguments: &[&str]) -> String {
        let mut process = self.config["process"].clone();
        process["args"] = json!(arguments);
        let path = self.path().join(name);
        fs::write(&path, process.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Directories of its cgroup that are still there.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path().join(&self.id)).collect();
        all.push(Path::new("/sys/fs/cgroup").join(&self.id));
        all.retain(|path| path.exists());
        all
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left behind");
        }
    }
}

/// The example, which cargo builds beside the tests.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("examples/oci_run");
    assert!(program.exists(), "{} is not built; run the whole package's tests", program.display());
    program
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }
}
