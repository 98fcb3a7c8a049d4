-- What visitas needs in the database. Run as one transaction under a lock of its own, only where the check in
-- postgres/session.rs finds something missing; every statement leaves alone what is already there.
--
-- acessos        one row a visit; may exist before, with other columns, as long as those have defaults
-- acessos_total  the number of rows, in parts: one for each lane, which alone changes it, and slot 0 for everybody else
-- acessos_lanes  the last batch of lanes that lost their slot before they could ask for it
-- acessos_history  visits per minute, hour and day, in parts as acessos_total has them
-- acessos_rollup   which rows from before the history are not in it yet

CREATE TABLE IF NOT EXISTS acessos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    momento timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'acessos'::regclass AND attname = 'momento' AND NOT attisdropped) THEN
        -- Rows from before stay null, since nobody knows when they came; the default is for those to come.
        ALTER TABLE acessos ADD COLUMN momento timestamptz;
        ALTER TABLE acessos ALTER COLUMN momento SET DEFAULT now();
    END IF;
END
$$;

-- Each lane changes its row once a batch. With most of a page free the new version fits beside the old one, so that no
-- index changes and the next reader clears the old ones away (PostgreSQL manual, "Heap-Only Tuples").
CREATE TABLE IF NOT EXISTS acessos_total (
    slot integer PRIMARY KEY,
    total bigint NOT NULL DEFAULT 0,  -- rows counted in this slot; only the sum over all slots means something
    owner bigint,                     -- the lane that has the slot
    batch bigint NOT NULL DEFAULT 0,  -- the number of the last batch that lane committed
    seen bigint NOT NULL DEFAULT 0    -- the total with that batch
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- Writers lock acessos before anything else, so this does too before it changes a table that lanes write to.
LOCK TABLE acessos IN SHARE ROW EXCLUSIVE MODE;

-- The minute a lane is in, and its visits in it so far: added to the history when the lane's next minute begins, so that
-- a batch pays two more columns of a row that it writes anyway.
ALTER TABLE acessos_total
    ADD COLUMN IF NOT EXISTS minute bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS minute_visits bigint NOT NULL DEFAULT 0;

-- Visits by the minute, the hour and the day they came in. Only the sum over all slots means something: what is deleted
-- is taken from slot 0, whoever counted it.
CREATE TABLE IF NOT EXISTS acessos_history (
    step integer,                     -- seconds: 60, 3600 or 86400
    start bigint,                     -- seconds since 1970, a multiple of the step
    slot integer,
    visits bigint NOT NULL,
    PRIMARY KEY (step, start, slot)
) WITH (fillfactor = 50);

-- Rows that were there before the history and are not in it yet: those with an id above "after" and up to "until". A
-- change to one of them is not counted, since whoever adds it later finds it as it is then.
CREATE TABLE IF NOT EXISTS acessos_rollup (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    after bigint NOT NULL,
    until bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS acessos_lanes (
    owner bigint PRIMARY KEY,
    batch bigint NOT NULL,
    seen bigint NOT NULL,
    ended timestamptz NOT NULL DEFAULT now()
);

-- The minute of a moment, in seconds since 1970; none for infinity, and for what is no time.
CREATE OR REPLACE FUNCTION visitas_minute(timestamptz) RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN isfinite($1) THEN floor(date_part('epoch', $1) / 60)::bigint * 60 END $$;
CREATE OR REPLACE FUNCTION visitas_minute(anyelement) RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT NULL::bigint $$;
DO $$
BEGIN
    -- A column without a zone holds the time of this one, whatever zone a later session is in.
    EXECUTE format('CREATE OR REPLACE FUNCTION visitas_minute(timestamp) RETURNS bigint LANGUAGE sql STABLE AS %L', format(
        'SELECT CASE WHEN isfinite($1) THEN floor(date_part(''epoch'', $1 AT TIME ZONE %L) / 60)::bigint * 60 END',
        current_setting('TimeZone')));
END
$$;

-- Adds so many visits to each of those minutes, and to its hour and its day. Minutes and hours are kept as long as
-- anybody can ask for them, with room for clocks that differ; days for ever.
CREATE OR REPLACE FUNCTION visitas_history_add(p_slot integer, p_minutes bigint[], p_visits bigint[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO acessos_history AS h (step, start, slot, visits)
    SELECT k.step, m.minute - (m.minute % k.step + k.step) % k.step, p_slot, sum(m.visits)
      FROM unnest(p_minutes, p_visits) AS m(minute, visits),
           (VALUES (60, 86400), (3600, 8 * 86400), (86400, NULL)) AS k(step, kept)
     WHERE m.minute IS NOT NULL AND (k.kept IS NULL OR m.minute >= date_part('epoch', now()) - k.kept)
     GROUP BY 1, 2 HAVING sum(m.visits) <> 0 ORDER BY 1, 2
        ON CONFLICT (step, start, slot) DO UPDATE SET visits = h.visits + excluded.visits
$$;

-- Counts rows that anybody but a lane inserts, deletes or changes. It runs as the owner of the tables, so that a role that may
-- only write to acessos is counted too.
CREATE OR REPLACE FUNCTION visitas_count_foreign() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    change bigint;
    low bigint;
    high bigint;
    minutes bigint[];
    visits bigint[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        -- TRUNCATE has locked the table against every other writer, so no slot changes meanwhile.
        UPDATE acessos_total SET total = 0, minute_visits = 0;
        DELETE FROM acessos_history;
        UPDATE acessos_rollup SET after = until;
        RETURN NULL;
    END IF;
    -- Held to the end of the transaction, so that nobody moves the bounds over a row that is being changed.
    SELECT r.after, r.until INTO low, high FROM acessos_rollup r WHERE r.after < r.until FOR SHARE;
    IF TG_OP = 'UPDATE' THEN
        IF low IS NULL THEN
            SELECT array_agg(c.minute), array_agg(c.sign) INTO minutes, visits
              FROM (SELECT visitas_minute(momento), -1 FROM former UNION ALL
                    SELECT visitas_minute(momento), 1 FROM changed) AS c(minute, sign);
        ELSE
            SELECT array_agg(c.minute), array_agg(c.sign) INTO minutes, visits
              FROM (SELECT visitas_minute(momento), -1, id FROM former UNION ALL
                    SELECT visitas_minute(momento), 1, id FROM changed) AS c(minute, sign, id)
             WHERE c.id <= low OR c.id > high;
        END IF;
        PERFORM visitas_history_add(0, minutes, visits);
        RETURN NULL;
    END IF;
    SELECT count(*) INTO change FROM changed;
    IF change = 0 THEN
        RETURN NULL;
    END IF;
    IF low IS NULL THEN
        SELECT array_agg(c.minute), array_agg(c.n) INTO minutes, visits
          FROM (SELECT visitas_minute(momento), count(*) FROM changed GROUP BY 1) AS c(minute, n);
    ELSE
        SELECT array_agg(c.minute), array_agg(c.n) INTO minutes, visits
          FROM (SELECT visitas_minute(momento), count(*) FROM changed WHERE id <= low OR id > high GROUP BY 1) AS c(minute, n);
    END IF;
    IF TG_OP = 'DELETE' THEN
        change := -change;
        visits := (SELECT array_agg(-n ORDER BY at) FROM unnest(visits) WITH ORDINALITY AS v(n, at));
    END IF;
    PERFORM visitas_history_add(0, minutes, visits);
    UPDATE acessos_total SET total = total + change WHERE slot = 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'acessos_total has no slot 0, so this change cannot be counted';
    END IF;
    RETURN NULL;
END
$$;

-- Gives a lane a slot that no other living session has, and tells the last batch it committed: the one in the row it
-- already had, or the one set aside when another lane took that row over. A session of the same lane that still holds
-- the slot is ended first, so that what is read here is final.
CREATE OR REPLACE FUNCTION visitas_open(p_owner bigint, p_slot integer, OUT slot integer, OUT batch bigint, OUT seen bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    space CONSTANT integer := 'acessos_total'::regclass::oid::bigint::bit(32)::integer;
    mine boolean := false;
BEGIN
    IF p_slot IS NOT NULL THEN
        mine := pg_try_advisory_lock(space, p_slot);
        IF NOT mine AND EXISTS (SELECT FROM acessos_total t WHERE t.slot = p_slot AND t.owner = p_owner) THEN
            PERFORM pg_terminate_backend(l.pid) FROM pg_locks l
             WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
               AND l.classid = 'acessos_total'::regclass::oid AND l.objid = p_slot::oid AND l.objsubid = 2;
            PERFORM pg_advisory_lock(space, p_slot);
            mine := true;
        END IF;
        IF mine THEN
            SELECT t.slot, t.batch, t.seen INTO visitas_open.slot, visitas_open.batch, visitas_open.seen
              FROM acessos_total t WHERE t.slot = p_slot AND t.owner = p_owner;
            IF FOUND THEN
                RETURN;
            END IF;
            PERFORM pg_advisory_unlock(space, p_slot);
        END IF;
    END IF;

    DELETE FROM acessos_lanes l WHERE l.ended < now() - interval '1 day';
    DELETE FROM acessos_lanes l WHERE l.owner = p_owner
    RETURNING l.batch, l.seen INTO visitas_open.batch, visitas_open.seen;
    visitas_open.batch := coalesce(visitas_open.batch, 0);
    visitas_open.seen := coalesce(visitas_open.seen, 0);

    visitas_open.slot := 1;
    WHILE NOT pg_try_advisory_lock(space, visitas_open.slot) LOOP
        visitas_open.slot := visitas_open.slot + 1;
    END LOOP;
    INSERT INTO acessos_lanes (owner, batch, seen)
    SELECT t.owner, t.batch, t.seen FROM acessos_total t
     WHERE t.slot = visitas_open.slot AND t.owner IS NOT NULL AND t.owner <> p_owner
        ON CONFLICT DO NOTHING;
    INSERT INTO acessos_total AS t (slot, owner, batch, seen)
    VALUES (visitas_open.slot, p_owner, visitas_open.batch, visitas_open.seen)
        ON CONFLICT (slot) DO UPDATE SET owner = excluded.owner, batch = excluded.batch, seen = excluded.seen;
END
$$;

-- Begins another minute of a lane: what the last one had goes to the history, and what nobody can ask for any more out
-- of it. A batch that is not of one minute (p_minute is null) goes to the history as it is.
CREATE OR REPLACE FUNCTION visitas_turn(p_slot integer, p_minute bigint, p_moments timestamptz[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_minute IS NULL THEN
        PERFORM visitas_history_add(p_slot, array_agg(c.minute), array_agg(c.visits))
           FROM (SELECT visitas_minute(m), count(*) FROM unnest(p_moments) AS m GROUP BY 1) AS c(minute, visits);
        RETURN;
    END IF;
    PERFORM visitas_history_add(p_slot, ARRAY[t.minute], ARRAY[t.minute_visits]) FROM acessos_total t WHERE t.slot = p_slot;
    UPDATE acessos_total SET minute = p_minute, minute_visits = 0 WHERE slot = p_slot;
    -- Slots that nobody has any more leave theirs too. Whoever is at a row already sees to it.
    DELETE FROM acessos_history h USING (
        SELECT ctid FROM acessos_history
         WHERE (step = 60 AND start < p_minute - 2 * 86400) OR (step = 3600 AND start < p_minute - 9 * 86400)
         LIMIT 1000 FOR UPDATE SKIP LOCKED
    ) AS old WHERE h.ctid = old.ctid;
END
$$;

-- One batch, one transaction: its rows, and its slot's part of the total. Gives the number of rows with them. The rows
-- come first: TRUNCATE too locks the table before it changes the slots, so that neither waits for the other for ever.
-- A batch that is not the one after the last is refused, so no batch is ever there twice.
CREATE OR REPLACE FUNCTION visitas_commit(
    p_slot integer, p_owner bigint, p_batch bigint, p_moments timestamptz[], p_minute bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    with_these bigint;
    turned boolean := false;
BEGIN
    INSERT INTO acessos (momento) SELECT unnest(p_moments);
    LOOP
        UPDATE acessos_total
           SET total = total + cardinality(p_moments),
               batch = p_batch,
               seen = (SELECT sum(t.total) FROM acessos_total t)::bigint + cardinality(p_moments),
               minute_visits = minute_visits + CASE WHEN minute = p_minute THEN cardinality(p_moments) ELSE 0 END
         WHERE slot = p_slot AND owner = p_owner AND batch = p_batch - 1 AND (minute = p_minute OR turned)
        RETURNING seen INTO with_these;
        IF FOUND THEN
            RETURN with_these;
        END IF;
        IF turned THEN
            RAISE EXCEPTION 'slot % is not at batch % of this lane any more', p_slot, p_batch - 1;
        END IF;
        PERFORM visitas_turn(p_slot, p_minute, p_moments);
        turned := true;
    END LOOP;
END
$$;

-- The same for lanes of version 0.1, which know nothing of minutes.
CREATE OR REPLACE FUNCTION visitas_commit(p_slot integer, p_owner bigint, p_batch bigint, p_moments timestamptz[])
RETURNS bigint LANGUAGE sql AS $$ SELECT visitas_commit(p_slot, p_owner, p_batch, p_moments, NULL) $$;

-- Adds up to p_rows rows from before to the history; tells how far it is, both bounds null once all are in it. Nobody who
-- changes rows from before is at it meanwhile: see the row lock in visitas_count_foreign. The table is locked first, as
-- everybody else locks it first.
CREATE OR REPLACE FUNCTION visitas_roll_up(p_rows integer, OUT after bigint, OUT until bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    low bigint;
    high bigint;
    minutes bigint[];
    visits bigint[];
    last bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM acessos_rollup r WHERE r.after < r.until) THEN
        RETURN;
    END IF;
    LOCK TABLE acessos IN ACCESS SHARE MODE;
    SELECT r.after, r.until INTO low, high FROM acessos_rollup r WHERE r.after < r.until FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT array_agg(g.minute), array_agg(g.visits), max(g.last) INTO minutes, visits, last
      FROM (SELECT visitas_minute(c.momento), count(*), max(c.id)
              FROM (SELECT id, momento FROM acessos WHERE id > low AND id <= high ORDER BY id LIMIT p_rows) AS c
             GROUP BY 1) AS g(minute, visits, last);
    PERFORM visitas_history_add(0, minutes, visits);
    UPDATE acessos_rollup r SET after = coalesce(last, high);
    visitas_roll_up.after := coalesce(last, high);
    visitas_roll_up.until := high;
END
$$;

-- Begins the history anew: nothing is in it, and every row that is there is to be rolled up. In steps by the id, where new
-- ids come above the old ones; else at once.
CREATE OR REPLACE FUNCTION visitas_restart_history() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    low bigint := 0;
    high bigint := 0;
    rising boolean;
BEGIN
    LOCK TABLE acessos IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM acessos_history;
    UPDATE acessos_total SET minute_visits = 0;
    SELECT EXISTS (
        SELECT FROM pg_attribute a JOIN pg_index i ON i.indrelid = a.attrelid AND i.indkey[0] = a.attnum
         WHERE a.attrelid = 'acessos'::regclass AND a.attname = 'id' AND a.attnotnull AND NOT a.attisdropped
           AND a.atttypid IN ('int4'::regtype, 'int8'::regtype) AND i.indisvalid AND i.indpred IS NULL
    ) INTO rising;
    IF rising THEN
        EXECUTE 'SELECT min(id) - 1, max(id) FROM acessos' INTO low, high;
        SELECT high IS NULL OR (s.increment_by > 0 AND coalesce(s.last_value, 0) >= high) INTO rising
          FROM pg_sequences s
         WHERE format('%I.%I', s.schemaname, s.sequencename)::regclass = pg_get_serial_sequence('acessos', 'id')::regclass;
    END IF;
    IF rising IS NOT TRUE THEN
        PERFORM visitas_history_add(0, array_agg(c.minute), array_agg(c.visits))
           FROM (SELECT visitas_minute(momento), count(*) FROM acessos GROUP BY 1) AS c(minute, visits);
    END IF;
    DELETE FROM acessos_rollup;
    INSERT INTO acessos_rollup (after, until)
    SELECT CASE WHEN rising THEN coalesce(low, 0) ELSE 0 END, CASE WHEN rising THEN coalesce(high, 0) ELSE 0 END;
END
$$;

-- Sets the total to what is really there. Needed once, and again should somebody have switched the triggers off.
CREATE OR REPLACE FUNCTION visitas_recount() RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    counted bigint;
BEGIN
    LOCK TABLE acessos IN SHARE ROW EXCLUSIVE MODE;
    SELECT count(*) INTO counted FROM acessos;
    UPDATE acessos_total SET total = 0 WHERE slot <> 0;
    INSERT INTO acessos_total (slot, total) VALUES (0, counted)
        ON CONFLICT (slot) DO UPDATE SET total = excluded.total;
    RETURN counted;
END
$$;

DO $$
DECLARE
    counted boolean := obj_description('acessos_total'::regclass, 'pg_class') = 'visitas schema 1' AND 3 = (
        SELECT count(*) FROM pg_trigger WHERE tgrelid = 'acessos'::regclass AND tgenabled = 'O'
           AND tgname IN ('visitas_insert', 'visitas_delete', 'visitas_truncate'));
BEGIN
    counted := coalesce(counted, false);
    -- Functions that run for other roles must find these tables and no others.
    EXECUTE format('ALTER FUNCTION visitas_count_foreign() SET search_path = %I, pg_temp', current_schema());
    LOCK TABLE acessos IN SHARE ROW EXCLUSIVE MODE;
    -- Lanes count their own rows; everybody else's statements are counted by the triggers.
    CREATE OR REPLACE TRIGGER visitas_insert AFTER INSERT ON acessos REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT WHEN (current_setting('visitas.lane', true) IS DISTINCT FROM 'on')
        EXECUTE FUNCTION visitas_count_foreign();
    CREATE OR REPLACE TRIGGER visitas_delete AFTER DELETE ON acessos REFERENCING OLD TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION visitas_count_foreign();
    CREATE OR REPLACE TRIGGER visitas_update AFTER UPDATE ON acessos REFERENCING OLD TABLE AS former NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION visitas_count_foreign();
    CREATE OR REPLACE TRIGGER visitas_truncate AFTER TRUNCATE ON acessos
        FOR EACH STATEMENT EXECUTE FUNCTION visitas_count_foreign();
    -- Schema 1 had no history, but its total is right as long as its triggers are there.
    IF NOT counted THEN
        PERFORM visitas_recount();
    END IF;
    PERFORM visitas_restart_history();
END
$$;

COMMENT ON TABLE acessos_total IS 'visitas schema 2';
