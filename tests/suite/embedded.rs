//! The embedded store: one file under `DATA_DIR`, kept over restarts and crashes, for one process at a time.

use std::fs;

use crate::support::run::Folder;
use crate::support::{Load, Settings, machine, within};

/// Settings over a store in that folder.
fn over(folder: &Folder) -> Settings {
    Settings::new().set("DATA_DIR", folder.path().join("store").display())
}

#[test]
fn the_total_survives_a_restart_and_the_counter_does_not() {
    let folder = Folder::new("store");
    let visitas = over(&folder).start();
    for visit in 1..=3 {
        let counts = visitas.visit();
        assert_eq!((counts.total, counts.cache), (visit, Some(visit as i64)));
    }
    visitas.stop();
    assert!(folder.path().join("store/visitas.redb").is_file(), "the folder and its file are made");
    let visitas = over(&folder).start();
    let stats = visitas.stats();
    assert_eq!((stats.total, stats.cache), (3, Some(0)));
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (4, Some(1)));
}

#[test]
fn it_is_kept_below_the_working_folder_when_nothing_is_set() {
    let visitas = Settings::empty().set("HOST", "127.0.0.1").set("PORT", 0).start();
    visitas.visit();
    assert!(visitas.folder().join("data/visitas.redb").is_file());
}

#[test]
fn a_second_process_on_the_same_file_is_refused() {
    let folder = Folder::new("store");
    let first = over(&folder).start();
    first.visit();
    let ended = over(&folder).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("visitas.redb"), "which file: {ended:?}");
    assert!(ended.stderr.lines().count() <= 3 && !ended.stderr.contains("panicked"), "one clear sentence: {ended:?}");
    assert_eq!(ended.stdout, "");
    assert_eq!(first.visit().total, 2, "the first goes on");
}

#[test]
fn no_answered_visit_is_lost_by_a_crash() {
    let _machine = machine();
    let folder = Folder::new("store");
    let mut least = 0;
    let mut most = 0;
    for _ in 0..3 {
        let visitas = over(&folder).start();
        let total = visitas.stats().total;
        assert!((least..=most).contains(&total), "{total} after {least} answered and {most} sent");
        let load = Load::start(visitas.port(), 8);
        within(std::time::Duration::from_secs(20), "some visits", || visitas.stats().total > total + 50);
        visitas.kill();
        let tally = load.stop();
        least = total + tally.ok();
        most = least + tally.unsure();
        assert!(tally.ok() > 0);
    }
    let total = over(&folder).start().stats().total;
    assert!((least..=most).contains(&total), "{total} after {least} answered and {most} sent");
}

#[test]
fn a_folder_that_cannot_be_is_an_error_with_its_name() {
    let folder = Folder::new("store");
    let file = folder.file("not-a-folder", "");
    let ended = Settings::new().set("DATA_DIR", file.display()).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("not-a-folder") && !ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn a_file_that_is_no_store_is_an_error_and_is_left_alone() {
    let folder = Folder::new("store");
    let noise = "not a store\n".repeat(1000);
    folder.file("visitas.redb", &noise);
    let ended = Settings::new().set("DATA_DIR", folder.path().display()).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("visitas.redb") && !ended.stderr.contains("panicked"), "{ended:?}");
    assert_eq!(fs::read_to_string(folder.path().join("visitas.redb")).expect("the file"), noise);
}
