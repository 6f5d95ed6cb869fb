//! The runtime service's side: starts a shim on a bundle, speaks its protocols.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use berth_core::{
    bundle::{ExitRecord, Log, LogLine, Options},
    stream::{Attached, HEADER, Hello, Kind, header, parse},
};
use containerd_shim_protos::{
    TaskClient,
    api::{
        CloseIORequest, CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest,
        KillRequest, Mount, ShutdownRequest, StartRequest, WaitRequest, WaitResponse,
    },
    protobuf::well_known_types::any::Any,
    ttrpc::{self, Code, context},
};
use serde_json::{Value, json};

use crate::bundle::Bundle;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_containerd-shim-berth-v2");

/// A shim on a bundle.
pub(crate) struct Node {
    pub(crate) bundle: Bundle,
    pub(crate) options: Options,
    pub(crate) rootfs: Vec<Mount>,
    /// Handed over as descriptor 4.
    pub(crate) netns: Option<OwnedFd>,
    shim: Option<Child>,
    task: Option<TaskClient>,
}

impl Node {
    /// A bundle whose container runs a script; the shim is not started yet.
    pub(crate) fn script(script: &str) -> Self {
        let bundle = Bundle::script(script);
        let path = bundle.path().join("out.log").to_str().unwrap().to_owned();
        let options = Options {
            log: Log::JsonFile { path, max_size: 0, max_file: 1, attributes: Default::default() },
            ..Options::default()
        };
        Self { bundle, options, rootfs: Vec::new(), netns: None, shim: None, task: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.bundle.path().join(name)
    }

    /// Starts the shim.
    pub(crate) fn serve(&mut self) {
        self.bundle.write();
        berth_core::bundle::write(self.bundle.path(), "berth.json", &self.options).unwrap();
        let listener = UnixListener::bind(self.path("shim.sock")).unwrap();
        let log = fs::File::create(self.path("shim.log")).unwrap();
        let socket = listener.as_raw_fd();
        let mut command = Command::new(PROGRAM);
        command.args(["-namespace", "berth", "-id", &self.bundle.id, "-bundle"]).arg(self.bundle.path()).arg("serve");
        command.current_dir(self.bundle.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let netns = self.netns.as_ref().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 10).unwrap());
        let netns = netns.as_ref().map(|fd| fd.as_raw_fd());
        // SAFETY: these may be called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                if socket == 3 {
                    libc::fcntl(3, libc::F_SETFD, 0);
                } else {
                    libc::dup2(socket, 3);
                }
                if let Some(netns) = netns {
                    libc::dup2(netns, 4);
                }
                Ok(())
            });
        }
        self.shim = Some(command.spawn().unwrap());
        let address = format!("unix://{}", self.path("shim.sock").display());
        self.task = Some(TaskClient::new(ttrpc::Client::connect(&address).unwrap()));
    }

    pub(crate) fn task(&self) -> &TaskClient {
        self.task.as_ref().unwrap()
    }

    pub(crate) fn create(&self) -> ttrpc::Result<CreateTaskResponse> {
        let mut request = CreateTaskRequest::new();
        request.id = self.bundle.id.clone();
        request.bundle = self.bundle.path().to_str().unwrap().to_owned();
        request.rootfs = self.rootfs.clone();
        self.task().create(limit(), &request)
    }

    pub(crate) fn start(&self, exec_id: &str) -> ttrpc::Result<u32> {
        let request = StartRequest { id: self.bundle.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        self.task().start(limit(), &request).map(|answer| answer.pid)
    }

    pub(crate) fn wait(&self, exec_id: &str) -> WaitResponse {
        let request = WaitRequest { id: self.bundle.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        self.task().wait(limit(), &request).unwrap()
    }

    pub(crate) fn kill(&self, exec_id: &str, signal: i32) -> ttrpc::Result<()> {
        let request = KillRequest {
            id: self.bundle.id.clone(),
            exec_id: exec_id.into(),
            signal: signal as u32,
            ..Default::default()
        };
        self.task().kill(limit(), &request).map(|_| ())
    }

    pub(crate) fn close_stdin(&self, exec_id: &str) {
        let request =
            CloseIORequest { id: self.bundle.id.clone(), exec_id: exec_id.into(), stdin: true, ..Default::default() };
        self.task().close_io(limit(), &request).unwrap();
    }

    pub(crate) fn delete(&self, exec_id: &str) -> ttrpc::Result<DeleteResponse> {
        let request = DeleteRequest { id: self.bundle.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        self.task().delete(limit(), &request)
    }

    /// Takes note of a process to execute, with streams for a client that attaches.
    pub(crate) fn exec(&self, exec_id: &str, arguments: &[&str], change: impl FnOnce(&mut Value)) -> ttrpc::Result<()> {
        let mut process = self.bundle.config["process"].clone();
        process["args"] = json!(arguments);
        process["terminal"] = json!(false);
        change(&mut process);
        let attached = || "attach".to_owned();
        let request = ExecProcessRequest {
            id: self.bundle.id.clone(),
            exec_id: exec_id.into(),
            stdin: attached(),
            stdout: attached(),
            stderr: attached(),
            spec: Some(Any { value: process.to_string().into_bytes(), ..Any::default() }).into(),
            ..Default::default()
        };
        self.task().exec(limit(), &request).map(|_| ())
    }

    /// `Create` and `Start`.
    pub(crate) fn run(&mut self) {
        self.serve();
        self.create().unwrap();
        self.start("").unwrap();
    }

    /// Waits for the end, deletes, ends the shim; the exit code.
    pub(crate) fn finish(mut self) -> (u32, Ended) {
        let code = self.wait("").exit_status;
        let record = self.record();
        assert_eq!(record.as_ref().map(|record| record.exit_code), Some(code), "the record is there before the answer");
        assert_eq!(self.delete("").unwrap().exit_status, code);
        let shim_log = self.end();
        (code, Ended { shim_log, record: record.unwrap(), node: self })
    }

    /// Tells the shim to end; what it said in its log.
    pub(crate) fn end(&mut self) -> String {
        let request = ShutdownRequest { id: self.bundle.id.clone(), ..Default::default() };
        self.task().shutdown(limit(), &request).unwrap();
        assert!(self.shim.take().unwrap().wait().unwrap().success());
        fs::read_to_string(self.path("shim.log")).unwrap()
    }

    pub(crate) fn record(&self) -> Option<ExitRecord> {
        berth_core::bundle::read(self.bundle.path(), "exit.json").unwrap()
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        self.shim.as_ref().unwrap().id() as i32
    }

    /// As the kernel's OOM killer would do.
    pub(crate) fn kill_shim(&mut self) {
        let mut shim = self.shim.take().unwrap();
        shim.kill().unwrap();
        shim.wait().unwrap();
        self.task = None;
    }

    /// The action `delete`.
    pub(crate) fn clean_up(&self) -> DeleteResponse {
        use containerd_shim_protos::protobuf::Message as _;
        let mut command = Command::new(PROGRAM);
        command.args(["-namespace", "berth", "-id", &self.bundle.id, "-bundle"]).arg(self.bundle.path()).arg("delete");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        DeleteResponse::parse_from_bytes(&output.stdout).unwrap()
    }

    /// The log's lines: text and stream.
    pub(crate) fn log(&self) -> Vec<(String, String)> {
        lines(&self.path("out.log"))
    }

    /// A client of the attach socket.
    pub(crate) fn attach(&self, exec_id: &str, stdin: bool) -> Client {
        let hello = Hello { exec_id: exec_id.into(), stdin, stdout: true, stderr: true };
        let mut client = Client(UnixStream::connect(self.path("attach.sock")).unwrap());
        client.send(Kind::Hello, &serde_json::to_vec(&hello).unwrap());
        client
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut shim) = self.shim.take() {
            let _ = shim.kill();
            let _ = shim.wait();
            if std::thread::panicking() {
                eprintln!("shim.log: {}", fs::read_to_string(self.path("shim.log")).unwrap_or_default());
            }
            self.clean_up();
        }
    }
}

/// A container that is gone.
pub(crate) struct Ended {
    pub(crate) shim_log: String,
    pub(crate) record: ExitRecord,
    pub(crate) node: Node,
}

pub(crate) fn lines(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let line: LogLine<'_> = serde_json::from_str(line).unwrap();
        (line.log.into_owned(), line.stream.into_owned())
    };
    text.lines().map(line).collect()
}

/// An attached client.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.0.write_all(&header(kind, payload.len())).unwrap();
        self.0.write_all(payload).unwrap();
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> (Kind, Vec<u8>) {
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header).unwrap();
        let (kind, length) = parse(header).unwrap();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (kind, payload)
    }

    /// The answer to the hello.
    pub(crate) fn attached(mut self) -> Self {
        let (kind, payload) = self.next();
        assert_eq!(kind, Kind::Attached, "{}", String::from_utf8_lossy(&payload));
        let _: Attached = serde_json::from_slice(&payload).unwrap();
        self
    }

    /// Everything to the end: standard output, standard error, bytes lost.
    pub(crate) fn all(&mut self) -> (Vec<u8>, Vec<u8>, u64) {
        let (mut out, mut err, mut lost) = (Vec::new(), Vec::new(), 0);
        loop {
            match self.next() {
                (Kind::Stdout, bytes) => out.extend(bytes),
                (Kind::Stderr, bytes) => err.extend(bytes),
                (Kind::Lost, bytes) => lost += u64::from_le_bytes(bytes.try_into().unwrap()),
                (Kind::End, _) => return (out, err, lost),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Standard output until it contains something.
    pub(crate) fn until(&mut self, words: &str) -> String {
        let mut text = String::new();
        while !text.contains(words) {
            let (kind, bytes) = self.next();
            assert_eq!(kind, Kind::Stdout, "waiting for {words}, had {text}");
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }
}

/// A deadline that only a hang reaches.
pub(crate) fn limit() -> context::Context {
    context::with_duration(std::time::Duration::from_secs(60))
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: ttrpc::Result<T>, code: Code, words: &str) {
    match answer.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => {
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(words), "{status:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// A descriptor of a pidfd for a process that is not our child.
pub(crate) fn pidfd(pid: u32) -> OwnedFd {
    // SAFETY: the call takes its arguments by value; what it returns is a new descriptor for us alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as i32, 0) };
    assert!(fd >= 0);
    // SAFETY: see above.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
