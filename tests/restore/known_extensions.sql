-- The extensions of PostgreSQL's contrib, each in a schema of its own and used as databases use them.
-- Each section begins with `--- name`; the test makes schema and extension, and sets the search path to that schema.
--- hstore
CREATE TABLE hstore_t (id int PRIMARY KEY, h hstore NOT NULL DEFAULT 'a=>1'::hstore CHECK (h ? 'a'));
INSERT INTO hstore_t VALUES (1, 'a=>1,b=>NULL'), (2, DEFAULT);
CREATE INDEX ON hstore_t USING gin (h); CREATE INDEX ON hstore_t USING gist (h); CREATE INDEX ON hstore_t ((h -> 'a'));
CREATE VIEW hstore_v AS SELECT id, (each(h)).key FROM hstore_t;
--- ltree
CREATE TABLE ltree_t (path ltree PRIMARY KEY); INSERT INTO ltree_t VALUES ('top.science'), ('top.science.stars');
CREATE INDEX ON ltree_t USING gist (path gist_ltree_ops (siglen = 100));
CREATE MATERIALIZED VIEW ltree_m AS SELECT path FROM ltree_t WHERE path ~ '*.stars';
--- citext
CREATE TABLE citext_t (name citext UNIQUE, CHECK (name <> 'NOBODY')); INSERT INTO citext_t VALUES ('Ada'), ('olga');
CREATE DOMAIN email AS citext CHECK (VALUE ~ '@'); CREATE TABLE citext_d (e email); INSERT INTO citext_d VALUES ('A@b');
--- pg_trgm
CREATE TABLE trgm_t (t text); INSERT INTO trgm_t SELECT md5(i::text) FROM generate_series(1, 50) i;
CREATE INDEX ON trgm_t USING gin (t gin_trgm_ops); CREATE INDEX ON trgm_t USING gist (t gist_trgm_ops (siglen = 32));
CREATE VIEW trgm_v AS SELECT t FROM trgm_t WHERE t % 'word' ORDER BY t <-> 'word';
--- btree_gist
CREATE TABLE gist_t (room int, during int4range, EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO gist_t VALUES (1, '[1,5)'), (1, '[5,9)'), (2, '[1,9)');
--- btree_gin
CREATE TABLE gin_t (a int, b text[]); INSERT INTO gin_t VALUES (1, '{x,y}'); CREATE INDEX ON gin_t USING gin (a, b);
--- cube
CREATE TABLE cube_t (c cube); INSERT INTO cube_t VALUES ('(1,2),(3,4)'), ('(0,0)');
CREATE INDEX ON cube_t USING gist (c); CREATE VIEW cube_v AS SELECT c -> 1 AS x FROM cube_t WHERE c <@ '(0,0),(9,9)'::cube;
--- earthdistance
CREATE TABLE earth_t (place earth); INSERT INTO earth_t VALUES (ll_to_earth(48.2, 16.37));
--- intarray
CREATE TABLE intarray_t (a int[]); INSERT INTO intarray_t VALUES ('{1,2}'), ('{3}');
CREATE INDEX ON intarray_t USING gist (a gist__int_ops); CREATE INDEX ON intarray_t USING gin (a gin__int_ops);
CREATE TABLE query_t (q query_int); INSERT INTO query_t VALUES ('1&(2|3)');
--- isn
CREATE TABLE isn_t (book isbn13 PRIMARY KEY, number ean13); INSERT INTO isn_t VALUES ('978-0-393-04002-9', '4006381333931');
--- lo
CREATE TABLE lo_t (id int, picture lo); INSERT INTO lo_t VALUES (1, lo_from_bytea(0, 'picture'));
CREATE TRIGGER tidy BEFORE UPDATE OR DELETE ON lo_t FOR EACH ROW EXECUTE FUNCTION lo_manage(picture);
--- pgcrypto
CREATE TABLE crypto_t (id uuid DEFAULT gen_random_uuid(), secret text, d bytea GENERATED ALWAYS AS (digest(secret, 'sha256')) STORED);
INSERT INTO crypto_t (secret) VALUES ('x'); CREATE INDEX ON crypto_t (encode(hmac(secret, 'key', 'md5'), 'hex'));
--- postgres_fdw
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'elsewhere.invalid', dbname 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere OPTIONS (user 'u', password 'p');
CREATE FOREIGN TABLE far_t (i int OPTIONS (column_name 'j')) SERVER elsewhere OPTIONS (schema_name 's');
GRANT USAGE ON FOREIGN SERVER elsewhere TO every_kind_reader;
--- file_fdw
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE file_t (line text) SERVER files OPTIONS (filename '/nowhere', format 'csv', header 'true');
--- dblink
CREATE SERVER link FOREIGN DATA WRAPPER dblink_fdw OPTIONS (host 'elsewhere.invalid');
CREATE VIEW link_v AS SELECT * FROM dblink('link', 'SELECT 1') AS t (i int);
--- tablefunc
CREATE VIEW crosstab_v AS SELECT * FROM crosstab('SELECT 1, ''a'', 2') AS ct (row_name int, a int);
CREATE TABLE normal_t (x float DEFAULT 1.5); CREATE VIEW normal_v AS SELECT * FROM normal_rand(2, 1, 1);
--- unaccent
CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION plain ALTER MAPPING FOR hword, hword_part, word WITH unaccent, simple;
CREATE TABLE accents_t (t text); INSERT INTO accents_t VALUES ('Hôtel');
DO $$ BEGIN EXECUTE format('CREATE INDEX ON accents_t USING gin (to_tsvector(%L::regconfig, t))', 'x_unaccent.plain'); END $$;
--- uuid-ossp
CREATE TABLE uuid_t (id uuid DEFAULT uuid_generate_v4() PRIMARY KEY, n uuid DEFAULT uuid_generate_v5(uuid_ns_url(), 'x'));
INSERT INTO uuid_t DEFAULT VALUES;
--- tsm_system_rows
CREATE TABLE rows_t AS SELECT i FROM generate_series(1, 40) i; CREATE VIEW rows_v AS SELECT i FROM rows_t TABLESAMPLE system_rows (3);
--- tsm_system_time
CREATE TABLE time_t (i int); CREATE VIEW time_v AS SELECT i FROM time_t TABLESAMPLE system_time (3);
--- fuzzystrmatch
CREATE TABLE fuzzy_t (name text); INSERT INTO fuzzy_t VALUES ('Robert'), ('Rupert');
CREATE INDEX ON fuzzy_t (soundex(name)); CREATE INDEX ON fuzzy_t (dmetaphone(name));
--- dict_int
CREATE TEXT SEARCH DICTIONARY short (TEMPLATE = intdict_template, MAXLEN = 4, REJECTLONG = true);
CREATE TEXT SEARCH CONFIGURATION numbers (COPY = simple); ALTER TEXT SEARCH CONFIGURATION numbers ALTER MAPPING FOR int WITH short;
--- dict_xsyn
CREATE TEXT SEARCH DICTIONARY synonyms (TEMPLATE = xsyn_template, RULES = 'xsyn_sample', KEEPORIG = false);
--- seg
CREATE TABLE seg_t (s seg); INSERT INTO seg_t VALUES ('1.5 .. 2.50'), ('<3'); CREATE INDEX ON seg_t USING gist (s);
--- bloom
CREATE TABLE bloom_t (a int, b int); INSERT INTO bloom_t SELECT i, i FROM generate_series(1, 50) i;
CREATE INDEX ON bloom_t USING bloom (a, b) WITH (length = 80, col1 = 2);
--- moddatetime
CREATE TABLE mod_t (i int, at timestamptz); INSERT INTO mod_t VALUES (1, '2026-01-01');
CREATE TRIGGER touched BEFORE UPDATE ON mod_t FOR EACH ROW EXECUTE FUNCTION moddatetime(at);
--- insert_username
CREATE TABLE who_t (i int, who text); INSERT INTO who_t VALUES (1, 'ada');
CREATE TRIGGER signed BEFORE INSERT ON who_t FOR EACH ROW EXECUTE FUNCTION insert_username(who);
--- tcn
CREATE TABLE tcn_t (i int PRIMARY KEY); INSERT INTO tcn_t VALUES (1);
CREATE TRIGGER told AFTER INSERT ON tcn_t FOR EACH ROW EXECUTE FUNCTION triggered_change_notification();
--- xml2
CREATE TABLE xml_t (x text); INSERT INTO xml_t VALUES ('<a>1</a>'); CREATE VIEW xml_v AS SELECT xpath_string(x, '/a') FROM xml_t;
--- pgstattuple
GRANT EXECUTE ON FUNCTION pgstattuple(text) TO every_kind_reader WITH GRANT OPTION;
CREATE VIEW stat_v AS SELECT * FROM pgstattuple('pg_catalog.pg_class');
--- pageinspect
GRANT EXECUTE ON FUNCTION get_raw_page(text, int8) TO every_kind_reader;
--- pg_stat_statements
GRANT SELECT ON pg_stat_statements TO every_kind_reader; REVOKE SELECT ON pg_stat_statements FROM PUBLIC;
--- pg_buffercache
GRANT SELECT ON pg_buffercache TO every_kind_reader;
--- pg_visibility
GRANT EXECUTE ON FUNCTION pg_visibility(regclass) TO every_kind_reader;
--- pgrowlocks
REVOKE EXECUTE ON FUNCTION pgrowlocks(text) FROM PUBLIC;
--- pg_prewarm
GRANT EXECUTE ON FUNCTION pg_prewarm(regclass, text, text, int8, int8) TO every_kind_reader;
--- amcheck
GRANT EXECUTE ON FUNCTION bt_index_check(regclass) TO every_kind_reader;
--- intagg
CREATE VIEW agg_v AS SELECT int_array_enum('{1,2}'::int[]) AS i;
