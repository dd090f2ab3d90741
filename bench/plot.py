"""Plots of a case's raw figures, as SVG, with nothing but the standard library."""
import math
from html import escape

from stats import quartiles

COLORS = ["#1f5fa8", "#c2571a", "#4d4d4d", "#1b7f5c", "#7a5195", "#b0892f"]
WIDTH, LEFT, RIGHT_EDGE = 860, 250, 770


class Drawing:
    def __init__(self, title):
        self.parts, self.height = [], 40
        self.text(10, 22, title, size=15, weight="bold")

    def text(self, x, y, text, size=12, anchor="start", color="#222", weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}" '
                          f'font-weight="{weight}">{escape(str(text))}</text>')

    def line(self, x1, y1, x2, y2, color="#ccc", width=1.0):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"/>')

    def box(self, x, y, width, height, color, opacity=1.0):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" fill="{color}" '
                          f'fill-opacity="{opacity}"/>')

    def dot(self, x, y, color, radius=3.0):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}" fill-opacity="0.65"/>')

    def path(self, points, color):
        self.parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.6" points="'
                          + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>')

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:.0f}" width="{WIDTH}" '
                f'height="{self.height:.0f}" font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
                + "\n".join(self.parts) + "\n</svg>\n")


def ticks(top, bottom=0.0):
    """Round numbers from bottom to a little above top."""
    step = 10 ** math.floor(math.log10(max(top - bottom, 1e-9)))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if (top - bottom) / s <= 6)
    count = math.ceil((top - bottom) / step)
    return [bottom + n * step for n in range(count + 1)]


def label(number):
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}"


def strips(title, groups, unit):
    """A line for each group: every slice a dot, the quartiles a bar, the median written out."""
    drawing = Drawing(title)
    marks = ticks(max(value for _, _, values in groups for value in values))
    scale = (RIGHT_EDGE - LEFT) / marks[-1]
    top, y, arms = drawing.height, drawing.height + 6, []
    last = None
    for heading, arm, values in groups:
        if arm not in arms:
            arms.append(arm)
        if heading != last:
            y += 10
            drawing.text(10, y + 11, heading, weight="bold")
            last = heading
        color = COLORS[arms.index(arm) % len(COLORS)]
        q1, median, q3 = quartiles(values)
        drawing.text(LEFT - 8, y + 11, arm, anchor="end")
        drawing.box(LEFT + q1 * scale, y + 2, (q3 - q1) * scale, 11, color, 0.3)
        drawing.line(LEFT + median * scale, y, LEFT + median * scale, y + 15, color, 2.2)
        for value in values:
            drawing.dot(LEFT + value * scale, y + 7.5, color)
        drawing.text(min(LEFT + max(values) * scale + 10, WIDTH - 60), y + 12, label(median), color=color)
        y += 20
    frame(drawing, marks, LEFT, scale, top, y, unit)
    return drawing.svg()


def frame(drawing, marks, left, scale, top, bottom, unit):
    """The grid, below everything that was drawn, and its numbers."""
    drawn, drawing.parts = drawing.parts, []
    for mark in marks:
        x = left + mark * scale
        drawing.line(x, top, x, bottom, "#e4e4e4")
        drawing.text(x, bottom + 16, label(mark), size=11, anchor="middle", color="#555")
    drawing.parts += drawn
    drawing.text(left, bottom + 32, unit, size=11, color="#555")
    drawing.height = bottom + 42


def lines(title, panels):
    """Panels of curves over one x axis: (unit, x unit, logarithmic, {name: [(x, y)]})."""
    drawing, left, right = Drawing(title), 70, WIDTH - 130
    for unit, x_unit, logarithmic, curves in panels:
        top, bottom = drawing.height + 14, drawing.height + 200
        drawing.text(left, top - 4, unit, size=11, color="#555")
        points = [p for curve in curves.values() for p in curve]
        x_top = max(x for x, _ in points) or 1
        highest, lowest = max(y for _, y in points), min(y for _, y in points)
        if logarithmic:
            low, high = math.floor(math.log10(max(lowest, 1e-3))), math.ceil(math.log10(max(highest, 1e-2)))
            marks = [10.0 ** n for n in range(low, high + 1)]

            def place(y, low=low, high=max(high, low + 1), bottom=bottom, top=top):
                return bottom - (math.log10(max(y, 1e-3)) - low) / (high - low) * (bottom - top)
        else:
            marks = ticks(highest)

            def place(y, peak=marks[-1], bottom=bottom, top=top):
                return bottom - y / peak * (bottom - top)
        for mark in marks:
            drawing.line(left, place(mark), right, place(mark), "#e4e4e4")
            drawing.text(left - 6, place(mark) + 4, label(mark), size=11, anchor="end", color="#555")
        names = []
        for n, (name, curve) in enumerate(curves.items()):
            color = COLORS[n % len(COLORS)]
            drawing.path([(left + x / x_top * (right - left), place(y)) for x, y in curve], color)
            names.append((place(curve[-1][1]), name, color))
        spread(drawing, names, right + 8)
        for mark in ticks(x_top):
            if mark <= x_top:
                drawing.text(left + mark / x_top * (right - left), bottom + 16, label(mark), size=11, anchor="middle", color="#555")
        drawing.text(right, bottom + 30, x_unit, size=11, anchor="end", color="#555")
        drawing.height = bottom + 40
    return drawing.svg()


def spread(drawing, names, x):
    """The curves' names beside their ends, none over another."""
    last = -100.0
    for y, name, color in sorted(names):
        last = max(y + 4, last + 14)
        drawing.text(x, last, name, size=11, color=color)


def stacks(title, columns, unit):
    """Horizontal bars made of parts: (name, {part: value})."""
    drawing = Drawing(title)
    marks = ticks(max(sum(parts.values()) for _, parts in columns))
    scale = (RIGHT_EDGE - LEFT) / marks[-1]
    names = list(dict.fromkeys(part for _, parts in columns for part in parts))
    x, y = 10, 44
    for n, name in enumerate(names):
        if x + 24 + 7 * len(name) > WIDTH:
            x, y = 10, y + 18
        drawing.box(x, y - 9, 10, 10, shade(n))
        drawing.text(x + 14, y, name, size=11)
        x += 30 + 7 * len(name)
    top = y + 14
    y = top + 6
    for column, parts in columns:
        drawing.text(LEFT - 8, y + 14, column, anchor="end")
        place = LEFT
        for n, name in enumerate(names):
            width = parts.get(name, 0) * scale
            if width:
                drawing.box(place, y, width, 20, shade(n))
            place += width
        drawing.text(place + 8, y + 14, label(sum(parts.values())))
        y += 28
    frame(drawing, marks, LEFT, scale, top, y, unit)
    return drawing.svg()


def shade(n):
    return (COLORS + ["#9ecae1", "#f2b58a", "#bdbdbd", "#8fd0b8"])[n % 10]


def ratios(title, rows):
    """A line for each line of the table: the ratio with its quartiles, and what it is to reach."""
    drawing = Drawing(title)
    marks = ticks(max(max(row.get("q3", row["ratio"]), row.get("goal") or 0) for row in rows))
    left, scale = 330, (RIGHT_EDGE - 330) / marks[-1]
    top, y = drawing.height, drawing.height + 8
    for row in rows:
        x = left + row["ratio"] * scale
        drawing.text(left - 8, y + 11, row["what"], anchor="end")
        if row.get("goal"):
            drawing.line(left + row["goal"] * scale, y, left + row["goal"] * scale, y + 16, "#b22222", 2)
        if "q1" in row:
            drawing.box(left + row["q1"] * scale, y + 4, (row["q3"] - row["q1"]) * scale, 8, COLORS[0], 0.35)
        drawing.dot(x, y + 8, COLORS[0], 4)
        drawing.text(RIGHT_EDGE + 20, y + 12, f"{row['ratio']:.2f}")
        y += 20
    frame(drawing, marks, left, scale, top, y, "ratio; red: what it is to reach, or not to exceed")
    return drawing.svg()


def of_case(result):
    """The plot that a case's raw figures call for."""
    title, raw = result["title"], result["raw"]
    first = raw[0]
    if "bytes_per_job" in first:
        columns = list(dict.fromkeys((r["batch"], r["arm"]) for r in raw))
        return stacks(f"{title}, bytes", [(f"{arm}, batch {batch}", medians([r["bytes_per_job"] for r in raw if (r["batch"], r["arm"]) == (batch, arm)]))
                                          for batch, arm in columns], "bytes of log per job")
    if "p999_ms" in first:
        return lines(title, [("ms, enqueue to complete", "s", True, {key: [(r["second"], r[f"{name}_ms"]) for r in raw]
                              for key, name in (("max", "max"), ("p99.9", "p999"), ("p99", "p99"), ("p50", "p50"))}),
                             ("jobs/s", "s", False, {"jobs/s": [(r["second"], r["jobs_per_s"]) for r in raw]})])
    if "anonymous_kb" in first:
        cycles = [r for r in raw if "cycles" in r]
        return lines(title, [("kB of the backend", "cycles of claim and complete", False, {
            "anonymous": [(r["cycles"], r["anonymous_kb"]) for r in cycles], "contexts": [(r["cycles"], r["contexts_kb"]) for r in cycles]})])
    if "snapshot" in first:
        curves = {}
        for r in raw:
            curves.setdefault(f"{r['arm']}{', held' * r['snapshot']}", []).append((r["slice"], r["rate"]))
        return lines(title, [("jobs/s", "slice", False, curves)])
    if "rate" in first:
        groups = {}
        for r in raw:
            clients = r.get("clients")
            heading = f"{clients} client{'s' * (clients > 1)}" if clients else ""
            groups.setdefault((heading, r["arm"]), []).append(r["rate"])
        return strips(title, [(heading, arm, values) for (heading, arm), values in groups.items()], "jobs/s; every dot is a slice")
    return ratios(title, [row for row in result["rows"] if "ratio" in row])


def medians(dicts):
    """The median of each key."""
    keys = dict.fromkeys(key for d in dicts for key in d)
    return {key: quartiles([d.get(key, 0) for d in dicts])[1] for key in keys}
