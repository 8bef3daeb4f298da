-- Entries of a dump, as (kind, schema, tag) in pg_dump's words, that must not run where what they are about stays and
-- this role may not change it; and those about functions that relations of the catalogue need.
WITH kept AS (
    SELECT DISTINCT p.oid, 'FUNCTION' AS kind, n.nspname, p.proname || '()' AS name
      FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid JOIN pg_namespace n ON n.oid = pronamespace
     WHERE NOT tgisinternal AND tgrelid IN (SELECT to_regclass(k)::oid FROM unnest(%(keep)s::text[]) k)),
members AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
closed (kind, schema, name) AS (
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relnamespace, relname::text
      FROM members JOIN pg_class ON classid = 'pg_class'::regclass AND oid = objid
     WHERE NOT pg_has_role(relowner, 'USAGE')
    UNION ALL
    SELECT 'COLUMN', relnamespace, relname || '.' || attname
      FROM members JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
      JOIN pg_attribute ON attrelid = c.oid
     WHERE attnum > 0 AND NOT attisdropped AND NOT pg_has_role(relowner, 'USAGE')
    UNION ALL
    SELECT CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, pronamespace,
           proname || '(' || array_to_string(ARRAY(SELECT format_type(a, NULL) FROM unnest(proargtypes) a), ', ') || ')'
      FROM members JOIN pg_proc ON classid = 'pg_proc'::regclass AND oid = objid
     WHERE NOT pg_has_role(proowner, 'USAGE')
    UNION ALL
    SELECT 'TYPE', typnamespace, typname::text
      FROM members JOIN pg_type ON classid = 'pg_type'::regclass AND oid = objid
     WHERE NOT pg_has_role(typowner, 'USAGE')
    UNION ALL
    SELECT 'LANGUAGE', 0, lanname::text FROM pg_language WHERE NOT pg_has_role(lanowner, 'USAGE')
    UNION ALL
    SELECT 'FOREIGN DATA WRAPPER', 0, fdwname::text
      FROM members JOIN pg_foreign_data_wrapper ON classid = 'pg_foreign_data_wrapper'::regclass AND oid = objid
     WHERE NOT pg_has_role(fdwowner, 'USAGE')
    UNION ALL
    SELECT 'FOREIGN SERVER', 0, srvname::text
      FROM members JOIN pg_foreign_server ON classid = 'pg_foreign_server'::regclass AND oid = objid
     WHERE NOT pg_has_role(srvowner, 'USAGE')
    UNION ALL
    SELECT 'SCHEMA', 0, nspname::text FROM pg_namespace n WHERE NOT pg_has_role(nspowner, 'USAGE')),
config AS (
    SELECT relkind, nspname, relname
      FROM (SELECT DISTINCT unnest(extconfig) FROM pg_extension) e (oid) JOIN pg_class c USING (oid)
      JOIN pg_namespace n ON n.oid = relnamespace
     WHERE CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(c.oid, 'UPDATE')
                        ELSE NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                                  AND has_table_privilege(c.oid, 'DELETE') AND NOT row_security_active(c.oid)) END)
SELECT 'FUNCTION' AS kind, nspname AS schema, name AS tag FROM kept
UNION ALL SELECT k, nspname, 'FUNCTION ' || name FROM kept, unnest(ARRAY['ACL', 'COMMENT']) k
UNION ALL SELECT 'ACL', coalesce(n.nspname, '-'), kind || ' ' || name
            FROM closed LEFT JOIN pg_namespace n ON n.oid = schema
UNION ALL SELECT 'SCHEMA', '-', name FROM closed WHERE kind = 'SCHEMA'
UNION ALL SELECT 'COMMENT', '-', 'SCHEMA ' || name FROM closed WHERE kind = 'SCHEMA'
UNION ALL SELECT 'COMMENT', '-', 'EXTENSION ' || extname FROM pg_extension WHERE NOT pg_has_role(extowner, 'USAGE')
UNION ALL SELECT 'EVENT TRIGGER', '-', evtname FROM pg_event_trigger WHERE current_setting('is_superuser') = 'off'
UNION ALL SELECT 'COMMENT', '-', 'EVENT TRIGGER ' || evtname
            FROM pg_event_trigger WHERE current_setting('is_superuser') = 'off'
UNION ALL SELECT 'ROW SECURITY', n.nspname, name FROM closed JOIN pg_namespace n ON n.oid = schema WHERE kind = 'TABLE'
UNION ALL SELECT 'POLICY', n.nspname, relname || ' ' || polname
            FROM pg_policy JOIN pg_class c ON c.oid = polrelid JOIN pg_namespace n ON n.oid = relnamespace
            JOIN closed ON kind = 'TABLE' AND schema = relnamespace AND name = relname
UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE SET' ELSE 'TABLE DATA' END, nspname, relname FROM config
