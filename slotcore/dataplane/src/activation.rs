//! Ids of activations: `UUIDv7`s, in text.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// An activation's id as it is written.
pub(crate) type Id = [u8; 36];

/// Makes ids that sort by time and, within a millisecond, by the order in which they were made.
#[derive(Debug)]
pub(crate) struct Ids {
    random: u64,
    last_ms: u64,
    count: u16,
}

impl Ids {
    /// Seeded by the operating system.
    pub(crate) fn new() -> Self {
        Self {
            random: RandomState::new().hash_one(0),
            last_ms: 0,
            count: 0,
        }
    }

    /// The next id, for this time in milliseconds since 1970.
    pub(crate) fn next(&mut self, now_ms: u64) -> Id {
        // Within one millisecond 12 bits count; past that, or when the clock steps back, the time of the id runs ahead.
        if now_ms > self.last_ms {
            (self.last_ms, self.count) = (now_ms, 0);
        } else if self.count == 0xfff {
            (self.last_ms, self.count) = (self.last_ms + 1, 0);
        } else {
            self.count += 1;
        }
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = self.last_ms << 16 | 0x7000 | u64::from(self.count);
        let low = (z ^ (z >> 31)) >> 2 | 1 << 63;
        text(high, low)
    }
}

fn text(high: u64, low: u64) -> Id {
    let (a, b) = (hex(high >> 32), hex(high & 0xffff_ffff));
    let (c, d) = (hex(low >> 32), hex(low & 0xffff_ffff));
    let mut out = [b'-'; 36];
    out[..8].copy_from_slice(&a);
    out[9..13].copy_from_slice(&b[..4]);
    out[14..18].copy_from_slice(&b[4..]);
    out[19..23].copy_from_slice(&c[..4]);
    out[24..28].copy_from_slice(&c[4..]);
    out[28..].copy_from_slice(&d);
    out
}

/// The eight digits of a number of 32 bits, made at once: one byte of a word for each.
fn hex(number: u64) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let halves = (number << 16 | number) & 0x0000_ffff_0000_ffff;
    let bytes = (halves << 8 | halves) & 0x00ff_00ff_00ff_00ff;
    let digits = (bytes << 4 | bytes) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((digits + ONES * 6) >> 4) & ONES;
    let gap = u64::from(b'a' - b'0' - 10);
    (digits + ONES * u64::from(b'0') + letters * gap).to_be_bytes()
}

/// Milliseconds since 1970.
pub(crate) fn epoch_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_digits_and_the_dashes() {
        let id = text(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(&id, b"01234567-89ab-cdef-fedc-ba9876543210");
    }

    #[test]
    fn ids_are_version_7_and_sort_by_the_order_they_were_made_in() {
        let mut ids = Ids::new();
        let mut made = Vec::new();
        for i in 0..20_000u64 {
            // The clock stands still, steps back and goes on.
            made.push(ids.next(1_700_000_000_000 + if i == 5_000 { 0 } else { i / 6_000 }));
        }
        assert!(made.is_sorted());
        made.dedup();
        assert_eq!(made.len(), 20_000);
        for id in made {
            assert!(id[14] == b'7' && matches!(id[19], b'8'..=b'b'));
            assert!([8, 13, 18, 23].iter().all(|at| id[*at] == b'-'));
        }
    }
}
