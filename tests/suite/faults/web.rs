//! visitas itself: it is killed, its disk is full, its clock jumps.

use std::fs;
use std::time::Duration;

use super::report::{Allow, Report, Store};
use super::run::{Parameters, Run, Topology, any, last};
use crate::support::scratch::Folder;
use crate::support::{Cluster, Settings, SmallDisk, clock, within};

/// Kills in a scenario at least, however short it is.
const KILLS: usize = 50;

/// A full disk is noticed once the file has used up its own free pages.
const FULL_LIMIT: Duration = Duration::from_secs(30);

/// A process is killed at a random moment and started again.
pub fn killed(parameters: &Parameters) -> Result<Report, String> {
    let database = Cluster::shared().database();
    database.prepare();
    let mut run = Run::start(parameters, || Settings::new().postgres(&database));
    let least = if parameters.time < Duration::from_secs(30) {
        1
    } else {
        KILLS
    };
    run.repeat(least, |run| {
        last(Duration::from_millis(any(100)));
        let which = any(run.web.len() as u64) as usize;
        run.kill_web(which, None);
    });
    Ok(run.end(&Store::Database(&database), None).allow(Allow {
        no_answer: true,
        ..Allow::default()
    }))
}

/// A process with the embedded store is killed at a random moment and started again.
pub fn embedded_killed(parameters: &Parameters) -> Result<Report, String> {
    let folder = Folder::new("store");
    let report = embedded(parameters, folder.path(), KILLS, |run| {
        last(Duration::from_millis(any(60)));
        // Sometimes also during its start.
        let soon = (any(2) == 0).then(|| Duration::from_millis(any(30)));
        run.kill_web(0, soon);
    });
    Ok(report.allow(Allow {
        no_answer: true,
        ..Allow::default()
    }))
}

/// The disk fills up until it takes no row. Then there is room again.
pub fn embedded_disk_full(parameters: &Parameters) -> Result<Report, String> {
    let disk = SmallDisk::new(512)?;
    // Without a pause, so that the file's own free pages are used up soon.
    let parameters = Parameters {
        pause: Duration::ZERO,
        ..*parameters
    };
    Ok(embedded(
        &parameters,
        &disk.path().join("store"),
        1,
        |run| {
            disk.fill(any(4) * 64);
            within(FULL_LIMIT, "a refusal", || {
                run.web[0].get("/stats").status == 503
            });
            last(Duration::from_millis(any(500)));
            disk.free();
        },
    ))
}

/// One process, since no other can open the file, with one lane or several.
fn embedded(
    parameters: &Parameters,
    folder: &std::path::Path,
    least: usize,
    fault: impl FnMut(&mut Run),
) -> Report {
    let parameters = Parameters {
        topology: Topology {
            processes: 1,
            ..parameters.topology
        },
        ..*parameters
    };
    let mut run = Run::start(&parameters, || {
        Settings::new().set("DATA_DIR", folder.display())
    });
    run.repeat(least, fault);
    run.end(&Store::Embedded, None)
}

/// The wall clock jumps an hour forward or back. Deadlines go by another clock.
pub fn clock_jumps(parameters: &Parameters) -> Result<Report, String> {
    drop(clock::faked(Settings::new())?);
    let database = Cluster::shared().database();
    database.prepare();
    let folder = Folder::new("clock");
    let offset = folder.file("offset", "+0");
    let settings = || {
        let settings = clock::faked(Settings::new().postgres(&database)).expect("as just before");
        settings
            .set("FAKETIME_TIMESTAMP_FILE", offset.display())
            .set("FAKETIME_CACHE_DURATION", 1)
    };
    let mut run = Run::start(parameters, settings);
    run.repeat(2, |run| {
        fs::write(&offset, if run.faults % 2 == 0 { "+1h" } else { "-1h" }).expect("another time");
        // The file is read once a second.
        last(Duration::from_millis(1500));
    });
    let mut sql = database.superuser();
    let spread = "SELECT extract(epoch FROM max(momento) - min(momento))::bigint FROM acessos";
    let seconds: i64 = sql.query_one(spread, &[]).expect("moments").get(0);
    assert!(
        seconds > 3600,
        "the clock did not jump: this proves nothing"
    );
    Ok(run.end(&Store::Database(&database), None).allow(Allow {
        no_refusal: true,
        ..Allow::default()
    }))
}
