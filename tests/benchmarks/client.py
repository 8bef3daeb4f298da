"""A client that writes and reads without a pause, and notes for how long it could not.

`python -m tests.benchmarks.client`, with DATABASE_URL in the environment; it ends when its input does, and prints
the longest time without a connection, and whether it ever saw a database that was not whole.
"""

from __future__ import annotations

import os
import select
import sys
import time

import psycopg2

#: What is restored last: the shop is whole when it has orders and their foreign key.
_LOOK = """
    SELECT EXISTS (SELECT FROM shop.orders)
       AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'shop.orders'::regclass AND contype = 'f')
"""
_WRITE = "INSERT INTO shop.wish_lists (wish) VALUES ('written by the bench')"


def main() -> None:
    """Loops until the input ends."""
    longest, refused, half, last = 0.0, 0, 0, time.perf_counter()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            connection = psycopg2.connect(os.environ["DATABASE_URL"])
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    while not select.select([sys.stdin], [], [], 0)[0]:
                        cursor.execute(_LOOK)
                        half += cursor.fetchone() != (True,)
                        cursor.execute(_WRITE)
                        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
            finally:
                connection.close()
        except psycopg2.OperationalError:
            refused += 1
            time.sleep(0.005)
        except psycopg2.Error:
            half += 1
    print(f"longest {longest:.4f}", f"refused {refused}", f"half {half}", flush=True)


if __name__ == "__main__":
    main()
