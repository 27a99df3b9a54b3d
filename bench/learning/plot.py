"""Draws the curves of `tiger-learning`: a panel a task, a line a method (median of its seeds, the seeds themselves pale behind).

    python bench/learning/plot.py learning.jsonl docs/learning.svg

Needs PyPI's matplotlib.
"""

import collections
import json
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plot

COLUMNS = 4


def main(source, target):
    runs = collections.defaultdict(lambda: collections.defaultdict(dict))
    with open(source, encoding="utf-8") as file:
        for line in map(json.loads, file):
            runs[line["task"]][line["method"]].setdefault(line["seed"], []).append(line)
    rows = -(-len(runs) // COLUMNS)
    plot.rcParams.update({"font.size": 8, "svg.hashsalt": "tiger", "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plot.subplots(rows, COLUMNS, figsize=(3 * COLUMNS, 2.2 * rows), sharey=True, squeeze=False, layout="constrained")
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis, (task, methods) in zip(axes.flat, runs.items()):
        for number, (method, seeds) in enumerate(methods.items()):
            colour = f"C{number}"
            points = collections.defaultdict(lambda: ([], []))
            longest = max(line["call"] for looks in seeds.values() for line in looks)
            for looks in seeds.values():
                axis.plot([x["call"] for x in looks], [x["good"] for x in looks], color=colour, alpha=0.2, linewidth=0.8)
                # A run that reached its goal stays there, or a median of those left would fall.
                calls = sorted({x["call"] for other in seeds.values() for x in other})
                for call in calls:
                    seen = [x for x in looks if x["call"] <= call][-1]
                    points[call][0].append(seen["good"])
                    points[call][1].append(seen["right"])
            calls = sorted(points)
            axis.plot(calls, [statistics.median(points[x][0]) for x in calls], color=colour, label=method)
            axis.plot(calls, [statistics.median(points[x][1]) for x in calls], color=colour, linestyle=":", linewidth=0.8)
            axis.set_xlim(0, longest)
        axis.set_title(task)
        axis.set_ylim(0, 1.02)
    axes.flat[0].legend(frameon=False)
    figure.supxlabel("train calls")
    figure.supylabel("share: as wanted (line); right greedy answers (dots)")
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: plot.py RESULTS.jsonl OUT.svg")
    main(*sys.argv[1:])
