-- Entries of the dump that need what is left out of it: views, rules, functions, triggers, policies, tables and types that
-- depend on tables that are left out, and foreign keys to these or to tables whose rows are left out. Parameters:
-- excluded and emptied, each a text[] written by format('%%I.%%I'); schemas, one written by quote_ident. Columns: needs,
-- entries.
WITH RECURSIVE relation AS MATERIALIZED (
  SELECT c.oid, c.relkind, n.nspname, c.relname, c.relacl, c.relispopulated, n.oid AS relschema,
         format('%%I.%%I', n.nspname, c.relname) AS written
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384),
gone AS MATERIALIZED (SELECT * FROM relation WHERE written = ANY (%(excluded)s::text[])),
emptied AS MATERIALIZED (SELECT * FROM relation WHERE written = ANY (%(emptied)s::text[])),
member AS MATERIALIZED (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
elsewhere AS MATERIALIZED (
  SELECT oid, quote_ident(nspname) AS written FROM pg_namespace WHERE quote_ident(nspname) = ANY (%(schemas)s::text[])),
-- by way of row types, of their arrays, of views and of functions
lost (classid, objid, needs) AS (
  SELECT * FROM (
    SELECT 'pg_class'::regclass::oid, g.oid, coalesce(e.written, g.written)
      FROM gone g LEFT JOIN elsewhere e ON starts_with(g.written, e.written || '.')
    UNION SELECT d.classid, d.objid, e.written
      FROM elsewhere e JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = e.oid) seed
  UNION
  SELECT u.classid, u.objid, l.needs
    FROM lost l CROSS JOIN LATERAL (
      SELECT 'pg_type'::regclass::oid AS classid, t.oid AS objid FROM pg_type t
       WHERE (l.classid = 'pg_class'::regclass AND t.typrelid = l.objid)
          OR (l.classid = 'pg_type'::regclass AND t.typelem = l.objid AND t.typcategory = 'A')
      UNION ALL
      SELECT CASE WHEN v.relkind IN ('v', 'm') THEN 'pg_class'::regclass::oid ELSE d.classid END,
             CASE WHEN v.relkind IN ('v', 'm') THEN v.oid ELSE d.objid END
        FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
        JOIN relation v ON v.oid = r.ev_class
       WHERE d.refclassid = l.classid AND d.refobjid = l.objid AND d.deptype = 'n'
      UNION ALL
      SELECT d.classid, d.objid FROM pg_depend d
       WHERE d.refclassid = l.classid AND d.refobjid = l.objid
         AND (d.deptype = 'n' AND d.classid IN ('pg_proc'::regclass, 'pg_policy'::regclass, 'pg_class'::regclass,
                                                'pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_type'::regclass,
                                                'pg_cast'::regclass, 'pg_event_trigger'::regclass,
                                                'pg_operator'::regclass)
              OR d.deptype IN ('n', 'a') AND d.classid IN ('pg_trigger'::regclass, 'pg_cast'::regclass))
      UNION ALL
      -- the table of a default or a CHECK, which are written with it
      SELECT 'pg_class'::regclass::oid, f.adrelid FROM pg_attrdef f WHERE l.classid = 'pg_attrdef'::regclass AND f.oid = l.objid
      UNION ALL
      SELECT 'pg_class'::regclass::oid, k.conrelid FROM pg_constraint k
       WHERE l.classid = 'pg_constraint'::regclass AND k.oid = l.objid AND k.contype = 'c' AND k.conrelid <> 0
      UNION ALL
      SELECT 'pg_type'::regclass::oid, k.contypid FROM pg_constraint k
       WHERE l.classid = 'pg_constraint'::regclass AND k.oid = l.objid AND k.contypid <> 0) u),
-- a foreign key of a partition belongs to that of its table
key (oid, root, needs) AS (
  SELECT k.oid, k.oid, e.written FROM emptied e JOIN pg_constraint k ON k.confrelid = e.oid AND k.convalidated
   WHERE k.contype = 'f'
  UNION SELECT k.oid, k.oid, l.needs FROM lost l JOIN pg_constraint k ON k.oid = l.objid AND k.contype = 'f'
   WHERE l.classid = 'pg_constraint'::regclass
  UNION SELECT key.oid, k.conparentid, key.needs FROM key JOIN pg_constraint k ON k.oid = key.root AND k.conparentid <> 0),
found (needs, entry, relid) AS (
  SELECT l.needs,
         unnest(ARRAY[
           CASE r.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'c' THEN 'TYPE'
                          WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END || format(' %%s.%%s', r.nspname, r.relname),
           CASE WHEN r.relkind = 'm' AND r.relispopulated THEN format('MATERIALIZED VIEW DATA %%s.%%s', r.nspname, r.relname)
                WHEN r.relkind = 'r' THEN format('TABLE DATA %%s.%%s', r.nspname, r.relname) END,
           CASE WHEN r.relacl IS NOT NULL AND r.relkind <> 'c' THEN format('ACL %%s.TABLE %%s', r.nspname, r.relname) END,
           CASE WHEN obj_description(r.oid, 'pg_class') IS NOT NULL AND r.relkind IN ('v', 'm')
                THEN format('COMMENT %%s.%%s %%s', r.nspname, CASE r.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END,
                            r.relname) END]),
         r.oid
    FROM lost l JOIN relation r ON l.classid = 'pg_class'::regclass AND r.oid = l.objid
   WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND r.relschema NOT IN (SELECT oid FROM elsewhere)
  UNION ALL
  SELECT l.needs, format('INDEX %%s.%%s', i.nspname, i.relname), x.indrelid
    FROM lost l JOIN pg_index x ON l.classid = 'pg_class'::regclass AND x.indrelid = l.objid
    JOIN relation m ON m.oid = x.indrelid AND m.relkind = 'm' JOIN relation i ON i.oid = x.indexrelid
  UNION ALL
  SELECT l.needs, CASE WHEN k.oid IS NULL THEN format('INDEX %%s.%%s', i.nspname, i.relname)
                       ELSE format('CONSTRAINT %%s.%%s %%s', r.nspname, r.relname, k.conname) END, r.oid
    FROM lost l JOIN pg_index x ON l.classid = 'pg_class'::regclass AND x.indexrelid = l.objid
    JOIN relation i ON i.oid = x.indexrelid JOIN relation r ON r.oid = x.indrelid
    LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.conrelid = r.oid AND k.contype IN ('p', 'u', 'x')
  UNION ALL
  SELECT l.needs, format('%%s %%s.%%s', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, n.nspname, t.typname), 0
    FROM lost l JOIN pg_type t ON l.classid = 'pg_type'::regclass AND t.oid = l.objid AND t.typtype IN ('d', 'r')
    JOIN pg_namespace n ON n.oid = t.typnamespace
   WHERE n.oid NOT IN (SELECT oid FROM elsewhere)
  UNION ALL
  SELECT l.needs, format('CAST CAST (%%s AS %%s)', format_type(t.castsource, NULL), format_type(t.casttarget, NULL)), 0
    FROM lost l JOIN pg_cast t ON l.classid = 'pg_cast'::regclass AND t.oid = l.objid
  UNION ALL
  SELECT l.needs, format('EVENT TRIGGER %%s', t.evtname), 0
    FROM lost l JOIN pg_event_trigger t ON l.classid = 'pg_event_trigger'::regclass AND t.oid = l.objid
  UNION ALL
  SELECT l.needs, format('RULE %%s.%%s %%s', r.nspname, r.relname, w.rulename), r.oid
    FROM lost l JOIN pg_rewrite w ON l.classid = 'pg_rewrite'::regclass AND w.oid = l.objid
    JOIN relation r ON r.oid = w.ev_class
  UNION ALL
  SELECT l.needs, format('TRIGGER %%s.%%s %%s', r.nspname, r.relname, t.tgname), r.oid
    FROM lost l JOIN pg_trigger t ON l.classid = 'pg_trigger'::regclass AND t.oid = l.objid AND NOT t.tgisinternal
    JOIN relation r ON r.oid = t.tgrelid
  UNION ALL
  SELECT l.needs, format('POLICY %%s.%%s %%s', r.nspname, r.relname, p.polname), r.oid
    FROM lost l JOIN pg_policy p ON l.classid = 'pg_policy'::regclass AND p.oid = l.objid
    JOIN relation r ON r.oid = p.polrelid
  UNION ALL
  SELECT l.needs,
         format('%%s %%s.%%s(%%s)', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END,
                n.nspname, p.proname,
                array_to_string(ARRAY(SELECT format_type(t, NULL)
                                        FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, place) ORDER BY place), ', ')),
         0
    FROM lost l JOIN pg_proc p ON l.classid = 'pg_proc'::regclass AND p.oid = l.objid
    JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE n.oid NOT IN (SELECT oid FROM elsewhere)
  UNION ALL
  SELECT y.needs, unnest(ARRAY[format('FK CONSTRAINT %%s.%%s %%s', r.nspname, r.relname, k.conname),
                               CASE WHEN obj_description(k.oid, 'pg_constraint') IS NOT NULL
                                    THEN format('COMMENT %%s.CONSTRAINT %%s ON %%s', r.nspname, k.conname, r.relname) END]), r.oid
    FROM key y JOIN pg_constraint k ON k.oid = y.root AND k.conparentid = 0 JOIN relation r ON r.oid = k.conrelid
   WHERE r.oid NOT IN (SELECT oid FROM emptied))
SELECT needs, array_agg(DISTINCT entry COLLATE "C" ORDER BY entry COLLATE "C") AS entries
  FROM found
 WHERE entry IS NOT NULL AND relid NOT IN (SELECT oid FROM gone)
   AND ('pg_class'::regclass, relid) NOT IN (SELECT classid, objid FROM member)
 GROUP BY needs ORDER BY needs COLLATE "C"
