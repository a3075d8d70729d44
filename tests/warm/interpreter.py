"""An interpreter for tests of whole commands that has already imported everything.

`python -m ralr_tune status` takes 3 s on a slow core for its imports and a tenth of that for its work. A server process
imports the program once; `executable` replaces `sys.executable` in `[executable, "-m", "ralr_tune", ...]` and has the
server fork. The fork is a separate process, with its own arguments, folder, environment, standard files and signals,
and it starts its workers in the same way. It cannot show what the imports themselves do: tests of that, and those that
kill processes by their ids, start `sys.executable`.

The caller starts a small client (client.py), which sends its arguments and standard files to the server (server.py).
The server forks a keeper, and the keeper forks the program.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


class WarmInterpreter:
    """Starts the server. `executable` runs anything but `-m ralr_tune` in `sys.executable`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")  # not pytest's: a socket's path is short
        folder = Path(self._folder.name)
        address = folder / "socket"
        self.executable = folder / "python"
        # -I and -S: the client needs nothing but the standard library, and starts in a fifth of the time
        self.executable.write_text(
            f"#!{sys.executable} -IS\n"
            f"import sys\n\nsys.path.insert(0, {str(HERE)!r})\nimport client\n\n"
            f"client.main({str(address)!r}, {sys.executable!r})\n"
        )
        self.executable.chmod(0o700)
        self._server = subprocess.Popen(
            [sys.executable, HERE / "server.py", address, self.executable],
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """End the server; programs that it forked end by themselves."""
        self._server.communicate()
        self._folder.cleanup()
