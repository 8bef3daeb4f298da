-- Removes from a database all that pg_dump would write of it, within the transaction that then restores a dump.
-- Two settings of that transaction say what stays: in_place.keep, names of relations as JSON, and
-- in_place.extensions, the extensions of the backup as JSON, each with its schema.

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;

-- What stays, by oid, and what it looks like: no cascade may reach it.
DO $$
DECLARE
    kept oid[] := ARRAY(
        SELECT to_regclass(name)::oid FROM json_array_elements_text(current_setting('in_place.keep')::json) name
         WHERE to_regclass(name) IS NOT NULL);
BEGIN
    PERFORM set_config('in_place.relations', kept::text, true);
    PERFORM set_config('in_place.functions', ARRAY(
        SELECT DISTINCT tgfoid FROM pg_trigger WHERE tgrelid = ANY (kept) AND NOT tgisinternal)::text, true);
    PERFORM set_config('in_place.looks', ARRAY(
        SELECT format('%s %s', classid, objid) FROM pg_depend
         WHERE refclassid = 'pg_class'::regclass AND refobjid = ANY (kept) AND deptype IN ('a', 'i')
           AND classid <> 'pg_statistic_ext'::regclass
         UNION SELECT format('%s.%s', attrelid, attnum) FROM pg_attribute
                WHERE attrelid = ANY (kept) AND NOT attisdropped
         ORDER BY 1)::text, true);
END $$;

-- Event triggers first, lest they fire; only a superuser has any. Then what replicates, and extensions that go.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT evtname FROM pg_event_trigger e WHERE current_setting('is_superuser') = 'on' AND NOT EXISTS (
            SELECT FROM pg_depend WHERE classid = 'pg_event_trigger'::regclass AND objid = e.oid AND deptype = 'e') LOOP
        EXECUTE format('DROP EVENT TRIGGER %I', one.evtname);
    END LOOP;
    FOR one IN SELECT subname, subslotname, subenabled FROM pg_subscription
                WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) LOOP
        IF one.subenabled THEN
            EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', one.subname);
        END IF;
        IF one.subslotname IS NOT NULL THEN
            EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', one.subname);
            RAISE WARNING 'subscription % goes, its slot % stays on the publishing server',
                one.subname, one.subslotname;
        END IF;
        EXECUTE format('DROP SUBSCRIPTION %I', one.subname);
    END LOOP;
    FOR one IN SELECT pubname FROM pg_publication p WHERE NOT EXISTS (
            SELECT FROM pg_depend WHERE classid = 'pg_publication'::regclass AND objid = p.oid AND deptype = 'e') LOOP
        EXECUTE format('DROP PUBLICATION %I', one.pubname);
    END LOOP;
    FOR one IN SELECT extname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace
                WHERE extname <> 'plpgsql' AND NOT EXISTS (
                    SELECT FROM json_to_recordset(current_setting('in_place.extensions')::json)
                             AS b (name text, schema text)
                     WHERE b.name = extname AND b.schema = nspname) LOOP
        IF EXISTS (SELECT FROM pg_extension WHERE extname = one.extname) THEN
            EXECUTE format('DROP EXTENSION %I CASCADE', one.extname);
        END IF;
    END LOOP;
END $$;

-- Schemas: whole, where nothing in them stays; else object by object. Then what has no schema.
DO $$
DECLARE
    kept oid[] := current_setting('in_place.relations')::oid[] || current_setting('in_place.functions')::oid[];
    one record;
    there boolean;
BEGIN
    PERFORM set_config('in_place.schemas', ARRAY(
        SELECT n.oid FROM pg_namespace n
         WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
           AND (nspname = 'public'
                OR EXISTS (SELECT FROM pg_depend
                            WHERE classid = 'pg_namespace'::regclass AND objid = n.oid AND deptype = 'e')
                OR EXISTS (SELECT FROM pg_depend d
                            WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
                              AND (d.classid = 'pg_extension'::regclass OR d.objid = ANY (kept)
                                   OR EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid
                                                                         AND e.deptype = 'e')))))::text, true);
    FOR one IN SELECT nspname FROM pg_namespace
                WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
                  AND oid <> ALL (current_setting('in_place.schemas')::oid[]) LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', one.nspname);
    END LOOP;
    FOR one IN
        SELECT DISTINCT 0 AS turn, classid, objid FROM pg_depend
         WHERE refclassid = 'pg_namespace'::regclass AND refobjid = ANY (current_setting('in_place.schemas')::oid[])
           AND deptype = 'n' AND classid NOT IN ('pg_extension'::regclass, 'pg_namespace'::regclass)
        UNION ALL SELECT 1, 'pg_transform'::regclass, oid FROM pg_transform WHERE oid >= 16384
        UNION ALL SELECT 2, 'pg_cast'::regclass, oid FROM pg_cast WHERE oid >= 16384
        UNION ALL SELECT 3, 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
        UNION ALL SELECT 4, 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
        UNION ALL SELECT 5, 'pg_language'::regclass, oid FROM pg_language WHERE oid >= 16384
        UNION ALL SELECT 6, 'pg_am'::regclass, oid FROM pg_am WHERE oid >= 16384
         ORDER BY turn, classid, objid
    LOOP
        CONTINUE WHEN one.objid = ANY (kept) OR EXISTS (
            SELECT FROM pg_depend
             WHERE classid = one.classid AND objid = one.objid AND objsubid = 0 AND deptype IN ('e', 'i'));
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE oid = %s)', one.classid::regclass, one.objid) INTO there;
        IF there THEN
            EXECUTE (SELECT format('DROP %s %s CASCADE', CASE type
                       WHEN 'function' THEN 'ROUTINE' WHEN 'procedure' THEN 'ROUTINE' WHEN 'aggregate' THEN 'ROUTINE'
                       WHEN 'statistics object' THEN 'STATISTICS' WHEN 'composite type' THEN 'TYPE'
                       WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' ELSE upper(type) END,
                       coalesce((SELECT format('FOR %s LANGUAGE %I', format_type(trftype, NULL), lanname)
                                   FROM pg_transform t JOIN pg_language l ON l.oid = trflang
                                  WHERE one.classid = 'pg_transform'::regclass AND t.oid = one.objid), identity))
                       FROM pg_identify_object(one.classid, one.objid, 0));
        END IF;
    END LOOP;
    PERFORM lo_unlink(oid) FROM pg_largeobject_metadata;
END $$;

-- Default privileges, back to those that PostgreSQL comes with.
DO $$
DECLARE
    one record;
    item record;
    what text;
BEGIN
    FOR one IN SELECT pg_get_userbyid(defaclrole) AS role, nspname, defaclobjtype, defaclacl, defaclrole
                 FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace LOOP
        IF NOT pg_has_role(one.defaclrole, 'USAGE') THEN
            RAISE EXCEPTION 'default privileges of role % cannot be removed by role %', one.role, current_user
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        what := CASE one.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' WHEN 'L' THEN 'LARGE OBJECTS' END;
        FOR item IN SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'
                                                 ELSE quote_ident(pg_get_userbyid(grantee)) END AS name
                      FROM aclexplode(one.defaclacl) LOOP
            EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %s REVOKE ALL ON %s FROM %s', one.role,
                           'IN SCHEMA ' || quote_ident(one.nspname), what, item.name);
        END LOOP;
        FOR item IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS name,
                           privilege_type
                      FROM aclexplode(acldefault(
                           CASE one.defaclobjtype WHEN 'S' THEN 's' ELSE one.defaclobjtype END, one.defaclrole))
                     WHERE one.nspname IS NULL LOOP
            EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT %s ON %s TO %s', one.role,
                           item.privilege_type, what, item.name);
        END LOOP;
    END LOOP;
END $$;

-- The schema public, other schemas that stay, and comments on extensions: as they are in a new database.
DO $$
DECLARE
    one record;
    first_owner text := CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'pg_database_owner'
                             ELSE pg_get_userbyid(10) END;
BEGIN
    IF to_regnamespace('public') IS NULL THEN
        CREATE SCHEMA public;
        PERFORM set_config('in_place.schemas',
            (current_setting('in_place.schemas')::oid[] || 'public'::regnamespace::oid)::text, true);
    END IF;
    IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'USAGE')
       AND pg_has_role(first_owner, 'MEMBER')
       AND (SELECT pg_get_userbyid(nspowner) <> first_owner FROM pg_namespace WHERE nspname = 'public') THEN
        EXECUTE format('ALTER SCHEMA public OWNER TO %I', first_owner);
    END IF;
    FOR one IN SELECT nspname, CASE nspname WHEN 'public' THEN 'standard public schema' END AS comment
                 FROM pg_namespace n
                WHERE oid = ANY (current_setting('in_place.schemas')::oid[]) AND pg_has_role(nspowner, 'USAGE')
                  AND NOT EXISTS (
                    SELECT FROM pg_depend
                     WHERE classid = 'pg_namespace'::regclass AND objid = n.oid AND deptype = 'e') LOOP
        EXECUTE format('COMMENT ON SCHEMA %I IS %L', one.nspname, one.comment);
    END LOOP;
    FOR one IN SELECT extname FROM pg_extension WHERE oid >= 16384 AND pg_has_role(extowner, 'USAGE') LOOP
        EXECUTE format('COMMENT ON EXTENSION %I IS NULL', one.extname);
    END LOOP;
END $$;
