//! Reads what the suite checks in Markdown: tables, links, headings and code.

/// The rows of every table as lists of cells, without the header and the rule below it.
pub fn table_rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = outside_of_code(text).collect();
    let is_rule = |line: &str| line.starts_with('|') && line.chars().all(|c| "|-: ".contains(c));
    let mut rows = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let before_rule = lines.get(index + 1).is_some_and(|next| is_rule(next));
        if line.starts_with('|') && !is_rule(line) && !before_rule {
            let inner = line.trim_matches('|');
            rows.push(
                inner
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect(),
            );
        }
    }
    rows
}

/// The words in backticks.
pub fn code_words(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The targets of all links and images in the text.
pub fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in outside_of_code(text) {
        // Code is not a link.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for part in prose.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            found.push(target.to_owned());
        }
        if let Some((_, target)) = prose.split_once("]: ").filter(|_| prose.starts_with('[')) {
            found.push(target.trim().to_owned());
        }
    }
    found
}

/// The anchors of all headings, as renderers make them.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = outside_of_code(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

fn outside_of_code(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().map(str::trim).filter(move |line| {
        let fence = line.starts_with("```") || line.starts_with("~~~");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The code blocks below this heading, up to the next one.
pub fn code_blocks(text: &str, heading: &str) -> Vec<String> {
    let title =
        |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
    let (mut blocks, mut in_code) = (Vec::new(), false);
    for line in text.lines().skip_while(|line| !title(line)).skip(1) {
        if line.starts_with("```") {
            in_code = !in_code;
            if in_code {
                blocks.push(String::new());
            }
        } else if in_code {
            blocks
                .iter_mut()
                .last()
                .into_iter()
                .for_each(|block: &mut String| *block += &format!("{line}\n"));
        } else if line.starts_with('#') {
            break;
        }
    }
    blocks
}
