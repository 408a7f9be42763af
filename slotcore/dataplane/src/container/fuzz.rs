//! The decoder against mutated and against made-up answers, cut in every way.

use bytes::{Bytes, BytesMut};

use super::{
    Answer,
    decoder::{Decoder, Fault, HEAD_BYTES_MAX},
};
use crate::fuzz::{Dice, corpus, fuzz};

const TOKENS: [&[u8]; 24] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"content-length: ",
    b"Content-Length: 2\r\n",
    b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n",
    b"{}",
    b"{\"a\":1}",
    b"0",
    b"7",
    b"ff",
    b"ffffffffffffffff",
    b"-1",
    b";",
    b": ",
    b" ",
    b"\0",
    b"\xff",
    b"204",
];

/// Everything that a caller can see of a decoding.
#[derive(Debug, PartialEq)]
struct Outcome {
    result: Result<Answer, Fault>,
    is_persistent: bool,
    /// The answer came only with the end of the connection.
    is_late: bool,
    left_over: usize,
}

/// Decodes `bytes`, cut before each of `cuts`, and checks that what is held stays bounded.
fn decode(bytes: &[u8], cuts: impl Iterator<Item = usize>, limit: usize) -> Outcome {
    let mut decoder = Decoder::new(limit);
    let mut input = BytesMut::new();
    let mut start = 0;
    let mut result = Ok(None);
    for end in cuts.chain([bytes.len()]) {
        input.extend_from_slice(&bytes[start..end]);
        start = end;
        result = decoder.decode(&mut input, false);
        if !matches!(result, Ok(None)) {
            break;
        }
        assert!(
            input.len() <= HEAD_BYTES_MAX.max(limit) && decoder.held() <= 2 * limit.max(64),
            "too much is held"
        );
    }
    let is_late = matches!(result, Ok(None));
    if is_late {
        result = decoder.decode(&mut input, true);
    }
    let result = result.map(|answer| answer.expect("an ended input is decided"));
    // Where bytes are in error, it does not matter how many of them were taken, nor when.
    if result.is_err() {
        return Outcome {
            result,
            is_persistent: false,
            is_late: false,
            left_over: 0,
        };
    }
    let left_over = input.len() + bytes.len() - start;
    Outcome {
        result,
        is_persistent: decoder.is_persistent(),
        is_late,
        left_over,
    }
}

/// Decodes whole, at random cuts, and byte by byte if that is not too long: the outcome of all.
fn decode_all_ways(dice: &mut Dice, bytes: &[u8], limit: usize) -> Outcome {
    let whole = decode(bytes, [].into_iter(), limit);
    let mut cuts: Vec<usize> = (0..dice.below(8))
        .map(|_| dice.below(bytes.len() + 1))
        .collect();
    cuts.sort_unstable();
    assert_eq!(
        decode(bytes, cuts.iter().copied(), limit),
        whole,
        "cut at {cuts:?}: {}",
        bytes.escape_ascii()
    );
    if bytes.len() < 1000 {
        assert_eq!(
            decode(bytes, 0..bytes.len(), limit),
            whole,
            "byte by byte: {}",
            bytes.escape_ascii()
        );
    }
    whole
}

#[test]
fn mutated_answers() {
    let seeds = corpus("answers");
    let mut answers = 0_u64;
    fuzz("mutated answers", |dice| {
        let bytes = dice.mutate(&seeds, &TOKENS);
        let limit = [0, 10, 1000, 100_000][dice.below(4)];
        let outcome = decode_all_ways(dice, &bytes, limit);
        if let Ok(answer) = &outcome.result {
            answers += 1;
            assert!(answer.body.len() <= limit && (200..1000).contains(&answer.status));
        }
    });
    println!("mutated answers: {answers} were answers");
    assert!(answers > 0);
}

#[test]
fn made_up_answers_are_read_as_they_were_meant() {
    fuzz("made-up answers", |dice| {
        let (bytes, meant) = make_up(dice);
        let outcome = decode_all_ways(dice, &bytes, 2000);
        assert_eq!(outcome, meant, "{}", bytes.escape_ascii());
    });
}

/// An answer in a random framing, and what it means.
fn make_up(dice: &mut Dice) -> (Vec<u8>, Outcome) {
    let status = [200, 400, 502, 599][dice.below(4)];
    let body = format!(
        "{{\"a\":\"{}\"}}",
        "x\r\n0"
            .repeat(dice.below(2) * dice.below(400))
            .escape_debug()
    );
    let mut bytes = Vec::new();
    for _ in 0..dice.below(3) {
        bytes.extend_from_slice(dice.pick(&[
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 E\r\nlink: <x>\r\n\r\n",
        ]));
    }
    let is_http_1_1 = dice.below(4) > 0;
    let is_closing = dice.below(4) == 0;
    let mut headers = vec![
        "Server: x".to_owned(),
        format!("x-long: {}", "y".repeat(dice.below(300))),
    ];
    if is_closing {
        headers.push("Connection: close".to_owned());
    }
    let framing = if is_http_1_1 {
        dice.below(3)
    } else {
        dice.below(2)
    };
    match framing {
        0 => {}
        1 => headers.push(format!("Content-Length: {}", body.len())),
        _ => headers.push("Transfer-Encoding: chunked".to_owned()),
    }
    let turn = dice.below(headers.len());
    headers.rotate_left(turn);
    let version = u8::from(is_http_1_1);
    bytes.extend_from_slice(
        format!(
            "HTTP/1.{version} {status} R\r\n{}\r\n\r\n",
            headers.join("\r\n")
        )
        .as_bytes(),
    );
    if framing == 2 {
        let mut rest = body.as_bytes();
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at(1 + dice.below(rest.len()));
            bytes.extend_from_slice(
                format!("{:x}{}\r\n", chunk.len(), dice.pick(&["", ";a=b", " ;c"])).as_bytes(),
            );
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
            rest = tail;
        }
        bytes.extend_from_slice(b"0\r\n");
        bytes.extend_from_slice(dice.pick(&[&b""[..], b"x-sum: 1\r\n"]));
        bytes.extend_from_slice(b"\r\n");
    } else {
        bytes.extend_from_slice(body.as_bytes());
    }
    let extra = if framing == 0 {
        ""
    } else {
        dice.pick(&["", "", "HTTP/1.1 200 OK\r\n\r\n", "\r\n"])
    };
    bytes.extend_from_slice(extra.as_bytes());
    let meant = if body.len() > 2000 {
        let result = Err(Fault::TooLarge { over: framing != 0 });
        Outcome {
            result,
            is_persistent: false,
            is_late: false,
            left_over: 0,
        }
    } else {
        let result = Ok(Answer {
            status,
            body: Bytes::from(body),
        });
        let is_persistent = is_http_1_1 && !is_closing;
        Outcome {
            result,
            is_persistent,
            is_late: framing == 0,
            left_over: extra.len(),
        }
    };
    (bytes, meant)
}
