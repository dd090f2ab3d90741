"""The table of ratios, and the machine it was measured on."""
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path


def figure(number):
    """Three digits that count."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def verdict(row):
    """met, aim met, or short of it; nothing where only a figure is asked for."""
    def reached(goal):
        return row["ratio"] <= goal if row.get("at_most") else row["ratio"] >= goal
    if row.get("goal") is None:
        return ""
    if row.get("aim") is not None and reached(row["aim"]):
        return "aim met"
    return "met" if reached(row["goal"]) else "SHORT"


def cells(row):
    sign = "<=" if row.get("at_most") else ">="
    goal = "" if row.get("goal") is None else f"{sign} {row['goal']:g}" + (f" ({row['aim']:g})" if row.get("aim") else "")
    beside, ratio, spread = "", "", ""
    if "ratio" in row:
        beside, ratio = figure(row["theirs"]), f"{row['ratio']:.2f}"
    if "q1" in row:
        spread = f"{row['q1']:.2f}-{row['q3']:.2f}"
    return [row["case"], row["what"], row["beside"], figure(row["ours"]), beside, row["unit"], ratio, spread, goal, verdict(row)]


HEAD = ["case", "", "beside", "measured", "beside it", "unit", "ratio", "quartiles", "to reach (aim)", ""]
RIGHT = {3, 4, 6}


def aligned(head, lines, right):
    lines = [head] + lines
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip()
                     for line in lines)


def text_table(rows):
    return aligned(HEAD, [cells(row) for row in rows], RIGHT)


def text(result):
    """A case as it is printed: its lines, and what tables it has besides."""
    parts = [text_table([{"case": result["case"]} | row for row in result["rows"]])]
    for table in result.get("tables", []):
        parts.append(aligned(table["head"], table["rows"], set(range(1, len(table["head"])))))
    return "\n\n".join(parts)


def environment(bench, o):
    """Everything that another run would have to share to be compared with this one."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    def one(sql):
        return bench.admin.execute(sql).fetchone()[0]
    from measure import settings
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "holdfast_commit": os.environ.get("HOLDFAST_COMMIT", "unknown"),
        "postgresql": one("SELECT version()"),
        "kernel": platform.release(), "cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(),
        "memory_gb": round(memory, 1), "load_before": os.getloadavg()[0],
        "filesystem": subprocess.run(["stat", "--file-system", "--format=%T", bench.data], capture_output=True, text=True).stdout.strip(),
        "conditions": f"{o.slices} slices of {o.seconds:g} s, scale {o.scale:g}",
        "settings": {name: one(f"SHOW {name}") for name in settings()},
    }
