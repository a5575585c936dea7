#!/usr/bin/env bash
# tqdm 4.70.1: where the terminal says that its size is unknown (0 x 0), a bar prints only an empty
# line, also with ncols=80 or COLUMNS=80.
#
# A good engineer's guess: a new pseudo-terminal has the size 0 x 0 until somebody sets it. tqdm shows
# there what it shows without a terminal, or uses 80 x 24 as shutil.get_terminal_size does, at least
# if ncols gives the width.
# What happens: tqdm uses one column and one line fewer than reported, here -1 and -1, and replaces
# only None and 0 by defaults. A bar at line 0 is below the last of -1 lines, and so is not drawn.
# Only ncols and nrows together help. A pipe, for which the question fails, shows bars.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tqdm==4.70.1
"$folder/venv/bin/python" - <<'PY'
import os
import platform
import pty
import subprocess
import sys
import termios

import tqdm

print("Python", platform.python_version(), "tqdm", tqdm.__version__)

BAR = "from tqdm import tqdm\nfor _ in tqdm(range(3), {}): pass"
SIZE = "import os, shutil, sys; print(*os.get_terminal_size(2), *shutil.get_terminal_size(), file=sys.stderr)"


def shown(code, size=None, **environment):
    """What `code` writes to a terminal of (lines, columns)."""
    ours, theirs = pty.openpty()
    if size:
        termios.tcsetwinsize(theirs, size)
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES") and "TQDM" not in k}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs,
                             env=kept | environment)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert child.wait() == 0
    return text.decode()


print("size by os, by shutil:", shown(SIZE).split())
assert shown(SIZE).split() == ["0", "0", "80", "24"]
found = {
    "size 24 x 80": shown(BAR.format(""), (24, 80)),
    "size unset": shown(BAR.format("")),
    "size unset, ncols=80": shown(BAR.format("ncols=80")),
    "size unset, dynamic_ncols=True": shown(BAR.format("dynamic_ncols=True")),
    "size unset, COLUMNS=80 LINES=24": shown(BAR.format(""), COLUMNS="80", LINES="24"),
    "size unset, ncols=80, nrows=24": shown(BAR.format("ncols=80, nrows=24")),
    "no terminal": subprocess.run([sys.executable, "-c", BAR.format("")], capture_output=True,
                                  text=True, check=True).stderr,
}
for name, text in found.items():
    print(f"{name:32} {'bar' if '3/3' in text else repr(text)}")
blank = [name for name, text in found.items() if text == "\r\n"]
assert blank == [name for name in found if "unset" in name and "nrows" not in name]
assert all("100%" in text and "3/3" in text for name, text in found.items() if name not in blank)
print("as described")
PY
