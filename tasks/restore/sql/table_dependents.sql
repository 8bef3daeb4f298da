-- What a removal of the chosen tables would take along beside them: one row each, in words.
WITH RECURSIVE chosen (oid) AS (
    SELECT to_regclass(name)::oid
      FROM unnest(current_setting('restore_tables.chosen')::text[]) name
     WHERE to_regclass(name) IS NOT NULL
), part (classid, objid) AS (
    -- what belongs to a chosen table, and comes back with it: indexes, constraints, triggers, owned sequences and so on
    SELECT 'pg_class'::regclass::oid, oid FROM chosen
     UNION
    SELECT d.classid, d.objid
      FROM part p
      JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid
     WHERE d.deptype IN ('a', 'i', 'P', 'S')
       AND NOT (d.classid = 'pg_class'::regclass
                AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind IN ('r', 'p', 'f')))
       AND NOT (d.classid = 'pg_trigger'::regclass
                AND EXISTS (SELECT FROM pg_trigger t
                             WHERE t.oid = d.objid AND NOT t.tgisinternal
                               AND t.tgrelid NOT IN (SELECT oid FROM chosen)))
), dependent (classid, objid, objsubid) AS (
    SELECT d.classid, d.objid, d.objsubid
      FROM part p
      JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid
     WHERE (d.classid, d.objid) NOT IN (SELECT classid, objid FROM part)
       -- foreign keys of tables that stay are put back afterwards
       AND NOT (d.classid = 'pg_constraint'::regclass
                AND EXISTS (SELECT FROM pg_constraint f
                             WHERE f.oid = d.objid AND f.contype = 'f'
                               AND f.confrelid IN (SELECT oid FROM chosen)))
)
SELECT DISTINCT CASE WHEN view.oid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid)
                     ELSE pg_describe_object('pg_class'::regclass, view.oid, 0) END AS name
  FROM dependent d
  LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
  LEFT JOIN pg_class view ON view.oid = r.ev_class AND view.relkind IN ('v', 'm')
 UNION
SELECT 'subscription ' || s.subname
  FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
 WHERE r.srrelid IN (SELECT oid FROM chosen)
 ORDER BY name
