-- Entries that not every server takes, whatever the role: kind, what it takes (needs), the entry as a message of a
-- restore names it, and whether it will not load where it comes from, or on a newer major version (here).
--
-- pg_cron: the extension lives in one database of a server, so no scratch database can hold it.
-- collation: those of the server are not dumped; those that were added to this database are not in a new one.
-- unlogged_partitions: PostgreSQL 18 refuses an unlogged partitioned table.
-- disabled_triggers: triggers of a partition's foreign keys that are not as those of its parent; pg_dump names them by
--   their numbers. disabled_keys: those of other tables, which pg_dump does not mention.
-- extension_grants: privileges on functions of an extension, which another version of it may not have.
-- default_privileges: they can be set by members of the role alone.
-- Parameters: excluded and schemas, the tables and schemas that are left out.
WITH member (extension, classid, objid) AS (
  SELECT e.extname, d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
   WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.oid >= 16384),
-- members of extensions: privileges now and when they were made, as pg_dump compares them
privilege (extension, entry, is_function, now, born) AS (
  SELECT m.extension, 'ACL SCHEMA ' || n.nspname, false, coalesce(n.nspacl, acldefault('n', n.nspowner)),
         coalesce(i.initprivs, acldefault('n', n.nspowner))
    FROM member m JOIN pg_namespace n ON m.classid = 'pg_namespace'::regclass AND n.oid = m.objid
    LEFT JOIN pg_init_privs i ON (i.classoid, i.objoid, i.objsubid) = (m.classid, m.objid, 0)
  UNION ALL
  SELECT m.extension, format('ACL %%s.%%s %%s', n.nspname, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname),
         false, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)),
         coalesce(i.initprivs, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
    FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_init_privs i ON (i.classoid, i.objoid, i.objsubid) = (m.classid, m.objid, 0)
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL
  SELECT m.extension,
         format('ACL %%s.%%s %%s(%%s)', n.nspname, CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.proname,
                pg_get_function_identity_arguments(p.oid)),
         true, coalesce(p.proacl, acldefault('f', p.proowner)), coalesce(i.initprivs, acldefault('f', p.proowner))
    FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
    JOIN pg_namespace n ON n.oid = p.pronamespace
    LEFT JOIN pg_init_privs i ON (i.classoid, i.objoid, i.objsubid) = (m.classid, m.objid, 0)
   WHERE p.proacl IS NOT NULL OR i.initprivs IS NOT NULL),
changed AS (
  SELECT extension, entry, is_function FROM privilege
   WHERE ARRAY(SELECT a::text FROM unnest(now) a ORDER BY 1) <> ARRAY(SELECT a::text FROM unnest(born) a ORDER BY 1)),
-- what uses a collation of the server: through its table where it is a column's default or a CHECK
collated (name, is_added, classid, objid) AS (
  SELECT c.collname, c.oid >= 16384,
         CASE WHEN d.classid IN ('pg_rewrite'::regclass, 'pg_attrdef'::regclass) THEN 'pg_class'::regclass
              WHEN k.conrelid <> 0 THEN 'pg_class'::regclass ELSE d.classid END,
         coalesce(r.ev_class, f.adrelid, nullif(k.conrelid, 0), d.objid)
    FROM pg_depend d JOIN pg_collation c ON c.oid = d.refobjid
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
   WHERE d.refclassid = 'pg_collation'::regclass AND c.collnamespace = 'pg_catalog'::regnamespace
     AND c.collprovider IN ('c', 'i') AND c.collname NOT IN ('C', 'POSIX', 'ucs_basic')),
-- what is left out, with its indexes
gone (oid) AS (
  SELECT unnest(ARRAY[c.oid, x.indexrelid])
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index x ON x.indrelid = c.oid
   WHERE format('%%I.%%I', n.nspname, c.relname) = ANY (%(excluded)s::text[])),
partitioned (oid) AS (
  SELECT oid FROM pg_class WHERE relkind = 'p' AND relpersistence = 'u' AND oid NOT IN (
    SELECT oid FROM gone WHERE oid IS NOT NULL)),
-- triggers of foreign keys; of_parent: how that of the partitioned table is switched. Before PostgreSQL 13 none is known.
key_trigger (tgrelid, tgname, tgenabled, of_parent, conrelid, conname) AS (
  SELECT t.tgrelid, t.tgname, t.tgenabled, u.tgenabled, k.conrelid, k.conname
    FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint AND k.contype = 'f'
    JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_trigger u ON c.relispartition AND u.oid = CASE WHEN c.relispartition
                                                            THEN (to_jsonb(t) ->> 'tgparentid')::oid END
   WHERE t.tgisinternal AND (t.tgenabled <> 'O' OR t.tgenabled <> u.tgenabled)
     AND c.oid NOT IN (SELECT oid FROM gone WHERE oid IS NOT NULL) AND quote_ident(n.nspname) <> ALL (%(schemas)s::text[])),
found (kind, needs, entry, here) AS (
  SELECT 'pg_cron', 'pg_cron', 'EXTENSION pg_cron', true FROM pg_extension WHERE extname = 'pg_cron'
  UNION ALL
  SELECT 'pg_cron', 'pg_cron', 'COMMENT EXTENSION pg_cron', true FROM pg_extension
   WHERE extname = 'pg_cron' AND obj_description(oid, 'pg_extension') IS NOT NULL
  UNION ALL
  SELECT 'pg_cron', 'pg_cron',
         format('%%s %%s.%%s', CASE c.relkind WHEN 'S' THEN 'SEQUENCE SET' ELSE 'TABLE DATA' END, n.nspname, c.relname), true
    FROM pg_extension e JOIN pg_class c ON c.oid = ANY (e.extconfig) JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE e.extname = 'pg_cron'
  UNION ALL
  SELECT 'pg_cron', 'pg_cron', entry, true FROM changed WHERE extension = 'pg_cron'
  UNION ALL
  SELECT 'timescaledb', 'timescaledb', 'EXTENSION timescaledb', true FROM pg_extension WHERE extname = 'timescaledb'
  UNION ALL
  SELECT 'extension_grants', extension, entry, false FROM changed WHERE is_function AND extension <> 'pg_cron'
  UNION ALL
  SELECT 'collation', name,
         format('%%s %%s.%%s', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                                WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END,
                n.nspname, relname), is_added
    FROM collated JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
    JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind <> 't'
     AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_class'::regclass AND i.objid = c.oid
                                                 AND i.refclassid = 'pg_constraint'::regclass AND i.deptype = 'i')
     AND (classid, objid) NOT IN (SELECT m.classid, m.objid FROM member m)
     AND c.oid NOT IN (SELECT oid FROM gone WHERE oid IS NOT NULL) AND quote_ident(n.nspname) <> ALL (%(schemas)s::text[])
  UNION ALL
  SELECT 'collation', name, format('%%s %%s.%%s', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, n.nspname, typname), is_added
    FROM collated JOIN pg_type t ON classid = 'pg_type'::regclass AND t.oid = objid
    JOIN pg_namespace n ON n.oid = t.typnamespace
   WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND typtype IN ('d', 'r')
     AND quote_ident(n.nspname) <> ALL (%(schemas)s::text[])
     AND (classid, objid) NOT IN (SELECT m.classid, m.objid FROM member m)
  UNION ALL
  SELECT 'unlogged_partitions', format('%%I.%%I', n.nspname, c.relname), kind || n.nspname || '.' || name, true
    FROM partitioned p JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace,
         LATERAL (
           SELECT 'TABLE ' AS kind, c.relname::text AS name
           UNION ALL SELECT 'TABLE ATTACH ', r.relname::text
             FROM pg_inherits h JOIN pg_class r ON r.oid = h.inhrelid WHERE h.inhparent = c.oid
           UNION ALL SELECT CASE WHEN k.oid IS NULL THEN 'INDEX ' ELSE 'CONSTRAINT ' END,
                            CASE WHEN k.oid IS NULL THEN r.relname::text ELSE c.relname || ' ' || k.conname END
             FROM pg_index x JOIN pg_class r ON r.oid = x.indexrelid
             LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = c.oid WHERE x.indrelid = c.oid
           UNION ALL SELECT 'INDEX ATTACH ', r.relname::text
             FROM pg_index x JOIN pg_inherits h ON h.inhparent = x.indexrelid JOIN pg_class r ON r.oid = h.inhrelid
            WHERE x.indrelid = c.oid) AS part
  UNION ALL
  SELECT 'disabled_triggers', format('%%I.%%I', n.nspname, c.relname), format('TRIGGER %%s.%%s %%s', n.nspname, c.relname, tgname),
         true
    FROM key_trigger JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE tgenabled <> of_parent
  UNION ALL
  SELECT 'disabled_keys', format('%%I.%%I', n.nspname, c.relname), format('FK CONSTRAINT %%s.%%s %%s', kn.nspname, k.relname, conname),
         true
    FROM key_trigger JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class k ON k.oid = conrelid JOIN pg_namespace kn ON kn.oid = k.relnamespace
   WHERE tgenabled <> 'O' AND of_parent IS NULL
  UNION ALL
  SELECT 'default_privileges', pg_get_userbyid(defaclrole),
         format('DEFAULT ACL %%sDEFAULT PRIVILEGES FOR %%s', n.nspname || '.',
                CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                                   WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END),
         NOT pg_has_role(defaclrole, 'USAGE')
    FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
   WHERE n.oid IS NULL OR quote_ident(n.nspname) <> ALL (%(schemas)s::text[]))
SELECT kind, needs, bool_or(here) AS here, array_agg(DISTINCT entry COLLATE "C" ORDER BY entry COLLATE "C") AS entries
  FROM found GROUP BY kind, needs ORDER BY kind, needs COLLATE "C"
