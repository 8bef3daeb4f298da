"""PostgreSQL: reaching a server and working on it.

dsn               the address of a database, connections, what a client program is given of it
server            sessions, rows, transactions, statements about whole databases
locks             advisory locks of plans and databases
tools             which pg_dump and psql to use
child_processes   client programs that end with the run that started them
"""
