-- Functions in SQL and PL/pgSQL, when one of them runs while a dump is restored: function, schema, name, body, whether it
-- has a fixed search_path, the tables that PostgreSQL knows it reads, and the entries that run it. What an index, a CHECK (of a domain too), a generated column, the key
-- of a partitioned table or a materialised view calls, also by way of views, operators and classes of operators.
-- Parameters: excluded and emptied, the tables that are left out, and those whose rows are.
WITH RECURSIVE function (oid, name, schema, proname, prosrc, fixed, reads) AS MATERIALIZED (
  SELECT p.oid, format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), n.nspname,
         p.proname, p.prosrc,
         p.prosrc = '' OR EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%%'),
         ARRAY(SELECT DISTINCT format('%%I.%%I', rn.nspname, r.relname)
                 FROM pg_depend d JOIN pg_class r ON r.oid = d.refobjid JOIN pg_namespace rn ON rn.oid = r.relnamespace
                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
                  AND r.relkind IN ('r', 'p', 'v', 'm'))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
   WHERE l.lanname IN ('sql', 'plpgsql') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
-- what stands for a function in the dependencies of what calls it
stand_in (proc, classid, objid) AS (
  SELECT oid, 'pg_proc'::regclass, oid FROM function
  UNION SELECT f.oid, 'pg_operator'::regclass, o.oid FROM function f JOIN pg_operator o ON o.oprcode = f.oid
  UNION SELECT f.oid, 'pg_opclass'::regclass, c.oid
    FROM function f JOIN pg_amproc a ON a.amproc = f.oid JOIN pg_opclass c ON c.opcfamily = a.amprocfamily
  UNION SELECT f.oid, 'pg_opclass'::regclass, c.oid
    FROM function f JOIN pg_operator o ON o.oprcode = f.oid JOIN pg_amop a ON a.amopopr = o.oid
    JOIN pg_opclass c ON c.opcfamily = a.amopfamily),
caller (proc, classid, objid) AS MATERIALIZED (
  SELECT DISTINCT s.proc, d.classid, d.objid
    FROM stand_in s JOIN pg_depend d ON d.refclassid = s.classid AND d.refobjid = s.objid
   WHERE d.classid IN ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_rewrite'::regclass)),
-- types with values of a domain in them, and tables with rows of a partitioned table
typed (proc, typid) AS (
  SELECT c.proc, k.contypid FROM caller c JOIN pg_constraint k ON k.oid = c.objid
   WHERE c.classid = 'pg_constraint'::regclass AND k.contypid <> 0
  UNION
  SELECT o.proc, t.oid
    FROM typed o JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = o.typid
    LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind = 'c'
    JOIN pg_type t ON t.oid = CASE WHEN d.classid = 'pg_type'::regclass THEN d.objid ELSE c.reltype END),
parted (proc, relid) AS (
  SELECT c.proc, t.oid FROM caller c JOIN pg_class t ON t.oid = c.objid AND t.relkind = 'p'
   WHERE c.classid = 'pg_class'::regclass
  UNION SELECT o.proc, h.inhrelid FROM parted o JOIN pg_inherits h ON h.inhparent = o.relid),
loaded (proc, relid) AS (
  SELECT proc, relid FROM parted
  UNION
  SELECT c.proc, k.conrelid FROM caller c JOIN pg_constraint k ON k.oid = c.objid AND k.contype = 'c' AND k.convalidated
   WHERE c.classid = 'pg_constraint'::regclass
  UNION
  SELECT c.proc, f.adrelid FROM caller c JOIN pg_attrdef f ON f.oid = c.objid
    JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated = 's'
   WHERE c.classid = 'pg_attrdef'::regclass
  UNION
  SELECT o.proc, d.objid FROM typed o JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = o.typid
   WHERE d.classid = 'pg_class'::regclass),
-- views, and materialised views that are filled from them
seen (proc, relid) AS (
  SELECT c.proc, r.ev_class FROM caller c JOIN pg_rewrite r ON r.oid = c.objid WHERE c.classid = 'pg_rewrite'::regclass
  UNION
  SELECT s.proc, r.ev_class
    FROM seen s JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.relid
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    JOIN pg_class v ON v.oid = s.relid AND v.relkind IN ('v', 'm')),
used (proc, entry) AS (
  SELECT u.proc, CASE WHEN k.oid IS NULL THEN format('INDEX %%s.%%s', n.nspname, c.relname)
                      ELSE format('CONSTRAINT %%s.%%s %%s', n.nspname, t.relname, k.conname) END
    FROM caller u JOIN pg_index x ON x.indexrelid = u.objid JOIN pg_class c ON c.oid = u.objid
    JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.conrelid = t.oid
   WHERE u.classid = 'pg_class'::regclass AND format('%%I.%%I', n.nspname, t.relname) <> ALL (%(excluded)s::text[])
  UNION ALL
  SELECT o.proc, format('TABLE DATA %%s.%%s', n.nspname, t.relname)
    FROM loaded o JOIN pg_class t ON t.oid = o.relid AND t.relkind = 'r' JOIN pg_namespace n ON n.oid = t.relnamespace
   WHERE format('%%I.%%I', n.nspname, t.relname) <> ALL (%(excluded)s::text[] || %(emptied)s::text[])
  UNION ALL
  SELECT s.proc, format('MATERIALIZED VIEW DATA %%s.%%s', n.nspname, v.relname)
    FROM seen s JOIN pg_class v ON v.oid = s.relid AND v.relkind = 'm' AND v.relispopulated
    JOIN pg_namespace n ON n.oid = v.relnamespace
   WHERE format('%%I.%%I', n.nspname, v.relname) <> ALL (%(excluded)s::text[]))
SELECT f.name AS function, f.schema, f.proname AS name, f.prosrc AS body, f.fixed, f.reads,
       array_agg(DISTINCT entry COLLATE "C" ORDER BY entry COLLATE "C") FILTER (WHERE entry IS NOT NULL) AS entries
  FROM function f LEFT JOIN used u ON u.proc = f.oid
 WHERE EXISTS (SELECT FROM used)
 GROUP BY f.name, f.schema, f.proname, f.prosrc, f.fixed, f.reads ORDER BY 1
