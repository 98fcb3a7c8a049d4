//! The repository agrees with its documents: headers of files, imports, routes, ports, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Settings, markdown};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files with this ending below a folder, with their text.
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
fn every_file_begins_with_its_duty() {
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
fn http_and_visits_do_not_import_each_other() {
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
            // `use crate::{http, visits}` would pass the check above.
            assert!(
                !text.contains("crate::{"),
                "{} imports from crate in a group",
                path.display()
            );
        }
    }
}

/// The rows of a document's tables by the code words in their first cell that `is_meant` accepts.
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

#[test]
fn documents_and_images_use_the_default_port() {
    let (_, port) = crate::configuration::defaults::documented()
        .into_iter()
        .find(|(name, _)| name == "PORT")
        .expect("the default of PORT");
    for document in ["README.md", "README.pt-BR.md"] {
        let address = format!("localhost:{port}");
        assert!(
            read(document).contains(&address),
            "no {address} in {document}"
        );
    }
    let dockerfile = read("Dockerfile.scratch");
    let exposed: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("EXPOSE "))
        .collect();
    assert_eq!(exposed, [port.as_str()], "Dockerfile.scratch");
    assert!(
        read("docker-compose.yml").contains(&format!(":{port}\"")),
        "docker-compose.yml does not publish port {port}"
    );
}

/// Paths in string literals of the site's sources.
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
fn docs_http_lists_every_route() {
    let visitas = Settings::new().set("COUNTERS", "blog").start();
    // By HEAD, since /events does not end.
    let is_there = |path: &str| visitas.request("HEAD", path, &[]).status != 404;
    // A table holds `GET /`, `/stats` or `/readyz?verbose`.
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

/// The files of a module of the suite.
fn sources_of(module: &str) -> impl Iterator<Item = String> {
    let own = fs::read_to_string(root().join(format!("tests/suite/{module}.rs")));
    let parts = files(&format!("tests/suite/{module}"), "rs");
    own.into_iter()
        .chain(parts.into_iter().map(|(_, text)| text))
}

#[test]
fn every_test_that_a_document_names_exists() {
    for (document, at_least) in [("docs/http.md", 40), ("docs/exactly-once.md", 10)] {
        let text = read(document);
        let words = text.split('`').filter_map(|word| word.split_once("::"));
        let mut found = 0;
        for (module, test) in words.filter(|(module, _)| !module.contains([' ', '\n'])) {
            let test = format!("\nfn {}() {{", test.rsplit("::").next().unwrap_or(test));
            assert!(
                sources_of(module).any(|text| text.contains(&test)),
                "{document} names {module}::{test}, which is missing"
            );
            found += 1;
        }
        assert!(found > at_least, "only {found} tests in {document}");
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
