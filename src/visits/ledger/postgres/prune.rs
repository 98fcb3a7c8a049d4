//! Deletes old rows, some pages at a time, over its own connection.

use std::time::Duration;

use postgres_types::Type;

use super::address::Address;
use super::client::Param;
use super::endpoints::Endpoints;
use super::failure::Failure;
use super::session::Session;
use crate::visits::ledger::Pruner;

/// Pages that one statement prunes: some 10,000 rows, about 30 ms.
const PAGES_A_STEP: i64 = 64;
/// Time for one statement.
const PRUNE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connected during a pass only.
pub struct PostgresPruner {
    endpoints: Endpoints,
    session: Option<Session>,
    /// The next page of this pass.
    page: i64,
}

impl PostgresPruner {
    pub fn new(address: &Address) -> Self {
        PostgresPruner {
            endpoints: Endpoints::new(address, PRUNE_TIMEOUT),
            session: None,
            page: 0,
        }
    }

    fn step(&mut self, keep: Duration) -> Result<bool, Failure> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::connect(&mut self.endpoints)?,
        };
        let schema = &session.schema;
        let (page, beyond) = (self.page, self.page + PAGES_A_STEP);
        let text = format!(
            "SELECT {schema}.visitas_prune($1, $2, $3), \
                    pg_relation_size('{schema}.acessos'::regclass) \
                      / current_setting('block_size')::bigint"
        );
        let keep = keep.as_secs_f64();
        let params: [Param<'_>; 3] = [
            (&page, Type::INT8),
            (&beyond, Type::INT8),
            (&keep, Type::FLOAT8),
        ];
        let pruned = session.within(PRUNE_TIMEOUT, |session| {
            session.client.query_one(&text, &params)
        })?;
        let pages: i64 = pruned.get(1)?;
        let more = beyond < pages;
        self.page = if more { beyond } else { 0 };
        self.session = more.then_some(session);
        Ok(more)
    }
}

impl Pruner for PostgresPruner {
    fn prune(&mut self, keep: Duration) -> Result<bool, String> {
        self.step(keep).map_err(|failure| failure.to_string())
    }
}
