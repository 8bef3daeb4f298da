"""Runs one backup directly and prints how long its flow run took."""

from __future__ import annotations

import time

from flows.backup import backup

if __name__ == "__main__":
    began = time.perf_counter()
    backup(requested_by="bench")
    print(f"flow seconds {time.perf_counter() - began:.3f}")
