"""Makes docs/promises.md from what the runs of the laboratory wrote down: `python -m tests.faults.report`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

#: By how many kB the memory of a soaking process may grow with each operation at the end.
MOST_GROWTH = 40
CHECKOUT = Path(__file__).parents[2]
#: Where each run leaves its lines; `make faults` begins with an empty directory.
RECORDS = CHECKOUT / "build" / "faults"
PAGE = CHECKOUT / "docs" / "promises.md"

#: What a fault can strike, in words.
WHERE = {
    "store": "the store: late, wrong, cut, lost, stale and misleading answers, errors for once and for good",
    "store's process": "the store's own process: SIGKILL, away for a while or back at once",
    "replica": "a replica: down, slow, full, stale, wrong bytes both ways",
    "postgres": "PostgreSQL: cuts, stalls, 50 kB/s, ended sessions, no connection or lock left, restarts, failovers",
    "process": "processes: SIGKILL of the run, of pg_dump, of psql, at named requests",
    "disk": "disks: the spool's and the server's are full (the store's is among its errors)",
    "clock": "zones, and clocks of the worker and the server that are wrong by hours or years",
    "two": "two operations of one worker at once",
    "workers": "two workers or more at once, with the same plan",
}
_BEGINNING = """# Promises

What the laboratory (`tests/faults/`) has tried, and what became of it. This page is made by `python -m tests.faults.report` from the runs'
own reports; [design.md](design.md) says which other test holds which promise. Of a fault that ran more than once, the last run counts: those
in `REGRESSIONS` of `tests/faults/fault_lists.py` broke a promise when they first ran, were mended, and ran again. The figures come from
several runs, between which the program changed.

The promises that one judge looks at after every fault:

1. Whatever byte of a stored backup or manifest is changed, cut off or exchanged: no restore begins to change the live database, and the
   message says which part or field.
2. Whatever is killed, cut or filled up: no `completed` row is without its intact object, the live database is the old one or the backed-up
   one, and the next run clears what is left, without help. Every run ends within a minute, completed or failed.
3. Memory, descriptors, connections, files and processes are after many operations what they were before.
4. No message, log or record holds a password, a key or a value of a row; a failed run says one sentence.
5. What pg_dump says of a restored database is what it said of the original.
"""


def records() -> list[dict[str, Any]]:
    """The lines of every run; of an attack that was run twice, the last."""
    lines = [
        json.loads(line)
        for file in sorted(RECORDS.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return list({line["test"]: line for line in lines if "kind" in line}.values())


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The page. Pure."""
    of_kind = {
        kind: [line for line in lines if line["kind"] == kind]
        for kind in ("fault", "tampered", "forged", "soak", "fuzz")
    }
    sections = [_faults(of_kind["fault"]), _files(of_kind["tampered"], of_kind["forged"])]
    sections += [_fuzz(of_kind["fuzz"]), *map(_soak, of_kind["soak"])]
    return "\n".join([_BEGINNING, *filter(None, sections)])


def _faults(faults: Sequence[dict[str, Any]]) -> str:
    broken = [line["fault"] for line in faults if not line["kept"]]
    seeds = ", ".join(map(str, sorted({line["seed"] for line in faults})))
    heading = (
        f"## Faults\n\n`make faults`: **{len(faults)} faults, {len(broken)} broken promises**"
        f"{': ' + ', '.join(broken) if broken else ''}. Seed {seeds}, {sum(line['seconds'] for line in faults) / 60:.0f} minutes of"
        " one core. `make faults FAULT=name SEED=number` repeats one. `make test-thorough` runs a fixed share of them.\n"
    )
    ended = Counter((line["where"], line["ended"]) for line in faults)
    rows = [
        (WHERE[where], *(sum(ended[where, end] for end in ends) for ends in (ENDS, ENDS[:1], ENDS[1:2], ENDS[2:])))
        for where in WHERE
    ]
    by_where = _table(("what fails", "faults", "run completed", "run failed", "run killed"), rows)
    operations = Counter(line["operation"] for line in faults)
    by_operation = _table(("while", "faults"), operations.most_common())
    hows = Counter(line["how"] for line in faults)
    return f"{heading}\n{by_where}\n{by_operation}\n{_table(('how', 'faults'), sorted(hows.items()))}"


ENDS = ("completed", "failed", "killed")


def _files(tampered: Sequence[dict[str, Any]], forged: Sequence[dict[str, Any]]) -> str:
    rows = [
        (f"{line['kind']}: {line['what']}", line["count"] if line["kept"] else "**broken**", line["seed"])
        for line in (*tampered, *forged)
    ]
    total = {
        kind: sum(line["count"] for line in lines if line["kept"]) for kind, lines in (("t", tampered), ("f", forged))
    }
    return (
        f"## Tampered and forged files\n\n`make faults` again: **{total['t']:,} tampered files and {total['f']} forged backups refused**,"
        " the live database untouched.\n\n" + _table(("files", "refused", "seed"), rows)
    )


def _fuzz(fuzzed: Sequence[dict[str, Any]]) -> str:
    rows = [(line["what"], f"{line['count']:,}" if line["kept"] else "**broken**") for line in fuzzed]
    return (
        "## Fuzzing\n\n`make faults` again, with texts made by hypothesis.\n\n" + _table(("what", "texts"), rows)
        if rows
        else ""
    )


def _soak(soaked: dict[str, Any]) -> str:
    rows = sorted(soaked["operations"].items())
    differences = soaked["differences"]
    said = "no difference" if not differences else f"differences: {'; '.join(differences)}"
    measures = _table(("measure", "before", "after"), [(name, *values) for name, values in soaked["measures"].items()])
    return (
        f"## Soak\n\n`make soak SOAK_MINUTES={soaked['minutes']}`: {soaked['minutes']} minutes of random operations beside clients that"
        f" write, seed {soaked['seed']}: **{said}** between catalogue, bucket and databases. `make soak` runs an hour.\n\n"
        f"{_table(('operation', 'runs'), rows)}\n{measures}\n{_memory(soaked)}"
    )


def _memory(soaked: dict[str, Any]) -> str:
    if "memory" not in soaked:
        return ""
    row = _table([f"{10 * tenth} %" for tenth in range(11)], [soaked["memory"]])
    return (
        "Memory of the process, in MB, after each tenth of the operations. In the last quarter of them it was"
        f" {soaked['growth']} kB more for each operation than in the third; more than {MOST_GROWTH} kB fails.\n\n{row}"
    )


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(records()), encoding="utf-8")
    print(f"{PAGE.relative_to(CHECKOUT)} is made of {len(records())} records.")
