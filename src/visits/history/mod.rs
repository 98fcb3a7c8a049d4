//! The history: visits per minute, hour, day and month at one moment.

mod calendar;
pub(super) mod reader;

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_S: i64 = 86_400;

/// The length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Minute,
    Hour,
    /// By UTC.
    Day,
}

impl Step {
    pub const ALL: [Step; 3] = [Step::Minute, Step::Hour, Step::Day];

    pub fn seconds(self) -> i64 {
        match self {
            Step::Minute => 60,
            Step::Hour => 3600,
            Step::Day => DAY_S,
        }
    }

    /// Start of the step that contains `time`, in seconds since 1970.
    pub fn start_of(self, time: SystemTime) -> i64 {
        let s = unix_s(time);
        s - s.rem_euclid(self.seconds())
    }

    /// Start of the oldest bucket that a history needs which ends at `now`.
    pub fn since(self, now: SystemTime) -> i64 {
        let longest = match self {
            Step::Minute => Period::Minute,
            Step::Hour => Period::Hour,
            Step::Day => Period::Month,
        };
        longest.start(longest.first(now))
    }
}

/// The length of a point of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    Minute,
    Hour,
    /// By UTC.
    Day,
    /// By UTC.
    Month,
}

impl Period {
    /// Every period, in the order of [`History::series`].
    pub const ALL: [Period; 4] = [Period::Minute, Period::Hour, Period::Day, Period::Month];

    /// The buckets that it is made of.
    fn step(self) -> Step {
        match self {
            Period::Minute => Step::Minute,
            Period::Hour => Step::Hour,
            Period::Day | Period::Month => Step::Day,
        }
    }

    /// `None` for months, which differ.
    pub fn seconds(self) -> Option<i64> {
        (self != Period::Month).then(|| self.step().seconds())
    }

    /// Points of a series, the current one included.
    pub fn points(self) -> usize {
        match self {
            Period::Minute => 60,
            Period::Hour => 48,
            Period::Day => 90,
            Period::Month => 24,
        }
    }

    /// The number of the point that contains this second since 1970.
    fn number(self, second: i64) -> i64 {
        match self.seconds() {
            Some(seconds) => second.div_euclid(seconds),
            None => calendar::month_of(second.div_euclid(DAY_S)),
        }
    }

    /// Start of the point of that number, in seconds since 1970.
    fn start(self, number: i64) -> i64 {
        match self.seconds() {
            Some(seconds) => number * seconds,
            None => calendar::first_day(number) * DAY_S,
        }
    }

    /// The number of the first point of a series that ends at `now`.
    fn first(self, now: SystemTime) -> i64 {
        self.number(unix_s(now)) - (self.points() as i64 - 1)
    }
}

fn unix_s(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed())
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

/// Visits of consecutive points, the oldest first; the last one is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    pub period: Period,
    /// The number of the first point.
    first: i64,
    pub visits: Vec<u64>,
}

impl Series {
    /// Start of a point, in seconds since 1970.
    pub fn start_of(&self, index: usize) -> i64 {
        self.period.start(self.first + index as i64)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// One for each of [`Period::ALL`].
    pub series: [Series; 4],
}

impl History {
    /// The series that end at `now`, from the ledger's buckets.
    pub fn new(now: SystemTime, buckets: &[Bucket]) -> History {
        let series = Period::ALL.map(|period| {
            let first = period.first(now);
            let mut sums = vec![0_i64; period.points()];
            for bucket in buckets.iter().filter(|bucket| bucket.step == period.step()) {
                let index =
                    usize::try_from(period.number(bucket.start) - first).unwrap_or(usize::MAX);
                if let Some(sum) = sums.get_mut(index) {
                    *sum += bucket.visits;
                }
            }
            let visits = sums
                .into_iter()
                .map(|sum| u64::try_from(sum).unwrap_or(0))
                .collect();
            Series {
                period,
                first,
                visits,
            }
        });
        History { series }
    }

    pub fn of(&self, period: Period) -> &Series {
        &self.series[period as usize]
    }

    /// Visits of today, and of this week, which began on Monday: by UTC.
    pub fn today_and_week(&self) -> (u64, u64) {
        let days = self.of(Period::Day);
        // Day 0 of 1970 was a Thursday.
        let today = days.first + days.visits.len() as i64 - 1;
        let since_monday = (today + 3).rem_euclid(7) as usize;
        let mut newest = days.visits.iter().rev();
        let today = newest.next().copied().unwrap_or(0);
        (today, today + newest.take(since_monday).sum::<u64>())
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
        let minutes = history.of(Period::Minute);
        assert_eq!(
            (minutes.visits.len(), minutes.visits[59], minutes.visits[0]),
            (60, 3, 1)
        );
        assert_eq!(minutes.visits.iter().sum::<u64>(), 4);
        assert_eq!(minutes.start_of(59), start);
        let lengths = Period::ALL.map(|period| history.of(period).visits.len());
        assert_eq!(lengths, [60, 48, 90, 24]);
    }

    #[test]
    fn days_make_months_and_weeks_begin_on_monday() {
        // 2001-09-09, a Sunday.
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let today = Step::Day.start_of(now);
        let buckets: Vec<Bucket> = (0..800)
            .map(|day| Bucket {
                step: Step::Day,
                start: today - day * DAY_S,
                visits: 1,
            })
            .collect();
        let history = History::new(now, &buckets);
        assert_eq!(history.today_and_week(), (1, 7));
        assert_eq!(history.of(Period::Day).visits, vec![1; 90]);
        let months = history.of(Period::Month);
        assert_eq!(months.visits[21..], [31, 31, 9], "July, August, September");
        assert_eq!(months.visits[4], 29, "February of 2000");
        assert_eq!(months.start_of(23), today - 8 * DAY_S);
        let monday = History::new(now + Duration::from_secs(DAY_S as u64), &buckets);
        assert_eq!(monday.today_and_week(), (0, 0));
    }
}
