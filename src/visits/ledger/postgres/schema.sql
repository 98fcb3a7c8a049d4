-- What visitas keeps in the database beside acessos. A visit updates nothing here: lanes and
-- triggers only append, and maintenance folds what they appended. docs/exactly-once.md has the
-- protocol.
--
-- visitas_writers  lanes whose running totals are part of the total
-- visitas_log      one row per batch, with its writer's running totals; its key is the fence and
--                  the idempotency key
-- visitas_named    rows per writer and name, with the writer's running totals for the name, where
--                  visitas_log does not have them
-- visitas_closed   writers that append no more; their entries go after a week
-- visitas_changes  what triggers, closed writers, recounts and pruning append, until it is folded
-- visitas_base     the folded total: the newest row counts
-- visitas_history  folded visits by minute (for a day), hour (for a week) and day
-- visitas_schema   the version, and the table acessos for which this was made and counted
--
-- Placeholders: @schema@ the schema's name; @acessos@ the table's name as a literal; @table@ its
-- oid; @moment@ how the moment m is stored in momento; @minute@ the minute of momento, or null;
-- @named@ whether acessos has a column contador with the names of counters; @name@ the valid name
-- in it, or null; @rules@ what finds rules that insert elsewhere. Nothing of a branch for names is planned where there is no such column.
--
-- A column counter is '' for all visits, otherwise a name. Who appends to visitas_changes what
-- changes the total of a name also appends a row of '', perhaps of zeros: so a writer sees by these
-- alone whether the base of any name may change.

CREATE TABLE IF NOT EXISTS @schema@.visitas_schema (
    version integer NOT NULL,
    made_for oid NOT NULL, -- the table that functions and triggers were made for
    counted oid,           -- the table whose rows were counted; null until they are
    momento oid NOT NULL,  -- the type of its column momento
    zone text NOT NULL     -- the time zone of a momento without one
);

CREATE TABLE IF NOT EXISTS @schema@.visitas_writers (
    writer bigint PRIMARY KEY
);

CREATE TABLE IF NOT EXISTS @schema@.visitas_log (
    writer bigint NOT NULL,
    number bigint NOT NULL,                  -- 0 at registration, then one more per entry
    total bigint NOT NULL,                   -- the writer's visits up to here
    minute bigint NOT NULL,                  -- the minute the writer is in, in seconds since 1970
    minute_visits bigint NOT NULL,           -- its visits in that minute so far
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed boolean NOT NULL DEFAULT false,   -- nothing comes after this entry
    -- The names in the batch, each once, and the writer's numbers for it: null where there are
    -- none, or where visitas_named has them.
    names text[] COLLATE "C",
    names_totals bigint[],
    names_minutes bigint[],
    names_minutes_visits bigint[],
    -- The numbers in entries from this one on may be newer than those in visitas_named; null: none.
    named_from bigint,
    PRIMARY KEY (writer, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000,
        -- An entry of 100 names stays in its page. Compression would cost more than the space.
        toast_tuple_target = 8160);
DO $$
BEGIN
    -- Only where it was just made: the lock would meet others' batches.
    IF EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE c.relname = 'visitas_log' AND c.relnamespace = @schema_name@::regnamespace
                  AND a.attname = 'names' AND a.attstorage <> 'e') THEN
        ALTER TABLE @schema@.visitas_log
            ALTER names SET STORAGE EXTERNAL, ALTER names_totals SET STORAGE EXTERNAL,
            ALTER names_minutes SET STORAGE EXTERNAL,
            ALTER names_minutes_visits SET STORAGE EXTERNAL;
    END IF;
END
$$;

-- Numbers of the writers in visitas_writers, each written in the transaction of the entry in
-- visitas_log that has its number. The newest row of a name counts, unless visitas_log has a newer
-- one: see named_from.
CREATE TABLE IF NOT EXISTS @schema@.visitas_named (
    writer bigint NOT NULL,
    counter text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    total bigint NOT NULL,                   -- the writer's visits of that name up to here
    minute bigint NOT NULL,                  -- as in visitas_log, for that name
    minute_visits bigint NOT NULL,
    PRIMARY KEY (writer, counter, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000);

CREATE TABLE IF NOT EXISTS @schema@.visitas_closed (
    writer bigint PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS @schema@.visitas_changes (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- Where the visits belong in the history; null: nowhere.
    start bigint,
    total bigint NOT NULL DEFAULT 0,         -- to add to the total
    visits bigint NOT NULL DEFAULT 0,        -- to add to the history
    pruned bigint NOT NULL DEFAULT 0,        -- rows deleted for their age, which still count
    counter text COLLATE "C" NOT NULL DEFAULT ''
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX IF NOT EXISTS visitas_changes_xid ON @schema@.visitas_changes (counter, xid);
-- Folding takes the changes of all names.
DO $$
BEGIN
    IF @named@ THEN
        CREATE INDEX IF NOT EXISTS visitas_changes_fold ON @schema@.visitas_changes (xid);
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS @schema@.visitas_base (
    number bigint NOT NULL,
    -- No change of an older transaction is left in visitas_changes.
    horizon xid8 NOT NULL,
    total bigint NOT NULL,
    pruned bigint NOT NULL,
    counter text COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (counter, number)
);
INSERT INTO @schema@.visitas_base (number, horizon, total, pruned)
SELECT 0, '0', 0, 0 WHERE NOT EXISTS (SELECT FROM @schema@.visitas_base);

CREATE TABLE IF NOT EXISTS @schema@.visitas_history (
    -- Seconds since 1970: a minute, an hour or a day (UTC), see visitas_bucket.
    start bigint NOT NULL,
    visits bigint NOT NULL,
    pruned bigint NOT NULL,                  -- of them, those whose rows were deleted for their age
    counter text COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (counter, start)
) WITH (fillfactor = 50);

-- The newest entry of each writer: one index probe backwards per writer.
CREATE OR REPLACE VIEW @schema@.visitas_newest AS
SELECT w.writer, l.number, l.total, l.minute, l.minute_visits, l.at, l.closed, l.named_from
  FROM @schema@.visitas_writers w CROSS JOIN LATERAL (
       SELECT * FROM @schema@.visitas_log g WHERE g.writer = w.writer
        ORDER BY g.number DESC LIMIT 1) AS l;

-- One row. Changes older than the horizon are gone: the scan starts there and meets no dead rows.
CREATE OR REPLACE VIEW @schema@.visitas_sums AS
SELECT (b.total + c.total + w.total)::bigint AS total, (b.pruned + c.pruned)::bigint AS pruned,
       c.unfolded, b.number AS base
  FROM (SELECT * FROM @schema@.visitas_base WHERE counter = '' ORDER BY number DESC LIMIT 1) AS b
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(total), 0) AS total, coalesce(sum(pruned), 0) AS pruned,
              count(*) AS unfolded
         FROM @schema@.visitas_changes WHERE counter = '' AND xid >= b.horizon) AS c
 CROSS JOIN (SELECT coalesce(sum(total), 0) AS total FROM @schema@.visitas_newest) AS w;

-- The parts of the history: only their sums over a minute, an hour or a day mean something.
CREATE OR REPLACE VIEW @schema@.visitas_parts AS
SELECT start, visits, pruned FROM @schema@.visitas_history WHERE counter = ''
UNION ALL
SELECT c.start, c.visits, c.pruned
  FROM (SELECT horizon FROM @schema@.visitas_base WHERE counter = ''
         ORDER BY number DESC LIMIT 1) AS b
 CROSS JOIN LATERAL (
       SELECT * FROM @schema@.visitas_changes WHERE counter = '' AND xid >= b.horizon) AS c
 WHERE c.start IS NOT NULL AND (c.visits <> 0 OR c.pruned <> 0)
UNION ALL
SELECT minute, minute_visits, 0 FROM @schema@.visitas_newest WHERE minute_visits <> 0;

-- The numbers of names in visitas_log, as rows like those of visitas_named.
CREATE OR REPLACE VIEW @schema@.visitas_log_named AS
SELECT g.writer, u.counter, g.number, u.total, u.minute, u.minute_visits
  FROM @schema@.visitas_log g CROSS JOIN LATERAL ROWS FROM (
       unnest(g.names), unnest(g.names_totals), unnest(g.names_minutes),
       unnest(g.names_minutes_visits)) AS u(counter, total, minute, minute_visits);

-- Of these the ones that may be newer than visitas_named: some thousand at most. OFFSET keeps the
-- planner from another order, which would read the whole log. A condition on the writer is one on
-- visitas_newest, so that what it leaves out is not read.
CREATE OR REPLACE VIEW @schema@.visitas_recent AS
SELECT n.writer, g.counter, g.number, g.total, g.minute, g.minute_visits
  FROM @schema@.visitas_newest n CROSS JOIN LATERAL (
       SELECT * FROM @schema@.visitas_log_named o
        WHERE o.writer = n.writer AND o.number >= n.named_from OFFSET 0) AS g;

-- The newest numbers of each open writer for each name: for what is about all names.
CREATE OR REPLACE VIEW @schema@.visitas_named_newest AS
SELECT DISTINCT ON (g.writer, g.counter) g.counter, g.total, g.minute, g.minute_visits FROM (
    SELECT n.writer, n.counter, n.number, n.total, n.minute, n.minute_visits
      FROM @schema@.visitas_named n JOIN @schema@.visitas_writers w ON w.writer = n.writer
    UNION ALL
    SELECT r.writer, r.counter, r.number, r.total, r.minute, r.minute_visits
      FROM @schema@.visitas_recent r) AS g
 ORDER BY g.writer, g.counter, g.number DESC;

-- The same for these names only, each by its place, without those of the writer p_but: one index
-- probe per name and writer, and one hash of what is recent.
CREATE OR REPLACE FUNCTION @schema@.visitas_named_of(p_names text[], p_but bigint)
RETURNS TABLE (place bigint, total bigint, minute bigint, minute_visits bigint)
LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (g.place, g.writer) g.place, g.total, g.minute, g.minute_visits FROM (
        SELECT n.place, w.writer, l.number, l.total, l.minute, l.minute_visits
          FROM unnest(p_names) WITH ORDINALITY AS n(name, place)
         CROSS JOIN @schema@.visitas_writers w CROSS JOIN LATERAL (
               SELECT o.number, o.total, o.minute, o.minute_visits FROM @schema@.visitas_named o
                WHERE o.writer = w.writer AND o.counter = n.name COLLATE "C"
                ORDER BY o.number DESC LIMIT 1) AS l
         WHERE w.writer IS DISTINCT FROM p_but
        UNION ALL
        SELECT n.place, r.writer, r.number, r.total, r.minute, r.minute_visits
          FROM @schema@.visitas_recent r
          JOIN unnest(p_names) WITH ORDINALITY AS n(name, place) ON n.name COLLATE "C" = r.counter
         WHERE r.writer IS DISTINCT FROM p_but) AS g
     ORDER BY g.place, g.writer, g.number DESC
$$;

-- The total of every name, by the parts that visitas_sums has for all visits.
CREATE OR REPLACE VIEW @schema@.visitas_named_totals AS
SELECT p.counter, sum(p.total)::bigint AS total, sum(p.pruned)::bigint AS pruned FROM (
    (SELECT DISTINCT ON (b.counter) b.counter, b.total, b.pruned FROM @schema@.visitas_base b
      WHERE b.counter <> '' ORDER BY b.counter, b.number DESC)
    UNION ALL
    SELECT c.counter, c.total, c.pruned FROM @schema@.visitas_changes c
     WHERE c.counter <> '' AND c.xid >= (SELECT b.horizon FROM @schema@.visitas_base b
                                          WHERE b.counter = '' ORDER BY b.number DESC LIMIT 1)
    UNION ALL
    SELECT n.counter, n.total, 0 FROM @schema@.visitas_named_newest n) AS p
 GROUP BY p.counter;

-- The parts of the histories of all names.
CREATE OR REPLACE VIEW @schema@.visitas_named_parts AS
SELECT h.counter, h.start, h.visits, h.pruned FROM @schema@.visitas_history h WHERE h.counter <> ''
UNION ALL
SELECT c.counter, c.start, c.visits, c.pruned FROM @schema@.visitas_changes c
 WHERE c.counter <> '' AND c.start IS NOT NULL AND (c.visits <> 0 OR c.pruned <> 0)
   AND c.xid >= (SELECT b.horizon FROM @schema@.visitas_base b
                  WHERE b.counter = '' ORDER BY b.number DESC LIMIT 1)
UNION ALL
SELECT n.counter, n.minute, n.minute_visits, 0 FROM @schema@.visitas_named_newest n
 WHERE n.minute_visits <> 0;

-- The bucket of a minute: minutes for a day, hours for a week, then days. Requests need an hour of
-- minutes and two days of hours; the rest is margin for clocks that differ.
CREATE OR REPLACE FUNCTION @schema@.visitas_bucket(minute bigint, now double precision)
RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN minute >= now - 86400 THEN minute
                WHEN minute - ((minute % 3600) + 3600) % 3600 >= now - 8 * 86400
                THEN minute - ((minute % 3600) + 3600) % 3600
                ELSE minute - ((minute % 86400) + 86400) % 86400 END
$$;

-- The version, and for which table this was made and counted.
CREATE OR REPLACE FUNCTION @schema@.visitas_state(
    OUT version integer, OUT made_for oid, OUT counted oid, OUT momento oid, OUT zone text)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT version, made_for, counted, momento, zone FROM @schema@.visitas_schema
$$;

-- Settings for the rest of a transaction:
-- - the mark by which triggers know it;
-- - a limit for the wait at a key;
-- - PostgreSQL's warning about a cancelled wait for a standby, which comes in the commit, when a
--   function's own SET is over;
-- - the log is read by its index, however small it was when the plan was made;
-- - no jit: a scan without an index then seems to cost 10^10, and would be compiled in 20 ms.
-- A stricter isolation level would show what was there before a wait, which proves nothing.
CREATE OR REPLACE FUNCTION @schema@.visitas_mark(p_mark text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF pg_catalog.current_setting('transaction_isolation')
       OPERATOR(pg_catalog.<>) 'read committed' THEN
        RAISE EXCEPTION 'visitas needs the isolation level READ COMMITTED' USING ERRCODE = 'VI004',
            HINT = 'ALTER ROLE ... SET default_transaction_isolation = ''read committed''';
    END IF;
    RETURN pg_catalog.concat(
        pg_catalog.set_config(p_mark, 'on', true),
        pg_catalog.set_config('lock_timeout', '700ms', true),
        pg_catalog.set_config('client_min_messages', 'warning', true),
        pg_catalog.set_config('enable_seqscan', 'off', true),
        pg_catalog.set_config('enable_bitmapscan', 'off', true),
        pg_catalog.set_config('jit', 'off', true));
END
$$;

-- Commits one batch in one transaction: its entry, then its rows. The key admits a number once. The
-- insert comes first and waits for a transaction with the same number in flight; a later snapshot
-- then finds the previous entry. In the other order a late message could find its predecessor,
-- wait, and meet a free key once both were trimmed.
--
-- Returns the total with the batch, how many of it were deleted for their age, the number of
-- changes that wait to be folded, 1 where there are none and no other writer (p_alone of the next
-- call), and the number of the base.
--
-- Where visits have names, p_rows has the name of each, or null; the first p_asked of p_names are
-- these names, each once, and the next three have the writer's running numbers for it. They go into
-- the entry where the writer is alone, otherwise into visitas_named. There go all that follow: names
-- of earlier entries whose numbers leave visitas_log, which then counts from p_from on.
--
-- p_past_names has the name for each of p_past, null for all visits. p_base is the base for which
-- the caller knows the totals of the names without its own: where it still counts and the writer is
-- alone, they are the same. Otherwise their totals, without its own, and what of them was deleted
-- come behind the other numbers, in pairs. All of these but p_from are null where no name is given.
--
-- A search_path of its own would cost each batch some 10 us. Instead every function and operator is
-- named in full: nothing from the caller's path runs with the owner's rights.
CREATE OR REPLACE FUNCTION @schema@.visitas_commit(
    p_writer bigint, p_number bigint, p_before bigint, p_moments timestamptz[],
    p_minute bigint, p_minute_visits bigint, p_past bigint[], p_past_visits bigint[],
    p_alone boolean, p_rows text[], p_names text[], p_totals bigint[], p_minutes bigint[],
    p_minutes_visits bigint[], p_past_names text[], p_base bigint, p_asked integer, p_from bigint)
RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    visits bigint := pg_catalog.cardinality(p_moments);
    ours bigint := p_before OPERATOR(pg_catalog.+) visits;
    marked text := @schema@.visitas_mark('visitas.lane');
    kept integer := CASE WHEN p_alone THEN p_asked ELSE 0 END;
    inserted bigint;
    goes_on boolean;
    total bigint;
    pruned bigint;
    unfolded bigint := 0;
    alone boolean;
    base bigint;
    result bigint[];
BEGIN
    IF @acessos@::pg_catalog.regclass::pg_catalog.oid
       OPERATOR(pg_catalog.<>) @table@::pg_catalog.oid THEN
        RAISE EXCEPTION 'acessos is another table than the one whose rows were counted'
            USING ERRCODE = 'VI002';
    END IF;
    IF kept OPERATOR(pg_catalog.>) 0 THEN
        INSERT INTO @schema@.visitas_log
            (writer, number, total, minute, minute_visits, named_from, names, names_totals,
             names_minutes, names_minutes_visits)
        VALUES (p_writer, p_number, ours, p_minute, p_minute_visits, p_from, p_names[:kept],
                p_totals[:kept], p_minutes[:kept], p_minutes_visits[:kept]);
    ELSE
        INSERT INTO @schema@.visitas_log (writer, number, total, minute, minute_visits, named_from)
        VALUES (p_writer, p_number, ours, p_minute, p_minute_visits, p_from);
    END IF;
    -- What a rule sends elsewhere is in the number of inserted rows, so none is inserted then.
    IF p_rows IS NULL THEN
        INSERT INTO @schema@.acessos (momento) SELECT @moment@
            FROM pg_catalog.unnest(p_moments) AS u(m)
           WHERE NOT EXISTS (@rules@);
    ELSE
        INSERT INTO @schema@.acessos (momento, contador) SELECT @moment@, u.name
            FROM ROWS FROM (pg_catalog.unnest(p_moments), pg_catalog.unnest(p_rows)) AS u(m, name)
           WHERE NOT EXISTS (@rules@);
    END IF;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    IF inserted OPERATOR(pg_catalog.<>) visits THEN
        RAISE EXCEPTION 'only % of % rows were inserted: a trigger or a rule of acessos drops rows',
            inserted, visits USING ERRCODE = 'VI003';
    END IF;
    IF pg_catalog.cardinality(p_past) OPERATOR(pg_catalog.>) 0 THEN
        INSERT INTO @schema@.visitas_changes (start, visits, counter)
        SELECT p_past[i], p_past_visits[i], COALESCE(p_past_names[i], '')
          FROM pg_catalog.generate_subscripts(p_past, 1) AS i;
    END IF;
    IF pg_catalog.cardinality(p_names) OPERATOR(pg_catalog.>) kept THEN
        INSERT INTO @schema@.visitas_named
            (writer, counter, number, total, minute, minute_visits)
        SELECT p_writer, p_names[i], p_number, p_totals[i], p_minutes[i], p_minutes_visits[i]
          FROM pg_catalog.generate_series(kept OPERATOR(pg_catalog.+) 1,
                                          pg_catalog.cardinality(p_names)) AS i;
    END IF;
    -- One statement has one snapshot: what others fold or close is in exactly one place. A writer
    -- that was alone looks whether it still is, which costs half as much as the sums.
    alone := p_alone;
    IF alone THEN
        SELECT b.total OPERATOR(pg_catalog.+) ours, b.pruned, b.number,
               EXISTS (SELECT FROM @schema@.visitas_log g
                        WHERE g.writer OPERATOR(pg_catalog.=) p_writer
                          AND g.number OPERATOR(pg_catalog.=) (p_number OPERATOR(pg_catalog.-) 1)
                          AND g.total OPERATOR(pg_catalog.=) p_before AND NOT g.closed),
               NOT EXISTS (SELECT FROM @schema@.visitas_writers w
                            WHERE w.writer OPERATOR(pg_catalog.<>) p_writer)
               AND NOT EXISTS (SELECT FROM @schema@.visitas_changes c
                                WHERE c.counter OPERATOR(pg_catalog.=) ''
                                  AND c.xid OPERATOR(pg_catalog.>=) b.horizon)
          INTO total, pruned, base, goes_on, alone
          FROM @schema@.visitas_base b WHERE b.counter OPERATOR(pg_catalog.=) ''
              ORDER BY b.number DESC LIMIT 1;
    END IF;
    IF alone IS NOT TRUE THEN
        SELECT s.total, s.pruned, s.unfolded, s.base,
               EXISTS (SELECT FROM @schema@.visitas_log g
                        WHERE g.writer OPERATOR(pg_catalog.=) p_writer
                          AND g.number OPERATOR(pg_catalog.=) (p_number OPERATOR(pg_catalog.-) 1)
                          AND g.total OPERATOR(pg_catalog.=) p_before AND NOT g.closed),
               NOT EXISTS (SELECT FROM @schema@.visitas_writers w
                            WHERE w.writer OPERATOR(pg_catalog.<>) p_writer)
          INTO total, pruned, unfolded, base, goes_on, alone
          FROM @schema@.visitas_sums s;
    END IF;
    IF goes_on IS NOT TRUE THEN
        RAISE EXCEPTION 'the entry before this one is missing or closed' USING ERRCODE = 'VI001';
    END IF;
    result := ARRAY[total, pruned, unfolded,
                    CASE WHEN alone AND unfolded OPERATOR(pg_catalog.=) 0 THEN 1 ELSE 0 END, base];
    IF COALESCE(p_asked, 0) OPERATOR(pg_catalog.=) 0
       OR (result[4] OPERATOR(pg_catalog.=) 1
           AND COALESCE(base OPERATOR(pg_catalog.=) p_base, false)) THEN
        RETURN result;
    END IF;
    RETURN result OPERATOR(pg_catalog.||)
           @schema@.visitas_named_sums(p_names[:p_asked], p_writer);
END
$$;

-- The totals of these names and what of each was deleted for its age, in pairs. Those of the writer
-- p_but are not read: its totals for the names are given where they are to be added. They are if it
-- is not closed.
CREATE OR REPLACE FUNCTION @schema@.visitas_named_sums(
    p_names text[], p_but bigint DEFAULT NULL, p_totals bigint[] DEFAULT NULL)
RETURNS bigint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    result bigint[];
BEGIN
    SELECT array_agg(v.value ORDER BY s.i, v.part) INTO result FROM (
        SELECT p.i, sum(p.total)::bigint AS total, sum(p.pruned)::bigint AS pruned FROM (
            SELECT n.i, q.total, q.pruned
              FROM unnest(p_names) WITH ORDINALITY AS n(name, i)
             CROSS JOIN (SELECT b.horizon FROM @schema@.visitas_base b
                          WHERE b.counter = '' ORDER BY b.number DESC LIMIT 1) AS all_visits
             CROSS JOIN LATERAL (
                   (SELECT b.total, b.pruned FROM @schema@.visitas_base b
                     WHERE b.counter = n.name COLLATE "C" ORDER BY b.number DESC LIMIT 1)
                   UNION ALL
                   SELECT c.total, c.pruned FROM @schema@.visitas_changes c
                    WHERE c.counter = n.name COLLATE "C" AND c.xid >= all_visits.horizon
                   UNION ALL
                   SELECT 0, 0) AS q
            UNION ALL
            SELECT o.place, o.total, 0 FROM @schema@.visitas_named_of(p_names, p_but) AS o
            UNION ALL
            SELECT o.place, o.total, 0
              FROM unnest(p_totals) WITH ORDINALITY AS o(total, place)
              JOIN @schema@.visitas_writers w ON w.writer = p_but) AS p
         GROUP BY 1) AS s
     CROSS JOIN LATERAL (VALUES (1, s.total), (2, s.pruned)) AS v(part, value);
    RETURN coalesce(result, '{}');
END
$$;

-- Closes a writer: takes the number after its newest entry, so nothing can follow, and moves its
-- total to the changes. Returns the number of the closing entry; null where the writer is not
-- known. Raises unique_violation where a commit of that writer came in between: call again.
CREATE OR REPLACE FUNCTION @schema@.visitas_close(p_writer bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '700ms' AS $$
DECLARE
    last record;
    ours boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a writer is closed in the isolation level READ COMMITTED'
            USING ERRCODE = 'VI004';
    END IF;
    -- Locks out others who close it: only the one that deletes the row adds the total.
    DELETE FROM @schema@.visitas_writers w WHERE w.writer = p_writer;
    ours := FOUND;
    SELECT * INTO last FROM @schema@.visitas_log g
     WHERE g.writer = p_writer ORDER BY g.number DESC LIMIT 1;
    IF NOT ours OR last.number IS NULL THEN
        RETURN last.number; -- It is closed, or somebody emptied the log.
    END IF;
    INSERT INTO @schema@.visitas_log (writer, number, total, minute, minute_visits, closed)
    VALUES (p_writer, last.number + 1, last.total, last.minute, last.minute_visits, true);
    -- As for any entry: the key first, then the previous entry.
    IF NOT EXISTS (SELECT FROM @schema@.visitas_log g WHERE g.writer = p_writer
                      AND g.number = last.number AND NOT g.closed) THEN
        RAISE EXCEPTION 'the writer went on' USING ERRCODE = 'unique_violation';
    END IF;
    INSERT INTO @schema@.visitas_closed (writer) VALUES (p_writer);
    INSERT INTO @schema@.visitas_changes (start, total, visits)
    SELECT last.minute, last.total, last.minute_visits WHERE last.total <> 0;
    -- The closing entry is there, so no numbers of a name come after these.
    INSERT INTO @schema@.visitas_changes (counter, start, total, visits)
    SELECT DISTINCT ON (g.counter) g.counter, g.minute, g.total, g.minute_visits FROM (
        SELECT n.counter, n.number, n.total, n.minute, n.minute_visits
          FROM @schema@.visitas_named n WHERE n.writer = p_writer
        UNION ALL
        SELECT n.counter, n.number, n.total, n.minute, n.minute_visits
          FROM @schema@.visitas_log_named n
         WHERE n.writer = p_writer AND n.number >= last.named_from) AS g
     ORDER BY g.counter, g.number DESC;
    DELETE FROM @schema@.visitas_named g WHERE g.writer = p_writer;
    RETURN last.number + 1;
END
$$;

-- Registers a new writer in the transaction that closes the lane's old one, and a stray one whose
-- hand-over was in doubt. On every server that knows the new writer, the old one is closed. A batch
-- of the old writer in doubt is committed if the closing entry has a greater number; otherwise it
-- never will be. A commit of this without a warning is durable, and so is all that it saw.
CREATE OR REPLACE FUNCTION @schema@.visitas_hand_over(
    p_new bigint, p_old bigint, p_stray bigint,
    OUT closed bigint, OUT total bigint, OUT pruned bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @schema@.visitas_mark('visitas.lane');
    PERFORM @schema@.visitas_close(p_stray);
    closed := @schema@.visitas_close(p_old);
    INSERT INTO @schema@.visitas_writers (writer) VALUES (p_new);
    INSERT INTO @schema@.visitas_log (writer, number, total, minute, minute_visits)
        VALUES (p_new, 0, 0, 0, 0);
    SELECT s.total, s.pruned INTO total, pruned FROM @schema@.visitas_sums s;
END
$$;

-- The same where the batch in doubt has visits of these names; gives their totals too.
CREATE OR REPLACE FUNCTION @schema@.visitas_hand_over_named(
    p_new bigint, p_old bigint, p_stray bigint, p_names text[],
    OUT closed bigint, OUT total bigint, OUT pruned bigint, OUT named bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT h.closed, h.total, h.pruned INTO closed, total, pruned
      FROM @schema@.visitas_hand_over(p_new, p_old, p_stray) AS h;
    named := @schema@.visitas_named_sums(p_names);
END
$$;

-- The total, and how many of it were deleted for their age.
CREATE OR REPLACE FUNCTION @schema@.visitas_peek(OUT total bigint, OUT pruned bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    SELECT s.total, s.pruned INTO total, pruned FROM @schema@.visitas_sums s;
END
$$;

-- For people and other programs.
CREATE OR REPLACE FUNCTION @schema@.visitas_total() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT total FROM @schema@.visitas_sums
$$;

-- Visits by steps of these lengths in seconds, each since its own start.
CREATE OR REPLACE FUNCTION @schema@.visitas_history(p_steps bigint[], p_since bigint[])
RETURNS TABLE (step bigint, start bigint, visits bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT s.step, p.start - p.start % s.step, sum(p.visits)::bigint
      FROM unnest(p_steps, p_since) AS s(step, since)
      JOIN (SELECT * FROM @schema@.visitas_parts q
             WHERE q.start >= (SELECT min(m) FROM unnest(p_since) AS m)) AS p ON p.start >= s.since
     GROUP BY 1, 2;
END
$$;

-- The same for each of these names; p_but as for visitas_named_sums, with its minutes.
CREATE OR REPLACE FUNCTION @schema@.visitas_named_history(
    p_names text[], p_steps bigint[], p_since bigint[], p_but bigint DEFAULT NULL,
    p_minutes bigint[] DEFAULT NULL, p_minutes_visits bigint[] DEFAULT NULL)
RETURNS TABLE (place bigint, step bigint, start bigint, visits bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    first bigint := (SELECT min(m) FROM unnest(p_since) AS m);
BEGIN
    RETURN QUERY
    SELECT p.i, s.step, p.start - p.start % s.step, sum(p.visits)::bigint FROM (
        SELECT n.i, q.start, q.visits
          FROM unnest(p_names) WITH ORDINALITY AS n(name, i)
         CROSS JOIN (SELECT b.horizon FROM @schema@.visitas_base b
                      WHERE b.counter = '' ORDER BY b.number DESC LIMIT 1) AS all_visits
         CROSS JOIN LATERAL (
               SELECT h.start, h.visits FROM @schema@.visitas_history h
                WHERE h.counter = n.name COLLATE "C" AND h.start >= first
               UNION ALL
               SELECT c.start, c.visits FROM @schema@.visitas_changes c
                WHERE c.counter = n.name COLLATE "C" AND c.xid >= all_visits.horizon
                  AND c.start >= first) AS q
        UNION ALL
        SELECT o.place, o.minute, o.minute_visits
          FROM @schema@.visitas_named_of(p_names, p_but) AS o
        UNION ALL
        SELECT o.place, o.minute, o.minute_visits
          FROM ROWS FROM (unnest(p_minutes), unnest(p_minutes_visits))
               WITH ORDINALITY AS o(minute, minute_visits, place)
          JOIN @schema@.visitas_writers w ON w.writer = p_but) AS p
      JOIN unnest(p_steps, p_since) AS s(step, since) ON p.start >= s.since
     GROUP BY 1, 2, 3;
END
$$;

-- Up to p_most names after p_after, in order, with the totals of each in p_sums as
-- visitas_named_sums gives them. One index probe per name and table, however many rows it has there;
-- those of recent entries are merged in.
CREATE OR REPLACE FUNCTION @schema@.visitas_list(
    p_after text, p_most integer, OUT names text[], OUT sums bigint[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    name text := p_after;
BEGIN
    names := '{}';
    WHILE cardinality(names) < p_most LOOP
        SELECT min(f.counter COLLATE "C") INTO name FROM (
            (SELECT b.counter FROM @schema@.visitas_base b
              WHERE b.counter > name COLLATE "C" ORDER BY b.counter LIMIT 1)
            UNION ALL
            (SELECT c.counter FROM @schema@.visitas_changes c
              WHERE c.counter > name COLLATE "C" ORDER BY c.counter LIMIT 1)
            UNION ALL
            SELECT g.counter FROM @schema@.visitas_writers w CROSS JOIN LATERAL (
                SELECT n.counter FROM @schema@.visitas_named n
                 WHERE n.writer = w.writer AND n.counter > name COLLATE "C"
                 ORDER BY n.counter LIMIT 1) AS g) AS f;
        EXIT WHEN name IS NULL;
        names := names || name;
    END LOOP;
    SELECT coalesce(array_agg(f.counter ORDER BY f.counter), '{}') INTO names FROM (
        SELECT n.counter COLLATE "C" FROM unnest(names) AS n(counter)
        UNION
        SELECT r.counter FROM @schema@.visitas_recent r WHERE r.counter > p_after COLLATE "C"
        ORDER BY 1 LIMIT p_most) AS f;
    sums := @schema@.visitas_named_sums(names);
END
$$;

-- Moves finished changes to the base and the history; p_all: also those of a restored dump, whose
-- transaction numbers are another server's. The caller holds the lock on visitas_base.
CREATE OR REPLACE FUNCTION @schema@.visitas_fold(p_all boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    last record;
    here pg_snapshot := pg_current_snapshot();
    finished xid8 := pg_snapshot_xmin(here);
    since double precision := date_part('epoch', now());
    -- Whose history is folded.
    counters text[] := ARRAY[''];
BEGIN
    SELECT * INTO last FROM @schema@.visitas_base b WHERE b.counter = ''
        ORDER BY b.number DESC LIMIT 1;
    IF @named@ THEN
        SELECT counters || array_agg(DISTINCT c.counter) INTO counters
          FROM @schema@.visitas_changes c
         WHERE c.counter <> '' AND (c.xid >= last.horizon OR p_all) AND c.start IS NOT NULL;
    END IF;
    WITH gone AS (
        DELETE FROM @schema@.visitas_changes c
         WHERE (@named@ OR c.counter = '') AND (c.xid >= last.horizon OR p_all)
           AND (c.xid < finished OR (p_all AND c.xid >= pg_snapshot_xmax(here)))
        RETURNING c.counter, c.start, c.total, c.visits, c.pruned
    ), sums AS (
        SELECT count(*) AS changes, sum(total) AS total, sum(pruned) AS pruned FROM gone
         WHERE counter = ''
    ), folded AS (
        INSERT INTO @schema@.visitas_history AS h (counter, start, visits, pruned)
        SELECT g.counter, @schema@.visitas_bucket(g.start, since), sum(g.visits), sum(g.pruned)
          FROM gone g
         WHERE g.start IS NOT NULL GROUP BY 1, 2 HAVING sum(g.visits) <> 0 OR sum(g.pruned) <> 0
            ON CONFLICT (counter, start) DO UPDATE
           SET visits = h.visits + excluded.visits, pruned = h.pruned + excluded.pruned
    ), bases AS (
        INSERT INTO @schema@.visitas_base (counter, number, horizon, total, pruned)
        SELECT n.counter, coalesce(b.number, 0) + 1, finished, coalesce(b.total, 0) + n.total,
               coalesce(b.pruned, 0) + n.pruned
          FROM (SELECT g.counter, sum(g.total) AS total, sum(g.pruned) AS pruned FROM gone g
                 WHERE g.counter <> '' GROUP BY 1 HAVING sum(g.total) <> 0 OR sum(g.pruned) <> 0)
               AS n
          LEFT JOIN LATERAL (
               SELECT o.number, o.total, o.pruned FROM @schema@.visitas_base o
                WHERE o.counter = n.counter ORDER BY o.number DESC LIMIT 1) AS b ON true
        RETURNING counter, number
    ), former AS (
        DELETE FROM @schema@.visitas_base b USING bases n
         WHERE b.counter = n.counter AND b.number = n.number - 1
    )
    INSERT INTO @schema@.visitas_base (number, horizon, total, pruned)
    SELECT last.number + 1, finished, last.total + coalesce(sums.total, 0),
        last.pruned + coalesce(sums.pruned, 0)
      FROM sums WHERE sums.changes > 0 OR p_all;
    IF FOUND THEN
        DELETE FROM @schema@.visitas_base b WHERE b.counter = '' AND b.number = last.number;
    END IF;
    -- Old minutes become hours, old hours become days. Of a name that was not visited for long they
    -- stay as they are: its parts have the same sums.
    WITH old AS (
        DELETE FROM @schema@.visitas_history h
         WHERE h.counter = ANY (counters) AND h.start <> @schema@.visitas_bucket(h.start, since)
             AND h.start < since - 86400 AND (h.counter = '' OR h.start > since - 10 * 86400)
        RETURNING h.counter, h.start, h.visits, h.pruned
    )
    INSERT INTO @schema@.visitas_history AS h (counter, start, visits, pruned)
    SELECT o.counter, @schema@.visitas_bucket(o.start, since), sum(o.visits), sum(o.pruned)
      FROM old o GROUP BY 1, 2
        ON CONFLICT (counter, start) DO UPDATE
       SET visits = h.visits + excluded.visits, pruned = h.pruned + excluded.pruned;
END
$$;

-- Drops rows of names that have a newer one. As maintenance, it waits for neither disk nor
-- standby: what a crash undoes goes when the writer is closed.
CREATE OR REPLACE FUNCTION @schema@.visitas_trim(
    p_writer bigint, p_names text[], p_numbers bigint[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms'
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
-- One index probe per entry. A plan that reads all entries of the writer seems cheaper while the
-- table is small, and would be kept.
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM @schema@.visitas_named g USING unnest(p_names, p_numbers) AS o(name, number)
     WHERE g.writer = p_writer AND g.counter = o.name COLLATE "C" AND g.number = o.number;
END
$$;

-- A lane's maintenance: drops its own old entries, the lowest first; closes silent writers; folds.
-- Where another session is at the shared part, that part is left to it.
CREATE OR REPLACE FUNCTION @schema@.visitas_maintain(p_writer bigint, p_from bigint, p_to bigint)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms'
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    silent bigint;
BEGIN
    -- A crash may undo this, and it is done again. So it waits for neither disk nor standby, which
    -- would delay the lane's next batch.
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM @schema@.visitas_log g
     WHERE g.writer = p_writer AND g.number >= p_from AND g.number < p_to;
    BEGIN
        LOCK TABLE @schema@.visitas_base IN EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN;
    END;
    FOR silent IN SELECT n.writer FROM @schema@.visitas_newest n
                   WHERE n.at < clock_timestamp() - interval '10 minutes' AND n.writer <> p_writer
    LOOP
        BEGIN
            PERFORM @schema@.visitas_close(silent);
        EXCEPTION WHEN unique_violation OR lock_not_available THEN
            NULL; -- It is not silent any more.
        END;
    END LOOP;
    -- A lane that resolves a commit in doubt must find the closing entry for that long.
    DELETE FROM @schema@.visitas_log g USING @schema@.visitas_closed c
     WHERE g.writer = c.writer AND c.at < now() - interval '7 days';
    DELETE FROM @schema@.visitas_closed c WHERE c.at < now() - interval '7 days';
    PERFORM @schema@.visitas_fold(false);
END
$$;

-- Deletes the rows in these pages that are older than p_keep seconds by this server's clock; the
-- total still counts them. It skips rows that others have locked, so nobody waits and nothing
-- deadlocks. Returns the number of deleted rows.
CREATE OR REPLACE FUNCTION @schema@.visitas_prune(
    p_first bigint, p_beyond bigint, p_keep double precision)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '50ms' AS $$
DECLARE
    deleted bigint;
    before timestamptz := now() - make_interval(secs => p_keep);
BEGIN
    -- A ctid is unique within one table only.
    IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = @acessos@::regclass) THEN
        RAISE EXCEPTION 'KEEP_ROWS is not for a table with partitions or inheriting tables'
            USING ERRCODE = 'feature_not_supported',
                HINT = 'Drop old partitions after visitas_retire.';
    END IF;
    PERFORM @schema@.visitas_mark('visitas.prune');
    DELETE FROM @schema@.acessos WHERE ctid = ANY (ARRAY(
        SELECT a.ctid FROM @schema@.acessos a
         WHERE a.ctid >= format('(%s,0)', p_first)::tid AND a.ctid < format('(%s,0)', p_beyond)::tid
           AND a.momento < @before@ FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM set_config('visitas.prune', 'off', true);
    RETURN deleted;
END
$$;

-- Counts a partition's rows as pruned. The caller drops or detaches it in the same transaction:
--     BEGIN; SELECT visitas_retire('acessos_2025'); DROP TABLE acessos_2025; COMMIT;
CREATE OR REPLACE FUNCTION @schema@.visitas_retire(p_partition regclass) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    retired bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_partition_ancestors(p_partition) AS a
                    WHERE a = @acessos@::regclass AND a <> p_partition) THEN
        RAISE EXCEPTION '% is not a partition of acessos', p_partition;
    END IF;
    -- Rows that came during the wait for the lock must be visible.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'visitas_retire needs the isolation level READ COMMITTED'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', p_partition);
    EXECUTE format($f$
        INSERT INTO @schema@.visitas_changes (start, pruned)
        SELECT @schema@.visitas_bucket(c.minute, date_part('epoch', now())), count(*)
          FROM (SELECT @minute@ AS minute FROM %s) AS c GROUP BY 1 $f$, p_partition);
    IF @named@ THEN
        EXECUTE format($f$
            INSERT INTO @schema@.visitas_changes (counter, start, pruned)
            SELECT c.name, @schema@.visitas_bucket(c.minute, date_part('epoch', now())), count(*)
              FROM (SELECT @name@ AS name, @minute@ AS minute FROM %s) AS c
             WHERE c.name IS NOT NULL GROUP BY 1, 2 $f$, p_partition);
    END IF;
    EXECUTE format('SELECT count(*) FROM %s', p_partition) INTO retired;
    RETURN retired;
END
$$;

-- Appends the corrections of a count: what totals and buckets of histories lack. The counter '' is
-- that of all visits.
CREATE OR REPLACE FUNCTION @schema@.visitas_correct(
    p_counters text[], p_totals bigint[], p_part_counters text[], p_starts bigint[],
    p_visits bigint[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO @schema@.visitas_changes (counter, total)
    SELECT u.counter, u.total FROM unnest(p_counters, p_totals) AS u(counter, total)
     WHERE u.total <> 0 OR u.counter = '';
    INSERT INTO @schema@.visitas_changes (counter, start, visits)
    SELECT u.counter, u.start, u.visits
      FROM unnest(p_part_counters, p_starts, p_visits) AS u(counter, start, visits);
    UPDATE @schema@.visitas_schema SET counted = @table@;
END
$$;

-- Counts what statements of others change: one appended row per statement and bucket. It runs as
-- the owner, so that a role which may only write to acessos is counted too, and names everything in
-- full, so that nothing can be hijacked.
CREATE OR REPLACE FUNCTION @schema@.visitas_count() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since double precision := date_part('epoch', now());
BEGIN
    IF TG_RELID IS DISTINCT FROM to_regclass(@acessos@) THEN
        RETURN NULL; -- The table was renamed: its rows do not count any more.
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO @schema@.visitas_changes (start, total, visits)
        SELECT @schema@.visitas_bucket(c.minute, since), count(*), count(c.minute)
          FROM (SELECT @minute@ AS minute FROM changed) AS c GROUP BY 1;
        IF @named@ THEN
            INSERT INTO @schema@.visitas_changes (counter, start, total, visits)
            SELECT c.name, @schema@.visitas_bucket(c.minute, since), count(*), count(c.minute)
              FROM (SELECT @name@ AS name, @minute@ AS minute FROM changed) AS c
             WHERE c.name IS NOT NULL GROUP BY 1, 2;
        END IF;
    ELSIF TG_OP = 'DELETE' AND current_setting('visitas.prune', true) = 'on' THEN
        INSERT INTO @schema@.visitas_changes (start, pruned)
        SELECT @schema@.visitas_bucket(c.minute, since), count(*)
          FROM (SELECT @minute@ AS minute FROM former) AS c GROUP BY 1;
        IF @named@ THEN
            INSERT INTO @schema@.visitas_changes (counter, start, pruned)
            SELECT c.name, @schema@.visitas_bucket(c.minute, since), count(*)
              FROM (SELECT @name@ AS name, @minute@ AS minute FROM former) AS c
             WHERE c.name IS NOT NULL GROUP BY 1, 2;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO @schema@.visitas_changes (start, total, visits)
        SELECT @schema@.visitas_bucket(c.minute, since), -count(*), -count(c.minute)
          FROM (SELECT @minute@ AS minute FROM former) AS c GROUP BY 1;
        IF @named@ THEN
            INSERT INTO @schema@.visitas_changes (counter, start, total, visits)
            SELECT c.name, @schema@.visitas_bucket(c.minute, since), -count(*), -count(c.minute)
              FROM (SELECT @name@ AS name, @minute@ AS minute FROM former) AS c
             WHERE c.name IS NOT NULL GROUP BY 1, 2;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO @schema@.visitas_changes (start, visits)
        SELECT @schema@.visitas_bucket(c.minute, since), sum(c.sign)
          FROM (SELECT @minute@ AS minute, -1 AS sign FROM former UNION ALL
                SELECT @minute@, 1 FROM changed) AS c
         WHERE c.minute IS NOT NULL GROUP BY 1 HAVING sum(c.sign) <> 0;
        IF @named@ THEN
            INSERT INTO @schema@.visitas_changes (counter, start, total, visits)
            SELECT c.name, @schema@.visitas_bucket(c.minute, since), sum(c.sign),
                   coalesce(sum(c.sign) FILTER (WHERE c.minute IS NOT NULL), 0)
              FROM (SELECT @name@ AS name, @minute@ AS minute, -1 AS sign FROM former UNION ALL
                    SELECT @name@, @minute@, 1 FROM changed) AS c
             WHERE c.name IS NOT NULL GROUP BY 1, 2 HAVING sum(c.sign) <> 0;
            IF FOUND THEN
                INSERT INTO @schema@.visitas_changes (total) VALUES (0);
            END IF;
        END IF;
    ELSE
        -- Nobody else can write to the table now. An older snapshot would miss what was written.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'TRUNCATE of acessos needs the isolation level READ COMMITTED'
                USING ERRCODE = 'feature_not_supported', HINT = 'Or use DELETE.';
        END IF;
        INSERT INTO @schema@.visitas_changes (start, visits)
        SELECT p.start, -sum(p.visits - p.pruned) FROM @schema@.visitas_parts p
         GROUP BY 1 HAVING sum(p.visits - p.pruned) <> 0;
        INSERT INTO @schema@.visitas_changes (total) SELECT s.pruned - s.total
            FROM @schema@.visitas_sums s;
        IF @named@ THEN
            INSERT INTO @schema@.visitas_changes (counter, start, visits)
            SELECT p.counter, p.start, -sum(p.visits - p.pruned)
              FROM @schema@.visitas_named_parts p
             GROUP BY 1, 2 HAVING sum(p.visits - p.pruned) <> 0;
            INSERT INTO @schema@.visitas_changes (counter, total)
            SELECT s.counter, s.pruned - s.total FROM @schema@.visitas_named_totals s
             WHERE s.pruned <> s.total;
        END IF;
    END IF;
    RETURN NULL;
END
$$;

-- Lanes count their own rows in visitas_log, but not those that triggers of others add to them.
CREATE OR REPLACE TRIGGER visitas_insert AFTER INSERT ON @schema@.acessos
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT WHEN (current_setting('visitas.lane', true) IS DISTINCT FROM 'on'
                             OR pg_trigger_depth() > 0)
    EXECUTE FUNCTION @schema@.visitas_count();
CREATE OR REPLACE TRIGGER visitas_update AFTER UPDATE ON @schema@.acessos
    REFERENCING OLD TABLE AS former NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@.visitas_count();
CREATE OR REPLACE TRIGGER visitas_delete AFTER DELETE ON @schema@.acessos
    REFERENCING OLD TABLE AS former
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@.visitas_count();
CREATE OR REPLACE TRIGGER visitas_truncate AFTER TRUNCATE ON @schema@.acessos
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@.visitas_count();
ALTER TABLE @schema@.acessos ENABLE TRIGGER visitas_insert, ENABLE TRIGGER visitas_update,
    ENABLE TRIGGER visitas_delete, ENABLE TRIGGER visitas_truncate;

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT p.oid::regprocedure::text FROM pg_proc p
                 WHERE p.pronamespace = @schema_name@::regnamespace AND p.proname LIKE 'visitas\_%'
                     AND p.prosecdef
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
END
$$;

-- Where rows are not counted yet, visitas_correct says so later. The changes of a restored dump are
-- folded first.
DELETE FROM @schema@.visitas_schema;
INSERT INTO @schema@.visitas_schema (version, made_for, counted, momento, zone)
VALUES (@version@, @table@, @counted@, @momento_type@, @zone@);
LOCK TABLE @schema@.visitas_base IN EXCLUSIVE MODE;
SELECT @schema@.visitas_fold(true);
