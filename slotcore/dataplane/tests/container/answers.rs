//! Answers that count.

use slotcore_dataplane::container::RunError;

use crate::peer::{KINDS, LIMITS, Peer, SMALL, Step, outcomes, run, send};

const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"n\": 1}";

async fn expect(answer: &str, status: u16, body: &str) {
    for step in [send(answer), Step::Trickle(answer.into())] {
        for outcome in outcomes(vec![step]).await {
            let got = outcome.unwrap_or_else(|error| panic!("{answer:?}: {error}"));
            assert_eq!(
                (got.status, &*got.body),
                (status, body.as_bytes()),
                "{answer:?}"
            );
        }
    }
}

/// Whether the connection is used for a second run after this answer.
async fn is_reused_after(answer: &str) -> bool {
    let mut reused = Vec::new();
    for kind in KINDS {
        let script = vec![
            Step::Read,
            send(answer),
            Step::Read,
            send(PLAIN),
            Step::Drain,
        ];
        let second = vec![Step::Read, send(PLAIN), Step::Drain];
        let peer = Peer::start(kind, vec![script, second]).await;
        let mut connection = peer.connection();
        run(&mut connection, SMALL).await.unwrap();
        assert_eq!(
            run(&mut connection, SMALL).await.unwrap().body,
            "{\"n\": 1}"
        );
        reused.push(connection.opened() == 1);
    }
    assert_eq!(reused[0], reused[1]);
    reused[0]
}

#[tokio::test]
async fn a_plain_answer_keeps_the_connection() {
    expect(PLAIN, 200, "{\"n\": 1}").await;
    assert!(is_reused_after(PLAIN).await);
}

#[tokio::test]
async fn an_error_is_an_answer() {
    let answer = "HTTP/1.1 502 Bad Gateway\r\nServer: x\r\nContent-Length:  2 \r\n\r\n{}";
    expect(answer, 502, "{}").await;
    assert!(is_reused_after(answer).await);
    expect("HTTP/1.1 204 No Content\r\n\r\n", 204, "").await;
    expect("HTTP/1.1 500\r\ncontent-length: 0\r\n\r\n", 500, "").await;
}

#[tokio::test]
async fn chunks_with_extensions_and_trailers() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
        3;name=value\r\n{\"a\r\n00A ; q=\"1\"\r\n\": \"12345\"\r\n1\r\n}\r\n0;last\r\nx-sum: 1\r\ny: 2\r\n\r\n";
    expect(answer, 200, "{\"a\": \"12345\"}").await;
    assert!(is_reused_after(answer).await);
    expect(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        200,
        "",
    )
    .await;
}

#[tokio::test]
async fn close_is_obeyed() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\ncontent-length: 2\r\n\r\n{}";
    expect(answer, 200, "{}").await;
    assert!(!is_reused_after(answer).await);
}

#[tokio::test]
async fn http_1_0_closes() {
    let answer = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    expect(answer, 200, "{}").await;
    assert!(!is_reused_after(answer).await);
}

#[tokio::test]
async fn an_answer_until_the_end_must_be_an_object() {
    expect("HTTP/1.0 200 OK\r\n\r\n{\"a\": [1]}", 200, "{\"a\": [1]}").await;
    expect("HTTP/1.1 400 Bad\r\nserver: x\r\n\r\n {} ", 400, " {} ").await;
    for body in ["", "{\"a\": [1", "<html>", "{}{}"] {
        for outcome in outcomes(vec![send(format!("HTTP/1.1 200 OK\r\n\r\n{body}"))]).await {
            let error = outcome.unwrap_err();
            assert!(
                matches!(error, RunError::BadAnswer(_)) && !error.is_over(),
                "{body}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let answer =
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n{PLAIN}");
    expect(&answer, 200, "{\"n\": 1}").await;
    assert!(is_reused_after(&answer).await);
}

#[tokio::test]
async fn bytes_after_the_answer_close_the_connection() {
    for extra in ["x", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"x\":1}"] {
        let answer = format!("{PLAIN}{extra}");
        assert!(!is_reused_after(&answer).await);
    }
}

#[tokio::test]
async fn an_answer_at_the_limit_counts() {
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(LIMITS.answer_bytes_max - 8));
    let length = body.len();
    assert_eq!(length, LIMITS.answer_bytes_max);
    expect(
        &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
        200,
        &body,
    )
    .await;
    expect(&format!("HTTP/1.1 200 OK\r\n\r\n{body}"), 200, &body).await;
    let chunks = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    expect(
        &format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
        200,
        &body,
    )
    .await;
}

#[tokio::test]
async fn an_answer_over_the_limit_is_read_to_its_end() {
    let body = "x".repeat(LIMITS.answer_bytes_max + 1);
    let length = body.len();
    let chunks = format!("5\r\n12345\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
    for (answer, over_expected) in [
        (
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
            true,
        ),
        (
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
            true,
        ),
        (format!("HTTP/1.1 200 OK\r\n\r\n{body}"), false),
    ] {
        for outcome in outcomes(vec![send(&answer)]).await {
            let error = outcome.unwrap_err();
            assert!(
                matches!(error, RunError::TooLarge { limit_bytes: 10_000, over } if over == over_expected)
            );
            assert_eq!(error.is_over(), over_expected);
        }
        for outcome in outcomes(vec![send(&answer[..answer.len() - 8])]).await {
            assert!(!outcome.unwrap_err().is_over());
        }
    }
}
