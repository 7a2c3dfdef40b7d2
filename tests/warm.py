"""Processes that start at once: they are forked from one that has already imported PyTorch and what else takes seconds.

`warm()` starts that one, once in each of pytest's processes. From then on the kernels of notebooks that tests execute
are forked from it, and so are the commands in its folder `bin`. srlib itself is not imported beforehand, and the
project `made` of conftest.py is made without all this. What is read when PyTorch or Python starts (OMP_NUM_THREADS,
PYTHONIOENCODING) stays as it was then; a process that a signal ended has the exit status 128 + its number.
"""

import atexit
import errno
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

HEAVY = [
    "torch._dynamo",
    "torchvision.transforms.v2.functional",
    "timm.utils",
    "torchmetrics.functional.classification",
    "accelerate",
    "pandas",
    "papermill.cli",
    "ipykernel.ipkernel",
]
COMMANDS = {
    "python": "",
    "srlib": "-m srlib",
    "papermill": "-m papermill",
    "torchrun": "-m torch.distributed.run",
}
KERNEL = "JPY_PARENT_PID"  # what Jupyter gives a kernel


@cache
def warm() -> Path:
    """The folder with the commands, `bin`, and the kernel; Jupyter finds the kernel in every process begun later."""
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    python = [sys.executable, "-I", "-S", __file__, "ask", str(folder / "socket")]
    kernel = {"argv": [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3"}
    (folder / "kernels/python3").mkdir(parents=True)
    (folder / "kernels/python3/kernel.json").write_text(json.dumps({**kernel, "language": "python"}))
    (folder / "bin").mkdir()
    for name, beginning in COMMANDS.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {" ".join(python)} {beginning} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    until, _ = os.pipe()  # the other end is closed when this process ends, and then that one does
    line = [sys.executable, __file__, "serve", str(folder / "socket")]
    with (folder / "log").open("w") as log:
        subprocess.Popen(line, stdin=until, stderr=log, start_new_session=True)  # no Ctrl-C for it
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))
    return folder


def serve(place: str) -> list[str]:
    """Returns in the processes forked for clients alone, in a client's folder, with its environment and files: the
    arguments to run.
    """
    for name in HEAVY:
        import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[name]  # it chooses how figures are shown when it is imported
    gc.freeze()  # the children share its memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that have ended leave nothing behind
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place + ".new")
        listening.listen()
        os.rename(place + ".new", place)
        while True:
            if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
                shutil.rmtree(Path(place).parent)
                os._exit(0)
            connection, _ = listening.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return attend(connection)
            connection.close()


def attend(connection: socket.socket) -> list[str]:
    """Fork the process that the client asks for, where this returns; elsewhere wait for its end or the client's."""
    text, files, _, _ = socket.recv_fds(connection, 2**20, 3)
    while not text.endswith(b"\0"):
        more = connection.recv(2**20)
        if not more:
            os._exit(1)  # the client is gone
        text += more
    arguments, folder, environment = json.loads(text[:-1])
    child = os.fork()
    if not child:
        connection.close()
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        if KERNEL in environment:
            os.environ[KERNEL] = str(os.getppid())  # a kernel ends where this is not its parent
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace")  # line by line
        return arguments
    connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    if connection in select.select([ended, connection], [], [])[0]:
        for end in (os.killpg, os.kill):  # it has no group yet, if it has just begun
            with suppress(ProcessLookupError):
                end(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def ask(place: str, arguments: list[str]) -> int:
    """The client: has `python` with these arguments run in a forked process; its exit status. Signals go on to it. A
    kernel is ended when the process is gone that has asked for it.
    """
    parent, until = os.getppid(), time.monotonic() + 120
    with socket.socket(socket.AF_UNIX) as connection:
        while refused := connection.connect_ex(place):
            if refused == errno.ECONNREFUSED or time.monotonic() > until:
                raise ConnectionError(f"no answer by tests/warm.py: {Path(place).with_name('log').read_text()}")
            time.sleep(0.05)  # it is still importing
        text = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode() + b"\0"
        sent = socket.send_fds(connection, [text], [0, 1, 2])
        connection.sendall(text[sent:])
        answer = b""
        while answer.count(b"\n") < 2:  # the child's number, and its exit status
            if select.select([connection], [], [], 1)[0]:
                more = connection.recv(100)
                if not more:
                    return -signal.SIGKILL
                if b"\n" in more and not answer:
                    hand_on(int(more.split()[0]))
                answer += more
            elif KERNEL in os.environ and os.getppid() != parent:
                return -signal.SIGKILL
        return int(answer.split()[1])


def hand_on(child: int) -> None:
    """Signals to this process are for that one."""

    def send(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    signal.signal(signal.SIGINT, send)
    signal.signal(signal.SIGTERM, send)


def run(arguments: list[str]) -> int:
    """Like `python` with these arguments: -m and a module, or a script; its exit status."""
    sys.argv = arguments
    try:
        if sys.argv[0] == "-m":
            sys.argv, sys.path[0] = sys.argv[1:], os.getcwd()
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        elif Path(sys.argv[0]).is_file():
            sys.path[0] = str(Path(sys.argv[0]).parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.exit(f"tests/warm.py runs -m and a module, or a script, not {sys.argv}")
    except SystemExit as end:
        if isinstance(end.code, int | None):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    role, socket_path, *words = sys.argv[1:]
    if role == "ask":
        status = ask(socket_path, words)
        sys.exit(status if status >= 0 else 128 - status)
    status = run(serve(socket_path))
    threading._shutdown()  # what an interpreter does at its end, except to take all that it has imported apart
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
