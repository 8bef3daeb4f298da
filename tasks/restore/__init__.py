"""Restoring: what the steps of the flow `restore` do, in the order in which they do it.

    validate    validation     which backup (choose, proof), and what stands in the way (preflight*)
    download    download       parts from the bucket, each proved, into the spool
    psql        loading        which database, and which script: everything, in_place, or tables (table_*)
                psql           stored bytes → plain_text → dump_reader → script → psql_session, in one transaction
    compare     compare        rows of every table against the manifest
    swap        finishing      ANALYZE, then owner, grants and settings (dressing), then the swap
                swap           both names changed in one transaction (swap_*); the catalogue comes along (carry)
    undo        undoing        the same swap, the other way round

databases and kept know the databases that restores make and leave, by what labels says of them.
"""
