//! Settings and defaults: the program, `--help` and docs/configuration.md agree.

use visitas::config::{Config, CounterPlace, LedgerPlace};

use crate::support::{Settings, markdown};

fn help() -> String {
    let help = Settings::empty().argument("--help").run();
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    help.stdout
}

/// The variables that `--help` lists, each in capitals at the start of a line.
fn variables_of(help: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.len() >= 4
            && word
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let words = help
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.filter(is_name).collect()
}

/// The settings of docs/configuration.md with their default.
pub fn documented() -> Vec<(String, String)> {
    let rows = markdown::table_rows(include_str!("../../../docs/configuration.md"));
    let setting = |row: Vec<String>| {
        let name = markdown::code_words(&row[0]).pop()?;
        let is_variable = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        is_variable.then(|| (name, row[1].replace('`', "")))
    };
    rows.into_iter().filter_map(setting).collect()
}

#[test]
fn help_lists_the_documented_settings_and_defaults() {
    let (help, documented) = (help(), documented());
    assert!(documented.len() > 30, "{documented:#?}");
    let mut names: Vec<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
    let mut listed = variables_of(&help);
    names.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, names);
    for (name, default) in &documented {
        let is_its_line = |line: &&str| line.split_whitespace().next() == Some(name);
        let line = help.lines().find(is_its_line).expect("its line");
        assert!(line.ends_with(&format!("[{default}]")), "{default}: {line}");
    }
    for word in ["check", "recount", "healthcheck", "--help", "--version"] {
        assert!(help.contains(word), "no {word} in:\n{help}");
    }
}

/// A configuration with only the settings in `base`, and one where every other setting has its
/// documented default, are the same.
#[track_caller]
fn documented_defaults_change_nothing(base: &[(&str, &str)], is_meant: impl Fn(&str) -> bool) {
    let mut all: Vec<(String, String)> = base
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let read = |settings: &[(String, String)]| {
        let value = |name: &str| {
            let setting = settings.iter().find(|(known, _)| known == name);
            setting.map(|(_, value)| value.into())
        };
        Config::from_lookup(&value).expect("a valid configuration")
    };
    let unset = format!("{:#?}", read(&all));
    let cores = std::thread::available_parallelism().expect("the number of cores");
    let mut set = 0;
    for (name, default) in documented() {
        let value = if name == "WORKERS" {
            cores.to_string()
        } else {
            default
        };
        // Words describe what happens without a value.
        let is_value = !value.starts_with("unset") && !value.contains(' ');
        if is_value && is_meant(&name) && !base.iter().any(|(known, _)| *known == name) {
            all.push((name, value));
            set += 1;
        }
    }
    assert!(set > 10, "only {set} defaults: {all:#?}");
    assert_eq!(format!("{:#?}", read(&all)), unset);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    // Without stores their settings are refused; with stores DATA_DIR is not read.
    let of_a_store = |name: &str| name.starts_with("DB_") || name.starts_with("REDIS_");
    documented_defaults_change_nothing(&[], |name| !of_a_store(name));
    let stores = [("DB_HOST", "db"), ("REDIS_HOST", "cache")];
    documented_defaults_change_nothing(&stores, |_| true);
    let config = Config::from_lookup(&|_| None).expect("an empty environment");
    let has_defaults = config.ops.is_none()
        && config.keep_rows.is_none()
        && config.visits_per_client.is_none()
        && matches!(config.ledger, LedgerPlace::Embedded { .. })
        && matches!(config.counter, CounterPlace::InProcess);
    assert!(has_defaults, "what is unset by default: {config:#?}");
}
