//! Where visits move: other kinds of tables, poolers, roles with few rights.

use super::{any_name, count_agrees, export, import, lines, over, sorted};
use crate::support::history::is_exact;
use crate::support::pgbouncer::Mode;
use crate::support::scratch::Folder;
use crate::support::{Cluster, PgBouncer, Settings};

/// Moments without a zone are in the zone of the database.
#[test]
fn a_table_with_moments_without_a_zone() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let zone = format!(
        "ALTER DATABASE {} SET timezone = 'Asia/Tokyo'",
        database.name
    );
    database.sql().batch_execute(&zone).expect("a zone");
    let table = "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamp DEFAULT now())";
    database.sql().batch_execute(table).expect("a table");
    let text = lines(500) + ",\n";
    import(over(&database), &csv.file("visits.csv", &text));
    let mut expected: Vec<&str> = text.lines().collect();
    expected.sort_unstable();
    assert_eq!(sorted(over(&database)), expected);
    let first = "SELECT count(*) FROM acessos WHERE momento = '2019-01-01 09:00:59' \
                 AND contador IS NULL";
    assert_eq!(database.number(first), 1, "the first line, in Tokyo");
    count_agrees(over(&database));
    is_exact(&over(&database).start(), &database);
}

#[test]
fn a_trigger_that_drops_rows_keeps_nothing_of_the_batch() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    over(&database).start().stop();
    let trigger = "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.contador = 'n7' THEN RETURN NULL; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER drops BEFORE INSERT ON acessos FOR EACH ROW EXECUTE FUNCTION drops()";
    database.sql().batch_execute(trigger).expect("a trigger");
    let ended = super::run_import(over(&database), &csv.file("visits.csv", &lines(100)));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("drops rows"), "{ended:?}");
    assert_eq!(database.rows(), 0);
    let drop = "DROP TRIGGER drops ON acessos";
    database.sql().batch_execute(drop).expect("no trigger");
    import(over(&database), &csv.file("visits.csv", &lines(100)));
    assert_eq!(database.rows(), 100);
}

#[test]
fn through_a_pooler() {
    let csv = Folder::new("csv");
    let file = csv.file("visits.csv", &lines(12_000));
    for mode in Mode::ALL {
        let database = Cluster::shared().database();
        let Some(pooler) = PgBouncer::start(database.cluster, mode, "") else {
            return;
        };
        let settings = || any_name().set("DATABASE_URL", database.url_at(pooler.port()));
        import(settings(), &file);
        assert_eq!(export(settings()).0.len(), 12_001, "{mode:?}");
        assert_eq!(database.rows(), 12_000, "{mode:?}");
        count_agrees(settings());
    }
}

/// As docs/operations.md lists the rights.
#[test]
fn a_role_with_few_rights() {
    let (database, csv) = (Cluster::shared().database(), Folder::new("csv"));
    let worker = format!("moves_{}", database.name);
    over(&database).start().stop();
    // The owner makes the table of imports.
    import(over(&database), &csv.file("none.csv", "contador,momento\n"));
    let role = format!(
        "CREATE ROLE {worker} LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA public TO {worker}"
    );
    database.superuser().batch_execute(&role).expect("a role");
    let as_worker = || -> Settings {
        let (host, port) = (database.cluster.host(), database.port());
        let url = format!("postgres://{worker}:p@{host}:{port}/{}", database.name);
        any_name().set("DATABASE_URL", url)
    };
    let file = csv.file("visits.csv", &lines(30));
    let grant = |rights: &str| {
        let grant = format!("GRANT {rights} TO {worker}");
        database.sql().batch_execute(&grant).expect(&grant);
    };
    grant("EXECUTE ON FUNCTION visitas_state");
    for ended in [
        super::run_import(as_worker(), &file),
        as_worker().argument("export").run(),
    ] {
        assert!(
            ended.code == Some(1) && ended.stderr.contains("42501"),
            "{ended:?}"
        );
    }
    grant("INSERT ON acessos");
    grant("SELECT, INSERT, UPDATE ON visitas_imports");
    import(as_worker(), &file);
    grant("SELECT ON acessos, visitas_sums, visitas_named_totals");
    assert_eq!(export(as_worker()).0.len(), 31);
    count_agrees(over(&database));
}
