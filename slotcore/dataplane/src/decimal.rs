//! Numbers in decimal, on the stack.

/// The digits of a number, at the end of an array.
#[derive(Debug)]
pub(crate) struct Decimal {
    bytes: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(mut number: u64) -> Self {
        let mut bytes = [b'0'; 20];
        let mut start = 20;
        while number > 0 || start == 20 {
            start -= 1;
            bytes[start] = b"0123456789"[(number % 10) as usize];
            number /= 10;
        }
        Self { bytes, start }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::Decimal;

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 1_048_576, u64::MAX] {
            assert_eq!(
                Decimal::new(number).as_slice(),
                number.to_string().as_bytes()
            );
        }
    }
}
