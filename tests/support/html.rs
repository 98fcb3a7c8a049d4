//! Reads a page strictly: elements closed in order, attributes quoted, identifiers unique.

/// Elements without an end tag.
const VOID: &[&str] = &[
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr",
];
/// Elements whose content is not HTML.
const RAW: &[&str] = &["style", "script", "title"];

/// One element's start tag.
#[derive(Debug)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    /// The text between its tags, for `style`, `script` and `title`.
    pub raw: String,
}

impl Element {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A well-formed page.
#[derive(Debug)]
pub struct Page {
    pub elements: Vec<Element>,
    /// The text between the tags, without that of `style` and `script`.
    pub text: String,
}

impl Page {
    /// Reads a whole document.
    ///
    /// # Panics
    /// When it is not well-formed.
    #[track_caller]
    pub fn read(html: &str) -> Page {
        parse(html).unwrap_or_else(|why| panic!("{why}\n{html}"))
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &Element> {
        self.elements
            .iter()
            .filter(move |element| element.name == name)
    }

    /// The number in `<data id="ID" value="N">`.
    #[track_caller]
    pub fn number(&self, id: &str) -> Option<i64> {
        let element = self
            .all("data")
            .find(|element| element.attribute("id") == Some(id))?;
        let value = element
            .attribute("value")
            .expect("a data element with a value");
        Some(
            value
                .parse()
                .unwrap_or_else(|_| panic!("{value:?} is no number")),
        )
    }

    /// The language of the document.
    pub fn language(&self) -> Option<&str> {
        self.all("html").next()?.attribute("lang")
    }
}

fn parse(html: &str) -> Result<Page, String> {
    let mut rest = html;
    let doctype = rest.get(..15).unwrap_or_default();
    if !doctype.eq_ignore_ascii_case("<!doctype html>") {
        return Err("no <!doctype html> at the start".to_owned());
    }
    rest = &rest[15..];
    let (mut open, mut page) = (
        Vec::<String>::new(),
        Page {
            elements: Vec::new(),
            text: String::new(),
        },
    );
    while let Some(at) = rest.find('<') {
        page.text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = &comment[comment.find("-->").ok_or("a comment without end")? + 3..];
            continue;
        }
        let end = rest.find('>').ok_or("a tag without end")?;
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            match open.pop() {
                Some(expected) if expected == name => continue,
                expected => return Err(format!("</{name}> where {expected:?} is open")),
            }
        }
        let mut element = start_tag(tag)?;
        if RAW.contains(&element.name.as_str()) {
            let close = format!("</{}>", element.name);
            let length = rest.find(&close).ok_or_else(|| format!("no {close}"))?;
            element.raw = rest[..length].to_owned();
            rest = &rest[length + close.len()..];
        } else if !VOID.contains(&element.name.as_str()) && !tag.ends_with('/') {
            open.push(element.name.clone());
        }
        page.elements.push(element);
    }
    if let Some(name) = open.pop() {
        return Err(format!("<{name}> is not closed"));
    }
    let mut ids: Vec<&str> = page
        .elements
        .iter()
        .filter_map(|element| element.attribute("id"))
        .collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("two elements with the identifier {}", pair[0])),
        None => Ok(page),
    }
}

/// Reads `name attribute="value" ...` from between angle brackets. No value of the page holds `>`.
fn start_tag(tag: &str) -> Result<Element, String> {
    let tag = tag.trim_end_matches('/').trim();
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return Err(format!("<{tag}> is no element"));
    }
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(Element {
                name: name.to_owned(),
                attributes,
                raw: String::new(),
            });
        }
        let length = rest
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(rest.len());
        let (key, after) = rest.split_at(length);
        let Some(value) = after.strip_prefix("=\"") else {
            if after.starts_with('=') {
                return Err(format!("an attribute without quotes in <{tag}>"));
            }
            attributes.push((key.to_owned(), String::new()));
            rest = after;
            continue;
        };
        let (value, after) = value
            .split_once('"')
            .ok_or_else(|| format!("a value without end in <{tag}>"))?;
        attributes.push((key.to_owned(), value.to_owned()));
        rest = after;
    }
}
