"""From the dump's text to the stored file and its manifest, in the order of the work.

manifest_types    the types of values in a manifest, and what belongs to the whole server
backup_values     what a manifest holds
globals_sql       the SQL that makes again what belongs to a server
backup_stages     what the steps of a backup hand on: BackupRun → Dump → StoredObject → Backup
encoders          compression, and encryption by the program age_filter
spool             part files on disk, through which the dump hands the stored file to the upload
s3                a bucket: objects and multipart uploads, over s3_client; s3_errors turns its errors into ours
probe             what a store does, and the rules of its bucket
manifest_file     the manifest, made of the values of a backup, and which of its fields must agree
attention         what the manifest says that will need attention in a restore, in sentences
signatures        the keys that sign manifests, and whose signatures count
manifest_text     writes a manifest; reads it, and checks it
"""
