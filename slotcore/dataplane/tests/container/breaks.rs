//! Answers that are none, and connections that break.

use std::sync::Arc;

use slotcore_dataplane::container::{Connection, RunError};
use tokio::sync::Notify;

use crate::peer::{KINDS, Kind, Peer, SMALL, Step, look, outcomes, run, send};

const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

async fn expect_bad(answer: &[u8]) {
    let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]);
    for step in [send(answer), Step::Trickle(answer.to_vec())] {
        for outcome in outcomes(vec![step, Step::Drain]).await {
            let error = outcome.expect_err(&shown);
            assert!(matches!(error, RunError::BadAnswer(_)), "{shown}: {error}");
            assert!(!error.is_over());
        }
    }
}

#[tokio::test]
async fn garbage() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"\r\n\r\n",
        b"\0",
        b"\xff\xfe",
        b"{\"a\": 1}",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na b: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: x\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: x\0\r\n\r\n",
    ] {
        expect_bad(answer).await;
    }
}

#[tokio::test]
async fn heads_that_hide_the_end_of_the_answer() {
    for headers in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 2",
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2, 2",
        "content-length: +2",
        "content-length: -1",
        "content-length: 0x2",
        "content-length: 2 2",
        "content-length:",
        "content-length: 99999999999999999999999",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: xchunked",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
        expect_bad(answer.as_bytes()).await;
    }
    expect_bad(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn malformed_chunks() {
    let long_line = format!("2;{}\r\n", "x".repeat(300));
    let many_trailers = format!("0\r\n{}", "a: b\r\n".repeat(1000));
    for chunks in [
        "x\r\n",
        "\r\n",
        ";x\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x2\r\n",
        "2 3\r\n",
        "1\n{",
        "ffffffffffffffff1\r\n",
        "2\r\n{}x\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "1\r\n{}\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n\n",
        &long_line,
        &many_trailers,
    ] {
        expect_bad(
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}").as_bytes(),
        )
        .await;
    }
}

#[tokio::test]
async fn heads_without_end() {
    let line = format!("HTTP/1.1 200 {}", "x".repeat(20_000));
    let value = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(20_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(100));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned();
    for answer in [line, value, many, interim, upgrade] {
        expect_bad(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn an_early_close_breaks_the_run() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n";
    for answer in [
        "",
        "H",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 100 Continue\r\n\r\n",
        &PLAIN[..PLAIN.len() - 1],
    ]
    .into_iter()
    .chain((45..=chunked.len()).map(|end| &chunked[..end]))
    {
        for outcome in outcomes(vec![send(answer)]).await {
            let error = outcome.unwrap_err();
            assert!(matches!(error, RunError::Broken(_)), "{answer:?}: {error}");
            assert!(!error.is_over());
        }
    }
}

#[tokio::test]
async fn a_reset_breaks_the_run() {
    let peer = Peer::start(Kind::Tcp, vec![vec![Step::ReadSome(10), Step::Reset]]).await;
    let error = run(&mut peer.connection(), SMALL).await.unwrap_err();
    assert!(matches!(error, RunError::Broken(_)), "{error}");
}

#[tokio::test]
async fn nobody_listens() {
    for address in ["unix:/nonexistent/c.sock", "127.0.0.1:1"] {
        let mut connection = Connection::new(Arc::new(address.parse().unwrap()));
        let error = run(&mut connection, SMALL).await.unwrap_err();
        assert!(
            matches!(error, RunError::Refused(_)) && error.is_over(),
            "{error}"
        );
        assert!(!connection.is_open());
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_container_closed_is_replaced() {
    for kind in KINDS {
        let script = vec![Step::Read, send(PLAIN)];
        let mut peer = Peer::start(kind, vec![script.clone(), script]).await;
        let mut connection = peer.connection();
        run(&mut connection, SMALL).await.unwrap();
        assert!(connection.is_open());
        peer.closed().await;
        assert_eq!(run(&mut connection, SMALL).await.unwrap().body, "{}");
        assert_eq!(connection.opened(), 2);
        peer.closed().await;
        // It listens no more: the run surely reached nobody.
        let error = run(&mut connection, SMALL).await.unwrap_err();
        assert!(matches!(error, RunError::Refused(_)), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_taken_for_the_next() {
    for kind in KINDS {
        for is_open in [true, false] {
            let late = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"late\":true}";
            let word = Arc::new(Notify::new());
            let mut first = vec![
                Step::Read,
                send(PLAIN),
                Step::Await(word.clone()),
                send(late),
            ];
            first.extend(is_open.then_some(Step::Drain));
            let mut peer = Peer::start(kind, vec![first, vec![Step::Read, send(PLAIN)]]).await;
            let mut connection = peer.connection();
            run(&mut connection, SMALL).await.unwrap();
            word.notify_one();
            while peer.report().await != b"awaited" {}
            look().await;
            assert_eq!(run(&mut connection, SMALL).await.unwrap().body, "{}");
            assert_eq!(connection.opened(), 2);
        }
    }
}
