-- Makes room for the chosen tables. What tables that stay have to do with them is kept in settings of this transaction.
DO $restore$
DECLARE
    one record;
    names text;
BEGIN
    FOR one IN
        WITH chosen (oid) AS (
            SELECT to_regclass(name)::oid FROM unnest(current_setting('restore_tables.chosen')::text[]) name
        )
        SELECT format('%I.%I', n.nspname, c.relname) AS name
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p')
           AND (c.oid IN (SELECT oid FROM chosen)
                OR c.oid IN (SELECT inhparent FROM pg_inherits WHERE inhrelid IN (SELECT oid FROM chosen))
                OR c.oid IN (SELECT conrelid FROM pg_constraint
                              WHERE contype = 'f' AND confrelid IN (SELECT oid FROM chosen)))
         ORDER BY 1
    LOOP
        EXECUTE 'LOCK TABLE ONLY ' || one.name || ' IN ACCESS EXCLUSIVE MODE';
    END LOOP;

    SELECT string_agg(name, ', ') INTO names
      FROM unnest(current_setting('restore_tables.parents')::text[]) name
     WHERE to_regclass(name) IS NULL;
    IF names IS NOT NULL THEN
        RAISE EXCEPTION 'chosen tables are partitions of %, which is not there: choose it as well', names
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    SELECT string_agg(name, ', ') INTO names FROM (SELECT name FROM (/* dependents */) all_of_them LIMIT 10) first;
    IF names IS NOT NULL AND current_setting('restore_tables.drop_dependents') <> 'on' THEN
        RAISE EXCEPTION 'objects that depend on the chosen tables would be lost: %', names
            USING ERRCODE = 'dependent_objects_still_exist';
    END IF;

    PERFORM set_config('restore_tables.foreign_keys', coalesce(json_agg(json_build_object(
                'relation', format('%I.%I', n.nspname, c.relname), 'name', f.conname,
                'definition', pg_get_constraintdef(f.oid), 'comment', obj_description(f.oid, 'pg_constraint')
            ) ORDER BY n.nspname, c.relname, f.conname), '[]')::text, true)
       FROM (WITH RECURSIVE chosen (oid) AS (
                 SELECT to_regclass(name)::oid FROM unnest(current_setting('restore_tables.chosen')::text[]) name
             ), foreign_key (oid, conparentid, conrelid) AS (
                 SELECT oid, conparentid, conrelid FROM pg_constraint
                  WHERE contype = 'f' AND confrelid IN (SELECT oid FROM chosen)
                  UNION
                 SELECT p.oid, p.conparentid, p.conrelid
                   FROM foreign_key k JOIN pg_constraint p ON p.oid = k.conparentid
             )
             SELECT oid FROM foreign_key
              WHERE conparentid = 0 AND NOT EXISTS (SELECT FROM chosen WHERE chosen.oid = conrelid)) top
       JOIN pg_constraint f ON f.oid = top.oid
       JOIN pg_class c ON c.oid = f.conrelid
       JOIN pg_namespace n ON n.oid = c.relnamespace;
    FOR one IN
        SELECT * FROM json_to_recordset(current_setting('restore_tables.foreign_keys')::json) AS (relation text, name text)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.relation, one.name);
    END LOOP;

    EXECUTE format($query$
        SELECT set_config('restore_tables.publications', coalesce(json_agg(json_build_object(
                   'publication', p.pubname, 'relation', format('%%I.%%I', n.nspname, c.relname),
                   'columns', %s, 'condition', %s)), '[]')::text, true)
          FROM pg_publication_rel r
          JOIN pg_publication p ON p.oid = r.prpubid
          JOIN pg_class c ON c.oid = r.prrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid IN (SELECT to_regclass(name)::oid
                           FROM unnest(current_setting('restore_tables.chosen')::text[]) name)
        $query$, VARIADIC CASE WHEN current_setting('server_version_num')::int >= 150000 THEN ARRAY[
            '(SELECT string_agg(quote_ident(attname), '', '' ORDER BY attnum) FROM pg_attribute'
            ' WHERE attrelid = c.oid AND attnum = ANY (r.prattrs::int2[]))', 'pg_get_expr(r.prqual, c.oid)'
        ] ELSE ARRAY['NULL', 'NULL'] END);

    FOR one IN
        SELECT CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind,
               string_agg(format('%I.%I', n.nspname, c.relname), ', ') AS names
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid IN (SELECT to_regclass(name)::oid
                           FROM unnest(current_setting('restore_tables.chosen')::text[]) name)
         GROUP BY 1 ORDER BY 1
    LOOP
        EXECUTE format('DROP %s IF EXISTS %s %s', one.kind, one.names,
                       CASE current_setting('restore_tables.drop_dependents') WHEN 'on' THEN 'CASCADE' ELSE '' END);
    END LOOP;
END
$restore$;
