"""Nothing here needs what only POSIX has: all modules are imported, and a command run, without any of it."""

import os
import subprocess
import sys
from pathlib import Path

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "_posixsubprocess")
# What `os` and `signal` lack on Windows.
OF_OS = (
    *("sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "getgid", "getegid", "getgroups", "fork", "uname"),
    *("getpgid", "getpgrp", "setpgid", "getsid", "setsid", "killpg", "getloadavg", "nice", "getpriority", "wait3"),
    *("chown", "lchown", "fchown", "fchmod", "mkfifo", "mknod", "statvfs", "fstatvfs", "pread", "pwrite", "sysconf"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_SYNC", "O_CLOEXEC", "posix_fadvise", "sendfile", "lockf", "sync"),
)
OF_SIGNAL = ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGPIPE", "alarm", "setitimer", "pause")

ELSEWHERE = f"""
import builtins, importlib, os, pkgutil, signal, sys
import jsplat

def everything():
    return [importlib.import_module(found.name) for found in pkgutil.walk_packages(jsplat.__path__, "jsplat.")
            if found.name != "jsplat.__main__"]

everything()  # what others wrote may need POSIX where it is POSIX: it is imported before that is hidden
for name in [name for name in sys.modules if name.partition(".")[0] == "jsplat"]:
    del sys.modules[name]
plain = builtins.__import__

def without(name, globals=None, *more):
    if name.partition(".")[0] in {MODULES} and (globals or {{}}).get("__name__", "").startswith("jsplat"):
        raise ModuleNotFoundError(f"{{globals['__name__']}} imports {{name}}, which Windows has not")
    return plain(name, globals, *more)

builtins.__import__ = without
for module, names in ((os, {OF_OS}), (signal, {OF_SIGNAL})):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

import jsplat
found = everything()
assert len(found) > 100, len(found)
from pathlib import Path
from jsplat.captures.capture import write_capture
from jsplat.cli import main
from jsplat.files.lock import held
from tests import ball

main.command("degrees")(lambda: print("45\\u00b0"))
root = Path(sys.argv[1])
write_capture(root / "captures" / "ball", ball.capture())
with held(root / "run" / ".lock", "one at a time"):
    pass
for command in (["degrees"], ["export-masks", str(root / "captures"), str(root / "masks")]):
    main(command, standalone_mode=False)
"""


def test_it_works_without_what_only_posix_has(tmp_path):
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}  # a console that has no degrees
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("45\\xb0")
    assert any((tmp_path / "masks").rglob("*.png"))
