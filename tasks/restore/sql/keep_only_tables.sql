-- Removes all tables but the chosen ones, and what depends on those removed. A table without which a chosen one could
-- not be (a policy, a function or the type of a column names it) stays, without rows.
DO $restore$
DECLARE
    chosen oid[] := array(SELECT to_regclass(name)::oid
                            FROM unnest(current_setting('restore_tables.chosen')::text[]) name);
    statements text[];
    statement text;
BEGIN
    FOREACH statement IN ARRAY array(
        SELECT format('ALTER TABLE %s NO INHERIT %s', i.inhrelid::regclass, i.inhparent::regclass)
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhrelid = ANY (chosen) AND i.inhparent <> ALL (chosen)
           AND c.relkind IN ('r', 'f') AND NOT c.relispartition
         UNION ALL
        SELECT DISTINCT format('ALTER SEQUENCE %s OWNED BY NONE', s.oid::regclass)
          FROM pg_class s
          JOIN pg_depend owned ON owned.classid = 'pg_class'::regclass AND owned.objid = s.oid
          JOIN pg_depend used ON used.refclassid = 'pg_class'::regclass AND used.refobjid = s.oid
          JOIN pg_attrdef a ON used.classid = 'pg_attrdef'::regclass AND a.oid = used.objid
         WHERE s.relkind = 'S' AND owned.refclassid = 'pg_class'::regclass AND owned.deptype = 'a'
           AND owned.refobjid <> ALL (chosen) AND a.adrelid = ANY (chosen))
    LOOP
        EXECUTE statement;
    END LOOP;

    WITH RECURSIVE needed (classid, objid) AS (
        SELECT 'pg_class'::regclass::oid, oid FROM unnest(chosen) oid
         UNION
        SELECT other.classid, other.objid
          FROM needed n
         CROSS JOIN LATERAL (
               SELECT d.refclassid, d.refobjid FROM pg_depend d
                WHERE d.classid = n.classid AND d.objid = n.objid
                UNION ALL
               SELECT d.classid, d.objid FROM pg_depend d
                WHERE d.refclassid = n.classid AND d.refobjid = n.objid AND d.deptype IN ('a', 'i', 'P', 'S')
               ) other (classid, objid)
    )
    SELECT array_agg(format('DROP %s IF EXISTS %s CASCADE',
                            CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::regclass))
      INTO statements
      FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
       AND s.nspname !~ '^pg_' AND s.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM needed n WHERE n.classid = 'pg_class'::regclass AND n.objid = c.oid)
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
    FOREACH statement IN ARRAY coalesce(statements, '{}')
    LOOP
        EXECUTE statement;
    END LOOP;

    FOREACH statement IN ARRAY array(
        SELECT to_regclass(name)::text
          FROM unnest(current_setting('restore_tables.views')::text[]) WITH ORDINALITY AS views (name, number)
         WHERE to_regclass(name) IS NOT NULL ORDER BY number)
    LOOP
        BEGIN
            EXECUTE 'REFRESH MATERIALIZED VIEW ' || statement;
        EXCEPTION WHEN undefined_table OR undefined_function OR undefined_column OR undefined_object
                    OR object_not_in_prerequisite_state THEN
            RAISE WARNING 'materialized view % reads something that was not chosen, and stays empty', statement;
        END;
    END LOOP;
END
$restore$;
