//! The table `acessos` and the schema of visitas, as a database has them.

use postgres_types::Type;

use super::client::{Param, Row};
use super::failure::Failure;
use super::session::{STEP_TIMEOUT, Session};

/// The schema's version, kept in `visitas_schema`.
pub(super) const VERSION: i32 = 1;

/// The table `acessos` as it is.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    /// The type of its column `momento`; 0 where there is none.
    pub(super) momento: u32,
    /// The time zone of a `momento` without one.
    pub(super) zone: String,
    /// Enabled triggers of visitas.
    triggers: i64,
}

/// What `visitas_schema` says.
#[derive(Debug)]
pub(super) struct State {
    version: i32,
    /// The table that functions and triggers were made for.
    made_for: u32,
    /// The table whose rows were counted.
    pub(super) counted: Option<u32>,
    momento: u32,
    zone: String,
}

/// What the database has of the table and of visitas.
pub(super) fn inspect(session: &mut Session) -> Result<(Option<Table>, Option<State>), Failure> {
    let schema = session.schema.clone();
    let table = "SELECT c.oid, \
            coalesce((SELECT atttypid FROM pg_attribute a WHERE a.attrelid = c.oid \
                AND a.attname = 'momento' AND NOT a.attisdropped), 0::oid), \
            current_setting('TimeZone'), \
            (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled = 'O' \
                AND t.tgname IN ('visitas_insert', 'visitas_update', 'visitas_delete', \
                                 'visitas_truncate')), \
            to_regproc($2) IS NOT NULL \
           FROM (SELECT to_regclass($1)::oid AS oid) AS c";
    let names = [
        format!("{schema}.acessos"),
        format!("{schema}.visitas_state"),
    ];
    let params: [Param<'_>; 2] = [(&names[0], Type::TEXT), (&names[1], Type::TEXT)];
    let row = session.client.query_one(table, &params)?;
    let Some(oid) = row.get::<Option<u32>>(0)? else {
        return Ok((None, None));
    };
    let mut table = Table {
        oid,
        momento: row.get(1)?,
        zone: row.get(2)?,
        triggers: row.get(3)?,
    };
    if !row.get::<bool>(4)? {
        return Ok((Some(table), None));
    }
    let rows = session
        .client
        .query(&format!("SELECT * FROM {schema}.visitas_state()"), &[])?;
    let mut states: Vec<State> = rows.iter().map(state).collect::<Result<_, _>>()?;
    // The zone of the first start stays, whatever the database's becomes; where rows were restored
    // it is the one that they were written in.
    let restored = states.iter().find(|state| state.made_for != table.oid);
    if let Some(state) = restored.or(states.first()) {
        table.zone.clone_from(&state.zone);
    }
    // Data that was restored into a schema made here brings a second row along. Neither describes
    // what is there now.
    let state = if states.len() == 1 {
        states.pop()
    } else {
        None
    };
    Ok((Some(table), state))
}

fn state(row: &Row) -> Result<State, Failure> {
    Ok(State {
        version: row.get(0)?,
        made_for: row.get(1)?,
        counted: row.get(2)?,
        momento: row.get(3)?,
        zone: row.get(4)?,
    })
}

/// The table; `None` where its rows were never counted.
pub(super) fn counted(session: &mut Session) -> Result<Option<Table>, Failure> {
    let (table, state) = session.within(STEP_TIMEOUT, inspect)?;
    Ok(table.filter(|table| state.is_some_and(|state| state.counted == Some(table.oid))))
}

/// Whether the schema is complete, of this version, and made for this table.
pub(super) fn is_ready(table: &Table, state: &State) -> Result<bool, Failure> {
    if state.version > VERSION {
        return Err(Failure::Unfit(format!(
            "the schema in the database has version {}, this program knows {VERSION}: \
             start a newer visitas",
            state.version
        )));
    }
    // A restored dump brings the same table with another oid.
    let same_table = table.oid == state.made_for && table.momento == state.momento;
    Ok(state.version == VERSION && same_table && table.triggers == 4)
}

impl Table {
    /// Whether `momento` holds times with a zone; `None` where it holds no times.
    pub(super) fn has_zone(&self) -> Option<bool> {
        match self.momento {
            oid if oid == Type::TIMESTAMPTZ.oid() => Some(true),
            oid if oid == Type::TIMESTAMP.oid() => Some(false),
            _ => None,
        }
    }

    /// SQL for the minute of a row in seconds since 1970; null for infinity, and without times.
    pub(super) fn minute(&self) -> String {
        let of = |moment: &str| {
            format!(
                "CASE WHEN isfinite(momento) \
                 THEN floor(date_part('epoch', {moment}) / 60)::bigint * 60 END"
            )
        };
        match self.has_zone() {
            Some(true) => of("momento"),
            Some(false) => of(&format!("momento AT TIME ZONE {}", literal(&self.zone))),
            None => "NULL::bigint".to_owned(),
        }
    }
}

/// Text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
