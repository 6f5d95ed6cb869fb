//! Clients that attach to a process's streams; see [`berth_core::stream`].

use std::{io, rc::Rc, time::Duration};

use berth_core::stream::{Attached, HEADER, Hello, Kind, parse};
use tokio::{
    io::AsyncReadExt as _,
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
};

use crate::{
    process::Process,
    shim::Shim,
    streams::{Outbox, Want, send},
};

/// How long a client may take to say what it wants.
const DEADLINE: Duration = Duration::from_secs(10);

/// Serves clients for as long as the shim lives.
pub(crate) async fn serve(shim: Rc<Shim>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let shim = Rc::clone(&shim);
                tokio::task::spawn_local(async move {
                    // A client that breaks off, or speaks something else, is its own concern.
                    let _ = client(&shim, socket).await;
                });
            }
            Err(error) => {
                crate::note::note!("accepting a client: {error}");
                // Out of descriptors, most likely: they come back when others leave.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn client(shim: &Shim, socket: UnixStream) -> io::Result<()> {
    let (mut from, to) = socket.into_split();
    let mut payload = Vec::new();
    let first = tokio::time::timeout(DEADLINE, frame(&mut from, &mut payload)).await.map_err(io::Error::other)??;
    if first != Kind::Hello {
        return Err(io::Error::other("no hello"));
    }
    let hello: Hello = serde_json::from_slice(&payload)?;
    let process = match shim.process(&hello.exec_id) {
        Ok(process) => process,
        Err(error) => {
            let outbox = Outbox::new(Want::default(), Rc::default());
            outbox.say(Kind::Refused, error.to_string().into());
            send(outbox, to).await;
            return Ok(());
        }
    };
    // Registered before it is told: what comes after the answer is everything from here on.
    let want = Want { stdout: hello.stdout, stderr: hello.stderr };
    let outbox = Outbox::new(want, process.outputs.room());
    outbox.say(Kind::Attached, serde_json::to_vec(&Attached { tty: process.tty })?.into());
    process.outputs.add(&outbox);
    let sending = tokio::task::spawn_local(send(Rc::clone(&outbox), to));
    let heard = listen(&process, &hello, &mut from, &mut payload).await;
    if hello.stdin && process.input.once.get() && !process.tty {
        process.input.close();
    }
    if has_hung_up(&from) {
        outbox.abandon();
        sending.abort();
    }
    heard
}

/// What the client sends, until it stops.
async fn listen(process: &Process, hello: &Hello, from: &mut OwnedReadHalf, payload: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match frame(from, payload).await? {
            Kind::Stdin if hello.stdin => {
                process.input.write(payload).await;
            }
            Kind::CloseStdin if hello.stdin && process.input.once.get() && !process.tty => process.input.close(),
            Kind::Stdin | Kind::CloseStdin => {}
            Kind::Resize => {
                if let [a, b, c, d] = payload[..] {
                    let (columns, rows) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                    // Of a process that has no terminal, or no more, it means nothing.
                    let _ = process.resize(columns, rows);
                }
            }
            _ => return Err(io::Error::other("a frame that only a shim sends")),
        }
    }
}

async fn frame(from: &mut OwnedReadHalf, payload: &mut Vec<u8>) -> io::Result<Kind> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header).await?;
    let (kind, length) = parse(header).map_err(io::Error::other)?;
    payload.resize(length, 0);
    from.read_exact(payload).await?;
    if length < 4096 {
        payload.shrink_to(4096);
    }
    Ok(kind)
}

/// The client closed both ways: nobody reads what is sent to it. One that only ended its own words still listens.
fn has_hung_up(from: &OwnedReadHalf) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let socket: &UnixStream = from.as_ref();
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    matches!(poll(&mut fds, Some(&now)), Ok(1..)) && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
