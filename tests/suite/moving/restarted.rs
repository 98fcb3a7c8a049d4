//! An import that is killed, or run again, or of a file that changed.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{
    any_name, count_agrees, export, import, lines, over, run_import, sorted, within_folder,
};
use crate::support::scratch::Folder;
use crate::support::{Cluster, Settings};

const LINES: u64 = 60_000;

/// Kills an import at more and more distant moments until one comes to its end; gives how many were
/// killed when some lines were imported, and not all.
#[track_caller]
fn kill_until_done(settings: &dyn Fn() -> Settings, file: &str, imported: &dyn Fn() -> u64) -> u32 {
    let mut in_the_middle = 0;
    for attempt in 1.. {
        let mut run = settings().argument("import").argument(file).launch();
        // The moment of the kill: no state is waited for.
        thread::sleep(Duration::from_millis(20 * attempt));
        if run.is_running() {
            run.kill();
            let imported = imported();
            assert_eq!(imported % 5_000, 0, "a part of a batch");
            in_the_middle += u32::from(imported > 0 && imported < LINES);
            continue;
        }
        let ended = run.wait_end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        break;
    }
    in_the_middle
}

#[test]
fn a_killed_import_goes_on_after_its_last_batch() {
    let (database, folder, csv) = (
        Cluster::shared().database(),
        Folder::new("store"),
        Folder::new("csv"),
    );
    let text = lines(LINES);
    let file = csv.file("visits.csv", &text);
    let mut expected: Vec<&str> = text.lines().collect();
    expected.sort_unstable();
    let there = "SELECT count(*) FROM pg_class WHERE relname = 'acessos'";
    let in_database = || match database.number(there) {
        0 => 0,
        _ => database.rows(),
    };
    // What a kill leaves of a file that is just being made is no store: this is about what is in it.
    within_folder(&folder).start().stop();
    let in_file = || export(within_folder(&folder)).0.len() as u64 - 1;
    for (settings, imported) in [
        (
            &(|| over(&database)) as &dyn Fn() -> Settings,
            &in_database as &dyn Fn() -> u64,
        ),
        (&|| within_folder(&folder), &in_file),
    ] {
        let path = file.to_str().expect("UTF-8");
        let in_the_middle = kill_until_done(settings, path, imported);
        assert!(in_the_middle > 0, "never killed in the middle");
        assert_eq!(sorted(settings()), expected);
        let said = import(settings(), &file);
        assert!(
            said.contains("nothing to import") && said.contains("60000"),
            "{said}"
        );
        assert_eq!(sorted(settings()), expected);
        count_agrees(settings());
    }
}

/// Two runs of one import at once: each line once.
#[test]
fn two_runs_at_once_import_each_line_once() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let file = csv.file("visits.csv", &lines(20_000));
    over(&database).start().stop();
    let path = file.to_str().expect("UTF-8");
    let launch = || over(&database).argument("import").argument(path).launch();
    let (mut one, mut other) = (launch(), launch());
    for ended in [one.wait_end(), other.wait_end()] {
        let refused = ended.code == Some(1) && ended.stderr.contains("another run");
        assert!(ended.code == Some(0) || refused, "{ended:?}");
    }
    import(over(&database), &file);
    assert_eq!(database.rows(), 20_000);
    count_agrees(over(&database));
}

#[test]
fn only_a_file_that_begins_the_same_goes_on() {
    let (database, folder, csv) = (
        Cluster::shared().database(),
        Folder::new("store"),
        Folder::new("csv"),
    );
    let file = |text: &str| csv.file("visits.csv", text);
    for settings in [
        &|| within_folder(&folder),
        &(|| over(&database)) as &dyn Fn() -> Settings,
    ] {
        import(settings(), &file(&lines(100)));
        let said = import(settings(), &file(&lines(130)));
        assert!(said.contains("imported 30 lines"), "{said}");
        // The same with other line ends.
        let said = import(settings(), &file(&lines(130).replace('\n', "\r\n")));
        assert!(said.contains("nothing to import"), "{said}");
        let changed = lines(140).replace("n7,", "n8,");
        for other in [&lines(60), &changed] {
            let ended = run_import(settings(), &file(other));
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("--id"), "{ended:?}");
        }
        assert_eq!(export(settings()).0.len(), 131);
        for said in ["imported 140 lines, as import second", "nothing to import"] {
            let again = settings()
                .argument("import")
                .argument("--id")
                .argument("second");
            let again = again
                .argument(file(&changed).to_str().expect("UTF-8"))
                .run();
            assert!(again.stdout.contains(said), "{again:?}");
        }
        assert_eq!(export(settings()).0.len(), 271);
        count_agrees(settings());
    }
}

#[test]
fn a_session_that_is_lost_keeps_whole_batches() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let file = csv.file("visits.csv", &lines(LINES));
    over(&database).start().stop();
    let path = file.to_str().expect("UTF-8");
    let mut run = over(&database).argument("import").argument(path).launch();
    crate::support::within(crate::support::LIMIT, "a batch", || database.rows() > 0);
    database.terminate_sessions();
    let ended = run.wait_end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("run it again"), "{ended:?}");
    assert_eq!(database.rows() % 5_000, 0);
    import(over(&database), &file);
    assert_eq!(database.rows(), LINES);
    count_agrees(over(&database));
}

#[test]
fn a_file_in_use_by_a_server_is_left_to_it() {
    let (folder, csv) = (Folder::new("store"), Folder::new("csv"));
    let visitas = within_folder(&folder).start();
    visitas.visit();
    let file = csv.file("visits.csv", &lines(10));
    let ended = run_import(within_folder(&folder), &file);
    assert!(
        ended.code == Some(1) && ended.stderr.contains("in use"),
        "{ended:?}"
    );
    let ended = within_folder(&folder).argument("export").run();
    assert!(
        ended.code == Some(1) && ended.stderr.contains("in use"),
        "{ended:?}"
    );
    assert_eq!((ended.stdout.as_str(), visitas.visit().total), ("", 2));
    // Nor is a store made by an export.
    let ended = any_name()
        .set("DATA_DIR", "nowhere")
        .argument("export")
        .run();
    assert!(
        ended.code == Some(1) && ended.stderr.contains("is not there"),
        "{ended:?}"
    );
    assert!(fs::metadata("nowhere").is_err());
}
