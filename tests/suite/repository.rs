//! The tree is as the documents say: headers of files, who may know whom, tables, ports, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::configuration::variables_of_help;
use crate::support::{Settings, markdown};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below that folder with that ending, with its text.
fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
            {
                let text = fs::read_to_string(&path)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_file_says_its_duty_first() {
    let sources = [files("src", "rs"), files("tests", "rs")].concat();
    assert!(sources.len() > 10, "the sources were not found");
    for (path, text) in sources {
        assert!(
            text.starts_with("//! ") && text.lines().next().is_some_and(|line| line.len() > 15),
            "{}",
            path.display()
        );
    }
}

#[test]
fn main_is_short() {
    let lines = read("src/main.rs").lines().count();
    assert!(lines <= 100, "src/main.rs has {lines} lines");
}

#[test]
fn http_and_visits_know_nothing_of_each_other() {
    for (folder, forbidden) in [
        (
            "src/http",
            [
                "crate::visits",
                "crate::site",
                "crate::config",
                "super::super::visits",
                "super::super::site",
            ],
        ),
        (
            "src/visits",
            [
                "crate::http",
                "crate::site",
                "crate::config",
                "super::super::http",
                "super::super::site",
            ],
        ),
    ] {
        let sources = files(folder, "rs");
        assert!(!sources.is_empty(), "nothing in {folder}");
        for (path, text) in sources {
            for word in forbidden {
                assert!(!text.contains(word), "{} names {word}", path.display());
            }
            // `use crate::{http, visits}` would get by the check above.
            assert!(
                !text.contains("crate::{"),
                "{} imports from crate in a group",
                path.display()
            );
        }
    }
}

/// The first cells of a document's tables that hold a word which `is_meant` accepts, each with its
/// whole row.
fn rows_of(document: &str, is_meant: impl Fn(&str) -> bool) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for row in markdown::table_rows(&read(document)) {
        let words = row
            .first()
            .map(|cell| markdown::code_words(cell))
            .unwrap_or_default();
        found.extend(
            words
                .into_iter()
                .filter(|word| is_meant(word))
                .map(|word| (word, row.clone())),
        );
    }
    found
}

fn is_variable(word: &str) -> bool {
    word.len() >= 4
        && word
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// Where the settings are listed.
const SETTINGS: &str = "docs/configuration.md";

#[test]
fn the_settings_are_those_of_help_with_their_defaults() {
    let rows = rows_of(SETTINGS, is_variable);
    let listed: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed.len(), rows.len(), "a variable is listed twice");
    assert_eq!(
        listed,
        variables_of_help().into_iter().collect::<BTreeSet<_>>()
    );
    let help = Settings::empty().argument("--help").run().stdout;
    for (name, row) in &rows {
        let default = row[1].replace('`', "");
        let line = help
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .expect("its line");
        assert!(
            line.ends_with(&format!("[{default}]")),
            "{SETTINGS}: the default of {name} is not {default}: {line:?}"
        );
    }
}

#[test]
fn readme_leads_to_the_port_that_is_the_default() {
    let help = Settings::empty().argument("--help").run().stdout;
    let line = help
        .lines()
        .find(|line| line.trim_start().starts_with("PORT "))
        .expect("its line");
    assert!(line.ends_with("[5000]"), "{line:?}");
    assert!(
        read("README.md").contains("localhost:5000")
            && read("README.pt-BR.md").contains("localhost:5000")
    );
}

#[test]
fn the_images_use_the_same_ports() {
    let dockerfiles = fs::read_dir(root())
        .expect("the root")
        .flatten()
        .map(|entry| entry.path());
    for path in dockerfiles.filter(|path| {
        path.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("Dockerfile"))
    }) {
        let text = fs::read_to_string(&path).expect("a Dockerfile");
        let exposed: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("EXPOSE"))
            .collect();
        assert!(
            exposed.iter().all(|line| *line == "EXPOSE 5000"),
            "{}: {exposed:?}",
            path.display()
        );
    }
    let compose = root().join("docker-compose.yml");
    if compose.exists() {
        let text = fs::read_to_string(compose).expect("the compose file");
        assert!(
            text.contains(":5000"),
            "docker-compose.yml does not publish port 5000 of the container"
        );
    }
}

/// Paths that stand as literals in the sources of the site.
fn paths_in_sources() -> BTreeSet<String> {
    let is_path = |word: &&str| {
        word.starts_with('/')
            && word.len() < 30
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'/' || b == b'.')
    };
    let literals = files("src/site", "rs").into_iter().flat_map(|(_, text)| {
        let parts: Vec<String> = text
            .split('"')
            .filter(|word| is_path(word))
            .map(str::to_owned)
            .collect();
        parts
    });
    literals.collect()
}

#[test]
fn docs_http_lists_the_routes_that_are_there() {
    let visitas = Settings::new().start();
    // By HEAD, since /events does not end.
    let is_there = |path: &str| visitas.request("HEAD", path, &[]).status != 404;
    // `GET /`, `/stats` or `/readyz?verbose` as a table has them.
    let path_of = |word: &str| {
        word.rsplit(' ')
            .next()
            .unwrap_or_default()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let listed: BTreeSet<String> = rows_of("docs/http.md", |word| path_of(word).starts_with('/'))
        .iter()
        .map(|(word, _)| path_of(word))
        .collect();
    for path in &listed {
        assert!(
            is_there(path),
            "docs/http.md lists {path}, which is not found"
        );
    }
    let contract = [
        "/",
        "/stats",
        "/livez",
        "/readyz",
        "/metrics",
        "/favicon.ico",
        "/favicon.svg",
        "/robots.txt",
    ];
    let in_code: BTreeSet<String> = paths_in_sources()
        .into_iter()
        .filter(|path| is_there(path))
        .collect();
    assert!(
        in_code.contains("/livez"),
        "the routes were not found in src/site"
    );
    for path in in_code.iter().map(String::as_str).chain(contract) {
        assert!(listed.contains(path), "docs/http.md does not list {path}");
    }
}

#[test]
fn every_link_between_documents_resolves() {
    let documents: Vec<(PathBuf, String)> = [
        "README.md",
        "README.pt-BR.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ]
    .iter()
    .map(|name| (root().join(name), read(name)))
    .chain(
        ["docs", "bench", "deploy", "scripts"]
            .iter()
            .flat_map(|folder| files(folder, "md")),
    )
    .filter(|(path, _)| {
        !path
            .components()
            .any(|part| part.as_os_str() == "node_modules")
    })
    .collect();
    for (path, text) in &documents {
        for link in markdown::links(text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                path.parent().expect("a folder").join(file)
            };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !anchor.is_empty()
                && target
                    .extension()
                    .is_some_and(|extension| extension == "md")
            {
                let anchors = markdown::anchors(&fs::read_to_string(&target).expect("a document"));
                assert!(
                    anchors.iter().any(|known| known == anchor),
                    "{}: {link}: no such heading",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_test_that_a_document_names_is_there() {
    for (document, at_least) in [("docs/http.md", 40)] {
        let text = read(document);
        let words = text.split('`').filter_map(|word| word.split_once("::"));
        let mut known = 0;
        for (module, test) in words.filter(|(module, _)| !module.contains([' ', '\n'])) {
            let text = read(&format!("tests/suite/{module}.rs"));
            assert!(
                text.contains(&format!("\nfn {test}() {{")),
                "{document} names {module}::{test}, which is not there"
            );
            known += 1;
        }
        assert!(
            known > at_least,
            "only {known} tests were found in {document}"
        );
    }
}

#[test]
fn readme_has_a_command_early() {
    let readme = read("README.md");
    let early: Vec<&str> = readme.lines().take(25).collect();
    assert!(
        early
            .iter()
            .any(|line| line.contains("cargo run --release")),
        "no command in the first 25 lines"
    );
}
