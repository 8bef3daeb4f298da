-- The rows of the sample shop. All chance is md5 and sha512 of the seed, so that a fill can be repeated.
-- Narrow rows come first: so the COPY of a restore finds no room for a row on an earlier page, and keeps their order.
-- OFFSET 0 lets a row be made once, not again for its width.

-- How many rows make the wanted bytes of a plain dump: each table's share, by the bytes of one row in it.
CREATE TEMP TABLE wanted ON COMMIT DROP AS
SELECT seed, scan, (rest * 8 / 96 / 479)::integer AS customers, (rest * 33 / 96 / 4885)::integer AS products,
       (rest * 12 / 96 / 195)::integer AS orders, (rest * 3 / 96 / 22)::integer AS order_items,
       (rest * 40 / 96 / 467)::integer AS events
FROM (SELECT seed, megabytes * 1000000::bigint - 65000 AS bytes FROM public.sample_database) AS asked,
LATERAL (SELECT least(bytes / 50, 16000000)::integer AS scan) AS large_object,
LATERAL (SELECT bytes - 2 * scan AS rest) AS tables;

CREATE TEMP TABLE awkward ON COMMIT DROP AS SELECT n::integer, text FROM unnest(ARRAY[
    E'tab\there', E'line\nbreak', E'carriage\rreturn\r\n', E'back\\slash', E'ends with \\', E'\\.', E'\\N',
    E'\n\\.\n', '', ' ', 'NULL', 'it''s', 'say "hi"', E'emoji 🎁👩\u200d🚀', 'Grüße aus Österreich', E'e\u0301 ≠ é',
    'right-to-left שלום', E'\u2028\ufeff', E'\x01\x08\x0b\x0c\x7f', '$1 %s %(x)s {}', '''; DROP TABLE x; --',
    E'\\unrestrict abc', E'COPY shop.x (id) FROM stdin;\n1\n\\.\n',
    E'--\n-- PostgreSQL database dump complete\n--\n'
]) WITH ORDINALITY AS listed (text, n);

CREATE FUNCTION pg_temp.pick(dice text, nth integer, below integer) RETURNS integer LANGUAGE sql IMMUTABLE
    RETURN ('x' || substr(dice, 4 * nth - 3, 6))::bit(24)::integer % below;

-- For each of the rows that a table is to have: its number, 32 digits of chance, and a day.
CREATE FUNCTION pg_temp.dice(salt text, rows integer) RETURNS TABLE (i integer, dice text, day timestamptz)
    LANGUAGE sql VOLATILE
    AS $$SELECT n, md5(seed || salt || n), make_timestamptz(2024, 1 + n % 12, 1 + n % 28, 0, 0, 0, 'UTC')
         FROM pg_temp.wanted, generate_series(1, $2) AS n$$;

CREATE FUNCTION pg_temp.noise(salt text, bytes integer) RETURNS bytea LANGUAGE sql
    AS $$SELECT substr(string_agg(sha512((seed || salt || n)::bytea), ''), 1, $2)
         FROM pg_temp.wanted, generate_series(1, $2 / 64 + 1) AS n$$;

-- Values that rows are put together from, numbered from 0 to 1023.
CREATE TEMP TABLE pool ON COMMIT DROP AS
SELECT i::integer - 1 AS n, coalesce(awkward.text, sentence) AS text,
       ('{Anna,Jürgen,Zoë,Mehmet,Łukasz,Óscar,Éva,愛}'::text[])[1 + pg_temp.pick(dice, 1, 8)] || ' ' ||
           ('{Müller,O''Brien,Šimić,Nguyễn,Ångström,de_la_Cruz,Öztürk,田中}'::text[])[1 + pg_temp.pick(dice, 2, 8)] AS name,
       CASE WHEN i % 50 > 0 THEN (pg_temp.pick(dice, 3, 200) || ' Straße "' || left(dice, 1) || '"', left(dice, 4),
           ('{Wien,NULL,Łódź,Zürich,Århus,Köln}'::text[])[1 + i % 6], 'AT')::shop.address END AS address,
       ('{red,grün,sky blue,"so-called \"white\"",black\\ish,"NULL",\{curly\},"a,b",""}'::text[])
           [1 + i % 6 : i % 6 + pg_temp.pick(dice, 4, 5)] AS tags,
       interval '1 day' / 1048576 * pg_temp.pick(dice, 5, 1048576) AS clock
FROM pg_temp.dice('pool', 1024) LEFT JOIN awkward ON i = awkward.n * 41,
LATERAL (
    SELECT string_agg(words[1 + pg_temp.pick(md5(dice || k), 1, cardinality(words))], ' ') AS sentence
    FROM generate_series(1, 8 + pg_temp.pick(dice, 6, 9)) AS k, string_to_array('Lieferung Rechnung Größe Übermaß Straße '
        'schön weiß Kunde Paket order parcel customer invoice shirt jacket kettle lamp chair table drawer bottle garden '
        'bicycle window carpet mirror cotton wool leather steel oak walnut glass paper linen ceramic rubber copper silver '
        'round square narrow broad arrived returned replaced cancelled confirmed delayed opened broken repaired wrapped '
        'weighed scanned quickly slowly carefully yesterday tomorrow the a with without for from under and because', ' ') AS words
) AS sentences;
CREATE TEMP TABLE lists ON COMMIT DROP AS
SELECT n, CASE WHEN n % 3 = 0 THEN '[]' ELSE jsonb_agg(text) OVER (ORDER BY n ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) END AS list
FROM pool;
ANALYZE pool, lists;

INSERT INTO shop.customers (id, public_id, email, full_name, home, tags, preferences, credit, born, last_seen_from,
    notes, created_at) OVERRIDING SYSTEM VALUE
SELECT made.* FROM (
    SELECT i::bigint AS id, dice::uuid, ('customer.' || i || '@example.org')::shop.email, one.name AS full_name,
           two.address, one.tags, jsonb_build_object('theme', two.text, 'news', (ARRAY[true, false])[1 + i % 3],
               'limits', ARRAY[i % 7, i / 1e2, -0.50]), round(pg_temp.pick(dice, 3, 10000000) / 100.0 - 5000, 2),
           CASE WHEN i % 11 > 0 THEN day::date - 365 * (i % 70)
               ELSE ('{NULL,infinity,0044-03-15 BC}'::date[])[1 + i / 11 % 3] END,
           ('{10.1.2.3,192.168.0.0/16,2001:db8::7,::1,NULL}'::inet[])[1 + i % 5],
           CASE WHEN i % 4 > 0 THEN one.text || two.text END, day + one.clock
    FROM wanted, pg_temp.dice('customers', customers)
    JOIN pool AS one ON one.n = pg_temp.pick(dice, 1, 1024) JOIN pool AS two ON two.n = pg_temp.pick(dice, 2, 1024)
    OFFSET 0
) AS made ORDER BY pg_column_size(ROW(made.*, lower(full_name))), id;

INSERT INTO shop.products (id, category_id, sku, name, description, price, weight, attributes, colours, ratings, fits,
    delivery_time, updated_at, thumbnail)
SELECT made.*, (SELECT string_agg(sha512((id || name || n)::bytea), '') FROM generate_series(1, 33) AS n) FROM (
    SELECT i AS id, 1 + i % 20, ('SKU-' || lpad(i::text, 8, '0'))::varchar, 'Product ' || left(dice, 8) AS name,
           CASE WHEN i % 9 > 0 THEN concat_ws(' ', one.text, two.text, three.text, four.text) END,
           round(pg_temp.pick(dice, 5, 100000) / 100.0, 2) AS price,
           CASE WHEN i % 40 > 0 THEN pg_temp.pick(dice, 6, 5000000) / 1e5::float8
               ELSE ('{Infinity,NaN,-Infinity}'::float8[])[1 + i % 3] END,
           jsonb_build_object('id', i, 'nested', jsonb_build_object('a', ARRAY[one.text, NULL]), 'text', two.text),
           CASE WHEN i % 8 > 0 THEN three.tags END, ARRAY[[i % 6, NULL], [3, i % 4]]::smallint[],
           CASE i % 5 WHEN 0 THEN 'empty' WHEN 1 THEN int4range(i, NULL) WHEN 2 THEN '(,)' WHEN 3 THEN int4range(i, i + 9) END,
           ('{00:00:00,1 day 02:03:04.5,-3 days,1 year 2 mons 3 days,36:15:00}'::interval[])[1 + i % 5], day + four.clock
    FROM wanted, pg_temp.dice('products', products)
    JOIN pool AS one ON one.n = pg_temp.pick(dice, 1, 1024) JOIN pool AS two ON two.n = pg_temp.pick(dice, 2, 1024)
    JOIN pool AS three ON three.n = pg_temp.pick(dice, 3, 1024) JOIN pool AS four ON four.n = pg_temp.pick(dice, 4, 1024)
    OFFSET 0
) AS made ORDER BY pg_column_size(ROW(made.*, round(price * 1.2, 2), to_tsvector('simple', name))), id;

INSERT INTO shop.orders
SELECT made.* FROM (
    SELECT i::bigint AS id, 1 + pg_temp.pick(dice, 3, customers)::bigint,
           ('{cart,paid,shipped,delivered,zurückgegeben,"isn''t \"known\""}'::shop.order_status[])
               [1 + pg_temp.pick(dice, 5, 6)],
           CASE WHEN i % 10 > 0 THEN 99993 + 7 * i::bigint END,
           CASE i % 99 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' ELSE round(pg_temp.pick(dice, 4, 1000000) / 100.0, 2) END,
           one.address, ('{00:00:00,1 day 02:03:04.5,NULL,-3 days,14 days}'::interval[])[1 + i % 5],
           CASE WHEN i % 3 > 0 THEN two.text END, day + one.clock, day + two.clock + interval '1 year'
    FROM wanted, pg_temp.dice('orders', orders)
    JOIN pool AS one ON one.n = pg_temp.pick(dice, 1, 1024) JOIN pool AS two ON two.n = pg_temp.pick(dice, 2, 1024)
    OFFSET 0
) AS made ORDER BY pg_column_size(made), id;

INSERT INTO shop.order_items
SELECT made.* FROM (
    SELECT 1 + (i - 1) % orders::bigint AS order_id, (1 + (i - 1) / orders)::smallint AS line,
           1 + pg_temp.pick(dice, 1, products), 1 + pg_temp.pick(dice, 2, 99) AS quantity,
           round(pg_temp.pick(dice, 3, 100000) / 100.0, 2) AS unit_price
    FROM wanted, pg_temp.dice('order_items', order_items)
    OFFSET 0
) AS made ORDER BY pg_column_size(ROW(made.*, quantity * unit_price)), line, order_id;

INSERT INTO shop.events
SELECT made.* FROM (
    SELECT i::bigint AS id, CASE WHEN i % 50 > 0 THEN day
               ELSE ('{1999-12-31,2023-02-28,2031-07-01}'::timestamptz[])[1 + i % 3] END + one.clock, kind,
           CASE WHEN i % 7 > 0 THEN 1 + pg_temp.pick(dice, 5, customers)::bigint END, dice::uuid,
           ('{10.1.2.3,192.168.0.0/16,2001:db8::7,::1,fe80::1:2}'::inet[])[1 + i % 5], (i % 977 / 8.0)::real,
           jsonb_build_object('trace', md5(dice), 'path', '/' || kind || '/' || i, 'took', i % 5000, 'text', one.text,
               'more', two.list)
    FROM wanted, pg_temp.dice('events', events)
    JOIN pool AS one ON one.n = pg_temp.pick(dice, 1, 1024) JOIN lists AS two ON two.n = pg_temp.pick(dice, 2, 1024),
    LATERAL (SELECT ('{page_viewed,payment,search,error,Rückgabe,it''s odd}'::text[])[1 + i % 6] AS kind) AS kinds
    OFFSET 0
) AS made ORDER BY pg_column_size(made), id;

-- Small tables, the same in every size.
INSERT INTO shop.categories SELECT n, nullif(n / 3, 0), 'Category ' || n FROM generate_series(1, 20) AS n;
INSERT INTO shop.delivery_slots SELECT int4range(n * 10, n * 10 + 10), text FROM awkward ORDER BY n;
INSERT INTO shop.pulse SELECT FROM generate_series(1, 3);
INSERT INTO public."Währungs ""Kurse"" 🪙"
VALUES ('EUR → USD', 1.0834, 'plain'), ('€ → £', 0.85020000000000000000, NULL), ('∞', 'Infinity', '\.');
INSERT INTO shop.audit_log (relation, action, old_row, changed_by, changed_at)
SELECT 'shop.products', 'UPDATE', jsonb_build_object('name', text, 'n', n), 'someone else', '2024-02-29 12:34:56.789+00'
FROM awkward ORDER BY n;

-- Large objects have fixed numbers, so that two fills dump alike.
INSERT INTO shop.documents SELECT name, lo_from_bytea(number::oid, bytes), 'Large object ' || number, preview FROM (
    VALUES ('handbook.txt', 4200001,
            convert_to(repeat(E'Grüß Gott! 🎁\nCOPY handbook FROM stdin;\n\\.\n', 50), 'UTF8'), NULL),
           ('every byte', 4200002, decode((SELECT string_agg(lpad(to_hex(n), 2, '0'), '' ORDER BY n)
                                           FROM generate_series(0, 255) AS n), 'hex'), ''::bytea),
           ('empty', 4200003, '', '\x00'),
           ('scan "d''été".tiff', 4200004, pg_temp.noise('scan', (SELECT scan FROM wanted)),
            pg_temp.noise('preview', 5000))
) AS made (name, number, bytes, preview);
COMMENT ON LARGE OBJECT 4200001 IS 'The reader''s "handbook"';
GRANT SELECT ON LARGE OBJECT 4200001 TO shop_reader;

SELECT setval('shop.customers_id_seq', customers), setval('shop.products_id_seq', products),
       setval('shop.orders_id_seq', orders), setval('shop.invoice_numbers', 99993 + 7 * orders) FROM wanted;
