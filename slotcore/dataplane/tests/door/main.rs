//! The whole data plane under clients that hang up at random: the container's own count never passes the share, and
//! every slot comes back.

mod container;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use container::Container;
use h2::client::SendRequest;
use http::{HeaderValue, Request};
use slotcore_accounting::{Grant, Spec, Term, Version};
use slotcore_dataplane::{DataPlane, PlantedBug, Settings};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const SLOTS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(30);

fn plane(container: &Container, threads: usize, planted_bug: PlantedBug) -> DataPlane {
    let settings = Settings {
        upstream: "/nonexistent".into(),
        incarnation: "r-1".to_owned(),
        queue_max: 10_000,
        max_wait: PATIENCE,
        nested_max_wait: PATIENCE,
        actions_listen: None,
        request_bytes_max: 1 << 20,
        response_bytes_max: 1 << 20,
        idle_close: Duration::from_millis(20),
        threads,
        planted_bug,
    };
    let plane = DataPlane::bind("127.0.0.1:0", settings).unwrap();
    plane.start().unwrap();
    let term = Term {
        epoch: 1,
        revision: 1,
    };
    plane.open_stream("m", 1);
    plane.welcome("m", 1, term).unwrap();
    let spec = Spec {
        action: "ns/work".into(),
        revision: 1,
        address: container.address().into(),
        capacity: SLOTS,
        timeout_ms: 60_000,
        parameters: Arc::default(),
    };
    let version = Version { term, counter: 1 };
    let order = Grant {
        container: "c-1".into(),
        target: SLOTS,
        version,
        spec: spec.into(),
    };
    assert!(plane.order("m", 1, &order).unwrap());
    plane
}

async fn connect(plane: &DataPlane) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(plane.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends one request, and leaves after `patience`. True if it was answered with success.
async fn invoke(sender: SendRequest<Bytes>, patience: Duration) -> bool {
    let message = b"\0\0\0\0\x09\x0a\x07ns/work";
    let mut request = Request::post("http://x/slotway.v1.RouterService/Invoke")
        .body(())
        .unwrap();
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    let answered = async {
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(message), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        while let Some(data) = body.data().await {
            data.unwrap();
        }
        body.trailers()
            .await
            .unwrap()
            .is_some_and(|trailers| trailers["grpc-status"] == "0")
    };
    timeout(patience, answered).await.unwrap_or(false)
}

/// xorshift: enough to behave in many ways.
fn dice(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

async fn hang_up_at_random(threads: usize) {
    let container = Container::start();
    let plane = plane(&container, threads, PlantedBug::None);
    let mut state = 88_172_645_463_325_252 + threads as u64;
    for _ in 0..10 {
        let senders = [connect(&plane).await, connect(&plane).await];
        let mut calls = JoinSet::new();
        for _ in 0..300 {
            let roll = dice(&mut state);
            let sender = senders[usize::from(roll & 1 == 0)].clone();
            let stays = roll & 6 == 0;
            let patience = Duration::from_micros(dice(&mut state) % 20_000);
            calls.spawn(invoke(sender, if stays { PATIENCE } else { patience }));
        }
        while calls.join_next().await.is_some() {}
    }
    assert_eq!(
        container.highest(),
        SLOTS,
        "the share is used, and not passed"
    );
    // What clients left behind ends, then all slots are there.
    let sender = connect(&plane).await;
    container.hold(SLOTS).await;
    let calls: Vec<_> = (0..SLOTS)
        .map(|_| tokio::spawn(invoke(sender.clone(), PATIENCE)))
        .collect();
    container.release_when_full().await;
    for call in calls {
        assert!(call.await.unwrap());
    }
    assert_eq!(container.highest(), SLOTS);
    let holdings = plane.holdings();
    assert_eq!((holdings[0].0.held, holdings[0].0.running), (SLOTS, 0));
    assert_eq!(plane.running(), 0);
}

#[tokio::test]
async fn one_thread_never_passes_the_share() {
    hang_up_at_random(1).await;
}

#[tokio::test]
async fn two_threads_never_pass_the_share() {
    hang_up_at_random(2).await;
}

#[tokio::test]
async fn the_planted_bug_is_seen() {
    let container = Container::start();
    let plane = plane(&container, 1, PlantedBug::OneTooMany);
    container.hold(SLOTS + 1).await;
    let sender = connect(&plane).await;
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(invoke(sender.clone(), PATIENCE)))
        .collect();
    container.release_when_full().await;
    for call in calls {
        assert!(call.await.unwrap());
    }
    assert_eq!(container.highest(), SLOTS + 1);
}
