//! The rows of visits that a database holds, against what visitors were told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use ::postgres::Client;

use super::load::Tally;

/// A table of visits whose rows tell which process they are from, by the `application_name` of its
/// `DATABASE_URL`. A process with one worker gives no two visits the same moment.
pub const TABLE: &str = "CREATE TABLE acessos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
    momento timestamptz NOT NULL DEFAULT now(), web text NOT NULL DEFAULT current_setting('application_name'))";

/// What a database holds of the visits that were made.
#[derive(Debug)]
pub struct Rows {
    moments: Vec<SystemTime>,
    /// Rows whose process and moment another row has too.
    pub twice: u64,
}

impl Rows {
    /// Reads a table made by [`TABLE`].
    pub fn of(sql: &mut Client) -> Rows {
        let rows = sql
            .query("SELECT momento FROM acessos ORDER BY momento", &[])
            .expect("the moments");
        let twice = "SELECT count(*) - count(DISTINCT (web, momento)) FROM acessos";
        let twice: i64 = sql.query_one(twice, &[]).expect("a count").get(0);
        Rows {
            moments: rows.iter().map(|row| row.get(0)).collect(),
            twice: u64::try_from(twice).expect("none below 0"),
        }
    }

    pub fn count(&self) -> u64 {
        self.moments.len() as u64
    }

    /// How many answers of 200 have no row of their own. A row can only be that of an answer which
    /// was waited for at the row's moment, so a row of a refused visit does not stand in for one
    /// that was lost earlier or later.
    pub fn lost(&self, tally: &Tally) -> u64 {
        assert_eq!(
            tally.spans.len() as u64,
            tally.ok(),
            "the spans of this load were not kept"
        );
        let mut spans = tally.spans.clone();
        spans.sort_unstable();
        let mut begun = spans.iter().peekable();
        // Open answers, the one that ends first on top: it has the fewest rows left to choose from.
        let mut open = BinaryHeap::new();
        let mut matched = 0;
        for moment in &self.moments {
            // The database keeps microseconds.
            while let Some((_, end)) =
                begun.next_if(|(start, _)| *start <= *moment + Duration::from_micros(1))
            {
                open.push(Reverse(*end));
            }
            while open.peek().is_some_and(|Reverse(end)| end < moment) {
                open.pop();
            }
            matched += u64::from(open.pop().is_some());
        }
        tally.ok() - matched
    }
}

#[test]
fn a_row_stands_only_for_an_answer_that_was_waited_for_at_its_moment() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let lost = |moments: &[u64], spans: &[(u64, u64)]| {
        let rows = Rows {
            moments: moments.iter().map(|moment| at(*moment)).collect(),
            twice: 0,
        };
        rows.lost(&Tally::of_spans(
            spans
                .iter()
                .map(|(start, end)| (at(*start), at(*end)))
                .collect(),
        ))
    };
    assert_eq!(lost(&[1, 2, 3], &[(1, 1), (2, 2), (3, 3)]), 0);
    assert_eq!(lost(&[2, 2], &[(1, 9), (2, 2)]), 0);
    // The first span could take either row, the second only one.
    assert_eq!(lost(&[2, 5], &[(1, 9), (1, 3)]), 0);
    assert_eq!(lost(&[5, 6], &[(1, 9), (1, 3)]), 1);
    assert_eq!(lost(&[4], &[(1, 3)]), 1);
    assert_eq!(lost(&[], &[(1, 3), (2, 4)]), 2);
}
