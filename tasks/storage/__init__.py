"""From the dump's text to the stored file and its manifest, in the order of the work.

backup_stages     the values of a run's steps: BackupRun → Dump → StoredObject → Backup
encoders          compression, and encryption by the program age_filter
spool             part files on disk, through which the dump hands the stored file to the upload
s3                a bucket: objects and multipart uploads; s3_errors turns its errors into ours
manifest_model    the values in a manifest: parts, tables, the database and its properties
manifest_file     the manifest made of these values, and which of its fields must agree
manifest_text     writes a manifest; reads it, and checks it
"""
