-- What stays (system objects, members of extensions, schemas) gets the privileges, policies and rows of a new database:
-- a dump says only in what it differs from them. What the role does not own is left as it is.

DO $$
DECLARE
    one record;
    item record;
BEGIN
    FOR turn IN 1..2 LOOP -- columns last: what is revoked on a table is revoked on its columns
        FOR one IN
            WITH things (classid, objid, objsubid, schema, owner, kind, acl, name, columns) AS (
                SELECT 'pg_class'::regclass::oid, oid, 0, relnamespace, relowner,
                       CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relacl,
                       CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || oid::regclass, ''
                  FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'S', 'f', 'p')
                UNION ALL
                SELECT 'pg_class'::regclass, c.oid, attnum, relnamespace, relowner, 'c', attacl,
                       'TABLE ' || c.oid::regclass, format('(%I)', attname)
                  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
                 WHERE NOT attisdropped AND relkind IN ('r', 'v', 'm', 'f', 'p')
                   AND (attacl IS NOT NULL OR EXISTS (
                        SELECT FROM pg_init_privs i
                         WHERE i.classoid = 'pg_class'::regclass AND i.objoid = c.oid AND i.objsubid = attnum))
                UNION ALL
                SELECT 'pg_proc'::regclass, oid, 0, pronamespace, proowner, 'f', proacl,
                       'ROUTINE ' || oid::regprocedure, '' FROM pg_proc
                UNION ALL
                SELECT 'pg_type'::regclass, t.oid, 0, typnamespace, typowner, 'T', typacl,
                       format('TYPE %I.%I', nspname, typname), ''
                  FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE typacl IS NOT NULL
                UNION ALL
                SELECT 'pg_namespace'::regclass, oid, 0, oid, nspowner, 'n', nspacl,
                       format('SCHEMA %I', nspname), '' FROM pg_namespace
                UNION ALL
                SELECT 'pg_language'::regclass, oid, 0, 0, lanowner, 'l', lanacl, format('LANGUAGE %I', lanname), ''
                  FROM pg_language WHERE lanpltrusted
                UNION ALL
                SELECT 'pg_foreign_data_wrapper'::regclass, oid, 0, 0, fdwowner, 'F', fdwacl,
                       format('FOREIGN DATA WRAPPER %I', fdwname), '' FROM pg_foreign_data_wrapper
                UNION ALL
                SELECT 'pg_foreign_server'::regclass, oid, 0, 0, srvowner, 'S', srvacl,
                       format('FOREIGN SERVER %I', srvname), '' FROM pg_foreign_server),
            staying AS (
                SELECT things.*, coalesce(acl, acldefault(kind, owner)) AS present,
                       CASE WHEN name = 'SCHEMA public'
                            THEN ARRAY[makeaclitem(owner, owner, 'USAGE', false),
                                       makeaclitem(owner, owner, 'CREATE', false),
                                       makeaclitem(0, owner, 'USAGE', false)]
                            ELSE coalesce(initprivs, acldefault(kind, owner)) END AS wanted
                  FROM things LEFT JOIN pg_init_privs i
                    ON i.classoid = things.classid AND i.objoid = things.objid AND i.objsubid = things.objsubid
                 WHERE (kind = 'c') = (turn = 2) AND pg_has_role(owner, 'USAGE')
                   AND schema IS DISTINCT FROM 'information_schema'::regnamespace
                   AND (things.objid < 16384 AND (schema = 0 OR schema = 'pg_catalog'::regnamespace)
                        OR things.classid = 'pg_namespace'::regclass
                           AND things.objid = ANY (current_setting('in_place.schemas')::oid[])
                        OR EXISTS (SELECT FROM pg_depend d
                                    WHERE d.classid = things.classid AND d.objid = things.objid AND d.deptype = 'e')))
            SELECT * FROM staying
             WHERE ARRAY(SELECT (grantee, privilege_type, is_grantable)::text FROM aclexplode(present) ORDER BY 1)
                   <> ARRAY(SELECT (grantee, privilege_type, is_grantable)::text FROM aclexplode(wanted) ORDER BY 1)
        LOOP
            FOR item IN SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'
                                                     ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee
                          FROM aclexplode(one.present) LOOP
                EXECUTE format('REVOKE ALL %s ON %s FROM %s CASCADE', one.columns, one.name, item.grantee);
            END LOOP;
            FOR item IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC'
                                            ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee,
                               privilege_type, CASE WHEN is_grantable THEN 'WITH GRANT OPTION' END AS option
                          FROM aclexplode(one.wanted) LOOP
                EXECUTE format('GRANT %s %s ON %s TO %s %s', item.privilege_type, one.columns, one.name,
                               item.grantee, item.option);
            END LOOP;
        END LOOP;
    END LOOP;
END $$;

-- Policies on tables of extensions, and the rows of their configuration tables that a dump brings.
DO $$
DECLARE
    one record;
    left_over boolean := true;
BEGIN
    FOR one IN SELECT polname, polrelid::regclass AS name FROM pg_policy JOIN pg_class c ON c.oid = polrelid
                WHERE pg_has_role(relowner, 'USAGE') AND EXISTS (
                    SELECT FROM pg_depend
                     WHERE classid = 'pg_class'::regclass AND objid = polrelid AND deptype = 'e') LOOP
        EXECUTE format('DROP POLICY %I ON %s', one.polname, one.name);
    END LOOP;
    FOR one IN SELECT oid::regclass AS name FROM pg_class c
                WHERE relrowsecurity AND pg_has_role(relowner, 'USAGE') AND EXISTS (
            SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e') LOOP
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', one.name);
    END LOOP;
    FOR round IN 1..10 LOOP -- rows that others refer to go in a later round
        EXIT WHEN NOT left_over;
        left_over := false;
        FOR one IN SELECT c.oid::regclass AS name, condition
                     FROM pg_extension, unnest(extconfig, extcondition) AS config (relation, condition)
                     JOIN pg_class c ON c.oid = relation
                    WHERE relkind = 'r' AND has_table_privilege(c.oid, 'SELECT')
                      AND has_table_privilege(c.oid, 'INSERT')
                      AND has_table_privilege(c.oid, 'DELETE') AND NOT row_security_active(c.oid) LOOP
            BEGIN
                EXECUTE format('DELETE FROM %s %s', one.name, one.condition);
            EXCEPTION WHEN foreign_key_violation THEN
                IF round = 10 THEN
                    RAISE;
                END IF;
                left_over := true;
            END;
        END LOOP;
    END LOOP;
END $$;

DO $$
DECLARE
    kept oid[] := current_setting('in_place.relations')::oid[];
BEGIN
    IF current_setting('in_place.looks')::text[] <> ARRAY(
        SELECT format('%s %s', classid, objid) FROM pg_depend
         WHERE refclassid = 'pg_class'::regclass AND refobjid = ANY (kept) AND deptype IN ('a', 'i')
           AND classid <> 'pg_statistic_ext'::regclass
         UNION SELECT format('%s.%s', attrelid, attnum) FROM pg_attribute
                WHERE attrelid = ANY (kept) AND NOT attisdropped
         ORDER BY 1) THEN
        RAISE EXCEPTION 'the catalogue of backups (%) uses something of the database that a restore in place removes',
            current_setting('in_place.keep') USING ERRCODE = 'dependent_objects_still_exist';
    END IF;
END $$;
