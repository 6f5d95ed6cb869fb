//! Queries that somebody outside answers, passed on byte for byte but for their number.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use berth_core::bundle::Upstream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, UdpSocket},
    time::{sleep, timeout},
};

use super::{
    message::{self, FAILURE, Question, REFUSED},
    namespace::within,
};

/// How long it is waited for an answer; resolvers ask again after five seconds.
const DEADLINE: Duration = Duration::from_secs(4);
/// After this the next server is asked as well, and the slow one stands behind the others.
const PATIENCE: Duration = Duration::from_millis(300);
/// After this the same server is asked again: datagrams get lost.
const AGAIN: Duration = Duration::from_millis(1500);
/// For how long one that did not answer stands behind the others.
const DISTRUST: Duration = Duration::from_secs(30);

/// The way out.
pub(super) struct Way {
    /// The container's network namespace.
    pub(super) netns: OwnedFd,
    /// Who did not answer, and when.
    slow: RefCell<Vec<(SocketAddr, Instant)>>,
}

type Attempt<'a> = (SocketAddr, Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + 'a>>);

impl Way {
    pub(super) fn new(netns: OwnedFd) -> Self {
        Self { netns, slow: RefCell::default() }
    }

    /// Asks the servers in their order, those that did not answer lately last. `None` where nobody answers.
    pub(super) async fn ask(
        &self,
        upstreams: &[Upstream],
        query: &[u8],
        question: &Question,
        stream: bool,
    ) -> Option<Vec<u8>> {
        let mut sorted: Vec<&Upstream> = upstreams.iter().collect();
        sorted.sort_by_key(|upstream| self.is_slow(upstream.address));
        let mut others = sorted.into_iter();
        let mut attempts: Vec<Attempt<'_>> = Vec::new();
        let mut second_best = None;
        let deadline = sleep(DEADLINE);
        tokio::pin!(deadline);
        let mut more = true;
        loop {
            if more && let Some(upstream) = others.next() {
                attempts.push((upstream.address, Box::pin(self.attempt(upstream, query, question, stream))));
            }
            if attempts.is_empty() {
                return second_best;
            }
            more = true;
            tokio::select! {
                (address, answer) = first(&mut attempts) => match answer {
                    Ok(answer) if [FAILURE, REFUSED].contains(&message::code(&answer)) => second_best = Some(answer),
                    Ok(answer) => {
                        self.slow.borrow_mut().retain(|(other, _)| *other != address);
                        return Some(answer);
                    }
                    Err(_) => self.was_slow(address),
                },
                () = sleep(PATIENCE), if others.len() > 0 => {
                    attempts.iter().for_each(|(address, _)| self.was_slow(*address));
                }
                () = &mut deadline => {
                    attempts.iter().for_each(|(address, _)| self.was_slow(*address));
                    return second_best;
                }
            }
        }
    }

    fn is_slow(&self, address: SocketAddr) -> bool {
        self.slow.borrow().iter().any(|(other, when)| *other == address && when.elapsed() < DISTRUST)
    }

    fn was_slow(&self, address: SocketAddr) {
        let mut slow = self.slow.borrow_mut();
        slow.retain(|(other, when)| *other != address && when.elapsed() < DISTRUST);
        slow.push((address, Instant::now()));
    }

    /// Makes a socket where the server is asked from.
    fn socket<T>(&self, upstream: &Upstream, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if upstream.from_host { make() } else { within(self.netns.as_fd(), make) }
    }

    async fn attempt(
        &self,
        upstream: &Upstream,
        query: &[u8],
        question: &Question,
        stream: bool,
    ) -> io::Result<Vec<u8>> {
        // Its own number and, by its own socket, its own port: what nobody can guess, nobody can answer falsely.
        let mut own = query.to_vec();
        own[..2].copy_from_slice(&random());
        let mut answer = if stream {
            self.by_stream(upstream, &own, question).await?
        } else {
            self.by_datagram(upstream, &own, question).await?
        };
        answer[..2].copy_from_slice(&query[..2]);
        Ok(answer)
    }

    async fn by_datagram(&self, upstream: &Upstream, query: &[u8], question: &Question) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match upstream.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = self.socket(upstream, || StdUdpSocket::bind(any))?;
        socket.set_nonblocking(true)?;
        socket.connect(upstream.address)?;
        let socket = UdpSocket::from_std(socket)?;
        loop {
            socket.send(query).await?;
            let heard = timeout(AGAIN, async {
                loop {
                    let mut answer = Vec::with_capacity(usize::from(u16::MAX));
                    socket.recv_buf(&mut answer).await?;
                    if message::answers(query, question, &answer) {
                        answer.shrink_to_fit();
                        return Ok(answer);
                    }
                }
            });
            // The caller's deadline ends this.
            if let Ok(answer) = heard.await {
                return answer;
            }
        }
    }

    async fn by_stream(&self, upstream: &Upstream, query: &[u8], question: &Question) -> io::Result<Vec<u8>> {
        let socket = self.socket(upstream, || match upstream.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })?;
        let mut stream = socket.connect(upstream.address).await?;
        stream.write_all(&framed(query)).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await?;
        if message::answers(query, question, &answer) {
            Ok(answer)
        } else {
            Err(io::Error::other("the answer is another query's"))
        }
    }
}

/// A message as streams carry it: its length stands before it (RFC 1035 section 4.2.2).
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    // Nothing longer is ever made or taken.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), &message[..length.into()]].concat()
}

/// The first that is done, taken out.
async fn first(attempts: &mut Vec<Attempt<'_>>) -> (SocketAddr, io::Result<Vec<u8>>) {
    poll_fn(|context| {
        for (at, (address, attempt)) in attempts.iter_mut().enumerate() {
            if let Poll::Ready(answer) = attempt.as_mut().poll(context) {
                let address = *address;
                drop(attempts.swap_remove(at));
                return Poll::Ready((address, answer));
            }
        }
        Poll::Pending
    })
    .await
}

/// Two bytes that nobody can guess.
pub(super) fn random() -> [u8; 2] {
    let mut bytes = [0; 2];
    // SAFETY: the kernel writes at most as many bytes as the array has.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    bytes
}
