//! visitas itself killed, over either ledger; its own file on a full disk; its clock set forward
//! and back.

use std::fs;
use std::time::Duration;

use super::account::{Account, Allow, Rows, prepare};
use super::play::{Fleet, Form, Play, any, last};
use crate::support::run::Folder;
use crate::support::{Cluster, Settings, SmallDisk, clock, within};

/// Kills in each scenario about them, however short it is.
const KILLS: usize = 50;

/// A disk without room is noticed once the file has none within itself.
const FULL_LIMIT: Duration = Duration::from_secs(30);

/// One process of the fleet is killed at any moment and started again.
pub fn killed(form: &Form) -> Result<Account, String> {
    let database = Cluster::shared().database();
    prepare(&database);
    let mut play = Play::start(form, || Settings::new().postgres(&database));
    let least = if form.time < Duration::from_secs(30) {
        1
    } else {
        KILLS
    };
    play.run(least, |play| {
        last(Duration::from_millis(any(100)));
        let which = any(play.web.len() as u64) as usize;
        play.kill_web(which, None);
    });
    Ok(play.end(&Rows::Database(&database), None).allow(Allow {
        no_answer: true,
        ..Allow::default()
    }))
}

/// The process that keeps its rows in a file of its own is killed at any moment and started again.
pub fn embedded_killed(form: &Form) -> Result<Account, String> {
    let folder = Folder::new("store");
    let account = embedded(form, folder.path(), KILLS, |play| {
        last(Duration::from_millis(any(60)));
        // Sometimes also while it starts.
        let soon = (any(2) == 0).then(|| Duration::from_millis(any(30)));
        play.kill_web(0, soon);
    });
    Ok(account.allow(Allow {
        no_answer: true,
        ..Allow::default()
    }))
}

/// The disk under the file fills up until it takes no row; then there is room again.
pub fn embedded_disk_full(form: &Form) -> Result<Account, String> {
    let disk = SmallDisk::new(512)?;
    // What the file has room for within itself is used up first: the sooner, the better.
    let form = Form {
        pause: Duration::ZERO,
        ..*form
    };
    Ok(embedded(&form, &disk.path().join("store"), 1, |play| {
        disk.fill(any(4) * 64);
        within(FULL_LIMIT, "a refusal", || {
            play.web[0].get("/stats").status == 503
        });
        last(Duration::from_millis(any(500)));
        disk.free();
    }))
}

/// One process: no other can have the file. It still has one lane or several.
fn embedded(
    form: &Form,
    folder: &std::path::Path,
    least: usize,
    fault: impl FnMut(&mut Play),
) -> Account {
    let form = Form {
        fleet: Fleet {
            processes: 1,
            ..form.fleet
        },
        ..*form
    };
    let mut play = Play::start(&form, || Settings::new().set("DATA_DIR", folder.display()));
    play.run(least, fault);
    play.end(&Rows::Embedded, None)
}

/// The wall clock jumps by an hour, or back by one: deadlines and waits go by another clock.
pub fn clock_jumps(form: &Form) -> Result<Account, String> {
    drop(clock::faked(Settings::new())?);
    let database = Cluster::shared().database();
    prepare(&database);
    let folder = Folder::new("clock");
    let offset = folder.file("offset", "+0");
    let settings = || {
        let settings = clock::faked(Settings::new().postgres(&database)).expect("as just before");
        settings
            .set("FAKETIME_TIMESTAMP_FILE", offset.display())
            .set("FAKETIME_CACHE_DURATION", 1)
    };
    let mut play = Play::start(form, settings);
    play.run(2, |play| {
        fs::write(&offset, if play.faults % 2 == 0 { "+1h" } else { "-1h" }).expect("another time");
        // The clock is read from the file once a second.
        last(Duration::from_millis(1500));
    });
    let mut sql = database.superuser();
    let spread = "SELECT extract(epoch FROM max(momento) - min(momento))::bigint FROM acessos";
    let seconds: i64 = sql.query_one(spread, &[]).expect("moments").get(0);
    assert!(
        seconds > 3600,
        "the clock did not jump: this proves nothing"
    );
    Ok(play.end(&Rows::Database(&database), None).allow(Allow {
        no_refusal: true,
        ..Allow::default()
    }))
}
