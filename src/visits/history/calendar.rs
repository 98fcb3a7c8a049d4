//! Months of the Gregorian calendar, by UTC. Each has a number: those since January of year 0.

const MONTHS_TO_1970: i64 = 1970 * 12;
/// Of 400 years, after which the calendar repeats.
const CYCLE: (i64, i64) = (4800, 146_097);

/// The first day of a month, in days since 1970.
pub(super) fn first_day(month: i64) -> i64 {
    // Years that begin in March end with their leap day.
    let (year, month) = ((month - 2).div_euclid(12), (month - 2).rem_euclid(12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From March on 31, 30, 31, 30 and 31 days, and again.
    let before_month = (153 * month + 2) / 5;
    365 * year + leap_days + before_month - 719_468
}

/// The month of a day, which is in days since 1970.
pub(super) fn month_of(day: i64) -> i64 {
    let (months, days) = CYCLE;
    // Within a month of the right one.
    let near = MONTHS_TO_1970 + (day * months).div_euclid(days);
    (near - 1..=near + 1)
        .rev()
        .find(|month| first_day(*month) <= day)
        .unwrap_or(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_last_one_ends() {
        assert_eq!(first_day(MONTHS_TO_1970), 0);
        assert_eq!(first_day(2000 * 12 + 2), 11_017, "2000-03-01");
        let mut first = first_day(1600 * 12);
        for month in 1600 * 12..2400 * 12 {
            let next = first_day(month + 1);
            assert!((28..=31).contains(&(next - first)), "{month}");
            for day in first..next {
                assert_eq!(month_of(day), month, "day {day}");
            }
            first = next;
        }
    }
}
