"""Runs `agegender` in processes that are stopped, at any moment that is asked for.

`Commands` starts this file as a process of its own, which imports TensorFlow once and
forks for every command: that saves the seconds that the import takes. Nothing of
TensorFlow is carried out before the fork.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

# Events of `sys.audit` with which a process changes what lies on the disk.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class Result(NamedTuple):
    """How a command ended.

    Attributes:
        code: Exit code; negative is the number of the signal that ended it.
        text: What it printed, on both streams.
        seconds: How long it took.
        changes: How often it wrote, renamed or removed a file.
    """

    code: int
    text: str
    seconds: float
    changes: int

    @property
    def calm(self):
        """Whether it printed neither a traceback nor an error of no one's making."""
        return "Traceback" not in self.text and "unexpected" not in self.text


class Commands:
    """Runs commands, one after the other or beside each other.

    Args:
        block_size: Pictures of a block of `prepare`, so that few make many blocks.
    """

    def __init__(self, block_size=8):
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(block_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait()

    def __call__(self, *arguments, **stop):
        """Runs `agegender` with these arguments; see `together`."""
        return self.together(arguments, **stop)[0]

    def together(self, *commands, after=None, at_change=None, number=9, limit=300):
        """Runs several commands at once.

        Args:
            *commands: Arguments of each.
            after: Seconds after which all get a signal.
            at_change: How many changes of the disk before a process gets it.
            number: Of the signal. Defaults to 9, SIGKILL.
            limit: Seconds after which they hang.
        """
        request = {
            "commands": [[str(a) for a in command] for command in commands],
            "after": after,
            "at_change": at_change,
            "number": int(number),
            "limit": limit,
        }
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return [
            Result(*values) for values in json.loads(self.process.stdout.readline())
        ]


class _Child:
    """A forked process; what it counts lies in memory that both see."""

    def __init__(self, arguments, request):
        self.counter = mmap.mmap(-1, 8)
        self.output = os.memfd_create("output")
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments, request["at_change"], request["number"])

    def _run(self, arguments, at_change, number):
        os.setpgid(0, 0)
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        code = 70
        try:
            sys.addaudithook(lambda *event: self._count(event, at_change, number))
            from keras_agegender.cli.main import main

            code = main(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
        except SystemExit as end:
            code = end.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code if isinstance(code, int) else 1)

    def _count(self, event, at_change, number):
        name, arguments = event
        writes = name == "open" and isinstance(arguments[1], str) and (
            set(arguments[1]) & set("wax+")
        )  # fmt: skip
        if name not in CHANGES and not writes:
            return
        (count,) = struct.unpack("q", self.counter[:8])
        self.counter[:8] = struct.pack("q", count + 1)
        if at_change is not None and count == at_change:
            os.kill(os.getpid(), number)

    def ended(self):
        """Returns the result; `None` while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        seconds = time.monotonic() - self.began
        size = os.fstat(self.output).st_size
        text = os.pread(self.output, size, 0).decode("utf-8", "replace")
        os.close(self.output)
        (count,) = struct.unpack("q", self.counter[:8])
        return Result(os.waitstatus_to_exitcode(status), text, seconds, count)


def _serve(block_size):
    # A shell that starts this in the background lets it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import importlib
    import pkgutil

    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    import keras_agegender
    from keras_agegender.datasets import prepare as preparation

    for module in pkgutil.walk_packages(keras_agegender.__path__, "keras_agegender."):
        if "beam" not in module.name:
            importlib.import_module(module.name)
    preparation.BLOCK_SIZE = block_size
    for line in sys.stdin:
        request = json.loads(line)
        children = [_Child(command, request) for command in request["commands"]]
        print(json.dumps(_wait(children, request)), flush=True)


def _wait(children, request):
    results, sent, began = [None] * len(children), False, time.monotonic()
    while None in results:
        time.sleep(0.005)
        for index, child in enumerate(children):
            if results[index] is None:
                results[index] = child.ended()
        waited = time.monotonic() - began
        running = [c for c, r in zip(children, results, strict=True) if r is None]
        if request["after"] is not None and waited > request["after"] and not sent:
            sent = True
            for child in running:
                os.kill(child.pid, request["number"])
        if waited > request["limit"]:
            for child in running:
                os.kill(child.pid, signal.SIGKILL)
    return results


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(Path(__file__).parent))
    _serve(int(sys.argv[1]))
