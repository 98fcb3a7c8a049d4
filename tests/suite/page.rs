//! The page and its JSON: languages, numbers, valid HTML, no foreign resources, and the page
//! without Redis.

use crate::support::html::Page;
use crate::support::wait::within_value;
use crate::support::{Cluster, LIMIT, Redis, Settings, Visitas, within};

#[track_caller]
fn page(visitas: &Visitas, accept_language: Option<&str>) -> Page {
    let headers: Vec<(&str, &str)> = accept_language
        .map(|value| ("Accept-Language", value))
        .into_iter()
        .collect();
    let response = visitas.request("GET", "/", &headers);
    assert_eq!(response.status, 200, "{response:?}");
    Page::read(&response.text())
}

#[test]
fn it_is_portuguese_by_default_and_english_for_other_languages() {
    let visitas = Settings::new().start();
    for accepted in [
        None,
        Some(""),
        Some("pt-BR"),
        Some("pt"),
        Some("*"),
        Some("pt-BR,pt;q=0.9,en;q=0.8"),
        Some("en;q=0.4, pt;q=0.5"),
        Some("en;q=0"),
        Some("en;q=0, *"),
        Some("*;q=0.9, en;q=0.1"),
        Some("fr, pt;q=0.1"),
        Some("fr, en;q=0"),
        Some("fr;q=0"),
        Some(";;q=,,"),
    ] {
        assert_eq!(
            page(&visitas, accepted).language(),
            Some("pt-BR"),
            "Accept-Language: {accepted:?}"
        );
    }
    for accepted in [
        "en",
        "EN",
        "en-US",
        "en-GB,en;q=0.9",
        "en-US,en;q=0.5,pt;q=0.4",
        "pt;q=0.5, en;q=0.9",
        "pt;q=0, en",
        "fr, en;q=0.5",
        "en;q=1.0,*;q=0.1",
        "en ; q=0.8",
        "fr",
        "de-DE,de;q=0.9",
        "es, *;q=0.5",
        "ja, pt;q=0",
    ] {
        assert_eq!(
            page(&visitas, Some(accepted)).language(),
            Some("en"),
            "Accept-Language: {accepted:?}"
        );
    }
}

#[test]
fn both_languages_say_the_same_in_their_own_words() {
    let visitas = Settings::new().start();
    let (portuguese, english) = (page(&visitas, None), page(&visitas, Some("en")));
    assert_ne!(portuguese.text, english.text);
    let names = |page: &Page| {
        page.elements
            .iter()
            .map(|element| element.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&portuguese), names(&english), "the same elements");
    let title = |page: &Page| page.all("title").next().expect("a title").raw.clone();
    assert_ne!(title(&portuguese), title(&english));
}

#[test]
fn its_numbers_are_those_of_the_visit() {
    let visitas = Settings::new().start();
    for visit in 1..=3 {
        let page = page(&visitas, None);
        assert_eq!(
            (page.number("total"), page.number("cache")),
            (Some(visit), Some(visit))
        );
        let words = page.text.split(|c: char| !c.is_ascii_digit());
        let shown = words.filter(|word| *word == visit.to_string()).count();
        assert!(shown >= 2, "both numbers are visible: {:?}", page.text);
    }
    let counts = visitas.visit();
    assert_eq!((counts.total, counts.cache), (4, Some(4)));
}

#[test]
fn it_is_valid_and_needs_nothing_from_elsewhere() {
    let visitas = Settings::new().start();
    let response = visitas.get("/");
    let page = Page::read(&response.text());
    assert_eq!(page.all("title").count(), 1);
    assert_eq!(page.all("h1").count(), 1);
    assert!(page.all("meta").any(|meta| {
        meta.attribute("charset")
            .is_some_and(|set| set.eq_ignore_ascii_case("utf-8"))
    }));
    assert!(
        page.all("meta")
            .any(|meta| meta.attribute("name") == Some("viewport"))
    );
    assert!(
        page.all("script")
            .all(|script| script.raw.trim().is_empty()),
        "a script in the page"
    );
    for element in &page.elements {
        for (name, value) in &element.attributes {
            assert!(
                !name.starts_with("on") && name != "style",
                "{element:?} needs what the policy forbids"
            );
            let loads = name == "src" || (name == "href" && element.name == "link");
            let own = value.starts_with('/') && !value.starts_with("//");
            assert!(!loads || own, "{element:?} loads from elsewhere");
            if loads {
                assert_eq!(visitas.get(value).status, 200, "{element:?}");
            }
        }
    }
    assert_eq!(visitas.stats().total, 1, "what the page loads is no visit");
}

/// Also when each of the sixty minutes has a bar, and the numbers have five digits.
#[test]
fn a_visit_is_answered_with_at_most_2800_bytes() {
    let redis = Redis::start();
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    let bytes = |language| {
        let response = visitas.request("GET", "/", &[("Accept-Language", language)]);
        let bars = response.text().matches("V0").count();
        (response.body.len(), bars)
    };
    for language in ["pt", "en"] {
        let (bytes, _) = bytes(language);
        println!("{bytes} bytes in {language} without a history");
        assert!(bytes <= 2400, "{bytes} bytes without a history");
    }
    let mut sql = database.sql();
    sql.batch_execute(
        "INSERT INTO acessos (momento) \
         SELECT now() - n % 62 * interval '1 minute' FROM generate_series(1, 58900) n",
    )
    .expect("an hour of visits");
    for language in ["pt", "en"] {
        within(LIMIT, "a bar for each minute", || bytes(language).1 >= 59);
        let (bytes, bars) = bytes(language);
        println!("{bytes} bytes in {language} with {bars} bars");
        assert!(bytes <= 2800, "{bytes} bytes with {bars} bars");
    }
}

#[test]
fn its_policy_allows_what_it_loads_and_nothing_else() {
    let visitas = Settings::new().start();
    let response = visitas.get("/");
    let policy = response.header("Content-Security-Policy");
    let directives: Vec<&str> = policy.expect("a policy").split("; ").collect();
    let page = Page::read(&response.text());
    let links = |kind: &str| {
        let links = page.all("link");
        links
            .filter(|link| link.attribute("rel") == Some(kind))
            .count()
    };
    let scripts = page
        .all("script")
        .filter(|script| script.attribute("src").is_some());
    for (loaded, directive) in [
        (links("stylesheet"), "style-src 'self'"),
        (links("icon"), "img-src 'self'"),
        (scripts.count(), "script-src 'self'"),
    ] {
        assert!(loaded > 0, "nothing is loaded by {directive}");
        assert!(directives.contains(&directive), "{directives:?}");
    }
    assert!(directives.contains(&"default-src 'none'"), "{directives:?}");
    assert!(
        !directives
            .iter()
            .any(|directive| directive.contains("unsafe-")),
        "{directives:?}"
    );
    assert_eq!(page.all("style").count(), 0, "an inline style");
    let style = visitas.get("/style.css").text();
    assert!(
        style.contains('{') && !style.contains("url(") && !style.contains("@import"),
        "the style sheet loads something: {style}"
    );
}

#[test]
fn json_is_for_clients_that_prefer_it() {
    let visitas = Settings::new().start();
    let kind = |accept: &str| {
        let response = visitas.request("GET", "/", &[("Accept", accept)]);
        assert_eq!(response.status, 200, "{response:?}");
        response.header("Content-Type").expect("a type").to_owned()
    };
    for accept in [
        "application/json",
        "Application/JSON",
        "text/html;q=0.5, application/json",
        "application/json; charset=utf-8",
    ] {
        assert_eq!(kind(accept), "application/json", "Accept: {accept}");
    }
    for accept in [
        "",
        "*/*",
        "text/html",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "text/html, application/json;q=0.9",
        "application/json;q=0",
        "application/jsonp",
    ] {
        assert_eq!(kind(accept), "text/html; charset=utf-8", "Accept: {accept}");
    }
}

#[test]
fn json_is_for_clients_that_name_it_and_not_the_page() {
    let visitas = Settings::new().start();
    // From programs that want JSON; a browser names text/html.
    for accept in [
        "application/json, */*;q=0.5",
        "application/json, text/plain, */*",
        "*/*, application/json",
    ] {
        let response = visitas.request("GET", "/", &[("Accept", accept)]);
        assert_eq!(
            response.header("Content-Type"),
            Some("application/json"),
            "Accept: {accept}"
        );
    }
}

#[test]
fn it_says_that_the_counter_is_unavailable() {
    let mut redis = Redis::start();
    let visitas = Settings::new().redis(&redis).start();
    assert_eq!(visitas.visit().cache, Some(1));
    redis.stop();
    within(LIMIT, "a visit without the cache", || {
        visitas.visit().cache.is_none()
    });
    for (accepted, word) in [(None, "indisponível"), (Some("en"), "unavailable")] {
        let before = visitas.stats().total;
        let page = page(&visitas, accepted);
        assert_eq!(page.number("cache"), None);
        assert_eq!(page.number("total"), i64::try_from(before + 1).ok());
        assert!(
            page.text.to_lowercase().contains(word),
            "no {word:?} in {:?}",
            page.text
        );
        let has = |id: &str| {
            let mut elements = page.elements.iter();
            elements.any(|element| element.attribute("id") == Some(id))
        };
        assert!(has("cache-down") && !has("cache-note"));
    }
}

#[test]
fn without_redis_the_second_number_says_what_it_counts() {
    let visitas = Settings::new().start();
    for (accepted, words) in [
        (
            None,
            ["Desde que o servidor iniciou", "linha em um arquivo"],
        ),
        (Some("en"), ["Since the server started", "row in a file"]),
    ] {
        let page = page(&visitas, accepted);
        for words in words {
            assert!(page.text.contains(words), "no {words:?} in {:?}", page.text);
        }
    }
}

/// The chart's values and times are there without a script, too.
#[test]
fn its_charts_have_axes_peaks_today_and_the_week() {
    let visitas = Settings::new().start();
    (0..3).for_each(|_| _ = visitas.visit());
    // Each look is a visit, which the next charts show.
    let html = within_value(LIMIT, "the visits in the charts", || {
        let html = visitas
            .request("GET", "/", &[("Accept-Language", "en")])
            .text();
        let today = after(&html, "id=\"today\">").and_then(number);
        if today >= Some(3) {
            Ok(html)
        } else {
            Err(html)
        }
    });
    let today = after(&html, "id=\"today\">").and_then(number);
    assert!(after(&html, "id=\"week\">").and_then(number) >= today);
    let axes: Vec<_> = html
        .split("class=\"y\" aria-hidden=\"true\">")
        .skip(1)
        .collect();
    // The page comes with the first period, and links to the others.
    assert_eq!(axes.len(), 1);
    let others = visitas
        .request("GET", "/history?format=html", &[("Accept-Language", "en")])
        .text();
    let others_axes: Vec<_> = others
        .split("class=\"y\" aria-hidden=\"true\">")
        .skip(1)
        .collect();
    assert_eq!(others_axes.len(), 4);
    let figures = |html| str::split(html, "<figure").skip(1);
    let figures = figures(&html).chain(figures(&others));
    for (axis, figure) in axes.iter().chain(&others_axes).zip(figures) {
        let mut values = axis.split("<span>").skip(1).map(number);
        let [high, half, zero] = [(); 3].map(|()| values.next().flatten());
        let most = after(figure, "class=\"most\">").and_then(number);
        assert!(most >= Some(1) && high >= most, "{figure}");
        assert_eq!((half.map(|half| 2 * half), zero), (high, Some(0)), "{axis}");
        assert!(
            figure.contains("peak of") && figure.contains("class=\"now\" d=\"M"),
            "{figure}"
        );
    }
    let page = Page::read(&html);
    let current: Vec<_> = page
        .all("a")
        .filter(|link| link.attribute("aria-current").is_some())
        .map(|link| link.attribute("href"))
        .collect();
    assert_eq!(current, [Some("#minute")]);
}

fn after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    text.split_once(mark).map(|(_, after)| after)
}

/// The number that the text begins with.
fn number(text: &str) -> Option<u64> {
    text.split('<').next()?.replace(',', "").parse().ok()
}
