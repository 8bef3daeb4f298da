-- Gives tables that stay their foreign keys to the restored ones again, which checks them; and publications theirs.
DO $restore$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT * FROM json_to_recordset(current_setting('restore_tables.foreign_keys')::json)
                   AS (relation text, name text, definition text, comment text)
         WHERE to_regclass(relation) IS NOT NULL
    LOOP
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', one.relation, one.name, one.definition);
        EXECUTE format('COMMENT ON CONSTRAINT %I ON %s IS %L', one.name, one.relation, one.comment);
    END LOOP;
    FOR one IN
        SELECT * FROM json_to_recordset(current_setting('restore_tables.publications')::json)
                   AS p (publication text, relation text, columns text, condition text)
         WHERE NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication o ON o.oid = r.prpubid
                            WHERE o.pubname = p.publication AND r.prrelid = to_regclass(p.relation)::oid)
    LOOP
        EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %s', one.publication, one.relation)
                || coalesce(' (' || one.columns || ')', '') || coalesce(' WHERE (' || one.condition || ')', '');
    END LOOP;
END
$restore$;
