-- Functions in SQL and PL/pgSQL without a fixed search_path that run while a dump is restored, with the entries that
-- run them: function, body, entries. What an index, a CHECK (of a domain too), a generated column or a materialised
-- view calls, also by way of views.
WITH RECURSIVE seen (matview, relation) AS (
  SELECT oid, oid FROM pg_class WHERE relkind = 'm' AND relispopulated
  UNION
  SELECT s.matview, v.oid
    FROM seen s JOIN pg_rewrite r ON r.ev_class = s.relation
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class v ON v.oid = d.refobjid AND v.relkind = 'v'),
used (proc, entry) AS (
  SELECT d.refobjid, CASE WHEN k.oid IS NULL THEN format('INDEX %%s.%%s', n.nspname, c.relname)
                          ELSE format('CONSTRAINT %%s.%%s %%s', n.nspname, t.relname, k.conname) END
    FROM pg_depend d JOIN pg_index x ON x.indexrelid = d.objid JOIN pg_class c ON c.oid = d.objid
    JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.conrelid = t.oid
   WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_proc'::regclass
  UNION ALL
  SELECT d.refobjid, format('TABLE DATA %%s.%%s', n.nspname, t.relname)
    FROM pg_depend d
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.contype = 'c' AND k.convalidated
    LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
         AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated = 's')
    JOIN pg_class t ON t.oid = coalesce(nullif(k.conrelid, 0), f.adrelid) AND t.relkind = 'r'
    JOIN pg_namespace n ON n.oid = t.relnamespace
   WHERE d.classid IN ('pg_constraint'::regclass, 'pg_attrdef'::regclass) AND d.refclassid = 'pg_proc'::regclass
  UNION ALL
  SELECT d.refobjid, format('TABLE DATA %%s.%%s', n.nspname, t.relname)
    FROM pg_depend d JOIN pg_constraint k ON k.oid = d.objid AND k.contypid <> 0
    JOIN pg_depend a ON a.refclassid = 'pg_type'::regclass AND a.refobjid = k.contypid AND a.classid = 'pg_class'::regclass
    JOIN pg_class t ON t.oid = a.objid AND t.relkind = 'r'
    JOIN pg_namespace n ON n.oid = t.relnamespace
   WHERE d.classid = 'pg_constraint'::regclass AND d.refclassid = 'pg_proc'::regclass
  UNION ALL
  SELECT d.refobjid, format('MATERIALIZED VIEW DATA %%s.%%s', n.nspname, v.relname)
    FROM seen s JOIN pg_rewrite r ON r.ev_class = s.relation
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_proc'::regclass
    JOIN pg_class v ON v.oid = s.matview
    JOIN pg_namespace n ON n.oid = v.relnamespace)
SELECT format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS function,
       p.prosrc AS body, array_agg(DISTINCT entry COLLATE "C" ORDER BY entry COLLATE "C") AS entries
  FROM used JOIN pg_proc p ON p.oid = proc JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang
 WHERE l.lanname IN ('sql', 'plpgsql') AND p.prosrc <> '' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%%')
 GROUP BY p.oid, n.nspname, p.proname, p.prosrc ORDER BY 1
