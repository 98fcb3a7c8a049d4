//! Reads Prometheus' text format strictly: HELP and TYPE first, complete families, cumulative
//! histograms.

use std::collections::{BTreeMap, BTreeSet};

/// One value, its labels in the order of the text.
#[derive(Clone, Debug)]
pub struct Sample {
    /// In a histogram with the suffix `_bucket`, `_sum` or `_count`.
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All samples of one name.
#[derive(Clone, Debug)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// A complete exposition, by family name.
#[derive(Clone, Debug)]
pub struct Metrics(pub BTreeMap<String, Family>);

impl Metrics {
    /// Reads an exposition.
    ///
    /// # Panics
    /// At the first line that is not valid.
    #[track_caller]
    pub fn read(text: &str) -> Metrics {
        parse(text).unwrap_or_else(|why| panic!("{why}\n{text}"))
    }

    /// The sum over a family's samples.
    #[track_caller]
    pub fn sum(&self, name: &str) -> f64 {
        self.family(name)
            .samples
            .iter()
            .map(|sample| sample.value)
            .sum()
    }

    #[track_caller]
    pub fn family(&self, name: &str) -> &Family {
        let names: Vec<_> = self.0.keys().collect();
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no {name} among {names:?}"))
    }

    /// The families of this kind with this word in their name.
    pub fn like(&self, kind: &str, word: &str) -> Vec<&str> {
        let fits = |(name, family): &(&String, &Family)| family.kind == kind && name.contains(word);
        self.0
            .iter()
            .filter(fits)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The only family of this kind with this word in its name.
    #[track_caller]
    pub fn one(&self, kind: &str, word: &str) -> &str {
        match self.like(kind, word)[..] {
            [name] => name,
            _ => panic!("not one {kind} about {word}: {:?}", self.0.keys()),
        }
    }

    /// The count of a histogram without labels.
    #[track_caller]
    pub fn count(&self, histogram: &str) -> f64 {
        let name = format!("{histogram}_count");
        let samples = &self.family(histogram).samples;
        samples
            .iter()
            .filter(|sample| sample.name == name)
            .map(|sample| sample.value)
            .sum()
    }
}

fn parse(text: &str) -> Result<Metrics, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut families = BTreeMap::<String, Family>::new();
    let (mut current, mut help) = (None::<String>, None::<(String, String)>);
    for line in text.lines() {
        let wrong = || format!("line {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').ok_or_else(wrong)?;
            help = Some((name.to_owned(), words.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(wrong)?;
            let (help_name, words) = help.take().ok_or_else(wrong)?;
            if help_name != name
                || !["counter", "gauge", "histogram"].contains(&kind)
                || families.contains_key(name)
            {
                return Err(wrong());
            }
            let family = Family {
                kind: kind.to_owned(),
                help: words,
                samples: Vec::new(),
            };
            families.insert(name.to_owned(), family);
            current = Some(name.to_owned());
        } else {
            let sample = parse_sample(line).ok_or_else(wrong)?;
            let name = current.as_ref().ok_or_else(wrong)?;
            let family = families.get_mut(name).ok_or_else(wrong)?;
            let suffix = sample.name.strip_prefix(name.as_str()).ok_or_else(wrong)?;
            let allowed: &[&str] = if family.kind == "histogram" {
                &["_bucket", "_sum", "_count"]
            } else {
                &[""]
            };
            if !allowed.contains(&suffix) {
                return Err(wrong());
            }
            family.samples.push(sample);
        }
    }
    families
        .iter()
        .try_for_each(|(name, family)| check(name, family))?;
    Ok(Metrics(families))
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        number => number.parse().ok()?,
    };
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}')?)?),
        None => (series, Vec::new()),
    };
    let valid = |name: &str| {
        let mut bytes = name.bytes();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    (valid(name) && labels.iter().all(|(label, _)| valid(label))).then(|| Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Reads `name="value",...`. No value of visitas holds a quote.
fn parse_labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = rest.split_once('"')?;
        labels.push((name.to_owned(), value.to_owned()));
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(labels)
}

fn check(name: &str, family: &Family) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for sample in &family.samples {
        if !seen.insert(format!("{}{:?}", sample.name, sample.labels)) {
            return Err(format!("{name} has the same sample twice"));
        }
        if sample.value.is_nan() || (family.kind != "gauge" && sample.value < 0.0) {
            return Err(format!("{name} has the value {}", sample.value));
        }
    }
    if family.samples.is_empty() {
        return Err(format!("{name} has no sample"));
    }
    if family.kind == "histogram" {
        check_histogram(name, family)
    } else {
        Ok(())
    }
}

/// Checks each set of labels: buckets are in order and cumulative, the last one is `+Inf` and
/// equal to the count, and there is a sum.
fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let mut buckets = BTreeMap::<String, Vec<(f64, f64)>>::new();
    let (mut counts, mut sums) = (BTreeMap::new(), BTreeSet::new());
    for sample in &family.samples {
        let others = sample
            .labels
            .iter()
            .filter(|(label, _)| label != "le")
            .collect::<Vec<_>>();
        let key = format!("{others:?}");
        match sample.label("le") {
            Some(bound) => {
                let bound = if bound == "+Inf" {
                    Ok(f64::INFINITY)
                } else {
                    bound.parse()
                };
                let bound = bound.map_err(|_| format!("{name}: a bound that is no number"))?;
                buckets.entry(key).or_default().push((bound, sample.value));
            }
            None if sample.name.ends_with("_count") => drop(counts.insert(key, sample.value)),
            None => drop(sums.insert(key)),
        }
    }
    for (key, buckets) in &buckets {
        let ordered = buckets
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let last = buckets
            .last()
            .is_some_and(|(bound, value)| bound.is_infinite() && counts.get(key) == Some(value));
        if !ordered || !last || !sums.contains(key) {
            return Err(format!("{name}{key} is not a whole histogram"));
        }
    }
    if buckets.len() == counts.len() && !buckets.is_empty() {
        Ok(())
    } else {
        Err(format!("{name} lacks buckets"))
    }
}
