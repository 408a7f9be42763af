//! Fuzzing on stable Rust: mutations of a kept corpus, for `SLOTWAY_FUZZ_SECONDS` (2), from `SLOTWAY_FUZZ_SEED` (any).
//!
//! The seed is printed, and so is the number of the case that fails; both together repeat it. An input that found a
//! defect joins `tests/corpus`.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use serde::de::IgnoredAny;

/// A source of choices: splitmix64.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % bound as u64).expect("below a usize")
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    /// A part of something so long; its length is mostly small.
    fn range(&mut self, length: usize) -> Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 { length } else { 16 };
        start..start + self.below((length - start).min(longest) + 1)
    }

    /// Up to four changes of one of the `seeds`, with `tokens` that mean something to its reader.
    pub(crate) fn mutate(&mut self, seeds: &[Vec<u8>], tokens: &[&[u8]]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(5) {
            let range = self.range(bytes.len());
            match self.below(7) {
                0 => drop(bytes.drain(range)),
                1 => drop(bytes.splice(range, self.pick(tokens).iter().copied())),
                2 => {
                    drop(bytes.splice(range.start..range.start, self.pick(tokens).iter().copied()));
                }
                3 => {
                    let copy = bytes[range].to_vec();
                    let times = if self.below(20) == 0 {
                        self.below(3000)
                    } else {
                        self.below(4)
                    };
                    let at = self.below(bytes.len() + 1);
                    bytes.splice(at..at, copy.repeat(times).into_iter().take(40_000));
                }
                4 => {
                    let other = &seeds[self.below(seeds.len())];
                    bytes.splice(range, other[self.range(other.len())].iter().copied());
                }
                5 => bytes.truncate(range.start),
                _ => {
                    let byte = u8::try_from(self.below(256)).expect("a byte");
                    bytes.splice(range.start..range.start, [byte]);
                }
            }
        }
        bytes
    }
}

/// Runs `case` until the time is up, each case with dice of its own.
pub(crate) fn fuzz(name: &str, mut case: impl FnMut(&mut Dice)) {
    let setting = |name| {
        env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let time = Duration::from_secs(setting("SLOTWAY_FUZZ_SECONDS").unwrap_or(2));
    let seed = setting("SLOTWAY_FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(name));
    println!("{name}: SLOTWAY_FUZZ_SEED={seed}");
    let begin = Instant::now();
    let mut count = 0_u64;
    while begin.elapsed() < time {
        let mut dice = Dice(seed.wrapping_add(count.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut dice)));
        assert!(
            outcome.is_ok(),
            "{name}: case {count} of SLOTWAY_FUZZ_SEED={seed} failed"
        );
        count += 1;
    }
    println!("{name}: {count} cases");
    assert!(count > 100, "too few cases to mean anything");
}

/// The files of `tests/corpus/<name>`, in the order of their names.
pub(crate) fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
        .into_iter()
        .map(|path| fs::read(path).unwrap())
        .collect()
}

#[test]
fn json_is_what_serde_json_takes() {
    const TOKENS: [&[u8]; 16] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u00e9",
        b"\"k\":",
        b"1e5",
        b"-0.",
        b"true",
        b"null",
        b" ",
        "\u{20ac}".as_bytes(),
    ];
    let seeds = corpus("json");
    let mut accepted = 0_u64;
    fuzz("json", |dice| {
        let bytes = dice.mutate(&seeds, &TOKENS);
        let ours = crate::json::validate_object(&bytes);
        let theirs = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok()
            && std::str::from_utf8(&bytes).is_ok()
            && bytes.trim_ascii_start().first() == Some(&b'{');
        match ours {
            Ok(members) => {
                accepted += 1;
                assert!(theirs, "{}", bytes.escape_ascii());
                let spliced = [b"{\"value\":{", &bytes[members], b"}}"].concat();
                let is_object = serde_json::from_slice::<IgnoredAny>(&spliced).is_ok();
                assert!(is_object, "{}", bytes.escape_ascii());
            }
            Err(error) if error.what == "nested too deeply" => {}
            Err(error) => assert!(!theirs, "{error}: {}", bytes.escape_ascii()),
        }
    });
    println!("json: {accepted} accepted");
    assert!(accepted > 0);
}
