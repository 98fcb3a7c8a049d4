//! The history: visits per minute, hour and day at one moment.

pub(super) mod reader;

use std::time::{SystemTime, UNIX_EPOCH};

/// The length of one point of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Minute,
    Hour,
    /// By UTC.
    Day,
}

impl Step {
    /// Every step, in the order of [`History::series`].
    pub const ALL: [Step; 3] = [Step::Minute, Step::Hour, Step::Day];

    pub fn seconds(self) -> i64 {
        match self {
            Step::Minute => 60,
            Step::Hour => 3600,
            Step::Day => 86_400,
        }
    }

    /// Points of a series, the current one included.
    pub fn points(self) -> usize {
        match self {
            Step::Minute => 60,
            Step::Hour => 48,
            Step::Day => 90,
        }
    }

    /// Start of the step that contains `time`, in seconds since 1970.
    pub fn start_of(self, time: SystemTime) -> i64 {
        let s = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().cast_signed());
        s - s.rem_euclid(self.seconds())
    }

    /// Start of the first point of a series that ends at `now`.
    pub fn since(self, now: SystemTime) -> i64 {
        self.start_of(now) - self.seconds() * (self.points() as i64 - 1)
    }
}

/// The visits of one step, as a ledger keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    pub step: Step,
    /// In seconds since 1970.
    pub start: i64,
    /// A part of a sum, so perhaps negative.
    pub visits: i64,
}

/// Visits of consecutive steps, the oldest first; the last one is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    pub step: Step,
    /// Start of the first point, in seconds since 1970.
    pub start: i64,
    pub visits: Vec<u64>,
}

impl Series {
    /// Start of a point, in seconds since 1970.
    pub fn start_of(&self, index: usize) -> i64 {
        self.start + self.step.seconds() * index as i64
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// One for each of [`Step::ALL`].
    pub series: [Series; 3],
}

impl History {
    /// The series that end at `now`, from the ledger's buckets.
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
