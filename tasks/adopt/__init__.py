"""Makes a backup of a dump that this system did not make, in the order of the work.

steps          open, adopt beside upload, record
adopt_file     opens the adoption; reads the object once, and hands its text, checked, to the spool as a dump does
layers         undoes what encrypts, compresses or packs the text, by its content; an archive is read by pg_restore
plain_sql      the text as pg_dump wrote it: UTF-16, a byte order mark and line ends of Windows are undone
refusals       why a text cannot be adopted, and how to make one that can
dump_facts     what the text says about the database that it comes from; the rest is `unknown`
"""
