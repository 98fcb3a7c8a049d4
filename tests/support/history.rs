//! The history as `/history` shows it, against the rows.

use std::collections::BTreeMap;

use super::clock;
use super::database::Database;
use super::server::{Settings, Visitas};

/// The name of each step, its SQL interval, and the number of its points.
pub const STEPS: [(&str, &str, usize); 4] = [
    ("minute", "1 minute", 60),
    ("hour", "1 hour", 48),
    ("day", "1 day", 90),
    ("month", "1 month", 24),
];

/// The points of a series: start and visits.
#[track_caller]
pub fn points(visitas: &Visitas, by: &str) -> Vec<(String, u64)> {
    let response = visitas.get(&format!("/history?by={by}"));
    assert_eq!(response.status, 200, "{response:?}\n{}", visitas.output());
    let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    let point = |point: &serde_json::Value| {
        (
            point["start"].as_str().expect("a start").to_owned(),
            point["visits"].as_u64().expect("visits"),
        )
    };
    json["points"]
        .as_array()
        .expect("points")
        .iter()
        .map(point)
        .collect()
}

pub fn sum(visitas: &Visitas, by: &str) -> u64 {
    points(visitas, by).iter().map(|(_, visits)| visits).sum()
}

/// The same series, counted from the rows.
fn counted(database: &Database<'_>, by: &str, span: &str, count: usize) -> BTreeMap<String, u64> {
    let query = format!(
        "SELECT to_char(start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), count(*) FROM acessos, \
         LATERAL (SELECT date_trunc('{by}', momento AT TIME ZONE 'UTC') AS start, \
             date_trunc('{by}', now() AT TIME ZONE 'UTC') AS last) AS s \
         WHERE isfinite(momento) AND start <= last \
             AND start > last - {count} * interval '{span}' GROUP BY 1"
    );
    let rows = database
        .superuser()
        .query(&query, &[])
        .expect("the rows by time");
    rows.iter()
        .map(|row| (row.get(0), row.get::<_, i64>(1) as u64))
        .collect()
}

/// Every point of every series equals the rows. If a step ends in between, it asks again.
#[track_caller]
pub fn is_exact(visitas: &Visitas, database: &Database<'_>) {
    for (by, span, count) in STEPS {
        let mut last = None;
        for _ in 0..3 {
            let shown = points(visitas, by);
            assert_eq!(shown.len(), count);
            let shown: BTreeMap<String, u64> = shown
                .into_iter()
                .filter(|(_, visits)| *visits > 0)
                .collect();
            let there = counted(database, by, span, count);
            last = (shown != there).then_some((shown, there));
            if last.is_none() {
                break;
            }
        }
        if let Some((shown, there)) = last {
            panic!(
                "by {by}: shown {shown:?}, there {there:?}\n{}",
                visitas.output()
            );
        }
    }
}

/// Settings with a clock ten days ahead. `None`, and a line about it, where this is not possible.
#[track_caller]
pub fn clock_ahead(settings: Settings) -> Option<Settings> {
    match clock::faked(settings) {
        Ok(settings) => Some(settings.set("FAKETIME", "+10d")),
        Err(why) => {
            super::skipped("a clock ahead", &why);
            None
        }
    }
}
