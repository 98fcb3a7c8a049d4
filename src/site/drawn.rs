//! The chart as HTML, drawn once per reading of the history and language.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::chart;
use super::negotiation::Language;
use crate::visits::history::History;

/// Readings of names whose chart is kept, each of about 2 kB. Their numbers are consecutive, so the
/// last ones are there.
const KEPT: usize = 1024;

/// The chart of one reading, in one language.
#[derive(Debug)]
pub(super) struct Chart {
    reading: u64,
    html: Box<str>,
}

/// Where a chart is kept.
type Slot = Mutex<Option<Arc<Chart>>>;

/// The charts of names, for each language in the slot of its reading. All workers share them:
/// there are too many for each to draw them.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    slots: [OnceLock<Vec<Slot>>; 2],
}

impl Chart {
    fn draw(reading: u64, history: Option<Arc<History>>, language: Language) -> Chart {
        let html = chart::render(history.as_deref(), language).into_boxed_str();
        Chart { reading, html }
    }

    pub(super) fn html(&self) -> &str {
        &self.html
    }

    /// Lends the chart of all visits to `take`. Each worker draws its own, and keeps the last one.
    pub(super) fn of_all<R>(
        language: Language,
        reading: u64,
        history: impl FnOnce() -> Option<Arc<History>>,
        take: impl FnOnce(&str) -> R,
    ) -> R {
        thread_local! {
            static LAST: RefCell<[Option<Chart>; 2]> = const { RefCell::new([None, None]) };
        }
        LAST.with_borrow_mut(|all| {
            let last = &mut all[language as usize];
            if last.as_ref().is_none_or(|last| last.reading != reading) {
                *last = Some(Chart::draw(reading, history(), language));
            }
            take(last.as_ref().map_or("", Chart::html))
        })
    }
}

impl Drawn {
    /// The chart of a reading of a name.
    pub(super) fn of_name(
        &self,
        language: Language,
        reading: u64,
        history: impl FnOnce() -> Option<Arc<History>>,
    ) -> Arc<Chart> {
        let slots = self.slots[language as usize].get_or_init(|| {
            let slots = std::iter::repeat_with(Slot::default);
            slots.take(KEPT).collect()
        });
        let slot = &slots[reading as usize % KEPT];
        // Each holds a value that is whole at any time.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(chart) if chart.reading == reading => Arc::clone(chart),
            _ => {
                let chart = Arc::new(Chart::draw(reading, history(), language));
                *slot = Some(Arc::clone(&chart));
                chart
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn each_reading_is_drawn_once_and_never_shown_as_another() {
        let drawn = Drawn::default();
        let history = Arc::new(History::new(SystemTime::now(), &[]));
        let some = || Some(Arc::clone(&history));
        let (pt, en) = (Language::Portuguese, Language::English);
        let first = drawn.of_name(pt, 5, some);
        let again = drawn.of_name(pt, 5, || panic!("drawn twice"));
        assert!(Arc::ptr_eq(&first, &again));
        assert_ne!(first.html(), drawn.of_name(en, 5, some).html());
        // The same slot.
        let other = drawn.of_name(pt, 5 + KEPT as u64, || None);
        assert_ne!(first.html(), other.html());
        assert_eq!(first.html(), drawn.of_name(pt, 5, some).html());
        Chart::of_all(pt, 5, some, |html| assert_eq!(first.html(), html));
        Chart::of_all(
            pt,
            5,
            || panic!("drawn twice"),
            |html| assert_eq!(first.html(), html),
        );
    }
}
