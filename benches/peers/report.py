"""The tables, in Markdown: medians, the spread of the wall clock, and ours divided by the peer's.

Not here: measuring.
"""

from statistics import median

MIB = 1 << 20


class Report:
    """Collects what is printed, so that it can also go to a file."""

    def __init__(self, out):
        self.out = out

    def emit(self, text):
        print(text, flush=True)
        if self.out:
            self.out.write(text + "\n")
            self.out.flush()


def seconds(value):
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def spread(values):
    return f"{seconds(median(values))} ({seconds(min(values))} … {seconds(max(values))})"


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}" if theirs else "–"


def figures(run):
    """The medians of a run; of memory, which is a promise and not a speed, the highest."""
    found = {name: median(sample[name] for sample in run.samples) for name in ("wall_s", "cpu_s")}
    for name in ("largest_rss", "tree_rss"):
        found[name] = max(sample[name] for sample in run.samples)
    return found | {"stored": run.stored}


HEADER = (
    "| Tool | Transport | Runs | Wall | CPU | RSS, largest process | RSS, all processes | Stored "
    "| Ours ÷ peer: wall | CPU | RSS, all | Stored |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def row(run, peer):
    """One line; `peer` is the run that it is divided by, None for the peer itself."""
    head = f"| {run.label} | {run.tool.minio.transport} "
    if run.problem or not run.samples:
        reason = (run.problem or "no sample").splitlines()[0].replace("|", "/")[:200]
        return head + f"| 0 | not run: {reason} |" + " |" * 8
    mine = figures(run)
    walls = [sample["wall_s"] for sample in run.samples]
    cells = [
        str(len(walls)),
        spread(walls),
        seconds(mine["cpu_s"]),
        f"{mine['largest_rss'] / MIB:.1f} MiB",
        f"{mine['tree_rss'] / MIB:.1f} MiB",
        f"{run.stored / MIB:.2f} MiB" if run.stored is not None else "–",
    ]
    if peer is None or peer.problem or not peer.samples:
        cells += [""] * 4
    else:
        theirs = figures(peer)
        for name in ("wall_s", "cpu_s", "tree_rss", "stored"):
            both = mine[name] is not None and theirs[name] is not None
            cells.append(ratio(mine[name], theirs[name]) if both else "–")
    return head + "| " + " | ".join(cells) + " |"


def table(title, note, groups):
    """One piece of work."""
    lines = [f"\n## {title}\n", note + "\n", HEADER]
    for group in groups:
        lines += [row(run, group.peer) for run in group.ours]
        lines.append(row(group.peer, None))
    return "\n".join(lines)


def limits_table(total, limits):
    """The machine's limits, and what each would mean for the whole database."""
    lines = [
        "\n## The machine's limits\n",
        f"Median of up to three; the database has {total / MIB:.0f} MiB without its WAL.\n",
        "| Work | Bytes | Wall | CPU | Rate | The whole database |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for limit in limits:
        if limit.problem:
            lines.append(f"| {limit.title} | | not run: {limit.problem} | | | |")
            continue
        wall = median(limit.walls)
        cells = [
            limit.title,
            f"{limit.bytes / MIB:.0f} MiB" if limit.bytes else "–",
            seconds(wall),
            seconds(median(limit.cpus)) if limit.cpus else "–",
            f"{limit.bytes / MIB / wall:.0f} MiB/s" if limit.bytes else "–",
            seconds(total / limit.bytes * wall) if limit.bytes > 16 * MIB else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def limited_table(results):
    """The commands that ran under a limit of memory."""
    lines = [
        "\n## Under a memory limit of 128 MiB\n",
        "Held by a control group, page cache included; the cache was empty at the start. Hits: how "
        "often the kernel had to take pages back to stay below it.\n",
        "| Command | Wall | CPU | RSS | Peak of the group | Hits | Killed |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        if result.problem or not result.sample:
            reason = (result.problem or "no sample").splitlines()[0].replace("|", "/")[:200]
            lines.append(f"| {result.label} | not run: {reason} |" + " |" * 5)
            continue
        peak = result.figures["peak"]
        cells = [
            result.label,
            seconds(result.sample["wall_s"]),
            seconds(result.sample["cpu_s"]),
            f"{result.sample['largest_rss'] / MIB:.1f} MiB",
            f"{peak / MIB:.1f} MiB" if peak is not None else "–",
            str(result.figures["hits"]),
            str(result.figures["kills"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bars_table(rows):
    """What is judged."""
    words = {True: "met", False: "**missed**", None: "not judged"}
    lines = ["\n## Bars\n", "| Bar | Seen | |", "|---|---|---|"]
    lines += [f"| {bar} | {seen} | {words[holds]} |" for bar, seen, holds in rows]
    return "\n".join(lines)


def failures(tables):
    """The runs that were tried and failed, as text."""
    return [
        f"{title}: {run.label}: {run.problem}"
        for title, groups in tables.items()
        for group in groups
        for run in (*group.ours, group.peer)
        if run.problem and run.problem.startswith("failed")
    ]
