"""Runs one restore directly, with so many sessions, and prints how long its flow run took."""

from __future__ import annotations

import sys
import time

from flows.restore import restore
from tasks.restore import load_in_stages

if __name__ == "__main__":
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if jobs:  # a plan from the environment has no such field
        load_in_stages.wanted_jobs = lambda *_: jobs
    began = time.perf_counter()
    done = restore(requested_by="bench", mode="swap")
    print(f"flow seconds {time.perf_counter() - began:.3f}")
    print(f"swap seconds {done.swap_seconds:.4f}")
