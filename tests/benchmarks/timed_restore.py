"""Runs one restore directly and prints how long its flow run took."""

from __future__ import annotations

import sys
import time

from flows.restore import restore

if __name__ == "__main__":
    began = time.perf_counter()
    done = restore(requested_by="bench", mode=sys.argv[1] if len(sys.argv) > 1 else "swap")
    print(f"flow seconds {time.perf_counter() - began:.3f}")
    print(f"swap seconds {done.swap_seconds:.4f}")
