-- What visitas needs in the database. Run as one transaction under a lock of its own, only where the check in
-- postgres/session.rs finds something missing; every statement leaves alone what is already there.
--
-- acessos        one row a visit; may exist before, with other columns, as long as those have defaults
-- acessos_total  the number of rows, in parts: one for each lane, which alone changes it, and slot 0 for everybody else
-- acessos_lanes  the last batch of lanes that lost their slot before they could ask for it

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

CREATE TABLE IF NOT EXISTS acessos_lanes (
    owner bigint PRIMARY KEY,
    batch bigint NOT NULL,
    seen bigint NOT NULL,
    ended timestamptz NOT NULL DEFAULT now()
);

-- Counts rows that anybody but a lane inserts or deletes. It runs as the owner of the tables, so that a role that may
-- only write to acessos is counted too.
CREATE OR REPLACE FUNCTION visitas_count_foreign() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    change bigint;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        -- TRUNCATE has locked the table against every other writer, so no slot changes meanwhile.
        UPDATE acessos_total SET total = 0;
        RETURN NULL;
    END IF;
    SELECT count(*) INTO change FROM changed;
    IF change = 0 THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        change := -change;
    END IF;
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

-- One batch, one transaction: its rows, and its slot's part of the total. Gives the number of rows with them. The rows
-- come first: TRUNCATE too locks the table before it changes the slots, so that neither waits for the other for ever.
-- A batch that is not the one after the last is refused, so no batch is ever there twice.
CREATE OR REPLACE FUNCTION visitas_commit(p_slot integer, p_owner bigint, p_batch bigint, p_moments timestamptz[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    with_these bigint;
BEGIN
    INSERT INTO acessos (momento) SELECT unnest(p_moments);
    UPDATE acessos_total
       SET total = total + cardinality(p_moments),
           batch = p_batch,
           seen = (SELECT sum(t.total) FROM acessos_total t)::bigint + cardinality(p_moments)
     WHERE slot = p_slot AND owner = p_owner AND batch = p_batch - 1
    RETURNING seen INTO with_these;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'slot % is not at batch % of this lane any more', p_slot, p_batch - 1;
    END IF;
    RETURN with_these;
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
BEGIN
    -- Functions that run for other roles must find these tables and no others.
    EXECUTE format('ALTER FUNCTION visitas_count_foreign() SET search_path = %I, pg_temp', current_schema());
    LOCK TABLE acessos IN SHARE ROW EXCLUSIVE MODE;
    -- Lanes count their own rows; everybody else's statements are counted by the triggers.
    CREATE OR REPLACE TRIGGER visitas_insert AFTER INSERT ON acessos REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT WHEN (current_setting('visitas.lane', true) IS DISTINCT FROM 'on')
        EXECUTE FUNCTION visitas_count_foreign();
    CREATE OR REPLACE TRIGGER visitas_delete AFTER DELETE ON acessos REFERENCING OLD TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION visitas_count_foreign();
    CREATE OR REPLACE TRIGGER visitas_truncate AFTER TRUNCATE ON acessos
        FOR EACH STATEMENT EXECUTE FUNCTION visitas_count_foreign();
    PERFORM visitas_recount();
END
$$;

COMMENT ON TABLE acessos_total IS 'visitas schema 1';
