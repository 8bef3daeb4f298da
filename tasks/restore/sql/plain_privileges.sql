-- The new tables and their sequences begin without the privileges that ALTER DEFAULT PRIVILEGES has given them: the
-- backup's own GRANTs count from none.
DO $restore$
DECLARE
    one record;
BEGIN
    FOR one IN
        WITH relation (oid) AS (
            SELECT to_regclass(name)::oid FROM unnest(current_setting('restore_tables.chosen')::text[]) name
             UNION
            SELECT d.objid FROM pg_depend d
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
               AND d.refobjid IN (SELECT to_regclass(name)::oid
                                    FROM unnest(current_setting('restore_tables.chosen')::text[]) name)
        )
        SELECT DISTINCT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass AS name,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
               quote_ident(pg_get_userbyid(c.relowner)) AS owner
          FROM relation JOIN pg_class c USING (oid)
         CROSS JOIN LATERAL aclexplode(c.relacl) a
         WHERE c.relkind IN ('r', 'p', 'f', 'S')
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', one.kind, one.name, one.grantee);
        EXECUTE format('GRANT ALL ON %s %s TO %s', one.kind, one.name, one.owner);
    END LOOP;
END
$restore$;
