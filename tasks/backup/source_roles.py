"""The query for the roles that a dump names. Text alone, long because PostgreSQL keeps owners in twenty catalogues.

`pg_shdepend` would be shorter and is not enough: it has no rows for the role that made the cluster, and it counts
what is never dumped (who owns an extension or its members).

The rules are those of pg_dump. Owners are written for every object that is neither a member of an extension nor
in pg_catalog. Privileges are written where they differ from what the object was born with: from pg_init_privs for
what initdb or an extension granted, else from the default for its kind. A grantor is written where the owner was
not the one who granted.
"""

from __future__ import annotations

#: catalogue, column prefix of owner and ACL, kind for acldefault(), column of the schema, condition
_CATALOGUES = (
    ("pg_namespace", "nsp", "'n'", "x.oid", "true"),
    (
        "pg_class",
        "rel",
        "CASE relkind WHEN 'S' THEN 's' ELSE 'r' END",
        "relnamespace",
        "relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
    ),
    (
        "pg_proc",
        "pro",
        "'f'",
        "pronamespace",
        # not what comes with a range type: its constructors belong to the role that made the cluster
        """NOT EXISTS (SELECT FROM pg_depend d
                     WHERE d.classid = 'pg_proc'::regclass AND d.objid = x.oid AND d.deptype = 'i')""",
    ),
    (
        "pg_type",
        "typ",
        "'T'",
        "typnamespace",
        # neither the row types of tables nor the arrays and multiranges that come with another type
        """typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = x.oid)
        AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND c.relkind <> 'c')""",
    ),
    ("pg_language", "lan", "'l'", "CASE WHEN x.oid < 16384 THEN 'pg_catalog'::regnamespace::oid END", "true"),
    ("pg_foreign_data_wrapper", "fdw", "'F'", "NULL", "true"),
    ("pg_foreign_server", "srv", "'S'", "NULL", "true"),
    ("pg_largeobject_metadata", "lom", "'L'", "NULL", "true"),
    ("pg_operator", "opr", None, "oprnamespace", "true"),
    ("pg_opclass", "opc", None, "opcnamespace", "true"),
    ("pg_opfamily", "opf", None, "opfnamespace", "true"),
    ("pg_collation", "coll", None, "collnamespace", "true"),
    ("pg_conversion", "con", None, "connamespace", "true"),
    ("pg_ts_dict", "dict", None, "dictnamespace", "true"),
    ("pg_ts_config", "cfg", None, "cfgnamespace", "true"),
    ("pg_statistic_ext", "stx", None, "stxnamespace", "true"),
    ("pg_event_trigger", "evt", None, "NULL", "true"),
    ("pg_publication", "pub", None, "NULL", "true"),
)

_OBJECTS = "\n UNION ALL ".join(
    f"SELECT '{table}'::regclass::oid, x.oid, 0, {prefix}owner, {f'{prefix}acl' if kind else 'NULL::aclitem[]'},"
    f' ({kind or "NULL"})::"char", ({schema})::oid FROM {table} x WHERE {condition}'
    for table, prefix, kind, schema, condition in _CATALOGUES
)

#: Parameter: excluded (text[], written by format('%I.%I')). One column: rolname.
ROLES_NAMED = f"""
WITH object (classid, objid, objsubid, owner, acl, kind, schema) AS (
  {_OBJECTS}
  UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum, relowner, attacl, 'c', relnamespace
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attacl IS NOT NULL AND NOT attisdropped),
excluded (oid) AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE format('%%I.%%I', n.nspname, c.relname) = ANY (%(excluded)s::text[])),
dumped AS (
  SELECT o.*, e.objid IS NOT NULL OR n.nspname IS NOT DISTINCT FROM 'pg_catalog' AS privileges_only, i.initprivs
    FROM object o
    LEFT JOIN pg_namespace n ON n.oid = o.schema
    LEFT JOIN pg_depend e ON (e.classid, e.objid, e.objsubid, e.deptype) = (o.classid, o.objid, 0, 'e')
    LEFT JOIN pg_init_privs i ON (i.classoid, i.objoid, i.objsubid) = (o.classid, o.objid, o.objsubid)
   WHERE (n.oid IS NULL OR n.nspname = 'pg_catalog' OR (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'))
     AND NOT (o.classid = 'pg_class'::regclass AND o.objid IN (SELECT oid FROM excluded))),
privilege AS (
  SELECT owner, coalesce(acl, acldefault(kind, owner)) AS now, coalesce(initprivs, acldefault(kind, owner)) AS born
    FROM dumped WHERE acl IS NOT NULL OR initprivs IS NOT NULL
  UNION ALL
  -- per schema, default privileges only ever add: 'c' is the kind that is born with none
  SELECT defaclrole, defaclacl,
         acldefault(CASE WHEN defaclnamespace <> 0 THEN 'c' WHEN defaclobjtype = 'S' THEN 's' ELSE defaclobjtype END,
                    defaclrole)
    FROM pg_default_acl),
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
  UNION SELECT defaclrole FROM pg_default_acl
  UNION SELECT unnest(p.polroles) FROM pg_policy p
          JOIN dumped d ON d.classid = 'pg_class'::regclass AND d.objid = p.polrelid AND NOT d.privileges_only
  UNION SELECT umuser FROM pg_user_mappings
  -- pg_dump writes subscriptions for superusers alone; others may read these two columns of them
  UNION SELECT subowner FROM pg_subscription
         WHERE current_setting('is_superuser') = 'on'
           AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
SELECT rolname FROM pg_roles JOIN named USING (oid) WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE "C"
"""
