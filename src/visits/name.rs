//! Counters by name: which names the settings admit, and which are in use.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of a name. It is part of addresses, of keys in Redis and of keys in the ledger.
pub const MAX_NAME_BYTES: usize = 64;
/// The highest start value: a total with it still has room in 63 bits.
const MAX_START: u64 = 1_000_000_000_000_000;

/// The name of a counter: valid, and admitted by the settings.
#[derive(Clone)]
pub struct Name(Arc<Inner>);

struct Inner {
    text: Box<str>,
    start: u64,
}

impl Name {
    pub(super) fn new(text: &str, start: u64) -> Name {
        Name(Arc::new(Inner {
            text: text.into(),
            start,
        }))
    }

    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// What the counter had before it came here: added to the total that is shown.
    pub fn start(&self) -> u64 {
        self.0.start
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the text can be a name. `names.sql` has the same rule. Dots alone are none: browsers
/// take `.` and `..` out of an address.
pub(super) fn is_valid(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(is_of_name)
        && text.bytes().any(|byte| byte != b'.')
}

/// A text with the same place among names, which every ledger can compare: ASCII without NUL. No
/// byte of a name is below `-` or above `z`.
pub(super) fn same_place(text: &str) -> String {
    let text = text.chars().take_while(|c| *c != '\0');
    text.map(|c| if c.is_ascii() { c } else { '\x7f' })
        .collect()
}

fn is_of_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')
}

/// The names that the settings admit: `blog,shop-*=0,photos=12345`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameRules {
    /// Whole names, with their start values.
    exact: BTreeMap<Box<str>, u64>,
    /// Beginnings of names, with the start value of each member; the longest first.
    families: Vec<(Box<str>, u64)>,
}

impl NameRules {
    /// The start value of that name; `None` where it is not admitted. Its own entry counts before
    /// that of a family, and a longer beginning before a shorter one.
    fn start_of(&self, name: &str) -> Option<u64> {
        if !is_valid(name) {
            return None;
        }
        if let Some(start) = self.exact.get(name) {
            return Some(*start);
        }
        let mut families = self.families.iter();
        let family = families.find(|(beginning, _)| name.starts_with(&**beginning));
        family.map(|(_, start)| *start)
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.families.is_empty()
    }

    /// Whole names.
    pub fn whole_names(&self) -> usize {
        self.exact.len()
    }
}

impl FromStr for NameRules {
    /// The entry that is wrong, and why.
    type Err = String;

    fn from_str(text: &str) -> Result<NameRules, String> {
        let mut rules = NameRules::default();
        for entry in text.split(',').map(str::trim) {
            let wrong = |why: &str| format!("{entry:?} {why}");
            let (name, start) = match entry.split_once('=') {
                None => (entry, 0),
                Some((name, start)) => {
                    let digits = !start.is_empty() && start.bytes().all(|b| b.is_ascii_digit());
                    let start = start.parse().ok().filter(|start| *start <= MAX_START);
                    let start = start.filter(|_| digits);
                    (name, start.ok_or_else(|| wrong("has no start value"))?)
                }
            };
            let twice = match name.strip_suffix('*') {
                Some(beginning) => {
                    if beginning.len() >= MAX_NAME_BYTES || !beginning.bytes().all(is_of_name) {
                        return Err(wrong("is no beginning of names"));
                    }
                    let twice = rules.families.iter().any(|(same, _)| **same == *beginning);
                    rules.families.push((beginning.into(), start));
                    twice
                }
                None if !is_valid(name) => return Err(wrong("is no name")),
                None => rules.exact.insert(name.into(), start).is_some(),
            };
            if twice {
                return Err(wrong("is there twice"));
            }
        }
        rules
            .families
            .sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        Ok(rules)
    }
}

/// Whether a visit to a name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    Known,
    /// It is in use from now on.
    New,
    /// As many names are in use as may be.
    Full,
}

/// The names in use: all whole names of the settings, and each other one that was visited.
#[derive(Debug)]
pub(super) struct Names {
    rules: NameRules,
    most: usize,
    used: RwLock<HashSet<Name>>,
}

impl Names {
    pub(super) fn new(rules: NameRules, most: usize) -> Names {
        let whole = rules.exact.iter();
        let used = whole.map(|(name, start)| Name::new(name, *start)).collect();
        Names {
            rules,
            most,
            used: RwLock::new(used),
        }
    }

    /// Whether there are counters with names at all.
    pub(super) fn are_admitted(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The name of that text, if the settings admit it.
    pub(super) fn find(&self, text: &str) -> Option<Name> {
        if let Some(name) = self.read().get(text) {
            return Some(name.clone());
        }
        Some(Name::new(text, self.rules.start_of(text)?))
    }

    pub(super) fn admit(&self, name: &Name) -> Admitted {
        if self.read().contains(name) {
            return Admitted::Known;
        }
        let mut used = self.used.write().unwrap_or_else(PoisonError::into_inner);
        if used.contains(name) {
            return Admitted::Known;
        }
        if used.len() >= self.most {
            return Admitted::Full;
        }
        used.insert(name.clone());
        Admitted::New
    }

    /// Nothing was recorded for a new name: another may have its place.
    pub(super) fn forget(&self, name: &Name) {
        let mut used = self.used.write().unwrap_or_else(PoisonError::into_inner);
        if !self.rules.exact.contains_key(name.as_str()) {
            used.remove(name);
        }
    }

    /// Names in use.
    pub(super) fn count(&self) -> usize {
        self.read().len()
    }

    /// The whole names of the settings after that one, in order.
    pub(super) fn whole_after(&self, after: &str) -> impl Iterator<Item = Name> {
        let whole = self.rules.exact.iter();
        whole
            .skip_while(move |(name, _)| ***name <= *after)
            .map(|(name, start)| Name::new(name, *start))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashSet<Name>> {
        // Every statement leaves the set whole.
        self.used.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> NameRules {
        text.parse()
            .unwrap_or_else(|why| unreachable!("{text}: {why}"))
    }

    #[test]
    fn names_are_lower_case_ascii_and_bounded() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for name in ["a", "0", "blog", "a.b_c-d", "-", "_", ".a", "..a", &longest] {
            assert!(is_valid(name), "{name}");
        }
        let too_long = "a".repeat(MAX_NAME_BYTES + 1);
        for text in [
            "", ".", "..", "...", "A", "é", "a b", "a/b", "a%62", "a*", "a=1", "a\n", "\u{430}",
            &too_long,
        ] {
            assert!(!is_valid(text), "{text:?}");
        }
    }

    #[test]
    fn the_closest_rule_gives_the_start() {
        let rules = rules("blog, docs=7,shop-*=3,shop-big-*=5,shop-big-1=9");
        for (name, start) in [
            ("blog", Some(0)),
            ("docs", Some(7)),
            ("shop-", Some(3)),
            ("shop-a", Some(3)),
            ("shop-big-2", Some(5)),
            ("shop-big-1", Some(9)),
            ("shop", None),
            ("blo", None),
            ("blogs", None),
            ("shop-A", None),
        ] {
            assert_eq!(rules.start_of(name), start, "{name}");
        }
        assert_eq!(self::rules("*=2").start_of("any.thing"), Some(2));
        assert_eq!(self::rules("*").start_of(".."), None);
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_entry() {
        let endless = format!("{}*", "a".repeat(MAX_NAME_BYTES));
        for (text, entry) in [
            ("", "\"\""),
            ("a,,b", "\"\""),
            ("a,", "\"\""),
            ("Blog", "Blog"),
            ("a*b", "a*b"),
            ("**", "**"),
            ("a=", "a="),
            ("a=-1", "a=-1"),
            ("a=+1", "a=+1"),
            ("a=1.5", "a=1.5"),
            ("a=1000000000000001", "a=1000000000000001"),
            ("a,b,a=3", "a=3"),
            ("x*,x*=1", "x*=1"),
            ("..", ".."),
            ("é", "é"),
            (&endless, "aaaa"),
        ] {
            let why = text.parse::<NameRules>().expect_err(text);
            assert!(why.contains(entry), "{text}: {why}");
        }
    }

    #[test]
    fn no_more_names_are_in_use_than_may_be() {
        let names = Names::new(rules("a,b,*"), 3);
        let find = |text| names.find(text).unwrap_or_else(|| unreachable!("{text}"));
        assert_eq!(names.admit(&find("a")), Admitted::Known);
        assert_eq!(names.admit(&find("x")), Admitted::New);
        assert_eq!(names.admit(&find("x")), Admitted::Known);
        assert_eq!(names.admit(&find("y")), Admitted::Full);
        names.forget(&find("x"));
        names.forget(&find("a"));
        assert_eq!(names.admit(&find("y")), Admitted::New);
        assert_eq!(names.admit(&find("a")), Admitted::Known);
        assert_eq!(names.count(), 3);
        let whole: Vec<Name> = names.whole_after("a").collect();
        assert_eq!(whole, [find("b")]);
    }
}
