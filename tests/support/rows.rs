//! Rows and answers matched by time: which 200 has no row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use ::postgres::Client;

use super::load::Outcomes;

/// The rows of a table.
#[derive(Debug)]
pub struct Rows {
    moments: Vec<SystemTime>,
    /// Rows that share process and moment with another row.
    pub twice: u64,
}

impl Rows {
    /// Reads the table of [`super::audit::TABLE`]. With one worker per process no two visits share
    /// a moment.
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

    /// The number of 200s without a row. A row only matches an answer that was awaited at the row's
    /// moment, so the row of a refused visit does not replace one that was lost earlier or later.
    pub fn lost(&self, outcomes: &Outcomes) -> u64 {
        assert_eq!(
            outcomes.spans.len() as u64,
            outcomes.ok(),
            "the spans of this load were not kept"
        );
        let mut spans = outcomes.spans.clone();
        spans.sort_unstable();
        let mut begun = spans.iter().peekable();
        // Awaited answers, the one that ends first on top: it has the fewest rows left to match.
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
        outcomes.ok() - matched
    }
}

#[test]
fn a_row_matches_only_an_answer_awaited_at_its_moment() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let lost = |moments: &[u64], spans: &[(u64, u64)]| {
        let rows = Rows {
            moments: moments.iter().map(|moment| at(*moment)).collect(),
            twice: 0,
        };
        rows.lost(&Outcomes::of_spans(
            spans
                .iter()
                .map(|(start, end)| (at(*start), at(*end)))
                .collect(),
        ))
    };
    assert_eq!(lost(&[1, 2, 3], &[(1, 1), (2, 2), (3, 3)]), 0);
    assert_eq!(lost(&[2, 2], &[(1, 9), (2, 2)]), 0);
    // The first span matches either row, the second only one.
    assert_eq!(lost(&[2, 5], &[(1, 9), (1, 3)]), 0);
    assert_eq!(lost(&[5, 6], &[(1, 9), (1, 3)]), 1);
    assert_eq!(lost(&[4], &[(1, 3)]), 1);
    assert_eq!(lost(&[], &[(1, 3), (2, 4)]), 2);
}
