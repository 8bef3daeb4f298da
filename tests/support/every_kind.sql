-- Every kind of object that pg_dump knows, in sections that every_kind.py picks from: `--- WHO [MAJOR|icu]`.
--   owner: an ordinary role that owns the database can make it; superuser: only a superuser can.
--   MAJOR: from that version of the server on; icu: where the server was built with it.
--
-- Left out, because pg_dump or PostgreSQL itself does not bring it back as it was:
--   - members added to an operator family that every server has, and objects that users made in pg_catalog;
--   - a database without the schema public (a new one always has it), an extension without its comment;
--   - unnamed constants in a function with a BEGIN ATOMIC body: pg_dump gives them a name, the second time;
--   - security labels: no server here has loaded a provider for them;
--   - configuration tables: no extension that both servers have marks one (test_in_place.py marks one by hand).

--- owner
CREATE SCHEMA plain;
COMMENT ON SCHEMA plain IS E'COMMIT;\n-- Name: nothing; Type: TABLE; Schema: public; Owner: nobody\n\\.\n';
GRANT USAGE ON SCHEMA plain TO PUBLIC;
GRANT USAGE, CREATE ON SCHEMA plain TO every_kind_reader WITH GRANT OPTION;
CREATE SCHEMA "odd ""schema""; Type: TABLE";
CREATE SCHEMA extras;
CREATE SCHEMA "Größe und Ähnlichkeit, so lang wie ein Name sein darf: 63 B.";
COMMENT ON SCHEMA public IS 'ours';
GRANT CREATE ON SCHEMA public TO every_kind_reader;
REVOKE USAGE ON SCHEMA public FROM PUBLIC;

CREATE EXTENSION hstore WITH SCHEMA extras;
CREATE EXTENSION btree_gist WITH SCHEMA public;
CREATE EXTENSION citext;
COMMENT ON EXTENSION citext IS 'another comment';

-- types
CREATE TYPE plain.mood AS ENUM ('sad', 'it''s ok', 'happy; COMMIT;');
ALTER TYPE plain.mood ADD VALUE 'between' BEFORE 'happy; COMMIT;';

--- owner
COMMENT ON TYPE plain.mood IS 'Stimmung';
REVOKE USAGE ON TYPE plain.mood FROM PUBLIC;
GRANT USAGE ON TYPE plain.mood TO every_kind_reader;
CREATE TYPE plain.pair AS (a integer, "b c" text COLLATE "C");
COMMENT ON COLUMN plain.pair."b c" IS 'second';
CREATE TYPE plain.wrapped AS (one plain.pair, many plain.mood[]);
CREATE TYPE plain.floats AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = plain.many_floats);
CREATE DOMAIN plain.positive AS integer DEFAULT 1 NOT NULL CONSTRAINT is_positive CHECK (VALUE > 0);
ALTER DOMAIN plain.positive ADD CONSTRAINT small CHECK (VALUE < 1000000) NOT VALID;
COMMENT ON DOMAIN plain.positive IS 'above nothing';
COMMENT ON CONSTRAINT is_positive ON DOMAIN plain.positive IS 'why';
GRANT USAGE ON TYPE plain.positive TO every_kind_reader;
CREATE DOMAIN plain.words AS text[] COLLATE "C" CHECK (cardinality(VALUE) < 10);

-- functions
CREATE FUNCTION plain.twice(x integer) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN x * 2;
CREATE FUNCTION plain.atomic(x integer, OUT y integer, OUT z text) LANGUAGE sql STABLE COST 7
    BEGIN ATOMIC
        SELECT plain.twice(x) AS twice, 'a;b'::text AS label;
        SELECT x AS x, 'COMMIT;'::text AS label;
    END;
CREATE FUNCTION plain.body(VARIADIC words text[] DEFAULT '{a,b}') RETURNS SETOF text LANGUAGE plpgsql ROWS 3 SECURITY DEFINER
    SET search_path = plain, public SET work_mem TO '5MB' AS $body$
DECLARE
    one text := $$it's \ a$$;
BEGIN
    -- Name: body; Type: FUNCTION; Schema: plain; Owner: x
    RETURN QUERY SELECT unnest(words) || one;
END $body$;
COMMENT ON FUNCTION plain.body(text[]) IS E'with \\ and '' and "';
REVOKE EXECUTE ON FUNCTION plain.body(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plain.body(text[]) TO every_kind_reader WITH GRANT OPTION;
CREATE FUNCTION plain.defaults(a integer, b text DEFAULT 'x; y', INOUT c plain.mood DEFAULT 'sad') LANGUAGE sql AS 'SELECT c';
CREATE FUNCTION plain.as_table(lo integer) RETURNS TABLE (n integer, m plain.mood) LANGUAGE sql
    AS 'SELECT i, ''sad''::plain.mood FROM generate_series(1, lo) i';
CREATE FUNCTION "odd ""schema""; Type: TABLE"."f ( ""x"" )"("a b" integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE plain.work(INOUT n integer, OUT m text) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; m := 'x'; END $$;
COMMENT ON PROCEDURE plain.work(integer) IS 'works';
CREATE FUNCTION plain.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION plain.on_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION plain.of_citext(x public.citext) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
ALTER FUNCTION plain.of_citext(public.citext) DEPENDS ON EXTENSION citext;

-- aggregates, operators, casts
CREATE AGGREGATE plain.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0', COMBINEFUNC = int4pl, PARALLEL = SAFE,
    MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = integer, MINITCOND = '0');
COMMENT ON AGGREGATE plain.total(integer) IS 'moving';
GRANT EXECUTE ON FUNCTION plain.total(integer) TO every_kind_reader;
CREATE FUNCTION plain.take(state float8, x float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT x';
CREATE FUNCTION plain.rank_of(state float8, share float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT state * share';
CREATE AGGREGATE plain.share_of(share float8 ORDER BY value float8) (SFUNC = plain.take, STYPE = float8, FINALFUNC = plain.rank_of);
CREATE AGGREGATE plain.counted(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = 0);
CREATE FUNCTION plain.same(plain.pair, plain.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).a = ($2).a';
CREATE FUNCTION plain.differ(plain.pair, plain.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).a <> ($2).a';
CREATE OPERATOR plain.=== (FUNCTION = plain.same, LEFTARG = plain.pair, RIGHTARG = plain.pair, COMMUTATOR = OPERATOR(plain.===),
    NEGATOR = OPERATOR(plain.!==), RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR plain.!== (FUNCTION = plain.differ, LEFTARG = plain.pair, RIGHTARG = plain.pair, NEGATOR = OPERATOR(plain.===));
CREATE OPERATOR plain.## (FUNCTION = plain.twice, RIGHTARG = integer);
COMMENT ON OPERATOR plain.=== (plain.pair, plain.pair) IS 'triple';
CREATE FUNCTION plain.pair_of(integer) RETURNS plain.pair LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1, ''x'')::plain.pair';
CREATE CAST (integer AS plain.pair) WITH FUNCTION plain.pair_of(integer) AS ASSIGNMENT;
CREATE CAST (plain.mood AS integer) WITH INOUT;
COMMENT ON CAST (integer AS plain.pair) IS 'cast';

-- collations, conversions, text search
CREATE COLLATION plain.bytes (provider = libc, locale = 'C');
COMMENT ON COLLATION plain.bytes IS 'by bytes';
CREATE CONVERSION plain.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE DEFAULT CONVERSION "odd ""schema""; Type: TABLE".latin9 FOR 'LATIN9' TO 'UTF8' FROM iso8859_to_utf8;
COMMENT ON CONVERSION plain.latin IS 'conversion';
CREATE TEXT SEARCH DICTIONARY plain.words_of (TEMPLATE = pg_catalog.simple, ACCEPT = false);
COMMENT ON TEXT SEARCH DICTIONARY plain.words_of IS 'dictionary';
CREATE TEXT SEARCH CONFIGURATION plain.ours (PARSER = "default");
ALTER TEXT SEARCH CONFIGURATION plain.ours ADD MAPPING FOR asciiword, word WITH plain.words_of, english_stem;
COMMENT ON TEXT SEARCH CONFIGURATION plain.ours IS 'configuration';

-- sequences
CREATE SEQUENCE plain.alone AS smallint START 5 INCREMENT -2 MINVALUE -100 MAXVALUE 10 CACHE 3 CYCLE;
SELECT nextval('plain.alone');
CREATE SEQUENCE plain."never used; --" AS integer;
GRANT USAGE, SELECT ON SEQUENCE plain.alone TO every_kind_reader;
COMMENT ON SEQUENCE plain.alone IS 'alone';
CREATE UNLOGGED SEQUENCE plain.fleeting;

-- tables
CREATE TABLE public.kinds (
    id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY,
    by_default smallint GENERATED BY DEFAULT AS IDENTITY,
    serial serial,
    mood plain.mood DEFAULT 'sad' NOT NULL,
    pair plain.pair,
    pairs plain.pair[],
    span plain.floats,
    spans plain.many_floats,
    number plain.positive,
    doubled integer GENERATED ALWAYS AS (serial * 2) STORED,
    "two words" text COLLATE "C" DEFAULT 'it''s' CHECK ("two words" <> 'COMMIT;'),
    raw bytea,
    document jsonb,
    texts text[],
    tags extras.hstore,
    insensitive public.citext,
    at timestamptz,
    CONSTRAINT "two; columns" CHECK (serial > 0 OR by_default > 0) NO INHERIT,
    CONSTRAINT late UNIQUE (serial, mood) INCLUDE (number) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT nulls_are_equal UNIQUE NULLS NOT DISTINCT (by_default),
    CONSTRAINT apart EXCLUDE USING gist (serial WITH =, span WITH &&) WHERE (serial > 0) DEFERRABLE
) WITH (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE public.kinds ALTER COLUMN "two words" SET STORAGE EXTERNAL;
ALTER TABLE public.kinds ALTER COLUMN document SET STATISTICS 500;
ALTER TABLE public.kinds ALTER COLUMN mood SET (n_distinct = 4, n_distinct_inherited = -0.5);
COMMENT ON TABLE public.kinds IS E'-- Name: kinds; Type: TABLE; Schema: public; Owner: x\nCOMMIT;\n\\connect nowhere\n$$;';
COMMENT ON COLUMN public.kinds."two words" IS E'tab\tand \\ and ''';
COMMENT ON CONSTRAINT late ON public.kinds IS 'deferred';
COMMENT ON INDEX public.kinds_pkey IS 'key';
GRANT SELECT, INSERT ON public.kinds TO every_kind_reader WITH GRANT OPTION;
GRANT SELECT ("two words"), UPDATE (id, "two words") ON public.kinds TO PUBLIC;
GRANT ALL ON public.kinds TO "every kind: Größe ""x""";
INSERT INTO public.kinds (mood, pair, pairs, span, spans, number, "two words", raw, document, texts, tags, insensitive, at) VALUES
    ('sad', '(1,x)', '{"(1,\"a b\")","(2,)"}', '[1,2)', '{[1,2),[3,4)}', 5, E'tab\t back\\slash\nnext \\.\n\\.\n', '\x00ff5c', '{"a": "\\u00e4\\n"}',
     ARRAY['a"b', NULL, 'NULL', '', E'\\', '{}'], 'a=>1, "b c"=>NULL', 'ABC', '2024-02-29 12:00+00'),
    ('happy; COMMIT;', NULL, NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, 'infinity'),
    ('between', '(,)', '{}', 'empty', '{}', 999999, '', '', '[]', '{}', '', '', '-infinity'),
    ('it''s ok', '(7,"COPY public.kinds FROM stdin;")', NULL, '(,)', '{(,)}', 2, E'\\N', '\x0a5c2e0a', 'null', '{{1,2},{3,4}}', 'x=>"y\\z"', E'\r\n\b\v', '0044-03-15 BC'),
    ('sad', NULL, NULL, NULL, NULL, 3, NULL, decode(repeat('00ff5c0a', 300000), 'hex'), NULL,
     ARRAY[repeat(E'-- Name: x; Type: TABLE; Schema: public; Owner: y\n\\.\nCOMMIT;\n', 40000)], NULL, NULL, NULL);
SELECT setval('public.kinds_serial_seq', 4711, false);

CREATE TABLE public.empty ();
CREATE TABLE public.rows_without_columns ();
INSERT INTO public.rows_without_columns SELECT FROM generate_series(1, 3);
CREATE TABLE public.no_rows (LIKE public.kinds INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
CREATE UNLOGGED TABLE plain.unlogged (id integer PRIMARY KEY, t text);
INSERT INTO plain.unlogged VALUES (1, 'kept');
CREATE TABLE plain.had_columns (a integer, gone text, b integer, also_gone text);
INSERT INTO plain.had_columns VALUES (1, 'x', 2, 'y');
ALTER TABLE plain.had_columns DROP COLUMN gone, DROP COLUMN also_gone, ADD COLUMN later integer DEFAULT 3;
CREATE TABLE "odd ""schema""; Type: TABLE"." leading; -- blank
and a new line, ""quotes"", 'more' \. and ü" ("a ""b""; --" integer, "SELECT" text, "tab	x" text);
INSERT INTO "odd ""schema""; Type: TABLE"." leading; -- blank
and a new line, ""quotes"", 'more' \. and ü" VALUES (1, 'COMMIT;', NULL);
COMMENT ON COLUMN "odd ""schema""; Type: TABLE"." leading; -- blank
and a new line, ""quotes"", 'more' \. and ü"."a ""b""; --" IS 'odd';
CREATE TABLE "Größe und Ähnlichkeit, so lang wie ein Name sein darf: 63 B."."-so lang wie ein Name eben sein darf, auch mit Größe drin: 63" (id serial PRIMARY KEY);
CREATE TABLE plain.typed OF plain.wrapped (one WITH OPTIONS DEFAULT '(1,a)', PRIMARY KEY (one));
CREATE TABLE plain.identity_key (id integer PRIMARY KEY, t text NOT NULL);
CREATE UNIQUE INDEX by_text ON plain.identity_key (t);
ALTER TABLE plain.identity_key REPLICA IDENTITY USING INDEX by_text;
CREATE TABLE plain.full_identity (id integer);
ALTER TABLE plain.full_identity REPLICA IDENTITY FULL;
CREATE TABLE plain.clustered (id integer PRIMARY KEY, t text);
CREATE INDEX by_t ON plain.clustered (t);
ALTER TABLE plain.clustered CLUSTER ON by_t;
INSERT INTO plain.clustered SELECT i, md5(i::text) FROM generate_series(1, 500) i;
CREATE SEQUENCE plain.owned OWNED BY plain.clustered.id;
ALTER TABLE plain.clustered ALTER COLUMN id SET DEFAULT nextval('plain.owned');

-- inheritance
CREATE TABLE plain.parent (a integer DEFAULT 1, b text NOT NULL, CONSTRAINT a_is_small CHECK (a < 100));
CREATE TABLE plain.other_parent (c integer, CONSTRAINT not_passed_on CHECK (c > 0) NO INHERIT);
CREATE TABLE plain.child (d integer, a integer DEFAULT 2) INHERITS (plain.parent, plain.other_parent);
CREATE TABLE "odd ""schema""; Type: TABLE".grandchild () INHERITS (plain.child);
INSERT INTO plain.parent VALUES (1, 'x');
INSERT INTO plain.child (a, b, c, d) VALUES (2, 'y', 3, 4);

-- partitions
CREATE TABLE plain.measured (id integer GENERATED BY DEFAULT AS IDENTITY, at date NOT NULL, region text, value integer DEFAULT 0, PRIMARY KEY (id, at, region))
    PARTITION BY RANGE (at);
CREATE TABLE plain.measured_2024 PARTITION OF plain.measured (value DEFAULT 7 CHECK (value >= 0))
    FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (region);
CREATE TABLE plain.measured_2024_north PARTITION OF plain.measured_2024 FOR VALUES IN ('north', 'it''s');
CREATE TABLE plain.measured_2024_rest PARTITION OF plain.measured_2024 DEFAULT PARTITION BY HASH (id);
CREATE TABLE "odd ""schema""; Type: TABLE".hashed_0 PARTITION OF plain.measured_2024_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "odd ""schema""; Type: TABLE".hashed_1 PARTITION OF plain.measured_2024_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE plain.measured_else (region text NOT NULL, value integer, at date NOT NULL, id integer NOT NULL);
ALTER TABLE plain.measured ATTACH PARTITION plain.measured_else DEFAULT;
INSERT INTO plain.measured (at, region, value)
    SELECT '2024-01-01'::date + i * 10, (ARRAY['north', 'south', 'it''s', 'west'])[i % 4 + 1], i FROM generate_series(1, 80) i;
CREATE INDEX by_region ON plain.measured (region, at) INCLUDE (value);
CREATE INDEX not_everywhere ON ONLY plain.measured (value);
CREATE INDEX one_of_them ON plain.measured_else (value);
ALTER INDEX plain.not_everywhere ATTACH PARTITION plain.one_of_them;
CREATE TRIGGER on_each AFTER INSERT ON plain.measured FOR EACH ROW EXECUTE FUNCTION plain.on_row();
ALTER TABLE plain.measured_else DISABLE TRIGGER on_each;
CREATE TABLE plain.of_expression (t text) PARTITION BY RANGE (lower(t) COLLATE "C" text_pattern_ops);

-- foreign keys
CREATE TABLE plain.tree (id integer PRIMARY KEY, parent integer REFERENCES plain.tree ON DELETE CASCADE);
INSERT INTO plain.tree VALUES (2, 1), (1, NULL), (3, 2);
CREATE TABLE plain.egg (id integer PRIMARY KEY, hen integer);
CREATE TABLE plain.hen (id integer PRIMARY KEY, egg integer REFERENCES plain.egg DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE plain.egg ADD CONSTRAINT laid FOREIGN KEY (hen) REFERENCES plain.hen (id) MATCH FULL ON UPDATE SET NULL;
INSERT INTO plain.egg VALUES (1, NULL);
INSERT INTO plain.hen VALUES (1, 1);
UPDATE plain.egg SET hen = 1;
CREATE TABLE plain.broken (id integer, of integer);
INSERT INTO plain.broken VALUES (1, 99);
ALTER TABLE plain.broken ADD CONSTRAINT not_valid FOREIGN KEY (of) REFERENCES plain.tree NOT VALID;
ALTER TABLE plain.broken ADD CONSTRAINT not_checked CHECK (id > 1) NOT VALID;
CREATE TABLE plain.points_at_partitions (id integer, at date, region text, FOREIGN KEY (id, at, region) REFERENCES plain.measured ON DELETE SET NULL (id));

-- indexes, statistics
CREATE INDEX "partial; --" ON public.kinds (serial DESC NULLS LAST) WHERE mood = 'sad' AND "two words" IS NOT NULL;
CREATE INDEX by_expression ON public.kinds (lower("two words"), (serial + 1), insensitive);
ALTER INDEX public.by_expression ALTER COLUMN 2 SET STATISTICS 77;
CREATE INDEX by_tags ON public.kinds USING gin (tags) WITH (fastupdate = off);
CREATE INDEX by_pattern ON public.kinds ("two words" COLLATE "POSIX" text_pattern_ops) WITH (fillfactor = 50);
CREATE INDEX by_time ON public.kinds USING brin (at) WITH (pages_per_range = 4);
COMMENT ON INDEX public.by_tags IS 'gin';
CREATE STATISTICS plain.together (ndistinct, dependencies) ON mood, serial FROM public.kinds;
CREATE STATISTICS plain.of_expression_too (mcv) ON (lower("two words")), mood FROM public.kinds;
ALTER STATISTICS plain.together SET STATISTICS 55;
COMMENT ON STATISTICS plain.together IS 'statistics';

-- triggers, rules, policies
CREATE TRIGGER "before; each" BEFORE INSERT OR UPDATE OF id, "two words" ON public.kinds FOR EACH ROW
    WHEN (NEW.mood IS NOT NULL) EXECUTE FUNCTION plain.on_row('it''s', E'\\');
CREATE TRIGGER over_rows AFTER UPDATE ON public.kinds REFERENCING OLD TABLE AS before NEW TABLE AS "after" FOR EACH STATEMENT
    EXECUTE FUNCTION plain.on_statement();
CREATE CONSTRAINT TRIGGER held AFTER INSERT ON public.kinds DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION plain.on_row();
CREATE TRIGGER off BEFORE TRUNCATE ON public.kinds EXECUTE FUNCTION plain.on_statement();
ALTER TABLE public.kinds DISABLE TRIGGER off;
CREATE TRIGGER on_replica BEFORE DELETE ON public.kinds EXECUTE FUNCTION plain.on_statement();
ALTER TABLE public.kinds ENABLE REPLICA TRIGGER on_replica;
CREATE TRIGGER always BEFORE DELETE ON public.kinds EXECUTE FUNCTION plain.on_statement();
ALTER TABLE public.kinds ENABLE ALWAYS TRIGGER always;
COMMENT ON TRIGGER off ON public.kinds IS 'off';
CREATE RULE nothing AS ON DELETE TO plain.unlogged WHERE OLD.id = 1 DO INSTEAD NOTHING;
CREATE RULE tell AS ON UPDATE TO plain.unlogged DO ALSO NOTIFY "some; thing";
ALTER TABLE plain.unlogged DISABLE RULE tell;
COMMENT ON RULE nothing ON plain.unlogged IS 'rule';
ALTER TABLE plain.tree ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON plain.tree USING (true);
CREATE POLICY "some; one" ON plain.tree AS RESTRICTIVE FOR UPDATE TO every_kind_reader, CURRENT_USER USING (id > 0) WITH CHECK (id > 1);
COMMENT ON POLICY everybody ON plain.tree IS 'policy';

-- views
CREATE VIEW plain.checked WITH (security_barrier = true, check_option = cascaded) AS SELECT id, t FROM plain.clustered WHERE id > 5;
CREATE VIEW plain.local_check WITH (security_invoker = true) AS SELECT * FROM plain.checked WHERE id < 50 WITH LOCAL CHECK OPTION;
ALTER VIEW plain.checked ALTER COLUMN t SET DEFAULT 'from view';
CREATE RECURSIVE VIEW plain.numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 10;
CREATE VIEW public.grouped AS SELECT id, mood, count(*) OVER () AS n FROM public.kinds GROUP BY id;
CREATE TRIGGER instead INSTEAD OF INSERT ON public.grouped FOR EACH ROW EXECUTE FUNCTION plain.on_row();
CREATE VIEW plain.first_of_two AS SELECT 1 AS x;
CREATE VIEW plain.second_of_two AS SELECT x FROM plain.first_of_two;
CREATE OR REPLACE VIEW plain.first_of_two AS SELECT x FROM (SELECT 1 AS x) s WHERE x NOT IN (SELECT 2 AS x);
CREATE VIEW plain.by_key AS SELECT c.id, c.t FROM plain.clustered c GROUP BY c.id;
COMMENT ON VIEW plain.checked IS 'view';
COMMENT ON COLUMN plain.checked.id IS 'column of a view';
GRANT SELECT ON plain.checked TO every_kind_reader;
CREATE MATERIALIZED VIEW plain.filled WITH (fillfactor = 60) AS SELECT mood, count(*) AS n FROM public.kinds GROUP BY mood;
CREATE UNIQUE INDEX filled_by_mood ON plain.filled (mood);
CREATE MATERIALIZED VIEW plain.of_filled AS SELECT sum(n) AS n FROM plain.filled;
CREATE MATERIALIZED VIEW plain.unfilled AS SELECT 1 AS one WITH NO DATA;
COMMENT ON MATERIALIZED VIEW plain.filled IS 'filled';

-- publications, default privileges, large objects
CREATE PUBLICATION some_tables FOR TABLE public.kinds (id, mood), plain.clustered WHERE (id > 5), ONLY plain.parent WITH (publish = 'insert, update');
CREATE PUBLICATION "no; tables" WITH (publish_via_partition_root = true);
COMMENT ON PUBLICATION some_tables IS 'publication';
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO every_kind_reader;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO every_kind_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA "odd ""schema""; Type: TABLE" GRANT EXECUTE ON ROUTINES TO every_kind_reader;
SELECT lo_from_bytea(5000001, decode(repeat('00ff5c27', 200000), 'hex'));
SELECT lo_from_bytea(5000002, '');
COMMENT ON LARGE OBJECT 5000001 IS E'COMMIT;\nit''s large';
GRANT SELECT, UPDATE ON LARGE OBJECT 5000001 TO every_kind_reader;
GRANT SELECT ON LARGE OBJECT 5000002 TO PUBLIC;

--- superuser
ALTER SCHEMA public OWNER TO every_kind_owner;
CREATE SCHEMA of_owner AUTHORIZATION every_kind_owner;
CREATE TABLE of_owner.things (id integer PRIMARY KEY, t text);
ALTER TABLE of_owner.things OWNER TO every_kind_owner;
ALTER TABLE of_owner.things FORCE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA of_owner TO every_kind_reader;
GRANT SELECT ON of_owner.things TO every_kind_reader WITH GRANT OPTION;
SET ROLE every_kind_reader;
GRANT SELECT ON of_owner.things TO "every kind: Größe ""x""";
RESET ROLE;
ALTER FUNCTION plain.twice(integer) OWNER TO every_kind_owner;
ALTER TYPE plain.mood OWNER TO "every kind: Größe ""x""";
ALTER LARGE OBJECT 5000002 OWNER TO every_kind_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE every_kind_owner GRANT USAGE ON SCHEMAS TO every_kind_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE every_kind_reader REVOKE ALL ON TABLES FROM every_kind_reader;

-- privileges of what every database has
GRANT SELECT ON pg_catalog.pg_authid TO every_kind_reader;
GRANT SELECT (subconninfo) ON pg_catalog.pg_subscription TO every_kind_reader;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO every_kind_reader;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE sql TO every_kind_reader;
GRANT USAGE ON SCHEMA pg_catalog TO every_kind_reader;

-- base types, shell types, operator classes
CREATE TYPE plain.shell;
CREATE TYPE plain.mine;
CREATE FUNCTION plain.mine_in(cstring) RETURNS plain.mine LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION plain.mine_out(plain.mine) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE plain.mine (INPUT = plain.mine_in, OUTPUT = plain.mine_out, LIKE = text, CATEGORY = 'X', PREFERRED = true, DEFAULT = 'a;b', DELIMITER = ';', COLLATABLE = true);
COMMENT ON TYPE plain.mine IS 'base type';
CREATE TABLE plain.of_mine (m plain.mine, ms plain.mine[]);
INSERT INTO plain.of_mine VALUES ('x', '{a;b}');
CREATE CAST (plain.mine AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (text AS plain.mine) WITHOUT FUNCTION;
CREATE FUNCTION plain.mine_less(plain.mine, plain.mine) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'text_lt';
CREATE FUNCTION plain.mine_equal(plain.mine, plain.mine) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'texteq';
CREATE FUNCTION plain.mine_compare(plain.mine, plain.mine) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'bttextcmp';
CREATE FUNCTION plain.mine_hash(plain.mine) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'hashtext';
CREATE OPERATOR plain.<< (FUNCTION = plain.mine_less, LEFTARG = plain.mine, RIGHTARG = plain.mine);
CREATE OPERATOR plain.== (FUNCTION = plain.mine_equal, LEFTARG = plain.mine, RIGHTARG = plain.mine, HASHES, MERGES);
CREATE OPERATOR FAMILY plain.family USING btree;
CREATE OPERATOR CLASS plain.mine_ops FOR TYPE plain.mine USING btree FAMILY plain.family AS
    OPERATOR 1 plain.<<, OPERATOR 3 plain.==, FUNCTION 1 plain.mine_compare(plain.mine, plain.mine);
CREATE OPERATOR CLASS plain.mine_hashes DEFAULT FOR TYPE plain.mine USING hash AS OPERATOR 1 plain.==, FUNCTION 1 plain.mine_hash(plain.mine);
ALTER OPERATOR FAMILY plain.family USING btree ADD FUNCTION 1 (integer, bigint) btint48cmp(integer, bigint);
COMMENT ON OPERATOR CLASS plain.mine_ops USING btree IS 'class';
COMMENT ON OPERATOR FAMILY plain.family USING btree IS 'family';
CREATE INDEX by_mine ON plain.of_mine (m plain.mine_ops);
CREATE INDEX by_mine_hash ON plain.of_mine USING hash (m);

-- languages, transforms, access methods, text search
CREATE FUNCTION plain.handle() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION plain.handle_inline(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION plain.validate(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED LANGUAGE "our language" HANDLER plain.handle INLINE plain.handle_inline VALIDATOR plain.validate;
COMMENT ON LANGUAGE "our language" IS 'language';
GRANT USAGE ON LANGUAGE "our language" TO every_kind_reader WITH GRANT OPTION;
CREATE FUNCTION plain.in_ours() RETURNS integer LANGUAGE "our language" AS $$ BEGIN RETURN 1; END $$;
CREATE TRANSFORM FOR integer LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
CREATE TRANSFORM FOR plain.mine LANGUAGE "our language" (FROM SQL WITH FUNCTION prsd_lextype(internal));
COMMENT ON TRANSFORM FOR integer LANGUAGE sql IS 'transform';
CREATE FUNCTION plain.transformed(integer) RETURNS integer LANGUAGE sql TRANSFORM FOR TYPE integer AS 'SELECT $1';
CREATE ACCESS METHOD "heap; two" TYPE TABLE HANDLER heap_tableam_handler;
CREATE ACCESS METHOD hash_two TYPE INDEX HANDLER hashhandler;
COMMENT ON ACCESS METHOD "heap; two" IS 'method';
CREATE TABLE plain.in_heap_two (id integer) USING "heap; two";
INSERT INTO plain.in_heap_two VALUES (1);
CREATE MATERIALIZED VIEW plain.view_in_heap_two USING "heap; two" AS SELECT 1 AS one;
CREATE OPERATOR CLASS plain.integers_two DEFAULT FOR TYPE integer USING hash_two AS OPERATOR 1 =, FUNCTION 1 hashint4(integer);
CREATE INDEX by_two ON plain.in_heap_two USING hash_two (id);
CREATE TEXT SEARCH PARSER plain.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
COMMENT ON TEXT SEARCH PARSER plain.parser IS 'parser';
CREATE TEXT SEARCH TEMPLATE plain.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
COMMENT ON TEXT SEARCH TEMPLATE plain.template IS 'template';
CREATE TEXT SEARCH DICTIONARY plain.of_template (TEMPLATE = plain.template);
CREATE TEXT SEARCH CONFIGURATION plain.of_parser (PARSER = plain.parser);
ALTER TEXT SEARCH CONFIGURATION plain.of_parser ADD MAPPING FOR asciiword WITH plain.of_template;

-- casts and functions of what every database has
CREATE CAST (bytea AS uuid) WITH INOUT;
CREATE FUNCTION plain.planned(internal) RETURNS internal LANGUAGE internal STRICT AS 'generate_series_int4_support';
CREATE FUNCTION plain.supported(integer, integer) RETURNS SETOF integer LANGUAGE internal STRICT ROWS 10 SUPPORT plain.planned AS 'generate_series_int4';

-- foreign data
CREATE FOREIGN DATA WRAPPER "our wrapper" OPTIONS (debug 'it''s');
COMMENT ON FOREIGN DATA WRAPPER "our wrapper" IS 'wrapper';
GRANT USAGE ON FOREIGN DATA WRAPPER "our wrapper" TO every_kind_owner;
CREATE SERVER "our server" TYPE 'none' VERSION '1.0' FOREIGN DATA WRAPPER "our wrapper" OPTIONS (host 'nowhere; COMMIT;');
COMMENT ON SERVER "our server" IS 'server';
GRANT USAGE ON FOREIGN SERVER "our server" TO every_kind_owner;
CREATE USER MAPPING FOR every_kind_reader SERVER "our server" OPTIONS (name 'x', word 'a\b');
CREATE USER MAPPING FOR PUBLIC SERVER "our server";
CREATE FOREIGN TABLE plain.far (id integer OPTIONS (column_name 'x;y') NOT NULL, t text DEFAULT 'z', CHECK (id > 0)) SERVER "our server" OPTIONS (t 'it''s');
COMMENT ON FOREIGN TABLE plain.far IS 'foreign';
CREATE FOREIGN TABLE plain.measured_far PARTITION OF plain.of_expression FOR VALUES FROM ('a') TO ('b') SERVER "our server";
CREATE EXTENSION postgres_fdw;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', dbname 'none');

-- extensions: privileges of their members
CREATE SCHEMA "of extensions";
CREATE EXTENSION refint WITH SCHEMA "of extensions";
GRANT EXECUTE ON FUNCTION "of extensions".check_primary_key() TO every_kind_reader WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION "of extensions".check_foreign_key() FROM PUBLIC;
GRANT USAGE ON TYPE extras.hstore TO every_kind_reader;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO every_kind_reader;

-- event triggers, publications, subscriptions
CREATE FUNCTION plain.on_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE DEBUG '%', tg_tag; END $$;
CREATE EVENT TRIGGER "on; end" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION plain.on_event();
CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION plain.on_event();
ALTER EVENT TRIGGER on_drop ENABLE ALWAYS;
CREATE EVENT TRIGGER off ON table_rewrite EXECUTE FUNCTION plain.on_event();
ALTER EVENT TRIGGER off DISABLE;
COMMENT ON EVENT TRIGGER "on; end" IS 'event';
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = '');
CREATE PUBLICATION of_schemas FOR TABLES IN SCHEMA plain, "odd ""schema""; Type: TABLE", TABLE public.kinds;
CREATE SUBSCRIPTION "some; thing" CONNECTION 'host=127.0.0.1 port=1 dbname=nowhere' PUBLICATION one, "t wo" WITH (connect = false, slot_name = NONE, binary = true);
COMMENT ON SUBSCRIPTION "some; thing" IS 'subscription';

--- owner icu
CREATE COLLATION plain.german (provider = icu, locale = 'de-u-co-phonebk');
CREATE COLLATION plain."any case" (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE plain.any_case (name text COLLATE plain."any case" UNIQUE);
INSERT INTO plain.any_case VALUES ('Straße');

--- owner 17
CREATE COLLATION plain.builtin (provider = builtin, locale = 'C.UTF-8');

--- owner 18
CREATE TABLE plain.since_18 (
    id integer CONSTRAINT "id; is there" NOT NULL,
    half integer GENERATED ALWAYS AS (id / 2) VIRTUAL,
    other integer,
    of integer,
    at daterange NOT NULL,
    CONSTRAINT not_enforced CHECK (id > 0) NOT ENFORCED,
    CONSTRAINT fk_not_enforced FOREIGN KEY (of) REFERENCES plain.tree NOT ENFORCED,
    CONSTRAINT over_time PRIMARY KEY (id, at WITHOUT OVERLAPS)
);
ALTER TABLE plain.since_18 ADD CONSTRAINT late_not_null NOT NULL other NOT VALID;
COMMENT ON CONSTRAINT "id; is there" ON plain.since_18 IS 'named';
CREATE TABLE plain.no_inherit (id integer CONSTRAINT mine NOT NULL NO INHERIT);
CREATE TABLE plain.during (id integer, at daterange, FOREIGN KEY (id, PERIOD at) REFERENCES plain.since_18 (id, PERIOD at));
INSERT INTO plain.since_18 (id, other, at) VALUES (7, 1, '[2024-01-01,2024-02-01)');
CREATE PUBLICATION with_generated FOR TABLE plain.since_18 WITH (publish_generated_columns = stored);
