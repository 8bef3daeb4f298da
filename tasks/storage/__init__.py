"""Storage: S3, the spool, codecs, encryption and the manifest."""
