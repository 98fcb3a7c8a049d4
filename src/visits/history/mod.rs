//! The history: visits per minute, hour and day, as they stand at one moment.

pub(super) mod reader;

use std::time::{SystemTime, UNIX_EPOCH};

/// How long one point of a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The last hour has 60 of them.
    Minute,
    /// The last two days have 48.
    Hour,
    /// The last 90 days, by UTC.
    Day,
}

impl Step {
    /// Every step, in the order of [`History::series`].
    pub const ALL: [Step; 3] = [Step::Minute, Step::Hour, Step::Day];

    /// Its length in seconds.
    pub fn seconds(self) -> i64 {
        match self {
            Step::Minute => 60,
            Step::Hour => 3600,
            Step::Day => 86_400,
        }
    }

    /// Points in a series, the running one included.
    pub fn points(self) -> usize {
        match self {
            Step::Minute => 60,
            Step::Hour => 48,
            Step::Day => 90,
        }
    }

    /// Where the step begins that holds `time`: seconds since 1970, a multiple of
    /// [`Step::seconds`].
    pub fn start_of(self, time: SystemTime) -> i64 {
        let s = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().cast_signed());
        s - s.rem_euclid(self.seconds())
    }

    /// Where the first point of a series begins that ends at `now`.
    pub fn since(self, now: SystemTime) -> i64 {
        self.start_of(now) - self.seconds() * (self.points() as i64 - 1)
    }
}

/// The visits of one step of time, as a ledger keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Which kind of step.
    pub step: Step,
    /// Where it begins, in seconds since 1970.
    pub start: i64,
    /// Visits in it. A part of a sum may be negative.
    pub visits: i64,
}

/// Visits of consecutive steps, the oldest first, the last one still running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// What a point is.
    pub step: Step,
    /// Where the first point begins, in seconds since 1970.
    pub start: i64,
    /// One for each point.
    pub visits: Vec<u64>,
}

impl Series {
    /// Where the point of that index begins, in seconds since 1970.
    pub fn start_of(&self, index: usize) -> i64 {
        self.start + self.step.seconds() * index as i64
    }
}

/// The history at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// One for each of [`Step::ALL`].
    pub series: [Series; 3],
}

impl History {
    /// The series that end at `now`, from the parts that a ledger gave.
    pub fn new(now: SystemTime, buckets: &[Bucket]) -> History {
        let series = Step::ALL.map(|step| {
            let start = step.since(now);
            let mut sums = vec![0_i64; step.points()];
            for bucket in buckets.iter().filter(|bucket| bucket.step == step) {
                let index = usize::try_from((bucket.start - start).div_euclid(step.seconds()))
                    .unwrap_or(usize::MAX);
                if let Some(sum) = sums.get_mut(index) {
                    *sum += bucket.visits;
                }
            }
            let visits = sums
                .into_iter()
                .map(|sum| u64::try_from(sum).unwrap_or(0))
                .collect();
            Series {
                step,
                start,
                visits,
            }
        });
        History { series }
    }

    /// The series of that step.
    pub fn of(&self, step: Step) -> &Series {
        &self.series[step as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn parts_are_added_where_they_belong_and_others_left_out() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_059);
        let start = Step::Minute.start_of(now);
        let part = |start, visits| Bucket {
            step: Step::Minute,
            start,
            visits,
        };
        let parts = [
            part(start, 5),
            part(start, -2),
            part(start - 59 * 60, 1),
            part(start - 60 * 60, 9),
            part(start + 60, 9),
        ];
        let history = History::new(now, &parts);
        let minutes = history.of(Step::Minute);
        assert_eq!(
            (minutes.visits.len(), minutes.visits[59], minutes.visits[0]),
            (60, 3, 1)
        );
        assert_eq!(minutes.visits.iter().sum::<u64>(), 4);
        assert_eq!(minutes.start_of(59), start);
        assert_eq!(
            (
                history.of(Step::Hour).visits.len(),
                history.of(Step::Day).visits.len()
            ),
            (48, 90)
        );
    }
}
