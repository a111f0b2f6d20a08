"""Run a program on a terminal, as a user does."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import termios


def in_terminal(*arguments: str, columns: int, **environment: str) -> str:
    """Return what `python ARGUMENTS…` writes to a pseudo-terminal of so many columns, stdout and stderr; it must end well."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")} | {"TERM": "xterm-256color"} | environment
    with subprocess.Popen([sys.executable, *arguments], stdout=slave, stderr=slave, stdin=slave, env=env) as process:
        os.close(slave)
        written = b""
        with contextlib.suppress(OSError):  # Linux says EIO when the other end is closed
            while piece := os.read(master, 65536):
                written += piece
        os.close(master)
        assert process.wait() == 0, written
    return written.decode().replace("\r\n", "\n")
