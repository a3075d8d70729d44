"""All calibration tables, as Markdown: `python -m tests.calibration`, which is `make calibrate`.

RALR_TUNE_CALIBRATE is the number of studies per row of verdicts (1,000 by default); the other tables scale with it, as
their titles say. Two processes. Exits with 1 and names the rows whose promise is broken.
"""

from __future__ import annotations

import sys
import time

from tests.calibration import importance, recorded, recorded_importance, searches, verdicts
from tests.calibration.tables import show


def main() -> int:
    started = time.monotonic()
    of_verdicts = [*verdicts.TABLES, searches.TABLE, recorded.table()]
    broken = show([*of_verdicts, importance.table([]), *recorded_importance.tables()], processes=2)
    print(f"\n{time.monotonic() - started:.0f} s; promises broken, binomial error aside: {len(broken) or 'none'}")
    for fault in broken:
        print(f"error: {fault}", file=sys.stderr)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
