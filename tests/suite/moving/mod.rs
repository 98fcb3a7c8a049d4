//! `visitas export` and `visitas import`: visits move between stores and in from other services,
//! exactly once, whatever becomes of the process.

mod places;
mod refused;
mod restarted;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::audit::count;
use crate::support::history::{is_exact, sum};
use crate::support::names::{listed, rows_by_name};
use crate::support::postgres::{PASSWORD, USER};
use crate::support::scratch::Folder;
use crate::support::server::Ended;
use crate::support::{
    Client, Cluster, Database, LIMIT, Load, Settings, Visitas, programs, tools, within,
};

/// Every name is admitted.
fn any_name() -> Settings {
    Settings::new().set("COUNTERS", "*")
}

fn over(database: &Database<'_>) -> Settings {
    any_name().postgres(database)
}

/// The store in this folder.
fn within_folder(folder: &Folder) -> Settings {
    any_name().set("DATA_DIR", folder.path().display())
}

/// Runs the test for a fresh store of each kind.
fn on_both_stores(test: impl Fn(&dyn Fn() -> Settings)) {
    let folder = Folder::new("store");
    test(&|| within_folder(&folder));
    let database = Cluster::shared().database();
    test(&|| over(&database));
}

fn run_import(settings: Settings, file: &Path) -> Ended {
    let file = file.to_str().expect("a path of UTF-8");
    let ended = settings.argument("import").argument(file).run();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

/// Imports all of the file; returns what it said.
#[track_caller]
fn import(settings: Settings, file: &Path) -> String {
    let ended = run_import(settings, file);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

/// The lines of an export, its header first, and what it said.
#[track_caller]
fn export(settings: Settings) -> (Vec<String>, String) {
    let ended = settings.argument("export").run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "contador,momento", "{ended:?}");
    (lines, ended.stderr)
}

/// The lines of an export in an order that all stores share.
#[track_caller]
fn sorted(settings: Settings) -> Vec<String> {
    let mut lines = export(settings).0;
    lines.sort_unstable();
    lines
}

#[track_caller]
fn count_agrees(settings: Settings) {
    let counted = count(settings);
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// A file of so many lines, no two of them equal: every third for `/`, the others for ten names, over
/// some years.
fn lines(count: u64) -> String {
    let mut text = "contador,momento\n".to_owned();
    for line in 0..count {
        let name = match line % 3 {
            0 => String::new(),
            _ => format!("n{}", line % 10),
        };
        let (year, month, day) = (2019 + line % 7, 1 + line % 12, 1 + line % 28);
        let (hour, minute, micros) = (line % 24, line % 60, line % 1_000_000);
        text +=
            &format!("{name},{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:59.{micros:06}Z\n");
    }
    text
}

/// Runs `script`, in which `"$0"` is visitas, by a shell.
#[track_caller]
fn shell(settings: Settings, script: &str) -> Ended {
    let ended = settings.through(&["/bin/sh", "-c", script]).run();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

#[track_caller]
fn psql(database: &Database<'_>, command: &str) {
    let mut psql = Command::new(programs::program("psql"));
    psql.args(["--host", "127.0.0.1", "--username", USER, "--no-psqlrc"]);
    psql.args([
        "--port",
        &database.port().to_string(),
        "--dbname",
        &database.name,
    ]);
    psql.args(["--set", "ON_ERROR_STOP=1", "--command", command]);
    tools::output(psql.env("PGPASSWORD", PASSWORD));
}

fn visit_names(visitas: &Visitas) {
    for path in ["/", "/c/blog", "/c/shop", "/c/blog", "/", "/c/blog"] {
        let mut client = Client::connect(visitas.port());
        assert_eq!(client.get(path).status, 200, "{path}");
    }
}

#[test]
fn from_the_embedded_store_to_postgres_and_back() {
    let (folder, database) = (Folder::new("store"), Cluster::shared().database());
    let visitas = within_folder(&folder).start();
    (0..20).for_each(|_| visit_names(&visitas));
    let names = listed(&visitas);
    visitas.stop();
    let before = sorted(within_folder(&folder));
    assert_eq!(before.len(), 121);

    let both = within_folder(&folder).postgres(&database);
    let ended = shell(both, "env -u DATABASE_URL \"$0\" export | \"$0\" import");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("imported 120 lines"), "{ended:?}");
    assert!(ended.stderr.contains("exported 120 visits"), "{ended:?}");
    assert_eq!(rows_by_name(&database), names);
    let visitas = over(&database).start();
    assert_eq!((visitas.stats().total, database.rows()), (120, 120));
    assert_eq!(listed(&visitas), names);
    is_exact(&visitas, &database);
    count_agrees(over(&database));
    assert_eq!(sorted(over(&database)), before, "to the microsecond");

    let back = Folder::new("store");
    let both = within_folder(&back).postgres(&database);
    let ended = shell(both, "\"$0\" export | env -u DATABASE_URL \"$0\" import");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(sorted(within_folder(&back)), before);
    count_agrees(within_folder(&back));
    let embedded = within_folder(&back).start();
    assert_eq!(embedded.stats().total, 120);
    assert_eq!(listed(&embedded), names);
    for by in ["hour", "day"] {
        assert_eq!(sum(&embedded, by), sum(&visitas, by), "by {by}");
    }
    visit_names(&embedded);
    assert_eq!(embedded.stats().total, 126, "visits go on");
}

#[test]
fn years_of_lines_move_in_with_their_history() {
    let csv = Folder::new("csv");
    let file = csv.file("visits.csv", &lines(12_345));
    on_both_stores(|settings| {
        assert!(import(settings(), &file).contains("imported 12345 lines"));
        let mut text: Vec<String> = lines(12_345).lines().map(str::to_owned).collect();
        text.sort_unstable();
        assert_eq!(sorted(settings()), text);
        count_agrees(settings());
    });
}

#[test]
fn an_import_goes_on_beside_visits() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let file = csv.file("visits.csv", &lines(30_000));
    let visitas = over(&database).start();
    let load = Load::start(visitas.port(), 8);
    visitas.wait_for_visits(50, LIMIT);
    import(over(&database), &file);
    visitas.wait_for_visits(50, LIMIT);
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{}", visitas.output());
    outcomes.only_200_and_503();
    assert_eq!(database.rows(), outcomes.ok() + 30_000);
    assert_eq!(visitas.stats().total, outcomes.ok() + 30_000);
    assert_eq!(listed(&visitas), rows_by_name(&database));
    count_agrees(over(&database));
}

#[test]
fn psql_copies_an_export_and_its_copies_are_imported() {
    let database = || Cluster::shared().database();
    let (from, by_psql, to) = (database(), database(), database());
    let folder = Folder::new("csv");
    import(over(&from), &folder.file("visits.csv", &lines(2_000)));
    let visits = sorted(over(&from));
    let exported = folder.file("exported.csv", &(export(over(&from)).0.join("\n") + "\n"));
    over(&by_psql).start().stop();
    psql(
        &by_psql,
        &format!(
            "\\copy acessos (contador, momento) FROM '{}' CSV HEADER",
            exported.display()
        ),
    );
    assert_eq!(sorted(over(&by_psql)), visits);
    count_agrees(over(&by_psql));
    let copied = folder.path().join("copied.csv");
    psql(
        &by_psql,
        &format!(
            "\\copy (SELECT contador, momento FROM acessos) TO '{}' CSV HEADER FORCE QUOTE *",
            copied.display()
        ),
    );
    assert!(
        fs::read_to_string(&copied)
            .expect("a copy")
            .contains("59.000001+00\"")
    );
    import(over(&to), &copied);
    assert_eq!(sorted(over(&to)), visits);
}

/// Years before 1 and after 9999: psql takes them as they are, and an import refuses them.
#[test]
fn times_that_are_far_away_are_exported_as_they_are() {
    let database = || Cluster::shared().database();
    let (from, by_psql) = (database(), database());
    over(&from).start().stop();
    over(&by_psql).start().stop();
    let times = "INSERT INTO acessos (contador, momento) SELECT 'a', t::timestamptz FROM unnest(ARRAY[\
        '4714-11-24 00:00:00+00 BC', '4001-02-29 12:00:00.000001+00 BC', \
        '0001-12-31 23:59:59.999999+00 BC', '0001-01-01 00:00:00+00', '1969-12-31 23:59:59+00', \
        '9999-12-31 23:59:59.999999+00', '10000-01-01 00:00:00+00', \
        '294276-12-31 23:59:59.999999+00']) t";
    from.sql().batch_execute(times).expect("rows");
    let (lines, said) = export(over(&from));
    assert!(said.contains("exported 8 visits"), "{said}");
    let csv = Folder::new("csv");
    let file = csv.file("visits.csv", &(lines.join("\n") + "\n"));
    psql(
        &by_psql,
        &format!(
            "\\copy acessos (contador, momento) FROM '{}' CSV HEADER",
            file.display()
        ),
    );
    let rows = |database: &Database<'_>| -> String {
        let all = "SELECT string_agg(momento::text, ', ' ORDER BY momento) FROM acessos";
        database.sql().query_one(all, &[]).expect("rows").get(0)
    };
    assert_eq!(rows(&by_psql), rows(&from));
    let (folder, header) = (Folder::new("store"), &lines[0]);
    for line in lines[1..].iter().filter(|line| !line.contains("9999-12")) {
        let file = csv.file("one.csv", &format!("{header}\n{line}\n"));
        let ended = run_import(within_folder(&folder), &file);
        assert_eq!(ended.code, Some(1), "{line}: {ended:?}");
        assert!(ended.stderr.contains("from 1970 to 9999"), "{ended:?}");
    }
}

/// Rows from before visitas have no time. They count, and are in no history.
#[test]
fn visits_without_a_time_stay_without_one() {
    let database = || Cluster::shared().database();
    let (adopted, fresh, folder) = (database(), database(), Folder::new("store"));
    let mut sql = adopted.sql();
    sql.batch_execute(
        "CREATE TABLE acessos (id serial PRIMARY KEY); \
         INSERT INTO acessos SELECT FROM generate_series(1, 30)",
    )
    .expect("a table");
    over(&adopted).start().visit();
    sql.batch_execute("INSERT INTO acessos (contador) VALUES ('a'), ('No Name')")
        .expect("rows");
    let visits = sorted(over(&adopted));
    assert_eq!(visits.iter().filter(|line| *line == ",").count(), 30);
    let csv = Folder::new("csv");
    let file = csv.file("visits.csv", &(export(over(&adopted)).0.join("\n") + "\n"));
    for settings in [
        &|| within_folder(&folder),
        &(|| over(&fresh)) as &dyn Fn() -> Settings,
    ] {
        assert!(import(settings(), &file).contains("imported 33 lines"));
        assert_eq!(sorted(settings()), visits);
        count_agrees(settings());
        let visitas = settings().start();
        assert_eq!((visitas.stats().total, sum(&visitas, "day")), (33, 3));
        visitas.stop();
    }
}

/// What `KEEP_ROWS` deleted is in the total, and so in an export.
#[test]
fn pruned_visits_are_exported_without_a_time() {
    let (database, folder) = (Cluster::shared().database(), Folder::new("store"));
    for settings in [
        &|| within_folder(&folder),
        &(|| over(&database)) as &dyn Fn() -> Settings,
    ] {
        let visitas = settings().set("KEEP_ROWS", "1s").start();
        visit_names(&visitas);
        let pruned = |visitas: &Visitas| {
            let body = visitas.get("/stats").text();
            let json: serde_json::Value = serde_json::from_str(&body).expect(&body);
            json["pruned"].as_u64().unwrap_or(0)
        };
        within(LIMIT, "rows to go", || pruned(&visitas) >= 5);
        visitas.stop();
        let (mut lines, said) = export(settings());
        assert!(
            said.contains("exported 6 visits") && said.contains("KEEP_ROWS"),
            "{said}"
        );
        for line in &mut lines {
            line.truncate(line.find(',').expect("two fields"));
        }
        lines.sort_unstable();
        assert_eq!(lines, ["", "", "blog", "blog", "blog", "contador", "shop"]);
    }
}

#[test]
fn a_reader_may_close_the_pipe() {
    let csv = Folder::new("csv");
    let file = csv.file("visits.csv", &lines(20_000));
    on_both_stores(|settings| {
        import(settings(), &file);
        let ended = shell(
            settings(),
            "{ \"$0\" export; echo \"exit $?\" >&2; } | head -n 3",
        );
        assert_eq!(ended.stdout.lines().count(), 3, "{ended:?}");
        assert_eq!(ended.stderr, "exit 0", "{ended:?}");
    });
}

/// The slow side is a sleep of the shell, longer than the time between two reports.
#[test]
fn what_takes_long_says_how_far_it_is() {
    let csv = Folder::new("csv");
    let file = csv.file("visits.csv", &lines(20_000));
    on_both_stores(|settings| {
        let file = file.display();
        let slow = format!(
            "(head -n 9000 {file}; sleep 3; tail -n +9001 {file}) | \"$0\" import && \
             \"$0\" export | (sleep 3; cat >/dev/null)"
        );
        let ended = shell(settings(), &slow);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("imported 20000 lines"), "{ended:?}");
        for line in [
            "importing: 8999 lines",
            "exporting: ",
            "exported 20000 visits",
        ] {
            assert!(ended.stderr.contains(line), "{line}: {ended:?}");
        }
    });
}

/// The most memory that a command took, in KiB, and its end.
#[track_caller]
fn peak(settings: Settings) -> (u64, Ended) {
    let mut visitas = settings.launch();
    let mut peak = 0;
    let status = format!("/proc/{}/status", visitas.pid());
    within(Duration::from_secs(120), "its end", || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        !visitas.is_running()
    });
    let ended = visitas.wait_end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    (peak, ended)
}

#[test]
fn two_hundred_thousand_lines_take_no_more_memory_than_few() {
    let (database, folder) = (Cluster::shared().database(), Folder::new("store"));
    let csv = Folder::new("csv");
    let (few, many) = (lines(20_000), lines(200_000));
    let (few, many) = (csv.file("few.csv", &few), csv.file("many.csv", &many));
    for settings in [
        &|| within_folder(&folder),
        &(|| over(&database)) as &dyn Fn() -> Settings,
    ] {
        let import = |file: &Path| {
            let settings = settings().argument("import").argument("--id");
            let name = file
                .file_stem()
                .and_then(|stem| stem.to_str())
                .expect("a name");
            peak(
                settings
                    .argument(name)
                    .argument(file.to_str().expect("UTF-8")),
            )
            .0
        };
        let (few, after_few) = (import(&few), peak(settings().argument("export")).0);
        let (many, (after_many, ended)) = (import(&many), peak(settings().argument("export")));
        assert_eq!(ended.stdout.lines().count(), 220_001);
        // 200,000 lines are 7 MB as text.
        assert!(many < few + 4000, "import: {few} KiB, then {many} KiB");
        assert!(
            after_many < after_few + 4000,
            "export: {after_few} KiB, then {after_many} KiB"
        );
        count_agrees(settings());
    }
}
