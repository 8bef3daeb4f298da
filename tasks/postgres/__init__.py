"""PostgreSQL: reaching a server and working on it.

address           reads the text of an address, and says what is wrong with it
same_server       whether a session has met the same server as another
server_errors     what may be repeated of an error: names, and no value of a row
dsn               the address of a database, connections, what a client program is given of it
server            sessions, rows, transactions, statements about whole databases
locks             advisory locks of plans and databases
dump_patterns     names of tables as pg_dump takes them, with wildcards
tools             which pg_dump and psql to use
as_ordinary_user  what goes before PostgreSQL's own programs where root starts them
child_processes   client programs that end with the run that started them
"""
