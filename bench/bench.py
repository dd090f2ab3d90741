#!/usr/bin/python3
"""The benchmark's driver: scripts/bench starts it beside a private server."""
import argparse
import json
import os
import sys
import traceback
from pathlib import Path

import docs
import measure
import plot
import report
from cases import all_cases

FULL_SLICES, FULL_SECONDS = 9, 4


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--needs", action="store_true")
    parser.add_argument("--settings", action="store_true")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--data")
    parser.add_argument("--results", type=Path)
    o = parser.parse_args()
    o.quick = os.environ.get("QUICK", "") not in ("", "0")
    o.slices = int(os.environ.get("SLICES") or (3 if o.quick else FULL_SLICES))
    o.seconds = float(os.environ.get("SECONDS_EACH") or (3 if o.quick else FULL_SECONDS))
    o.scale = float(os.environ.get("SCALE") or 1)
    o.full = not o.quick and o.slices >= FULL_SLICES and o.seconds >= 3 and o.scale >= 1
    known = all_cases()
    unknown = [name for name in o.cases if name not in known]
    if unknown:
        sys.exit(f"no case is named {', '.join(unknown)}; there are {', '.join(known)}")
    o.chosen = [known[name] for name in o.cases] or [c for c in known.values() if c.quick or not o.quick]
    return o


def dump(path, result):
    """JSON with a line for each slice, so that a difference can be read."""
    lines = []
    for key, value in result.items():
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
        else:
            text = json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    o = options()
    if o.needs:
        print(*sorted({need for case in o.chosen for need in case.needs if not (o.quick and need == "node")}))
    elif o.settings:
        for name, value in measure.settings().items():
            print(f"-c\n{name}={value}")
    elif o.list:
        for case in o.chosen:
            print(f"{case.name:14} {case.seconds(measure.Plan(o)) / 60:5.1f} min  {case.title}")
    elif o.docs:
        docs.write(Path(__file__).resolve().parent.parent)
    else:
        run(o)


def run(o):
    bench = measure.Bench(o)
    environment = report.environment(bench, o)
    folder = o.results if o.full else o.results / "trial"
    folder.mkdir(parents=True, exist_ok=True)
    dump(folder / "environment.json", environment)
    if environment["load_before"] > 0.5 * environment["cores"]:
        print(f"the machine is busy: load {environment['load_before']:.1f} on {environment['cores']} cores", file=sys.stderr)
    plan = [(case, case.seconds(bench)) for case in o.chosen]
    bench.expect(sum(seconds for _, seconds in plan))
    table, failed = [], []
    for case, seconds in plan:
        bench.begin(case.name, seconds)
        try:
            measured = case.run(bench)
        except Exception:
            traceback.print_exc()
            failed.append(case.name)
            continue
        finally:
            bench.end()
        result = {"case": case.name, "title": case.title, "versions": bench.versions, "environment": environment} | measured
        dump(folder / f"{case.name}.json", result)
        (folder / f"{case.name}.svg").write_text(plot.of_case(result))
        table += [{"case": case.name} | row for row in measured["rows"]]
        print(report.text(result), flush=True)
    if len(plan) > 1:
        print("\n" + report.text_table(table))
    print(f"\n{environment['conditions']}\nraw results: bench/results{'' if o.full else '/trial'}")
    if failed:
        sys.exit(f"not measured, see above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
