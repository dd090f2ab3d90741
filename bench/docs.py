"""The generated part of docs/performance.md: every figure in it comes from bench/results, none is typed."""
import json
import re
from inspect import getdoc
from pathlib import Path

import plot
import report
from cases import all_cases

BEGIN, END = "<!-- begin: written by scripts/bench --docs -->", "<!-- end -->"
PEERS = ("hand-written", "PgQ", "graphile-worker", "pg-boss", "INSERT")


def write(checkout):
    """Bring the document and the plots up to the results that lie in the checkout."""
    folder = checkout / "bench" / "results"
    results = {name: json.loads((folder / f"{name}.json").read_text()) for name in all_cases() if (folder / f"{name}.json").exists()}
    for name, result in results.items():
        (folder / f"{name}.svg").write_text(plot.of_case(result))
    path = checkout / "docs" / "performance.md"
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(before + BEGIN + "\n\n" + generated(results) + "\n" + END + after)


def generated(results):
    parts = ["## Where holdfast is not ahead, or falls short\n", behind(results)]
    parts += ["## Case by case\n"]
    parts += [section(case, results.get(name)) for name, case in all_cases().items()]
    return "\n".join(parts)


def behind(results):
    """Lines whose goal is missed, and lines of peers that are faster, whether or not anything was to be reached."""
    lines = []
    for result in results.values():
        for row in result["rows"]:
            if "ratio" not in row:
                continue
            missed = report.verdict(row) == "SHORT"
            slower = row["beside"].startswith(PEERS) and not row.get("at_most") and row["ratio"] < 1 and result["case"] != "handwritten"
            if missed or slower:
                lines.append({"case": result["case"]} | row)
    if not results:
        return "Nothing has been measured in full yet.\n"
    if not lines:
        return "Nowhere in the cases below.\n"
    lines.sort(key=lambda row: report.verdict(row) != "SHORT")
    return ("SHORT is below what was to be reached. The others are peers that were faster where nothing, or less, was to be reached.\n\n"
            + markdown([report.HEAD, *map(report.cells, lines)]))


def markdown(lines, right=report.RIGHT):
    head, *rest = lines
    rule = ["---:" if n in right else "---" for n in range(len(head))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (head, rule, *rest)) + "\n"


def section(case, result):
    text = f"### {case.name}: {case.title}\n\n{paragraphs(getdoc(case.run))}\n"
    if not result:
        return text + "\nNot measured in full yet.\n"
    text += "\n" + markdown([report.HEAD[1:]] + [report.cells({"case": ""} | row)[1:] for row in result["rows"]], {n - 1 for n in report.RIGHT})
    for table in result.get("tables", []):
        text += f"\n{table['title'][0].upper()}{table['title'][1:]}:\n\n" + markdown([table["head"], *table["rows"]], set(range(1, len(table["head"]))))
    at, versions = result["environment"], ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    text += f"\n![{case.title}](../bench/results/{case.name}.svg)\n"
    text += (f"\n{at['at'][:10]}, commit {at['holdfast_commit']}, {at['conditions']}; {versions}; {at['postgresql'].split(' (')[0]}, "
             f"{at['cores']} cores of {at['cpu']}, {at['memory_gb']:g} GB; [raw figures](../bench/results/{case.name}.json).\n")
    return text


def paragraphs(doc):
    """A docstring's paragraphs, each on a line of its own."""
    return "\n\n".join(re.sub(r"\s+", " ", part).strip() for part in doc.split("\n\n"))
