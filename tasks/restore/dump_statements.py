"""Which statements pg_dump writes, and how it spells them: all others are refused on their way into psql.

psql reads some spellings in its own way: `copy` in small letters begins data too, `COMMIT ;` ends the restore's
transaction, and another client_encoding moves the ends of strings. What pg_dump never writes is not read at all.
"""

from __future__ import annotations

import re

from tasks.backup.dump_syntax import head_pattern, simple_pattern

_OBJECTS = (
    rb"(?:ALTER|CREATE(?: OR REPLACE)?) (?!DATABASE |GROUP |ROLE |SYSTEM |TABLESPACE |USER (?!MAPPING))[A-Z]+[ ;]"
    rb"|(?:COMMENT ON|GRANT|REVOKE|REFRESH MATERIALIZED VIEW|SECURITY LABEL) "
)
_CALLS = (
    rb"SELECT pg_catalog\.(?:setval|lo_create|lo_open|lo_close|lowrite)\("
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);"
    rb"|SELECT \* FROM pg_catalog\.pg_restore_[a-z]+_stats\("
)
_SETTINGS = (
    rb"SET (?:statement_timeout|lock_timeout|idle_in_transaction_session_timeout|transaction_timeout"
    rb"|check_function_bodies|xmloption|client_min_messages|row_security|escape_string_warning"
    rb"|default_tablespace|default_table_access_method|default_with_oids|search_path) = "
)
_COMMON = rb"%b|%b|%b" % (_OBJECTS, _CALLS, _SETTINGS)
#: Encodings of servers: in none of them a byte of a longer character is an ASCII one. In SJIS, the second may be `\`.
_ENCODINGS = (
    rb"SQL_ASCII|UTF8|EUC_(?:JP|CN|KR|TW|JIS_2004)|MULE_INTERNAL|LATIN(?:10|[1-9])|WIN125[0-8]|WIN866|WIN874"
    rb"|KOI8[RU]|ISO_8859_[5-8]"
)

#: Statements as pg_dump spells them. `top`: before the first entry alone. `grants`: in entries of privileges alone.
STATEMENT = re.compile(
    rb"(?P<top>SET client_encoding = '(?P<encoding>%b)';|SET standard_conforming_strings = (?:on|off);)"
    rb"|(?P<grants>SET SESSION AUTHORIZATION |RESET SESSION AUTHORIZATION;)|%b|;" % (_ENCODINGS, _COMMON)
)
ENTRY_LINE = rb"-- (?:Data for |Statistics for )?Name: "
#: Statements of pg_dump's own that psql does not get.
LEFT_OUT = rb"(?:BEGIN|COMMIT|SET lock_timeout = 0|SET transaction_timeout = 0);"
#: What is passed over at one go, and what may begin behind it, for a `DumpScanner`.
SIMPLE = simple_pattern(statements=LEFT_OUT + rb"|(?!%b)" % _COMMON, comments=ENTRY_LINE)
HEAD = head_pattern(rb"(?P<entry>" + ENTRY_LINE + rb")|(?P<ours>" + LEFT_OUT + rb")")
