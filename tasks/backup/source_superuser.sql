-- What only a superuser can create, each named as a message of a restore names the entry of the dump: kind, schema, name.
-- Members of extensions are made by their extension. Languages, casts and functions as CREATE ... in PostgreSQL's
-- documentation says under Notes; publications of all tables, event triggers and foreign-data wrappers likewise.
WITH member AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
SELECT 'EVENT TRIGGER ' || evtname AS name FROM pg_event_trigger
 WHERE ('pg_event_trigger'::regclass, oid) NOT IN (SELECT classid, objid FROM member)
UNION ALL
SELECT 'PUBLICATION ' || pubname FROM pg_publication WHERE puballtables
UNION ALL
SELECT 'FOREIGN DATA WRAPPER ' || fdwname FROM pg_foreign_data_wrapper
 WHERE oid >= 16384 AND ('pg_foreign_data_wrapper'::regclass, oid) NOT IN (SELECT classid, objid FROM member)
UNION ALL
SELECT 'PROCEDURAL LANGUAGE ' || lanname FROM pg_language
 WHERE oid >= 16384 AND NOT lanpltrusted
   AND ('pg_language'::regclass, oid) NOT IN (SELECT classid, objid FROM member)
UNION ALL
SELECT format('CAST CAST (%%s AS %%s)', format_type(castsource, NULL), format_type(casttarget, NULL)) FROM pg_cast
 WHERE oid >= 16384 AND castmethod = 'b'
   AND ('pg_cast'::regclass, oid) NOT IN (SELECT classid, objid FROM member)
UNION ALL
SELECT format('%%s %%s.%%s(%%s)', CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
              n.nspname, proname,
              array_to_string(ARRAY(SELECT format_type(t, NULL)
                                      FROM unnest(proargtypes) WITH ORDINALITY AS a (t, place) ORDER BY place), ', '))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace JOIN pg_language l ON l.oid = prolang
 WHERE p.oid >= 16384 AND NOT lanpltrusted AND prokind <> 'a' AND n.nspname !~ '^pg_'
   AND quote_ident(n.nspname) <> ALL (%(schemas)s::text[])
   AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM member)
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                                             AND d.deptype = 'i')
 ORDER BY 1
