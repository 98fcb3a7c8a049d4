//! The table `acessos` and the schema of visitas, as a database has them.

use postgres_types::Type;

use super::client::{Param, Row};
use super::failure::Failure;
use super::session::Session;

/// The schema's version, kept in `visitas_schema`.
pub(super) const VERSION: i32 = 1;
/// The version where `acessos` has the names of counters in its column `contador`. A process without
/// such counters leaves it at that.
pub(super) const NAMED_VERSION: i32 = 2;

/// The table `acessos` as it is.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    /// The type of its column `momento`, or what its domain is based on; 0 where there is none.
    pub(super) momento: u32,
    /// The type of its column `contador`; 0 where there is none.
    contador: u32,
    /// The schema is made for counters by name.
    pub(super) named: bool,
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
            coalesce((SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END \
                FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = c.oid \
                AND a.attname = 'momento' AND NOT a.attisdropped), 0::oid), \
            current_setting('TimeZone'), \
            (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled = 'O' \
                AND t.tgname IN ('visitas_insert', 'visitas_update', 'visitas_delete', \
                                 'visitas_truncate')), \
            to_regproc($2) IS NOT NULL, \
            coalesce((SELECT atttypid FROM pg_attribute a WHERE a.attrelid = c.oid \
                AND a.attname = 'contador' AND NOT a.attisdropped), 0::oid) \
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
        contador: row.get(5)?,
        named: false,
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
    let has_names = |state: &State| state.version == NAMED_VERSION;
    table.named = table.has_names() && states.iter().any(has_names);
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
    let (table, state) = session.step(inspect)?;
    Ok(table.filter(|table| state.is_some_and(|state| state.counted == Some(table.oid))))
}

/// Whether the schema is complete, of this version, and made for this table; with `names` also for
/// counters by name.
pub(super) fn is_ready(table: &Table, state: &State, names: bool) -> Result<bool, Failure> {
    if state.version > NAMED_VERSION {
        return Err(Failure::Unfit(format!(
            "the schema in the database has version {}, this program knows {NAMED_VERSION}: \
             start a newer visitas",
            state.version
        )));
    }
    // A restored dump brings the same table with another oid.
    let same_table = table.oid == state.made_for && table.momento == state.momento;
    let fits = match state.version {
        NAMED_VERSION => table.has_names(),
        version => version == VERSION && !names,
    };
    Ok(fits && same_table && table.triggers == 4)
}

impl Table {
    /// Whether its rows can have the names of counters.
    pub(super) fn has_names(&self) -> bool {
        self.contador == Type::TEXT.oid()
    }

    /// Whether they cannot as long as nobody changes the column.
    pub(super) fn refuses_names(&self) -> bool {
        self.contador != 0 && !self.has_names()
    }

    /// SQL for the name of a row where it is valid, otherwise null. `name::is_valid` has the same
    /// rule.
    pub(super) fn name(&self) -> &'static str {
        if self.named {
            "CASE WHEN contador COLLATE \"C\" ~ '^[a-z0-9._-]{1,64}$' \
                   AND contador COLLATE \"C\" ~ '[^.]' THEN contador END"
        } else {
            "NULL::text"
        }
    }

    /// Whether `momento` holds times with a zone; `None` where it holds no times.
    pub(super) fn has_zone(&self) -> Option<bool> {
        match self.momento {
            oid if oid == Type::TIMESTAMPTZ.oid() => Some(true),
            oid if oid == Type::TIMESTAMP.oid() => Some(false),
            _ => None,
        }
    }

    /// SQL for how the `timestamptz` m is stored in `momento`.
    pub(super) fn moment(&self) -> String {
        match self.has_zone() {
            Some(false) => format!("m AT TIME ZONE {}", literal(&self.zone)),
            _ => "m".to_owned(),
        }
    }

    /// SQL for `momento` as a `timestamptz`; `None` where it holds no times.
    pub(super) fn momento(&self) -> Option<String> {
        match self.has_zone()? {
            true => Some("momento".to_owned()),
            false => Some(format!("(momento AT TIME ZONE {})", literal(&self.zone))),
        }
    }

    /// SQL for the minute of a row in seconds since 1970; null for infinity, and without times.
    pub(super) fn minute(&self) -> String {
        let of = |moment: String| {
            format!(
                "CASE WHEN isfinite(momento) \
                 THEN floor(date_part('epoch', {moment}) / 60)::bigint * 60 END"
            )
        };
        self.momento().map_or_else(|| "NULL::bigint".to_owned(), of)
    }
}

/// Text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
