//! When requests arrive: a schedule that is a pure function of rate, shape and seed.
//!
//! All but the constant one are Poisson processes whose rate changes over time, drawn by thinning (Lewis and Shedler,
//! 1979): candidates come at the greatest rate, and each is kept with the chance rate(t) / greatest rate.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::Plan;

/// The shape of the arrivals; each has the plan's rate on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Evenly spaced.
    Constant,
    /// Independent of each other.
    Poisson,
    /// Poisson, `factor` times the rate in the first 1 / (2 · `factor`) of each `period`: half of all arrivals. The
    /// other half comes in the rest of it.
    Bursty {
        /// How many times the average rate a burst has; above 1.
        factor: f64,
        /// From one burst to the next.
        period: Duration,
    },
    /// Poisson, around the rate as a sine wave that begins at its mean and rises.
    Wave {
        /// How far the rate swings, as a part of its mean, 0 to 1.
        depth: f64,
        /// Of the wave.
        period: Duration,
    },
}

impl Arrivals {
    pub(crate) fn check(&self) -> Result<(), String> {
        match *self {
            Self::Bursty { factor, period }
                if !(factor > 1.0 && factor <= 1e4) || period.is_zero() =>
            {
                Err(
                    "a burst has 1 to 10,000 times the rate (more than 1), and a period above 0"
                        .to_owned(),
                )
            }
            Self::Wave { depth, period } if !(0.0..=1.0).contains(&depth) || period.is_zero() => {
                Err("a wave has a depth of 0 to 1, and a period above 0".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The rate at a time, relative to the average, and the greatest that it can be.
    fn relative(&self, at_s: f64) -> (f64, f64) {
        match *self {
            Self::Constant | Self::Poisson => (1.0, 1.0),
            Self::Bursty { factor, period } => {
                let part = 0.5 / factor;
                let burst = (at_s / period.as_secs_f64()).fract() < part;
                (if burst { factor } else { 0.5 / (1.0 - part) }, factor)
            }
            Self::Wave { depth, period } => {
                let phase = at_s / period.as_secs_f64() * TAU;
                (1.0 + depth * phase.sin(), 1.0 + depth)
            }
        }
    }
}

/// One request to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the beginning.
    pub at: Duration,
    /// Index of the target.
    pub target: usize,
    /// Index of the endpoint.
    pub endpoint: usize,
}

/// All requests of a plan, in their order.
#[derive(Debug)]
pub struct Schedule {
    random: SmallRng,
    arrivals: Arrivals,
    rate: f64,
    end_s: f64,
    at_s: f64,
    number: u64,
    endpoints: usize,
    /// Sums of the weights up to each target.
    cumulated: Vec<f64>,
}

impl Schedule {
    /// The schedule of a plan that has been checked.
    pub fn new(plan: &Plan) -> Self {
        let mut sum = 0.0;
        let add = |target: &crate::Target| {
            sum += target.weight;
            sum
        };
        Self {
            random: SmallRng::seed_from_u64(plan.seed),
            arrivals: plan.arrivals,
            rate: plan.rate,
            end_s: plan.duration.as_secs_f64(),
            at_s: 0.0,
            number: 0,
            endpoints: plan.endpoints.len(),
            cumulated: plan.targets.iter().map(add).collect(),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "2^52 requests are far away")]
    fn advance(&mut self) {
        if self.arrivals == Arrivals::Constant {
            self.at_s = self.number as f64 / self.rate;
            self.number += 1;
            return;
        }
        loop {
            let (_, greatest) = self.arrivals.relative(self.at_s);
            let even: f64 = self.random.random();
            self.at_s += -(1.0 - even).ln() / (self.rate * greatest);
            let (now, greatest) = self.arrivals.relative(self.at_s);
            if self.random.random::<f64>() * greatest < now || self.at_s >= self.end_s {
                return;
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.advance();
        if self.at_s >= self.end_s {
            return None;
        }
        let all = *self.cumulated.last().expect("a checked plan has targets");
        let drawn = self.random.random::<f64>() * all;
        let target = self.cumulated.partition_point(|sum| *sum <= drawn);
        Some(Arrival {
            at: Duration::from_secs_f64(self.at_s),
            target: target.min(self.cumulated.len() - 1),
            endpoint: self.random.random_range(0..self.endpoints),
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "small counts"
)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::Target;

    const S: Duration = Duration::from_secs(1);

    fn plan(arrivals: Arrivals, rate: f64, seed: u64) -> Plan {
        let target = |weight| Target {
            action: String::new(),
            payload: Vec::new(),
            weight,
        };
        Plan {
            endpoints: vec![SocketAddr::from(([127, 0, 0, 1], 1)); 3],
            connections: 1,
            targets: vec![target(3.0), target(0.0), target(1.0)],
            arrivals,
            rate,
            duration: S * 100,
            deadline: S,
            outstanding_max: 1,
            late: S,
            bucket: S,
            seed,
        }
    }

    fn shapes() -> impl Strategy<Value = Arrivals> {
        prop_oneof![
            Just(Arrivals::Constant),
            Just(Arrivals::Poisson),
            (1.5..20.0f64).prop_map(|factor| Arrivals::Bursty { factor, period: S }),
            (0.0..1.0f64).prop_map(|depth| Arrivals::Wave {
                depth,
                period: S * 10
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_schedule_has_its_rate_and_is_the_same_again(shape in shapes(), rate in 50.0..500.0f64, seed: u64) {
            let plan = plan(shape, rate, seed);
            prop_assert_eq!(plan.check(), Ok(()));
            let all: Vec<Arrival> = Schedule::new(&plan).collect();
            prop_assert!(all.iter().eq(&Schedule::new(&plan).collect::<Vec<_>>()));
            prop_assert!(all.is_sorted_by_key(|arrival| arrival.at));
            prop_assert!(all.iter().all(|arrival| arrival.at < plan.duration));
            // Seven standard deviations of a Poisson count.
            let expected = rate * 100.0;
            let off = (all.len() as f64 - expected).abs();
            prop_assert!(off <= 7.0 * expected.sqrt(), "{} of {}", all.len(), expected);
            let of = |target| all.iter().filter(|arrival| arrival.target == target).count() as f64;
            prop_assert_eq!(of(1), 0.0);
            let off = (of(2) - all.len() as f64 / 4.0).abs();
            prop_assert!(off <= 7.0 * expected.sqrt(), "{} of target 2", of(2));
        }
    }

    #[test]
    fn half_of_a_bursty_schedule_comes_in_bursts() {
        let shape = Arrivals::Bursty {
            factor: 10.0,
            period: S,
        };
        let plan = plan(shape, 1_000.0, 7);
        let all: Vec<Arrival> = Schedule::new(&plan).collect();
        let burst = |arrival: &&Arrival| arrival.at.subsec_millis() < 50;
        let part = all.iter().filter(burst).count() as f64 / all.len() as f64;
        assert!((0.48..0.52).contains(&part), "{part}");
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        let good = plan(Arrivals::Constant, 1.0, 1);
        let broken: [fn(&mut Plan); 8] = [
            |plan| plan.endpoints.clear(),
            |plan| plan.targets.clear(),
            |plan| plan.rate = f64::NAN,
            |plan| plan.rate = 0.0,
            |plan| {
                for target in &mut plan.targets {
                    target.weight = 0.0;
                }
            },
            |plan| plan.bucket = Duration::ZERO,
            |plan| {
                plan.arrivals = Arrivals::Bursty {
                    factor: 1.0,
                    period: S,
                }
            },
            |plan| {
                plan.arrivals = Arrivals::Wave {
                    depth: 1.5,
                    period: S,
                }
            },
        ];
        for change in broken {
            let mut plan = good.clone();
            change(&mut plan);
            assert!(plan.check().is_err());
        }
    }
}
