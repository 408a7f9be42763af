//! Other Routers that have slots of an action of which this one has none: whom to ask, and asking.
//!
//! A request is forwarded once, at once, to the peer with the fewest known waiters. The peer serves it as its own, or
//! says that it surely did not run; then the next peer is asked. Whatever else breaks, the request may have run.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, Version};

use crate::deadline::{self, GRPC_TIMEOUT};
use crate::failure::{Failure, GRPC, NOT_RUN, Reason};
use crate::link::{Link, Place, is_unseen};
use crate::shared::Shared;

/// Marks a request that a Router forwards; the value is its incarnation.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("slotway-forwarded");
/// Marks a request of a running action; the value is its activation's id, or empty.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("slotway-caller");

/// Other Routers by action.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    lists: HashMap<String, Vec<Peer>>,
    /// By address.
    links: HashMap<String, Arc<Link>>,
    /// Counts the lists.
    generation: u64,
}

/// A Router that has slots of an action.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    incarnation: String,
    address: String,
    /// Of the list.
    generation: u64,
    link: Arc<Link>,
    /// Requests that were last reported waiting there.
    waiting: u32,
    /// Our own forwarded requests there that are not answered yet.
    outstanding: Arc<AtomicU32>,
}

impl Peers {
    /// Replaces an action's list.
    pub(crate) fn replace(&mut self, action: &str, list: Vec<(String, String, u32)>) {
        let before = self.lists.remove(action).unwrap_or_default();
        self.generation += 1;
        let generation = self.generation;
        let peers: Vec<_> = list
            .into_iter()
            .map(|(incarnation, address, waiting)| {
                let known = before.iter().find(|peer| peer.incarnation == incarnation);
                let outstanding = known
                    .map(|peer| peer.outstanding.clone())
                    .unwrap_or_default();
                let link = self.links.entry(address.clone());
                let link = link.or_insert_with(|| Arc::new(Link::new(Place::Tcp(address.clone()))));
                Peer {
                    incarnation,
                    link: link.clone(),
                    address,
                    generation,
                    waiting,
                    outstanding,
                }
            })
            .collect();
        if !peers.is_empty() {
            self.lists.insert(action.to_owned(), peers);
        }
        self.links.retain(|_, link| Arc::strong_count(link) > 1);
    }

    /// Forgets all peers.
    pub(crate) fn clear(&mut self) {
        self.lists.clear();
        self.links.clear();
    }

    /// The peer with the fewest known waiters; counts a request for it.
    pub(crate) fn choose(&self, action: &str) -> Option<Peer> {
        let peers = self.lists.get(action)?;
        let known = |peer: &&Peer| {
            u64::from(peer.waiting) + u64::from(peer.outstanding.load(Ordering::Relaxed))
        };
        let peer = peers.iter().min_by_key(known)?;
        peer.outstanding.fetch_add(1, Ordering::Relaxed);
        Some(peer.clone())
    }

    /// Leaves a peer out until a newer list; it has no share of the action, or cannot be reached.
    pub(crate) fn leave_out(&mut self, action: &str, left: &Peer) {
        if let Some(peers) = self.lists.get_mut(action) {
            let is_left = |peer: &Peer| {
                peer.generation == left.generation && peer.incarnation == left.incarnation
            };
            peers.retain(|peer| !is_left(peer));
            if peers.is_empty() {
                self.lists.remove(action);
            }
        }
    }
}

/// What a peer made of a request.
#[derive(Debug)]
pub(crate) enum Forwarded {
    Answer(Box<PeerAnswer>),
    /// It surely did not run there.
    NotRun,
    /// It may have run.
    Lost(Failure),
}

/// A peer's answer, as it came.
#[derive(Debug)]
pub(crate) struct PeerAnswer {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
    /// None: `head` was all.
    pub(crate) trailers: Option<HeaderMap>,
}

impl Peer {
    /// Sends the message on and takes the whole answer. Dropping the future cancels the call at the peer.
    pub(crate) async fn forward(
        &self,
        message: &Bytes,
        until: Option<Instant>,
        is_nested: bool,
        shared: &Shared,
    ) -> Forwarded {
        let answer_bytes_max = shared.settings.response_bytes_max + 4096;
        let _counted = Outstanding(&self.outstanding);
        let Ok(mut sender) = self.link.ready().await else {
            return Forwarded::NotRun;
        };
        let mut request = self.request(until, &shared.incarnation);
        if is_nested {
            request
                .headers_mut()
                .insert(CALLER, HeaderValue::from_static(""));
        }
        let Ok((answer, mut stream)) = sender.send_request(request, false) else {
            return Forwarded::NotRun;
        };
        // The message is held anyway: it may wait for room in the connection's own buffer. If the peer is gone, the
        // answer tells.
        _ = stream.send_data(message.clone(), true);
        let answer = match answer.await {
            Ok(answer) if answer.headers().contains_key(NOT_RUN) => return Forwarded::NotRun,
            Ok(answer) => answer,
            Err(error) if is_unseen(&error) => return Forwarded::NotRun,
            Err(error) => return self.lost(&error),
        };
        let (head, mut stream) = answer.into_parts();
        let head = Response::from_parts(head, ());
        if stream.is_end_stream() {
            return Forwarded::Answer(Box::new(PeerAnswer {
                head,
                body: Bytes::new(),
                trailers: None,
            }));
        }
        let mut body = BytesMut::new();
        while let Some(data) = poll_fn(|context| stream.poll_data(context)).await {
            match data {
                Ok(data) => {
                    _ = stream.flow_control().release_capacity(data.len());
                    body.extend_from_slice(&data);
                }
                Err(error) => return self.lost(&error),
            }
            if body.len() > answer_bytes_max {
                let what = format!("the answer has more than {answer_bytes_max} bytes");
                return Forwarded::Lost(Failure::new(Reason::ResultTooLarge, what));
            }
        }
        match stream.trailers().await {
            Ok(trailers) => {
                let trailers = Some(trailers.unwrap_or_default());
                Forwarded::Answer(Box::new(PeerAnswer {
                    head,
                    body: body.freeze(),
                    trailers,
                }))
            }
            Err(error) => self.lost(&error),
        }
    }

    fn request(&self, until: Option<Instant>, incarnation: &HeaderValue) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = format!("http://{}{}", self.address, crate::front::INVOKE)
            .parse()
            .unwrap_or_else(|_| {
                http::Uri::from_static("http://peer/slotway.v1.RouterService/Invoke")
            });
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, GRPC);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(FORWARDED, incarnation.clone());
        if let Some(until) = until {
            headers.insert(GRPC_TIMEOUT, deadline::format(until, Instant::now()));
        }
        request
    }

    fn lost(&self, error: &h2::Error) -> Forwarded {
        let what = format!(
            "the connection to the Router at {} broke: {error}",
            self.address
        );
        Forwarded::Lost(Failure::new(Reason::ContainerLost, what))
    }
}

struct Outstanding<'a>(&'a AtomicU32);

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
