//! The sockets in the container, and what is done with each query.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use berth_core::bundle::{NAME_SERVER, Names, Upstream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    forward::{Way, framed, random},
    message::{self, A, AAAA, ANY, FAILURE, FINE, PTR, Query, Question, Record},
    namespace::within,
    table,
    tasks::Tasks,
};

const PORT: u16 = 53;
/// Queries and connections that may be under way; who comes then hears of a failure at once.
const BUSY: usize = 256;
/// Bytes of a query that comes as a datagram: larger than any resolver's.
const DATAGRAM: usize = 4096;
/// Datagrams that are answered before others get their turn.
const TURN: usize = 32;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Answers until it is dropped; then its sockets are closed.
pub(crate) struct Server(Rc<Inner>);

struct Inner {
    bundle: PathBuf,
    way: Way,
    tasks: Tasks,
    /// The last trouble was told.
    told: Cell<bool>,
}

/// What is to be done with a query.
enum Step {
    Say(Vec<u8>),
    Ask(Question, Vec<Upstream>),
    Nothing,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.tasks.clear();
    }
}

impl Server {
    /// Listens in a network namespace. Must run within the runtime's local tasks.
    pub(super) fn begin(bundle: PathBuf, netns: OwnedFd) -> io::Result<Self> {
        let address = SocketAddr::from((NAME_SERVER, PORT));
        let (datagrams, streams) =
            within(netns.as_fd(), || Ok((StdUdpSocket::bind(address)?, StdTcpListener::bind(address)?)))
                .map_err(|error| io::Error::new(error.kind(), format!("listening on {address}: {error}")))?;
        datagrams.set_nonblocking(true)?;
        streams.set_nonblocking(true)?;
        let (datagrams, streams) = (UdpSocket::from_std(datagrams)?, TcpListener::from_std(streams)?);
        let inner = Rc::new(Inner { bundle, way: Way::new(netns), tasks: Tasks::default(), told: Cell::new(false) });
        // Each task knows the rest only while it may: what is dropped here is dropped.
        inner.tasks.spawn(hear(Rc::clone(&inner), Rc::new(datagrams)));
        inner.tasks.spawn(accept(Rc::clone(&inner), streams));
        Ok(Self(inner))
    }
}

/// Datagrams.
async fn hear(inner: Rc<Inner>, socket: Rc<UdpSocket>) {
    loop {
        if let Err(error) = socket.readable().await {
            return crate::note::note!("hearing queries: {error}");
        }
        for _ in 0..TURN {
            let mut buffer = [0; DATAGRAM];
            match socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => inner.datagram(&socket, &buffer[..length], from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Of what was sent before: nobody listens there any more.
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn accept(inner: Rc<Inner>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            // Dropped, it is closed.
            Ok(_) if inner.tasks.count() >= BUSY => {}
            Ok((stream, _)) => {
                let connection = Rc::clone(&inner);
                inner.tasks.spawn(async move {
                    // A client that breaks off is its own concern.
                    let _ = connection.connection(stream).await;
                });
            }
            Err(error) => {
                crate::note::note!("accepting a query: {error}");
                // Out of descriptors, most likely: they come back when others leave.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Inner {
    fn datagram(self: &Rc<Self>, socket: &Rc<UdpSocket>, query: &[u8], from: SocketAddr) {
        let answer = match self.consider(query, true) {
            Step::Nothing => return,
            Step::Say(answer) => answer,
            Step::Ask(question, _) if self.tasks.count() >= BUSY => failure(query, &question),
            Step::Ask(question, upstreams) => {
                let (inner, socket, query) = (Rc::clone(self), Rc::clone(socket), query.to_vec());
                self.tasks.spawn(async move {
                    let answer = inner.way.ask(&upstreams, &query, &question, false).await;
                    let answer = answer.unwrap_or_else(|| failure(&query, &question));
                    let _ = socket.try_send_to(&answer, from);
                });
                return;
            }
        };
        // Where there is no room, it is lost like any datagram, and the client asks again.
        let _ = socket.try_send_to(&answer, from);
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let query = timeout(IDLE, async {
                let mut query = vec![0; stream.read_u16().await?.into()];
                stream.read_exact(&mut query).await?;
                io::Result::Ok(query)
            });
            let query = query.await??;
            let answer = match self.consider(&query, false) {
                Step::Nothing => return Ok(()),
                Step::Say(answer) => answer,
                Step::Ask(question, upstreams) => {
                    let answer = self.way.ask(&upstreams, &query, &question, true).await;
                    answer.unwrap_or_else(|| failure(&query, &question))
                }
            };
            timeout(IDLE, stream.write_all(&framed(&answer))).await??;
        }
    }

    fn consider(&self, query: &[u8], datagram: bool) -> Step {
        let question = match message::read(query) {
            Query::Question(question) => question,
            Query::Wrong(code) => return Step::Say(message::refusal(query, code)),
            Query::Nothing => return Step::Nothing,
        };
        let limit = if datagram { question.limit } else { usize::from(u16::MAX) };
        let looked = table::read(&self.bundle).and_then(|names| Ok((look_up(&names, &question)?, names)));
        match looked {
            Ok((Some(records), _)) => Step::Say(message::answer(query, &question, FINE, &records, limit)),
            Ok((None, names)) => {
                self.told.set(false);
                // Whoever asks tries the search domains next.
                if names.ndots && [A, AAAA].contains(&question.kind) && !question.name.contains('.') {
                    return Step::Say(message::answer(query, &question, FINE, &[], limit));
                }
                let mut upstreams = names.upstreams;
                upstreams.retain(|upstream| names.forward || !upstream.from_host);
                if upstreams.is_empty() { Step::Say(failure(query, &question)) } else { Step::Ask(question, upstreams) }
            }
            Err(error) => {
                // Not for each query.
                if !self.told.replace(true) {
                    crate::note::note!("reading the names: {error}");
                }
                Step::Say(failure(query, &question))
            }
        }
    }
}

fn failure(query: &[u8], question: &Question) -> Vec<u8> {
    message::answer(query, question, FAILURE, &[], question.limit)
}

/// What we ourselves have to say; `None` where others must be asked.
fn look_up(names: &Names, question: &Question) -> io::Result<Option<Vec<Record>>> {
    if !question.internet {
        return Ok(None);
    }
    if question.kind == PTR
        && let Some(address) = message::reverse(&question.name)
    {
        return Ok(table::name(names, address)?.map(|name| vec![Record::Name(name)]));
    }
    let Some(mut addresses) = table::addresses(names, &question.name)? else { return Ok(None) };
    addresses.retain(|address| match question.kind {
        A => address.is_ipv4(),
        AAAA => address.is_ipv6(),
        kind => kind == ANY,
    });
    if !addresses.is_empty() {
        // Others are first each time.
        let by = usize::from(u16::from_be_bytes(random())) % addresses.len();
        addresses.rotate_left(by);
    }
    Ok(Some(addresses.into_iter().map(Record::Address).collect()))
}
