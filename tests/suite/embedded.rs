//! The embedded store: one file under `DATA_DIR` that survives restarts and crashes, for one
//! process at a time.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use redb::{Database, MultimapTableDefinition, TableDefinition};

use crate::support::scratch::Folder;
use crate::support::{LIMIT, Load, Settings, SmallDisk, Visitas, skipped, within};

/// Settings with a store in this folder.
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
    assert!(
        folder.path().join("store/visitas.redb").is_file(),
        "the folder and its file are made"
    );
    let visitas = over(&folder).start();
    let stats = visitas.stats();
    assert_eq!((stats.total, stats.cache), (3, Some(0)));
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (4, Some(1)));
}

#[test]
fn by_default_it_is_in_the_working_directory() {
    let visitas = Settings::empty()
        .set("HOST", "127.0.0.1")
        .set("PORT", 0)
        .start();
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
    assert!(
        ended.stderr.contains("visitas.redb"),
        "which file: {ended:?}"
    );
    assert!(
        ended.stderr.lines().count() <= 3 && !ended.stderr.contains("panicked"),
        "one clear sentence: {ended:?}"
    );
    assert_eq!(ended.stdout, "");
    assert_eq!(first.visit().total, 2, "the first process");
}

#[test]
fn no_answered_visit_is_lost_by_a_crash() {
    let folder = Folder::new("store");
    let mut least = 0;
    let mut most = 0;
    for _ in 0..3 {
        let visitas = over(&folder).start();
        let total = visitas.stats().total;
        assert!(
            (least..=most).contains(&total),
            "{total} after {least} answered and {most} sent"
        );
        let load = Load::start(visitas.port(), 8);
        within(LIMIT, "some visits", || visitas.stats().total > total + 50);
        visitas.kill();
        let outcomes = load.stop();
        least = total + outcomes.ok();
        most = least + outcomes.unsure();
        assert!(outcomes.ok() > 0);
    }
    let total = over(&folder).start().stats().total;
    assert!(
        (least..=most).contains(&total),
        "{total} after {least} answered and {most} sent"
    );
}

#[test]
fn an_impossible_folder_is_an_error_with_its_name() {
    let folder = Folder::new("store");
    let file = folder.file("not-a-folder", "");
    let ended = Settings::new().set("DATA_DIR", file.display()).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("not-a-folder") && !ended.stderr.contains("panicked"),
        "{ended:?}"
    );
}

#[test]
fn a_disk_that_is_full_at_the_first_start_needs_space_and_no_restart() {
    let disk = match SmallDisk::new(1) {
        Ok(disk) => disk,
        Err(why) => return skipped("a full disk at the first start", &why),
    };
    disk.fill(0);
    let mut visitas = Settings::new()
        .set("DATA_DIR", disk.path().display())
        .set("CONNECT_ATTEMPTS", 0)
        .set("CONNECT_INTERVAL", "100ms")
        .launch();
    visitas.logged(&["embedded store not reached"]);
    disk.free();
    visitas.wait_ready();
    assert_eq!(visitas.visit().total, 1);
}

#[test]
fn a_file_that_is_no_store_is_an_error_and_is_left_alone() {
    let folder = Folder::new("store");
    let noise = "not a store\n".repeat(1000);
    folder.file("visitas.redb", &noise);
    let ended = Settings::new()
        .set("DATA_DIR", folder.path().display())
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("visitas.redb") && !ended.stderr.contains("panicked"),
        "{ended:?}"
    );
    assert_eq!(
        fs::read_to_string(folder.path().join("visitas.redb")).expect("the file"),
        noise
    );
}

const VISITS: u64 = 50;

/// The bytes of a store with some visits, after a stop or a kill.
fn stored(folder: &Folder, killed: bool) -> Vec<u8> {
    let visitas = over(folder).start();
    for _ in 0..VISITS {
        visitas.visit();
    }
    drop(if killed {
        visitas.kill()
    } else {
        visitas.stop()
    });
    fs::read(folder.path().join("store/visitas.redb")).expect("the store")
}

#[test]
fn a_damaged_file_is_an_error_and_is_left_alone() {
    for killed in [false, true] {
        let mut refused = 0;
        let folder = Folder::new("store");
        let whole = stored(&folder, killed);
        let file = folder.path().join("store/visitas.redb");
        // Each used block is damaged in turn, and once the end is cut off.
        let used = whole.iter().rposition(|byte| *byte != 0).expect("bytes") + 1;
        let mut damaged: Vec<(String, Vec<u8>)> = (0..used)
            .step_by(4096)
            .filter(|start| {
                whole[*start..(start + 4096).min(used)]
                    .iter()
                    .any(|byte| *byte != 0)
            })
            .map(|start| {
                let mut bytes = whole.clone();
                bytes[start..(start + 4096).min(used)]
                    .iter_mut()
                    .for_each(|byte| *byte ^= 0xA5);
                (format!("damaged at {start}"), bytes)
            })
            .collect();
        damaged.push(("cut in the middle".to_owned(), whole[..used / 2].to_vec()));
        for (how, bytes) in damaged {
            let how = format!("{how}, killed before: {killed}");
            fs::write(&file, bytes).expect("a damaged store");
            let before = all_in(&folder.path().join("store"));
            let mut visitas = over(&folder).launch();
            if is_ready(&mut visitas) {
                // The damaged page belongs to no row: the file keeps pages of older states.
                visitas.wait_ready();
                assert_eq!(visitas.visit().total, VISITS + 1, "{how}");
                continue;
            }
            let ended = visitas.wait_end();
            assert_eq!(ended.code, Some(1), "{how}: {ended:?}");
            assert!(
                ended.stderr.contains("visitas.redb") && !ended.stderr.contains("panicked"),
                "{how}: {ended:?}"
            );
            assert!(
                all_in(&folder.path().join("store")) == before,
                "{how}: the file was changed: {ended:?}"
            );
            refused += 1;
        }
        assert!(
            refused > 3,
            "killed before: {killed}: nothing that matters was damaged"
        );
    }
}

/// A `redb` file of another program.
#[derive(Debug, Clone, Copy)]
enum Foreign {
    OneTable,
    ManyTables,
    /// With a table of visitas' name and types, and another one.
    WithVisits,
    /// With a table of visitas' name and other types.
    OtherTypes,
    Multimap,
    Megabytes,
}

impl Foreign {
    const ALL: [Foreign; 6] = [
        Foreign::OneTable,
        Foreign::ManyTables,
        Foreign::WithVisits,
        Foreign::OtherTypes,
        Foreign::Multimap,
        Foreign::Megabytes,
    ];

    /// Makes the file, as its program leaves it at the end or when it is killed.
    fn make(self, file: &Path, killed: bool) {
        let folder = Folder::new("foreign");
        let own = folder.path().join("own.redb");
        let database = Database::create(&own).expect("a database");
        // Several commits, so that there are freed pages.
        for round in 0..3 {
            self.commit(&database, round);
        }
        if killed {
            fs::copy(&own, file).expect("a copy of the open file");
            return;
        }
        drop(database);
        fs::rename(&own, file).expect("the closed file");
    }

    fn commit(self, database: &Database, round: u64) {
        let visits: TableDefinition<'_, u64, i64> = TableDefinition::new("acessos");
        let (names, rows): (&[&str], u64) = match self {
            Foreign::OneTable | Foreign::WithVisits => (&["notes"], 10),
            Foreign::ManyTables => (
                &["notes", "people", "places", "a much longer name of a table"],
                100,
            ),
            Foreign::OtherTypes => (&["acessos"], 10),
            Foreign::Multimap => (&[], 10),
            Foreign::Megabytes => (&["notes", "people"], 2000),
        };
        let transaction = database.begin_write().expect("a transaction");
        for name in names {
            let mut table = transaction
                .open_table(TableDefinition::<&str, &[u8]>::new(name))
                .expect("a table");
            for row in 0..rows {
                table
                    .insert(format!("{row}").as_str(), [round as u8; 500].as_slice())
                    .expect("a row");
            }
        }
        if let Foreign::WithVisits = self {
            transaction
                .open_table(visits)
                .expect("a table")
                .insert(round, 0)
                .expect("a row");
        }
        if let Foreign::Multimap = self {
            let tags: MultimapTableDefinition<'_, u64, u64> = MultimapTableDefinition::new("tags");
            let mut table = transaction.open_multimap_table(tags).expect("a table");
            for row in 0..rows {
                table.insert(row, round).expect("a row");
            }
        }
        transaction.commit().expect("a commit");
    }
}

/// The files of a folder: name, content and modification time.
fn all_in(folder: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            let written = entry
                .metadata()
                .and_then(|file| file.modified())
                .expect("its time");
            (
                entry.file_name().to_string_lossy().into_owned(),
                fs::read(entry.path()).expect("a file"),
                written,
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_store_of_another_program_is_an_error_and_is_left_alone() {
    for (foreign, killed) in Foreign::ALL
        .into_iter()
        .flat_map(|foreign| [(foreign, false), (foreign, true)])
    {
        let how = format!("{foreign:?}, killed before: {killed}");
        let folder = Folder::new("store");
        foreign.make(&folder.path().join("visitas.redb"), killed);
        let before = all_in(folder.path());
        if let Foreign::Megabytes = foreign {
            assert!(
                before[0].1.len() > 3 << 20,
                "{how}: only {} bytes",
                before[0].1.len()
            );
        }
        let settings = || Settings::new().set("DATA_DIR", folder.path().display());
        for ended in [
            settings().run(),
            settings().run(),
            settings().argument("check").run(),
        ] {
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert_eq!(ended.code, Some(1), "{how}: {ended:?}");
            assert!(
                said.contains("visitas.redb is a store of another program"),
                "{how}: {ended:?}"
            );
            assert!(!said.contains("panicked"), "{how}: {ended:?}");
            assert!(
                all_in(folder.path()) == before,
                "{how}: the file was changed, or is not alone: {ended:?}"
            );
        }
    }
}

#[test]
fn a_store_without_a_table_is_used() {
    let folder = Folder::new("store");
    drop(Database::create(folder.path().join("visitas.redb")).expect("a database"));
    let visitas = Settings::new()
        .set("DATA_DIR", folder.path().display())
        .start();
    assert_eq!(
        visitas.visit().total,
        1,
        "nothing says that it is of another program"
    );
}

#[test]
fn a_check_leaves_the_store_as_a_crash_left_it() {
    let folder = Folder::new("store");
    stored(&folder, true);
    let before = all_in(&folder.path().join("store"));
    let ended = over(&folder).argument("check").run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains(&format!("{VISITS} rows")),
        "{ended:?}"
    );
    assert!(
        all_in(&folder.path().join("store")) == before,
        "the file was changed, or is not alone: {ended:?}"
    );
}

/// Whether it gets ready. If not, it has exited.
pub fn is_ready(visitas: &mut Visitas) -> bool {
    loop {
        if visitas
            .stdout()
            .find(Duration::from_millis(10), |line| {
                line.contains(" ready at ")
            })
            .is_some()
        {
            return true;
        }
        if !visitas.is_running() {
            return false;
        }
    }
}

/// Scenario: a process was killed in the moment it made its file. Bug: the file was there without
/// its header, and every later start refused it as damaged. Fix: the file is made beside, and moved
/// in when it is whole.
#[test]
fn a_file_whose_making_was_cut_short_does_not_stop_the_next_start() {
    let folder = Folder::new("store");
    let settings = || Settings::new().set("DATA_DIR", folder.path().display());
    let files = || {
        let names = all_in(folder.path()).into_iter().map(|(name, ..)| name);
        names.collect::<Vec<_>>()
    };
    let mut cut_short = 0;
    for delay in (0..60).map(|n| Duration::from_micros(500 * n)) {
        let visitas = settings().launch();
        std::thread::sleep(delay);
        visitas.kill();
        let left = files();
        cut_short += usize::from(left.iter().any(|path| path == "visitas.new"));
        let next = settings().start();
        assert_eq!(
            next.visit().total,
            1,
            "killed after {delay:?}, left {left:?}"
        );
        next.stop();
        assert_eq!(files(), ["visitas.redb"]);
        fs::remove_file(folder.path().join("visitas.redb")).expect("the file");
    }
    eprintln!("cut short: {cut_short}");
    // However far it came.
    let whole = stored(&folder, false);
    // With both names.
    let store = folder.path().join("store");
    fs::hard_link(store.join("visitas.redb"), store.join("visitas.new")).expect("a second name");
    let next = Settings::new().set("DATA_DIR", store.display()).start();
    assert!(next.stats().total > 0);
    next.stop();
    assert!(
        !store.join("visitas.new").exists(),
        "the second name is left"
    );
    fs::remove_dir_all(folder.path().join("store")).expect("the folder");
    for length in [0, 1, 9, 320, 4096, whole.len() / 2, whole.len()] {
        fs::write(folder.path().join("visitas.new"), &whole[..length]).expect("a part");
        let next = settings().start();
        assert_eq!(next.visit().total, 1, "{length} bytes left");
        next.stop();
        assert_eq!(files(), ["visitas.redb"]);
        fs::remove_file(folder.path().join("visitas.redb")).expect("the file");
    }
}

#[test]
fn a_file_of_a_newer_visitas_is_told_and_left_alone() {
    let folder = Folder::new("store");
    let path = folder.path().join("visitas.redb");
    {
        let database = Database::create(&path).expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        let format: TableDefinition<'_, u64, i64> = TableDefinition::new("format");
        let mut table = transaction.open_table(format).expect("a table");
        table.insert(0, 2).expect("a number");
        drop(table);
        // With a table that nobody knows yet.
        let other: TableDefinition<'_, &str, u8> = TableDefinition::new("other");
        drop(transaction.open_table(other).expect("a table"));
        transaction.commit().expect("a commit");
    }
    let before = all_in(folder.path());
    let settings = || Settings::new().set("DATA_DIR", folder.path().display());
    let others: [&[&str]; 4] = [&[], &["check"], &["recount"], &["export"]];
    for arguments in others {
        let ended = settings().arguments(arguments).run();
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        let told = "visitas.redb has format 2, of a newer visitas; this one reads format 1";
        assert!(said.contains(told), "{arguments:?}: {ended:?}");
        assert!(all_in(folder.path()) == before, "{arguments:?}: changed");
    }
}

#[test]
fn a_link_to_where_no_file_is_yet_is_filled_and_stays() {
    let (folder, other) = (Folder::new("store"), Folder::new("disk"));
    let (link, target) = (
        folder.path().join("visitas.redb"),
        other.path().join("target"),
    );
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    let settings = || Settings::new().set("DATA_DIR", folder.path().display());
    let visitas = settings().start();
    assert_eq!(visitas.visit().total, 1);
    visitas.stop();
    assert!(
        target.is_file() && link.is_symlink(),
        "the link was replaced"
    );
    // The disk that it leads to is gone: nothing begins anew in its place.
    drop(other);
    let ended = settings().run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(link.is_symlink(), "the link was replaced");
}

#[test]
fn a_lock_on_the_folder_is_waited_for() {
    let folder = Folder::new("store");
    let held = fs::File::open(folder.path()).expect("the folder");
    held.lock().expect("a lock");
    let settings = Settings::new().set("DATA_DIR", folder.path().display());
    let mut visitas = settings.launch();
    within(LIMIT, "a word about the lock", || {
        visitas
            .output()
            .contains("another process holds a lock on its folder")
    });
    drop(held);
    visitas.wait_ready();
    assert_eq!(visitas.visit().total, 1);
}
