//! What an import does not take: which line, and what it takes.

use super::{count_agrees, export, import, lines, over, run_import, within_folder};
use crate::support::scratch::Folder;
use crate::support::{Cluster, Settings};

#[test]
fn a_bad_line_is_named_and_nothing_of_its_batch_is_kept() {
    let csv = Folder::new("csv");
    let long = format!("a,{}", " ".repeat(300));
    for (line, number) in [
        ("a;2026-01-31T12:00:00Z", 4),
        ("a,2026-01-31T12:00:00", 4),
        ("a,2026-02-30T12:00:00Z", 4),
        ("a,1969-12-31T12:00:00Z", 4),
        ("a,2026-01-31T12:00:00Z,", 4),
        ("a,yesterday", 4),
        ("\"a,2026-01-31T12:00:00Z", 4),
        ("A,2026-01-31T12:00:00Z", 4),
        ("..,2026-01-31T12:00:00Z", 4),
        ("a'; DROP TABLE acessos; --,2026-01-31T12:00:00Z", 4),
        ("\u{1b}[31m,2026-01-31T12:00:00Z", 4),
        ("", 4),
        (&long, 4),
    ] {
        let folder = Folder::new("store");
        let text = format!("{}{line}\na,2026-01-31T12:00:00Z\n", lines(2));
        let ended = run_import(within_folder(&folder), &csv.file("bad.csv", &text));
        assert_eq!(ended.code, Some(1), "{line}: {ended:?}");
        let told = &ended.stderr;
        assert!(told.contains(&format!("line {number}: ")), "{line}: {told}");
        assert!(
            told.contains("expected") && !told.contains('\u{1b}'),
            "{line}: {told}"
        );
        assert!(
            told.lines().count() == 1 && told.len() < 700,
            "{line}: {told}"
        );
        assert!(told.contains("nothing is imported"), "{line}: {told}");
        // The store was made, and has no visit.
        let exported = within_folder(&folder).argument("export").run();
        assert_eq!(exported.stdout, "contador,momento", "{exported:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let (folder, csv) = (Folder::new("store"), Folder::new("csv"));
    let file = csv.file("bad.csv", "");
    for bytes in [
        &b"contador,momento\n\xFF,\n"[..],
        b"contador,momento\n,\n\x00\n",
        b"\xFF\n",
    ] {
        std::fs::write(&file, bytes).expect("a file");
        let ended = run_import(within_folder(&folder), &file);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("expected"), "{ended:?}");
    }
}

#[test]
fn the_header_says_that_it_is_such_a_file() {
    let (folder, csv) = (Folder::new("store"), Folder::new("csv"));
    for header in [
        "",
        "momento,contador\n",
        "a,2026-01-31T12:00:00Z\n",
        "<html>\n",
    ] {
        let ended = run_import(within_folder(&folder), &csv.file("bad.csv", header));
        assert_eq!(ended.code, Some(1), "{header:?}: {ended:?}");
        assert!(ended.stderr.contains("line 1: "), "{header:?}: {ended:?}");
        assert!(
            ended.stderr.contains("contador,momento"),
            "{header:?}: {ended:?}"
        );
    }
    let ended = run_import(within_folder(&folder), &csv.file("empty.csv", ""));
    assert!(ended.stderr.contains("the input is empty"), "{ended:?}");
    for (text, visits) in [
        ("contador,momento\n", 0),
        ("contador,momento", 0),
        (
            "\u{FEFF}\"contador\",\"momento\"\r\na,2026-01-31T12:00:00Z",
            1,
        ),
    ] {
        let said = import(within_folder(&folder), &csv.file("good.csv", text));
        assert!(
            said.contains(&format!("imported {visits} lines")),
            "{text:?}: {said}"
        );
    }
    assert_eq!(
        export(within_folder(&folder)).0[1..],
        ["a,2026-01-31T12:00:00.000000Z"]
    );
}

#[test]
fn the_batches_before_a_bad_line_stay_and_a_mended_file_goes_on() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let good = lines(12_000);
    let bad = good.replacen("59.011000Z", "59.0.11000Z", 1);
    assert_ne!(good, bad);
    let ended = run_import(over(&database), &csv.file("visits.csv", &bad));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("line 11002: "), "{ended:?}");
    assert!(
        ended.stderr.contains("10000 lines are imported"),
        "{ended:?}"
    );
    assert_eq!(database.rows(), 10_000);
    let said = import(over(&database), &csv.file("visits.csv", &good));
    assert!(said.contains("imported 2000 lines"), "{said}");
    assert_eq!(database.rows(), 12_000);
    count_agrees(over(&database));
}

#[test]
fn names_are_those_that_the_settings_admit() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let without = || Settings::new().postgres(&database);
    let named = csv.file(
        "named.csv",
        "contador,momento\n,\nblog,2026-01-31T12:00:00Z\n",
    );
    for settings in [without(), without().set("COUNTERS", "docs,shop-*")] {
        let ended = run_import(settings, &named);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told = &ended.stderr;
        assert!(
            told.contains("line 3: ") && told.contains("COUNTERS"),
            "{told}"
        );
        assert_eq!(database.rows(), 0);
    }
    let full = without().set("COUNTERS", "a,b,*").set("MAX_COUNTERS", 2);
    let ended = run_import(full, &named);
    assert!(
        ended.code == Some(1) && ended.stderr.contains("MAX_COUNTERS"),
        "{ended:?}"
    );
    import(without().set("COUNTERS", "blog"), &named);
    assert_eq!(database.rows(), 2);
}

#[test]
fn the_longest_id_is_one() {
    let (database, folder) = (Cluster::shared().database(), Folder::new("store"));
    let csv = Folder::new("csv");
    let file = csv.file("visits.csv", &lines(3));
    for settings in [over(&database), within_folder(&folder)] {
        let arguments = ["import", "--id", &"\u{e9}".repeat(100)];
        let ended = settings
            .arguments(&arguments)
            .argument(file.to_str().expect("UTF-8"))
            .run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

#[test]
fn without_names_no_column_is_made() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let file = csv.file("visits.csv", "contador,momento\n,2026-01-31T12:00:00Z\n,\n");
    let settings = || Settings::new().postgres(&database);
    import(settings(), &file);
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'acessos'";
    assert_eq!((database.rows(), database.number(columns)), (2, 2));
    assert_eq!(
        export(settings()).0[1..],
        [",2026-01-31T12:00:00.000000Z", ","]
    );
    count_agrees(settings());
}

#[test]
fn the_command_line_is_checked() {
    let long = "a".repeat(201);
    for (arguments, named) in [
        (&["export", "file"][..], "file"),
        (&["export", "--id", "a"], "--id"),
        (&["import", "a", "b"], "b"),
        (&["import", "--id"], "--id"),
        (&["import", "--id", ""], "--id: "),
        (&["import", "--id="], "--id: "),
        (&["import", "--id", &long], "1 to 200 bytes"),
        (&["import", "--id", "a", "--id", "b"], "--id"),
        (&["--id", "a"], "--id"),
    ] {
        let ended = Settings::new().arguments(arguments).run();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(named), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.len() < 200, "{ended:?}");
    }
    let ended = run_import(Settings::new(), std::path::Path::new("no such file"));
    assert!(
        ended.code == Some(1) && ended.stderr.contains("no such file"),
        "{ended:?}"
    );
}
