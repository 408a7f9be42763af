//! A data plane: its threads, and what a session does with it from outside.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Socket, Type};
use tokio::runtime;
use tokio::sync::watch;

use crate::front::{self, Door};
use crate::settings::Settings;
use crate::shared::Shared;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A bound front door. Its methods come in `session`; none of them waits.
#[derive(Debug)]
pub struct DataPlane {
    pub(crate) shared: Arc<Shared>,
    address: SocketAddr,
    parts: Mutex<Parts>,
    closing: watch::Sender<bool>,
}

/// Listeners before the start, threads after it.
#[derive(Debug, Default)]
struct Parts {
    listeners: Vec<TcpListener>,
    /// For actions; the first thread serves it too.
    actions: Option<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlane {
    /// Binds `listen` (host:port), once per thread, and the actions' address.
    pub fn bind(listen: &str, settings: Settings) -> io::Result<Self> {
        let threads = settings.threads.max(1);
        let first = bind(resolve(listen)?, threads > 1, false)?;
        let address = first.local_addr()?;
        let mut listeners = vec![first];
        for _ in 1..threads {
            listeners.push(bind(address, true, false)?);
        }
        let actions = settings.actions_listen.as_deref();
        let actions = actions
            .map(|listen| bind(resolve(listen)?, true, true))
            .transpose()?;
        let shared = Arc::new(Shared::new(settings)?);
        let (closing, _) = watch::channel(false);
        let parts = Mutex::new(Parts {
            listeners,
            actions,
            threads: Vec::new(),
        });
        Ok(Self {
            shared,
            address,
            parts,
            closing,
        })
    }

    /// What is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to accept; once.
    pub fn start(&self) -> io::Result<()> {
        let mut parts = self.parts();
        let listeners = std::mem::take(&mut parts.listeners);
        let mut actions = parts.actions.take();
        for (number, listener) in listeners.into_iter().enumerate() {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            if number == 0 {
                _ = self.shared.runtime.set(runtime.handle().clone());
            }
            let (shared, closing) = (self.shared.clone(), self.closing.subscribe());
            let actions = actions.take();
            let name = format!("slotway-door-{number}");
            parts
                .threads
                .push(thread::Builder::new().name(name).spawn(move || {
                    runtime.block_on(async move {
                        // Only the first thread sweeps: the table is shared.
                        let sweep = (number == 0).then(|| tokio::spawn(shared.clone().sweep()));
                        let open = |listener, door| {
                            front::open(shared.clone(), listener, closing.clone(), door)
                        };
                        let everyone = open(listener, Door::Everyone);
                        match actions.map(|listener| open(listener, Door::Actions)) {
                            Some(actions) => _ = tokio::join!(everyone, actions),
                            None => everyone.await,
                        }
                        if let Some(sweep) = sweep {
                            sweep.abort();
                        }
                    });
                    // What still runs is cut here, without waiting for it.
                    runtime.shutdown_background();
                })?);
        }
        Ok(())
    }

    /// Readable when `events` has something.
    pub fn fileno(&self) -> RawFd {
        self.shared.signal.fileno()
    }

    /// Not ready: new requests are refused; running and waiting ones go on, and the listener stays open.
    pub fn stop_accepting(&self) {
        self.shared.stop();
    }

    /// Requests that wait or run here, answers that are being written counted.
    pub fn running(&self) -> usize {
        self.shared.running()
    }

    /// Counters by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.shared.counters.read()
    }

    /// Closes the listener, lets written answers go out for a moment, and ends the threads. Requests that still run are cut.
    pub fn close(&self) {
        self.shared.stop();
        self.closing.send_replace(true);
        let Parts {
            listeners,
            actions,
            threads,
        } = std::mem::take(&mut *self.parts());
        drop((listeners, actions));
        for thread in threads {
            // A thread that panicked has nothing to tell here: the panic was printed.
            _ = thread.join();
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.close();
    }
}

fn resolve(listen: &str) -> io::Result<SocketAddr> {
    let mut found = listen.to_socket_addrs()?;
    Ok(found.next().ok_or(io::ErrorKind::AddrNotAvailable)?)
}

/// `is_to_come`: the address may not be there yet, as that of a network which is made later.
fn bind(address: SocketAddr, is_shared: bool, is_to_come: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    if is_to_come && address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
