//! The tables of the ledger, and what one committed transaction changes in them.

pub(super) const WRITERS: usize = 7;
const NUMBERS: usize = 10;
pub(super) const BATCHES: usize = 3;

/// A writer: lanes take 0, 1, 2, ... in order.
pub(super) type Writer = u8;
/// The place of an entry in its writer's log.
pub(super) type Number = u8;
pub(super) type Batch = u8;

/// Visits in a batch. No two errors cancel each other in a sum.
pub(super) fn size(batch: Batch) -> u8 {
    1 << batch
}

/// A row of `visitas_log`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The writer's running total.
    pub(super) total: u8,
    pub(super) closed: bool,
}

/// `visitas_log`, `visitas_writers`, the sum of `visitas_changes`, and the rows of `acessos` by
/// batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Database {
    /// 0: no entry; otherwise twice (total + 1), plus 1 where it closes the writer. Plain bytes
    /// hash quickly.
    log: [[u8; NUMBERS]; WRITERS],
    registered: [bool; WRITERS],
    changes: u8,
    rows: [u8; BATCHES],
}

/// What one transaction commits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Change {
    /// An entry with the rows of a batch, or an empty one.
    Append {
        writer: Writer,
        number: Number,
        total: u8,
        batch: Option<Batch>,
    },
    /// An old writer is closed, a new one registered; each may be missing.
    HandOver {
        closing: Option<Closing>,
        opened: Option<Writer>,
        found: Found,
    },
    /// The entries below a number are deleted.
    Delete { writer: Writer, below: Number },
}

/// The closing entry; the writer leaves `visitas_writers`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Closing {
    pub(super) writer: Writer,
    pub(super) number: Number,
    pub(super) total: u8,
    /// What goes into `visitas_changes`.
    pub(super) carried: u8,
}

/// The state of the old writer that a hand-over finds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Found {
    /// There is no old writer.
    Nothing,
    /// It is closed at this number: a batch with a lower number is there, any other never will be.
    ClosedAt(Number),
    /// It has no entry: never registered on this server, or deleted.
    Unknown,
}

impl Database {
    pub(super) fn entry(&self, writer: Writer, number: Number) -> Option<Entry> {
        let byte = self.log[usize::from(writer)][usize::from(number)];
        (byte > 0).then(|| Entry {
            total: byte / 2 - 1,
            closed: byte % 2 == 1,
        })
    }

    pub(super) fn newest(&self, writer: Writer) -> Option<(Number, Entry)> {
        let number = self.log[usize::from(writer)]
            .iter()
            .rposition(|&byte| byte > 0)? as Number;
        self.entry(writer, number).map(|entry| (number, entry))
    }

    pub(super) fn is_registered(&self, writer: Writer) -> bool {
        self.registered[usize::from(writer)]
    }

    pub(super) fn rows(&self, batch: Batch) -> u8 {
        self.rows[usize::from(batch)]
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Append {
                writer,
                number,
                total,
                batch,
            } => {
                self.insert(
                    writer,
                    number,
                    Entry {
                        total,
                        closed: false,
                    },
                );
                if let Some(batch) = batch {
                    self.rows[usize::from(batch)] += 1;
                }
            }
            Change::HandOver {
                closing, opened, ..
            } => {
                if let Some(Closing {
                    writer,
                    number,
                    total,
                    carried,
                }) = closing
                {
                    self.insert(
                        writer,
                        number,
                        Entry {
                            total,
                            closed: true,
                        },
                    );
                    self.registered[usize::from(writer)] = false;
                    self.changes += carried;
                }
                if let Some(writer) = opened {
                    self.insert(
                        writer,
                        0,
                        Entry {
                            total: 0,
                            closed: false,
                        },
                    );
                    self.registered[usize::from(writer)] = true;
                }
            }
            Change::Delete { writer, below } => {
                self.log[usize::from(writer)][..usize::from(below)].fill(0)
            }
        }
    }

    fn insert(&mut self, writer: Writer, number: Number, entry: Entry) {
        let byte = &mut self.log[usize::from(writer)][usize::from(number)];
        assert_eq!(*byte, 0, "two transactions committed one key");
        *byte = (entry.total + 1) * 2 + u8::from(entry.closed);
    }

    /// Closes a writer and deletes its entries.
    pub(super) fn forget(&mut self, writer: Writer) {
        if self.is_registered(writer) {
            self.changes += self.newest(writer).map_or(0, |(_, entry)| entry.total);
        }
        self.registered[usize::from(writer)] = false;
        self.log[usize::from(writer)].fill(0);
    }

    /// What `visitas_total()` gives.
    fn total(&self) -> u8 {
        let registered = (0..WRITERS as Writer).filter(|&writer| self.is_registered(writer));
        let newest = registered.filter_map(|writer| self.newest(writer));
        self.changes + newest.map(|(_, entry)| entry.total).sum::<u8>()
    }

    /// The invariant that these tables break.
    pub(super) fn wrong(&self) -> Option<String> {
        if let Some(batch) = (0..BATCHES as Batch).find(|&batch| self.rows(batch) > 1) {
            return Some(format!("the rows of batch {batch} are there twice"));
        }
        let rows: u8 = (0..BATCHES as Batch)
            .map(|batch| self.rows(batch) * size(batch))
            .sum();
        (self.total() != rows)
            .then(|| format!("the total is {}, the rows are {rows}", self.total()))
    }
}

impl Change {
    /// Whether the transaction holds this key while it is in flight.
    pub(super) fn holds(self, writer: Writer, number: Number) -> bool {
        match self {
            Change::Append {
                writer: own,
                number: at,
                ..
            } => (own, at) == (writer, number),
            Change::HandOver {
                closing, opened, ..
            } => {
                closing.is_some_and(|closing| (closing.writer, closing.number) == (writer, number))
                    || (opened == Some(writer) && number == 0)
            }
            Change::Delete { .. } => false,
        }
    }

    pub(super) fn names(self, writer: Writer) -> bool {
        match self {
            Change::Append { writer: own, .. } | Change::Delete { writer: own, .. } => {
                own == writer
            }
            Change::HandOver {
                closing, opened, ..
            } => closing.is_some_and(|closing| closing.writer == writer) || opened == Some(writer),
        }
    }
}
