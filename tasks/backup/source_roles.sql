-- The roles that a dump names. Parameters: excluded, a text[] written by format('%%I.%%I'), and schemas, one
-- written by quote_ident: what the dump leaves out. One column: rolname.
--
-- pg_shdepend would be shorter, and is not enough: it has no rows for the role that made the cluster, and it counts what
-- is never dumped (who owns an extension or its members).
--
-- The rules are those of pg_dump. Owners are written for every object that is neither a member of an extension nor in
-- pg_catalog. Privileges are written where they differ from what the object was made with: from pg_init_privs for what
-- initdb or an extension granted, else from the default for its kind. A grantor is written where the owner was not the
-- role that granted.
WITH object (classid, objid, objsubid, owner, acl, kind, schema) AS (
  SELECT 'pg_namespace'::regclass::oid, x.oid, 0, nspowner, nspacl, ('n')::"char", (x.oid)::oid
    FROM pg_namespace x
  UNION ALL SELECT 'pg_class'::regclass::oid, x.oid, 0, relowner, relacl, (CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", (relnamespace)::oid
    FROM pg_class x
   WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  -- not what comes with a range type: its constructors belong to the role that made the cluster
  UNION ALL SELECT 'pg_proc'::regclass::oid, x.oid, 0, proowner, proacl, ('f')::"char", (pronamespace)::oid
    FROM pg_proc x
   WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = x.oid AND d.deptype = 'i')
  -- neither the row types of tables nor the arrays and multiranges that come with another type
  UNION ALL SELECT 'pg_type'::regclass::oid, x.oid, 0, typowner, typacl, ('T')::"char", (typnamespace)::oid
    FROM pg_type x
   WHERE typtype <> 'm'
     AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = x.oid)
     AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND c.relkind <> 'c')
  UNION ALL SELECT 'pg_language'::regclass::oid, x.oid, 0, lanowner, lanacl, ('l')::"char", (CASE WHEN x.oid < 16384 THEN 'pg_catalog'::regnamespace::oid END)::oid
    FROM pg_language x
  UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass::oid, x.oid, 0, fdwowner, fdwacl, ('F')::"char", (NULL)::oid
    FROM pg_foreign_data_wrapper x
  UNION ALL SELECT 'pg_foreign_server'::regclass::oid, x.oid, 0, srvowner, srvacl, ('S')::"char", (NULL)::oid
    FROM pg_foreign_server x
  UNION ALL SELECT 'pg_largeobject_metadata'::regclass::oid, x.oid, 0, lomowner, lomacl, ('L')::"char", (NULL)::oid
    FROM pg_largeobject_metadata x
  UNION ALL SELECT 'pg_operator'::regclass::oid, x.oid, 0, oprowner, NULL, (NULL)::"char", (oprnamespace)::oid
    FROM pg_operator x
  UNION ALL SELECT 'pg_opclass'::regclass::oid, x.oid, 0, opcowner, NULL, (NULL)::"char", (opcnamespace)::oid
    FROM pg_opclass x
  UNION ALL SELECT 'pg_opfamily'::regclass::oid, x.oid, 0, opfowner, NULL, (NULL)::"char", (opfnamespace)::oid
    FROM pg_opfamily x
  UNION ALL SELECT 'pg_collation'::regclass::oid, x.oid, 0, collowner, NULL, (NULL)::"char", (collnamespace)::oid
    FROM pg_collation x
  UNION ALL SELECT 'pg_conversion'::regclass::oid, x.oid, 0, conowner, NULL, (NULL)::"char", (connamespace)::oid
    FROM pg_conversion x
  UNION ALL SELECT 'pg_ts_dict'::regclass::oid, x.oid, 0, dictowner, NULL, (NULL)::"char", (dictnamespace)::oid
    FROM pg_ts_dict x
  UNION ALL SELECT 'pg_ts_config'::regclass::oid, x.oid, 0, cfgowner, NULL, (NULL)::"char", (cfgnamespace)::oid
    FROM pg_ts_config x
  UNION ALL SELECT 'pg_statistic_ext'::regclass::oid, x.oid, 0, stxowner, NULL, (NULL)::"char", (stxnamespace)::oid
    FROM pg_statistic_ext x
  UNION ALL SELECT 'pg_event_trigger'::regclass::oid, x.oid, 0, evtowner, NULL, (NULL)::"char", (NULL)::oid
    FROM pg_event_trigger x
  UNION ALL SELECT 'pg_publication'::regclass::oid, x.oid, 0, pubowner, NULL, (NULL)::"char", (NULL)::oid
    FROM pg_publication x
  UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum, relowner, attacl, 'c', relnamespace
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attacl IS NOT NULL AND NOT attisdropped),
excluded (oid) AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE format('%%I.%%I', n.nspname, c.relname) = ANY (%(excluded)s::text[])),
elsewhere (oid) AS (SELECT oid FROM pg_namespace WHERE quote_ident(nspname) = ANY (%(schemas)s::text[])),
dumped AS (
  SELECT o.*, e.objid IS NOT NULL OR n.nspname IS NOT DISTINCT FROM 'pg_catalog' AS privileges_only, i.initprivs
    FROM object o
    LEFT JOIN pg_namespace n ON n.oid = o.schema
    LEFT JOIN pg_depend e ON (e.classid, e.objid, e.objsubid, e.deptype) = (o.classid, o.objid, 0, 'e')
    LEFT JOIN pg_init_privs i ON (i.classoid, i.objoid, i.objsubid) = (o.classid, o.objid, o.objsubid)
   WHERE (n.oid IS NULL OR n.nspname = 'pg_catalog' OR (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'))
     AND (n.oid IS NULL OR n.oid NOT IN (SELECT oid FROM elsewhere))
     AND NOT (o.classid = 'pg_class'::regclass AND o.objid IN (SELECT oid FROM excluded))),
privilege AS (
  SELECT owner, coalesce(acl, acldefault(kind, owner)) AS now, coalesce(initprivs, acldefault(kind, owner)) AS born
    FROM dumped WHERE acl IS NOT NULL OR initprivs IS NOT NULL
  UNION ALL
  -- per schema, default privileges only ever add: 'c' is the kind that is born with none
  SELECT defaclrole, defaclacl,
         acldefault(CASE WHEN defaclnamespace <> 0 THEN 'c' WHEN defaclobjtype = 'S' THEN 's' ELSE defaclobjtype END,
                    defaclrole)
    FROM pg_default_acl WHERE defaclnamespace NOT IN (SELECT oid FROM elsewhere)),
changed AS (
  SELECT p.owner, a.grantee, a.grantor
    FROM privilege p, LATERAL (
         (SELECT * FROM aclexplode(p.now) EXCEPT SELECT * FROM aclexplode(p.born))
         UNION ALL (SELECT * FROM aclexplode(p.born) EXCEPT SELECT * FROM aclexplode(p.now))) a
   WHERE p.now::text <> p.born::text),
named (oid) AS (
  SELECT owner FROM dumped WHERE NOT privileges_only
  UNION SELECT grantee FROM changed
  UNION SELECT grantor FROM changed WHERE grantor <> owner
  UNION SELECT defaclrole FROM pg_default_acl WHERE defaclnamespace NOT IN (SELECT oid FROM elsewhere)
  UNION SELECT unnest(p.polroles) FROM pg_policy p
          JOIN dumped d ON d.classid = 'pg_class'::regclass AND d.objid = p.polrelid AND NOT d.privileges_only
  UNION SELECT umuser FROM pg_user_mappings
  -- pg_dump writes subscriptions for superusers alone; others may read these two columns of them
  UNION SELECT subowner FROM pg_subscription
         WHERE current_setting('is_superuser') = 'on'
           AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
SELECT rolname FROM pg_roles JOIN named USING (oid) WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE "C"
