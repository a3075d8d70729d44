"""What comparing the data costs at start: `python -m benchmarks.identity --files 60000 1300000`.

Writes a tree of tiny pictures (8x8, BMP, all different: a fiftieth for test, the rest for train, in 1,000 classes
or fewer) into a temporary folder, and prints wall-clock seconds of one process for each kind of start:

first      of a study: names, sizes and times; copies across splits; all test images decoded (training images are hashed
           while the first worker decodes them, which is not part of this)
again      the same data: names, sizes and times alone
contents   files with other times or in another place, as on another machine: all contents are read and hashed

"warm": the files are in the system's cache. "cold": that cache was emptied before (needs root; otherwise "-").
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = 1000
TEST_SHARE = 50
CACHE = Path("/proc/sys/vm/drop_caches")

_CHILD = """
import sys, time
from pathlib import Path
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.section import ClassificationSection
data = {"source": "folder", "path": sys.argv[1], "size": 8}
section = ClassificationSection.model_validate({"kind": "classification", "data": data, "model": "small_cnn"})
started = time.perf_counter()
found = KIND.inventory(section, seed=0, cache=Path(sys.argv[2]) / "data", contents=sys.argv[3] == "contents")
print(time.perf_counter() - started, sum(split.total for split in found.splits))
"""


def main(typed: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[60_000, 1_300_000])
    parser.add_argument("--folder", type=Path, help="where to write the tree; removed at the end")
    arguments = parser.parse_args(typed)
    print(f"{'files':>10}  {'start':<10}{'warm':>8}{'cold':>8}   seconds")
    for count in arguments.files:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
            root = Path(made) / "pictures"
            write_tree(root, count)
            for start in ("first", "again", "contents"):
                times = [_seconds(root, Path(made), start, cold) for cold in (False, True)]
                warm, cold = ("-" if each is None else f"{each:.2f}" for each in times)
                print(f"{count:>10,}  {start:<10}{warm:>8}{cold:>8}", flush=True)


def write_tree(root: Path, count: int) -> None:
    """`count` pictures below `root`, each of 246 bytes; no two are equal."""
    header = b"BM" + (246).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    classes = min(CLASSES, count // 40)
    header += (8).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    for split, number in (("test", count // TEST_SHARE), ("train", count - count // TEST_SHARE)):
        for name in range(classes):
            folder = root / split / f"class{name:04}"
            folder.mkdir(parents=True)
            for each in range(name, number, classes):
                pixels = f"{split}{each:012}".encode().ljust(192, b".")
                with open(folder / f"{each}.bmp", "wb", buffering=0) as file:
                    file.write(header + pixels)


def _seconds(root: Path, out: Path, start: str, cold: bool) -> float | None:
    """Of one start in a process of its own; None if the system's cache cannot be emptied."""
    if start != "again":
        for file in (out / "data").glob("inventory-*.json"):
            file.unlink()
    if cold and not _empty_cache():
        return None
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(root), str(out), start], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0])


def _empty_cache() -> bool:
    os.sync()
    try:
        CACHE.write_text("3")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
