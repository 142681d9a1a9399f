"""The bars that the figures are held against: what each must be, what was seen, whether it holds.

Ratios are of medians. Not here: measuring, and the tables of all figures (report.py).
"""

from statistics import median

from report import MIB, figures, ratio, seconds

RSS_MIB_MAX = 96
BARE_PUT_PLUS_S = 0.040
LIMIT_FACTOR = 1.25
BACKLOG_FACTOR = 8

# Of one segment, ours divided by Barman's: wall, CPU.
SEGMENT = {"zstd": (1 / 8, 1 / 8), "lz4": (1 / 8, 1 / 8), "snappy": (1 / 8, 1 / 8), "gzip": (1 / 4, 1 / 2)}
# Of a base backup, the wall alone.
BASE_BACKUP = {"lz4": 0.6, "snappy": 0.6, "gzip": 0.2}
RESTORE = 0.6


class Bars:
    """Collects (bar, seen, whether it holds); None where something to judge by is missing."""

    def __init__(self, tables, limits, total):
        self.tables, self.total = tables, total
        self.limits = {limit.key: limit for limit in limits if limit.key and limit.walls}
        self.rows = []

    def add(self, bar, seen, holds):
        self.rows.append((bar, seen, holds))

    def at_most(self, bar, seen, limit, show=seconds):
        """`seen` and `limit` are None where they were not measured."""
        if seen is None or limit is None:
            self.add(bar, "not measured", None)
        else:
            self.add(bar, f"{show(seen)} of {show(limit)}", seen <= limit)

    def limit(self, key, factor):
        """So many times the time that the limit means for the whole database."""
        limit = self.limits.get(key)
        return limit and factor * median(limit.walls) * self.total / limit.bytes

    def groups(self, piece, peer):
        """(codec, ours, peer's) of the pairs that were measured."""
        for group in self.tables.get(piece, ()):
            runs = (group.ours[0], group.peer)
            if group.peer.tool.name == peer and all(run.samples and not run.problem for run in runs):
                yield group.peer.compression.partition(":")[0], *(figures(run) for run in runs)


def share(value):
    return f"{value:.3f}"


def judge(tables, limits, total, limited):
    """All bars; `limited`: the commands under a limit of memory, or None."""
    bars = Bars(tables, limits, total)
    judge_wal(bars)
    judge_base_backup(bars)
    judge_restore(bars)
    judge_memory(bars, limited)
    return bars.rows


def judge_wal(bars):
    for codec, ours, theirs in bars.groups("wal", "Barman"):
        if codec == "none":
            bare = bars.limits.get("put-one-http")
            most = bare and median(bare.walls) + BARE_PUT_PLUS_S
            bars.at_most("one segment, none: wall, the bare PUT + 40 ms", ours["wall_s"], most)
        for name, word, most in zip(("wall_s", "cpu_s"), ("wall", "CPU"), SEGMENT.get(codec, ())):
            bar = f"one segment, {codec}: {word} ÷ Barman's ≤ {most:g}"
            bars.at_most(bar, ours[name] / theirs[name], most, share)
    for codec, ours, theirs in bars.groups("wal", "pgBackRest"):
        if codec == "zstd":
            bar = "one segment, zstd: wall ÷ pgBackRest's ≤ 1"
            bars.at_most(bar, ours["wall_s"] / theirs["wall_s"], 1, share)
    for codec, ours, theirs in bars.groups("backlog", "Barman"):
        seen = theirs["wall_s"] / ours["wall_s"]
        bar = f"backlog, {codec}: rate ÷ Barman's ≥ {BACKLOG_FACTOR}"
        bars.add(bar, f"{seen:.1f}", seen >= BACKLOG_FACTOR)


def judge_base_backup(bars):
    for codec, ours, theirs in bars.groups("backup", "Barman"):
        if codec == "none":
            limits = [bars.limit(key, LIMIT_FACTOR) for key in ("read", "put-signed-http")]
            most = None if None in limits else max(limits)
            bar = f"base backup, none: wall, {LIMIT_FACTOR} × the slower of read and PUT, bodies signed"
            bars.at_most(bar, ours["wall_s"], most)
        elif codec in BASE_BACKUP:
            bar = f"base backup, {codec}: wall ÷ Barman's ≤ {BASE_BACKUP[codec]:g}"
            bars.at_most(bar, ours["wall_s"] / theirs["wall_s"], BASE_BACKUP[codec], share)
    for codec, ours, theirs in bars.groups("backup", "pgBackRest"):
        bar = f"base backup, {codec}: wall ÷ pgBackRest's ≤ 1"
        bars.at_most(bar, ours["wall_s"] / theirs["wall_s"], 1, share)


def judge_restore(bars):
    for codec, ours, theirs in bars.groups("restore", "Barman"):
        limit = bars.limit(f"restore-{codec}", LIMIT_FACTOR)
        most = max(RESTORE * theirs["wall_s"], limit or 0)
        bar = f"restore, {codec}: wall, the larger of {RESTORE} × Barman's and {LIMIT_FACTOR} × the limit"
        bars.at_most(bar, ours["wall_s"], most)
        ours_to_theirs = ratio(ours["wall_s"], theirs["wall_s"])
        bars.rows[-1] = (bar, f"{bars.rows[-1][1]} ({ours_to_theirs} of Barman's)", bars.rows[-1][2])


def judge_memory(bars, limited):
    runs = [run for groups in bars.tables.values() for group in groups for run in group.ours]
    peaks = [(figures(run)["tree_rss"], run.label) for run in runs if run.samples]
    if peaks:
        peak, label = max(peaks)
        seen = f"{peak / MIB:.1f} MiB ({label})"
        bars.add(f"peak RSS of each command ≤ {RSS_MIB_MAX} MiB", seen, peak <= RSS_MIB_MAX * MIB)
    if limited is not None:
        done = sum(result.is_done for result in limited)
        holds = done == len(limited)
        # What could not be tried is not missed.
        if any(result.problem and not result.problem.startswith("failed") for result in limited):
            holds = None
        seen = f"{done} of {len(limited)} commands came to their end"
        bars.add("backup and restore under a memory limit of 128 MiB", seen, holds)
