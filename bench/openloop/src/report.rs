//! What became of the requests.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// The greatest latency that is told apart, in µs.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Some time of one action's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Arrived in it, by the schedule.
    pub arrived: u32,
    /// Succeeded in it.
    pub ok: u32,
    /// Failed in it, the action's own errors among them.
    pub failed: u32,
    /// The greatest latency of those that succeeded in it, in µs.
    pub latency_us_max: u64,
}

/// What became of one action's requests.
#[derive(Clone, Debug)]
pub struct ActionReport {
    /// "namespace/name".
    pub action: String,
    /// Requests by how they ended: "ok", "application error", the reason of an `ErrorInfo`, "status N", "connection", "no
    /// answer". They sum to all that arrived.
    pub outcomes: BTreeMap<String, u64>,
    /// From the moment that the schedule named to the last byte of the answer, in µs; of those that succeeded.
    pub latency: Histogram<u64>,
    /// Succeeded, but later than the plan allows.
    pub late: u64,
    /// The greatest number that the witness in the action told.
    pub seen_max: u64,
    /// The longest time without a success between two of them: its length and its end, in ns.
    pub gap_ns: (u64, u64),
    /// All of the time, from its beginning on.
    pub buckets: Vec<Bucket>,
    ok_at_ns: Option<u64>,
}

/// What became of all requests. Moments are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug)]
pub struct Report {
    /// When the schedule began.
    pub began_ns: u64,
    /// When the last request had ended.
    pub ended_ns: u64,
    /// How late the generator itself sent, in µs.
    pub lag: Histogram<u64>,
    /// The width of the buckets.
    pub bucket_ns: u64,
    /// By target.
    pub actions: Vec<ActionReport>,
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds that are allowed")
}

pub(crate) fn note(histogram: &mut Histogram<u64>, nanoseconds: u64) {
    histogram.saturating_record((nanoseconds / 1_000).max(1));
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It succeeded; what the witness told.
    Ok(Option<u64>),
    /// It did not.
    Failed(String),
}

impl Report {
    pub(crate) fn new(
        began_ns: u64,
        bucket_ns: u64,
        actions: impl Iterator<Item = String>,
    ) -> Self {
        let report = |action| ActionReport {
            action,
            outcomes: BTreeMap::new(),
            latency: histogram(),
            late: 0,
            seen_max: 0,
            gap_ns: (0, 0),
            buckets: Vec::new(),
            ok_at_ns: None,
        };
        Self {
            began_ns,
            ended_ns: began_ns,
            lag: histogram(),
            bucket_ns,
            actions: actions.map(report).collect(),
        }
    }

    fn bucket(&mut self, target: usize, at_ns: u64) -> &mut Bucket {
        let index = at_ns.saturating_sub(self.began_ns) / self.bucket_ns;
        let index = usize::try_from(index).expect("the plan bounds the buckets");
        let buckets = &mut self.actions[target].buckets;
        if buckets.len() <= index {
            buckets.resize(index + 1, Bucket::default());
        }
        &mut buckets[index]
    }

    pub(crate) fn arrived(&mut self, target: usize, at_ns: u64) {
        self.bucket(target, at_ns).arrived += 1;
    }

    pub(crate) fn ended(
        &mut self,
        target: usize,
        at_ns: u64,
        now_ns: u64,
        late_ns: u64,
        ending: &Ending,
    ) {
        self.ended_ns = self.ended_ns.max(now_ns);
        let latency_ns = now_ns.saturating_sub(at_ns);
        let bucket = self.bucket(target, now_ns);
        let outcome = match ending {
            Ending::Ok(_) => {
                bucket.ok += 1;
                bucket.latency_us_max = bucket.latency_us_max.max(latency_ns / 1_000);
                "ok"
            }
            Ending::Failed(why) => {
                bucket.failed += 1;
                why
            }
        };
        let action = &mut self.actions[target];
        if let Some(count) = action.outcomes.get_mut(outcome) {
            *count += 1;
        } else {
            action.outcomes.insert(outcome.to_owned(), 1);
        }
        if let Ending::Ok(seen) = ending {
            note(&mut action.latency, latency_ns);
            action.late += u64::from(latency_ns > late_ns);
            action.seen_max = action.seen_max.max(seen.unwrap_or(0));
            let gap_ns = now_ns - action.ok_at_ns.replace(now_ns).unwrap_or(now_ns);
            if gap_ns > action.gap_ns.0 {
                action.gap_ns = (gap_ns, now_ns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_counted_where_they_belong() {
        let mut report = Report::new(1_000, 100, ["a/b".to_owned()].into_iter());
        for (at, now, ending) in [
            (1_000, 1_050, Ending::Ok(Some(3))),
            (1_000, 1_350, Ending::Ok(Some(2))),
            (1_020, 1_380, Ending::Failed("QUEUE_FULL".to_owned())),
        ] {
            report.arrived(0, at);
            report.ended(0, at, now, 100, &ending);
        }
        let action = &report.actions[0];
        let outcomes: Vec<_> = action
            .outcomes
            .iter()
            .map(|(k, v)| (k.as_str(), *v))
            .collect();
        assert_eq!(outcomes, [("QUEUE_FULL", 1), ("ok", 2)]);
        assert_eq!(
            (action.late, action.seen_max, action.gap_ns),
            (1, 3, (300, 1_350))
        );
        let counts: Vec<_> = action
            .buckets
            .iter()
            .map(|b| (b.arrived, b.ok, b.failed))
            .collect();
        assert_eq!(counts, [(3, 1, 0), (0, 0, 0), (0, 0, 0), (0, 1, 1)]);
        assert_eq!(report.ended_ns, 1_380);
    }
}
