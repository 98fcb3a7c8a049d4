//! Nobody gets foreign rights through a trigger or a visit, and the role of visitas needs few.

use super::total_is_rows;
use crate::support::audit::count;
use crate::support::wait::within_value;
use crate::support::{Cluster, Database, LIMIT, Settings, within};

/// Operators and functions in `public` that match better than PostgreSQL's own, for sessions with
/// `public` in their path. They run with the caller's rights and note the caller.
fn traps(stranger: &str) -> String {
    let types = [
        "bigint",
        "integer",
        "smallint",
        "numeric",
        "float8",
        "text",
        "name",
        "timestamptz",
        "oid",
        "regclass",
        "xid8",
        "interval",
    ];
    let spy = "INSERT INTO public.spied VALUES (current_user, '{name}')";
    let mut sql = format!(
        "CREATE TABLE public.spied (who name, what text); GRANT ALL ON public.spied TO PUBLIC; \
         SET SESSION AUTHORIZATION {stranger}; "
    );
    let mut function = |name: &str, arguments: &str, gives: &str, body: &str| {
        let spy = spy.replace("{name}", &format!("{name}({arguments})").replace('\'', ""));
        sql += &format!(
            "CREATE FUNCTION public.\"{name}\"({arguments}) RETURNS {gives} LANGUAGE plpgsql AS \
             $$ BEGIN {spy}; RETURN {body}; EXCEPTION WHEN OTHERS THEN RETURN {body}; END $$; "
        );
    };
    for left in types {
        for name in [
            "count",
            "sum",
            "max",
            "min",
            "coalesce",
            "floor",
            "to_regclass",
            "abs",
            "date_part",
            "isfinite",
        ] {
            function(name, left, "bigint", "7");
        }
        for right in types {
            function("arithmetic", &format!("{left}, {right}"), "bigint", "1");
            function("compare", &format!("{left}, {right}"), "boolean", "true");
        }
    }
    for left in types {
        for right in types {
            for (operators, function) in [
                (["+", "-", "*", "/", "%"], "arithmetic"),
                (["=", "<>", "<", "<=", ">"], "compare"),
            ] {
                for operator in operators {
                    sql += &format!(
                        "CREATE OPERATOR public.{operator} (FUNCTION = public.{function}, \
                         LEFTARG = {left}, RIGHTARG = {right}); "
                    );
                }
            }
        }
    }
    // Temporary tables come first in the path by default.
    for table in [
        "visitas_changes",
        "visitas_base",
        "visitas_log",
        "visitas_history",
        "visitas_writers",
        "visitas_named",
        "acessos",
    ] {
        sql += &format!(
            "CREATE TEMPORARY TABLE {table} (id bigint, total bigint, momento timestamptz); "
        );
    }
    sql
}

/// The working role puts its own schema before PostgreSQL's, with operators of the most used types.
/// Code that runs with the owner's rights must not call them.
fn the_worker_gets_no_foreign_rights(
    database: &Database<'_>,
    worker: &str,
    settings: impl Fn() -> Settings,
) {
    let spy = "INSERT INTO spies.spied VALUES (current_user, 'FUNCTION')";
    let mut sql = format!(
        "CREATE SCHEMA spies AUTHORIZATION {worker}; GRANT USAGE ON SCHEMA spies TO PUBLIC; \
         SET SESSION AUTHORIZATION {worker}; \
         CREATE TABLE spies.spied (who name, what text); GRANT ALL ON spies.spied TO PUBLIC; "
    );
    let types = [
        "bigint",
        "integer",
        "oid",
        "text",
        "xid8",
        "timestamptz",
        "float8",
        "boolean",
        "name",
    ];
    let operators: [(&str, &str, &[&str]); 8] = [
        (
            "+",
            "l OPERATOR(pg_catalog.+) r",
            &["bigint", "integer", "float8"],
        ),
        (
            "-",
            "l OPERATOR(pg_catalog.-) r",
            &["bigint", "integer", "float8"],
        ),
        ("%", "l OPERATOR(pg_catalog.%) r", &["bigint", "integer"]),
        ("=", "l OPERATOR(pg_catalog.=) r", &types),
        ("<>", "l OPERATOR(pg_catalog.<>) r", &types),
        ("<", "l OPERATOR(pg_catalog.<) r", &types),
        (">", "l OPERATOR(pg_catalog.>) r", &types),
        (">=", "l OPERATOR(pg_catalog.>=) r", &types),
    ];
    for (operator, body, types) in operators {
        for of in types {
            let gives = if ["+", "-", "%"].contains(&operator) {
                *of
            } else {
                "boolean"
            };
            let spy = spy.replace("FUNCTION", &format!("{operator} ({of}, {of})"));
            sql += &format!(
                "CREATE FUNCTION spies.\"{operator}\"(l {of}, r {of}) RETURNS {gives} \
                 LANGUAGE plpgsql AS \
                 $$ BEGIN {spy}; RETURN {body}; EXCEPTION WHEN OTHERS THEN RETURN {body}; END $$; \
                 CREATE OPERATOR spies.{operator} (FUNCTION = spies.\"{operator}\", \
                 LEFTARG = {of}, RIGHTARG = {of}); "
            );
        }
    }
    sql += &format!(
        "CREATE FUNCTION spies.\"||\"(l text, r text) RETURNS text LANGUAGE plpgsql AS \
         $$ BEGIN {spy}; RETURN l OPERATOR(pg_catalog.||) r; EXCEPTION WHEN OTHERS THEN RETURN l; \
         END $$; \
         CREATE OPERATOR spies.|| (FUNCTION = spies.\"||\", LEFTARG = text, RIGHTARG = text); \
         ALTER ROLE {worker} SET search_path = spies, pg_catalog, site"
    );
    database
        .superuser()
        .batch_execute(&sql)
        .expect("operators of the worker's");
    let visitas = settings().start();
    (0..3).for_each(|_| assert_eq!(visitas.try_visit().status, 200, "{}", visitas.output()));
    for path in [
        "/history?by=minute",
        "/history?by=day",
        "/stats",
        "/c/a",
        "/c/a/stats",
        "/c/a/history",
        "/counters",
    ] {
        assert_eq!(
            visitas.get(path).status,
            200,
            "{path}: {}",
            visitas.output()
        );
    }
    visitas.stop();
    let spied = format!(
        "SELECT DISTINCT who::text || ': ' || what FROM spies.spied WHERE who <> '{worker}' \
         ORDER BY 1"
    );
    let rows = database
        .superuser()
        .query(&spied, &[])
        .expect("what was spied");
    let spied: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(
        spied.is_empty(),
        "run with the rights of the owner: {spied:#?}"
    );
}

/// PostgreSQL 14 lets everybody create objects in `public`; later versions need a grant.
#[test]
fn nobody_gets_rights_through_a_trigger_or_a_visit() {
    let database = Cluster::shared().database();
    let visitas = Settings::new()
        .postgres(&database)
        .set("COUNTERS", "*")
        .start();
    visitas.visit();
    let stranger = format!("stranger_{}", database.name);
    let mut sql = database.superuser();
    let role = format!(
        "CREATE ROLE {stranger} LOGIN PASSWORD 'p'; GRANT INSERT, DELETE, UPDATE, \
         SELECT ON acessos TO {stranger}; \
         GRANT CREATE ON SCHEMA public TO {stranger}; \
         GRANT TEMPORARY ON DATABASE {} TO {stranger}",
        database.name
    );
    sql.batch_execute(&role).expect("a role with few rights");
    sql.batch_execute(&traps(&stranger)).expect("traps");
    for statement in [
        "INSERT INTO public.acessos (momento) SELECT now() FROM generate_series(1, 9)",
        "UPDATE public.acessos \
         SET momento = pg_catalog.now() OPERATOR(pg_catalog.-) interval '90 minutes'",
        "UPDATE public.acessos SET contador = 'a'",
        "DELETE FROM public.acessos WHERE id OPERATOR(pg_catalog.=) 3::bigint",
        "RESET SESSION AUTHORIZATION",
        "TRUNCATE public.acessos",
        "INSERT INTO public.acessos (momento, contador) SELECT now(), 'a' FROM generate_series(1, 4)",
    ] {
        sql.batch_execute(statement).expect(statement);
    }
    let nothing_was_spied = || {
        let spied = format!(
            "SELECT DISTINCT who::text || ': ' || what FROM public.spied \
             WHERE who <> '{stranger}' ORDER BY 1"
        );
        let rows = database
            .superuser()
            .query(&spied, &[])
            .expect("what was spied");
        let spied: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(
            spied.is_empty(),
            "run with the rights of others: {spied:#?}"
        );
    };
    nothing_was_spied();
    assert_eq!(total_is_rows(&visitas, &database), 4);
    // The sessions of visitas have `public` in their path: old ones, and those of a start among the
    // traps.
    assert_eq!(visitas.visit().total, 5);
    let visitas = visitas.stop().start();
    assert_eq!(visitas.visit().total, 6);
    for path in [
        "/history?by=minute",
        "/history?by=hour",
        "/history?by=day",
        "/stats",
        "/readyz?verbose",
        "/",
        "/c/a",
        "/c/a/stats",
        "/c/a/history",
        "/counters",
    ] {
        assert_eq!(
            visitas.get(path).status,
            200,
            "{path}: {}",
            visitas.output()
        );
    }
    for arguments in [&["check"][..], &["check", "--count"], &["recount"]] {
        let settings = Settings::new().postgres(&database);
        let ended = arguments
            .iter()
            .fold(settings, |settings, argument| settings.argument(argument))
            .run();
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    }
    nothing_was_spied();
    assert_eq!(total_is_rows(&visitas, &database), 8);
}

/// One role owns the schema. Another one works with only the rights that docs/operations.md names.
#[test]
fn the_role_that_works_needs_no_right_on_a_table() {
    let database = Cluster::shared().database();
    let (worker, stranger) = (
        format!("worker_{}", database.name),
        format!("passer_{}", database.name),
    );
    let mut sql = database.superuser();
    sql.batch_execute(&format!(
        "CREATE SCHEMA site AUTHORIZATION user_app; ALTER DATABASE {} SET search_path = site; \
         CREATE ROLE {worker} LOGIN PASSWORD 'p'; CREATE ROLE {stranger} LOGIN PASSWORD 'p'; \
         GRANT USAGE ON SCHEMA site TO {worker}, {stranger}",
        database.name
    ))
    .expect("roles and a schema");
    let owner = Settings::new().postgres(&database).set("COUNTERS", "*");
    owner.start().stop();
    let mut sql = database.superuser();
    let grants = format!(
        "SELECT coalesce(string_agg(format('GRANT EXECUTE ON FUNCTION %s TO {worker}', \
         oid::regprocedure), '; '), '') \
         FROM pg_proc WHERE pronamespace = 'site'::regnamespace AND proname LIKE 'visitas\\_%'"
    );
    let grants: String = sql.query_one(&grants, &[]).expect("functions").get(0);
    assert!(
        grants.contains("visitas_total"),
        "in the schema of acessos: {grants:?}"
    );
    sql.batch_execute(&grants).expect("GRANTs");
    let url = database
        .url()
        .replace("user_app:app_password", &format!("{worker}:p"));
    let settings = || {
        Settings::new()
            .set("DATABASE_URL", &url)
            .set("COUNTERS", "*")
    };
    let checked = settings().argument("check").run();
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let visitas = settings().start();
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, visit);
    }
    let mut foreign = database.sql();
    foreign
        .batch_execute(
            "INSERT INTO site.acessos (momento) SELECT now() - interval '3 minutes' \
             FROM generate_series(1, 4)",
        )
        .expect("foreign rows");
    assert_eq!(total_is_rows(&visitas, &database), 9);
    for by in ["minute", "hour", "day"] {
        assert_eq!(crate::support::history::sum(&visitas, by), 9);
    }
    assert_eq!(visitas.get("/readyz").status, 200);
    // Also after a reconnect, and it can fold the changes of others.
    within(LIMIT, "a session to end", || {
        let ended = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE usename = '{worker}'"
        );
        database.number(&ended) > 0
    });
    assert_eq!(visitas.visit().total, 10);
    for _ in 0..50 {
        foreign
            .batch_execute("INSERT INTO site.acessos DEFAULT VALUES")
            .expect("a foreign row");
    }
    within_value(LIMIT, "the changes to be folded", || {
        visitas.visit();
        match database.number("SELECT count(*) FROM site.visitas_changes") {
            0..10 => Ok(()),
            left => Err(left),
        }
    });
    let counted = count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
    // It has no right on any table, and nobody else may call functions with the owner's rights.
    let rights = format!(
        "SELECT coalesce(string_agg(c.relname || ' ' || r.name, ', '), '') FROM pg_class c, \
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r(name) \
         WHERE c.relnamespace = 'site'::regnamespace AND c.relkind IN ('r', 'p') \
           AND has_table_privilege('{worker}', c.oid, r.name)"
    );
    let rights: String = sql.query_one(&rights, &[]).expect("rights").get(0);
    assert_eq!(rights, "");
    let open = format!(
        "SELECT coalesce(string_agg(oid::regprocedure::text, ', '), '') FROM pg_proc \
         WHERE pronamespace = 'site'::regnamespace AND prosecdef \
         AND prorettype <> 'trigger'::regtype \
           AND has_function_privilege('{stranger}', oid, 'EXECUTE')"
    );
    let open: String = sql.query_one(&open, &[]).expect("functions").get(0);
    assert_eq!(open, "", "anybody may run these with the owner's rights");
    visitas.stop();
    the_worker_gets_no_foreign_rights(&database, &worker, settings);
}
