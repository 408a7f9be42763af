//! How fast the JSON check is, in bytes per nanosecond (that is GB/s): for benches. Prints a line for each payload.

use std::{hint::black_box, time::Instant};

use slotcore_dataplane::json::validate_object;

#[allow(clippy::cast_precision_loss, reason = "a speed of two digits")]
fn main() {
    let event = r#"{"id":"018f3c1e-7b1a-7cc0-9d9f-2f0f5f1c9a11","user":{"name":"Ada Lovelace","age":36,"tags":["a","b","c"]},"active":true,"score":12.5,"note":"The quick brown fox jumps over the lazy dog."}"#;
    let text = format!(
        "{{\"text\":\"{}\"}}",
        "lorem ipsum dolor sit amet, ".repeat(400)
    );
    let events = format!("{{\"events\":[{}]}}", vec![event; 50].join(","));
    let numbers = format!(
        "{{\"values\":[{}]}}",
        vec!["12.25,-7,0,1e5"; 500].join(", ")
    );
    let pretty = format!(
        "{{\n  \"a\": [\n{}\n  ]\n}}",
        vec!["    {\n      \"b\": null\n    }"; 300].join(",\n")
    );
    let small = r#"{"n":1,"text":"0123456789012345678901234567890123456789","k":12}"#;
    for (name, payload) in [
        ("small", small),
        ("event", event),
        ("events", &events),
        ("text", &text),
        ("numbers", &numbers),
        ("pretty", &pretty),
    ] {
        let rounds = 40_000_000 / payload.len();
        let best = (0..5)
            .map(|_| {
                let begin = Instant::now();
                for _ in 0..rounds {
                    validate_object(black_box(payload.as_bytes())).expect("JSON");
                }
                begin.elapsed().as_nanos()
            })
            .min()
            .expect("five rounds");
        println!(
            "{name} {:.2}",
            (rounds * payload.len()) as f64 / best as f64
        );
    }
}
