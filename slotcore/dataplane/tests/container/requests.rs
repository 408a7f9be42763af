//! What goes out, and when the container does not take it.

use std::time::Duration;

use slotcore_dataplane::container::{Run, RunError};
use tokio::time::timeout;

use crate::peer::{KINDS, Kind, LIMITS, Peer, SMALL, Step, run, send};

const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
const LARGE_BYTES: usize = 8 << 20;

#[tokio::test]
async fn the_request_is_what_the_interface_asks_for() {
    for kind in KINDS {
        let mut peer = Peer::start(kind, vec![vec![Step::Read, send(PLAIN)]]).await;
        run(&mut peer.connection(), SMALL).await.unwrap();
        let host = if kind == Kind::Unix {
            "localhost".to_owned()
        } else {
            peer.address.to_string()
        };
        let expected = format!(
            "POST /run HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: 17\r\n\r\n{{\"value\":{{\"n\":1}}}}"
        );
        assert_eq!(String::from_utf8(peer.report().await).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let payload: Vec<u8> = (b'a'..b'x').cycle().take(LARGE_BYTES).collect();
    let large = Run {
        pieces: [b"<", &payload, b"", b">"],
    };
    for kind in KINDS {
        let script = vec![
            Step::ReadHead,
            Step::ReadSome(LARGE_BYTES + 2),
            send(PLAIN),
            Step::Read,
            send(PLAIN),
        ];
        let mut peer = Peer::start(kind, vec![script]).await;
        let mut connection = peer.connection();
        assert_eq!(run(&mut connection, large).await.unwrap().body, "{}");
        assert!(
            peer.report()
                .await
                .ends_with(b"content-length: 8388610\r\n\r\n")
        );
        assert!(peer.report().await == [b"<", &payload[..], b">"].concat());
        run(&mut connection, SMALL).await.unwrap();
        assert_eq!(connection.opened(), 1);
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_was_taken() {
    let payload = vec![b'x'; LARGE_BYTES];
    let large = Run {
        pieces: [b"", &payload, b"", b""],
    };
    for kind in KINDS {
        for after in [vec![], vec![Step::Drain]] {
            let answer = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}";
            let first = [vec![Step::ReadSome(100), send(answer)], after.clone()].concat();
            let peer = Peer::start(kind, vec![first, vec![Step::Read, send(PLAIN)]]).await;
            let mut connection = peer.connection();
            match run(&mut connection, large).await {
                Ok(answer) => assert_eq!(answer.status, 413),
                // Closing with unread bytes resets the connection, which may overtake the answer.
                Err(error) => assert!(matches!(error, RunError::Broken(_)) && after.is_empty()),
            }
            assert!(!connection.is_open());
            assert_eq!(run(&mut connection, SMALL).await.unwrap().status, 200);
        }
    }
}

#[tokio::test]
async fn a_large_answer_before_the_body_was_taken_blocks_nobody() {
    let payload = vec![b'x'; LARGE_BYTES];
    let large = Run {
        pieces: [b"", &payload, b"", b""],
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {LARGE_BYTES}\r\n\r\n{}",
        "y".repeat(LARGE_BYTES)
    );
    for kind in KINDS {
        let peer = Peer::start(kind, vec![vec![send(&answer), Step::Drain]]).await;
        let error = run(&mut peer.connection(), large).await.unwrap_err();
        assert!(
            matches!(error, RunError::TooLarge { over: true, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn dropping_the_run_closes_the_connection() {
    let payload = vec![b'x'; LARGE_BYTES];
    let large = Run {
        pieces: [b"", &payload, b"", b""],
    };
    for kind in KINDS {
        for (request, is_whole) in [(SMALL, true), (large, false)] {
            let first = vec![Step::ReadSome(50), Step::Drain];
            let mut peer = Peer::start(kind, vec![first, vec![Step::Read, send(PLAIN)]]).await;
            let mut connection = peer.connection();
            tokio::select! {
                biased;
                outcome = connection.run(request, &LIMITS) => panic!("no answer was sent: {outcome:?}"),
                head = peer.report() => assert_eq!(head.len(), 50),
            }
            assert!(!connection.is_open());
            let rest = String::from_utf8(peer.report().await)
                .unwrap()
                .parse::<usize>()
                .unwrap();
            assert!(
                is_whole || rest < LARGE_BYTES,
                "the body was not written whole"
            );
            assert_eq!(run(&mut connection, SMALL).await.unwrap().body, "{}");
        }
    }
}

#[tokio::test]
async fn a_container_that_does_not_read_holds_the_run_and_no_more() {
    let payload = vec![b'x'; LARGE_BYTES];
    let large = Run {
        pieces: [b"", &payload, b"", b""],
    };
    for kind in KINDS {
        let mut peer = Peer::start(kind, vec![vec![Step::ReadSome(1)]]).await;
        let mut connection = peer.connection();
        // The container closes after one byte: that is after the first byte was written.
        let error = timeout(Duration::from_secs(60), connection.run(large, &LIMITS))
            .await
            .unwrap()
            .unwrap_err();
        assert!(matches!(error, RunError::Broken(_)), "{error}");
        peer.closed().await;
    }
}

#[tokio::test]
async fn an_idle_connection_gives_its_memory_back() {
    for kind in KINDS {
        let script = vec![Step::Read, send(PLAIN), Step::Drain];
        let mut peer = Peer::start(kind, vec![script, vec![Step::Read, send(PLAIN)]]).await;
        let mut connection = peer.connection();
        run(&mut connection, SMALL).await.unwrap();
        peer.report().await;
        connection.close();
        assert!(!connection.is_open());
        assert_eq!(peer.report().await, b"0");
        run(&mut connection, SMALL).await.unwrap();
    }
}
