"""Processes that begin at once, as they are forked from one that has imported PyTorch and what else takes seconds.

`warm()` starts that process, once for each of pytest's. From then on the kernels of notebooks that tests execute are
forked from it, and so are the commands in its folder `bin`. Nothing of srlib is imported beforehand, and the project
`made` in conftest.py is made without it.
"""

import atexit
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


@cache
def warm() -> Path:
    """The folder with the commands, `bin`, and the kernel; Jupyter finds the kernel in every process begun later."""
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    python = [sys.executable, "-I", "-S", __file__, str(folder / "socket")]
    kernel = {"argv": [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3"}
    (folder / "kernels/python3").mkdir(parents=True)
    (folder / "kernels/python3/kernel.json").write_text(json.dumps({**kernel, "language": "python"}))
    (folder / "bin").mkdir()
    for name, beginning in COMMANDS.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {" ".join(python)} {beginning} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    until, _ = os.pipe()  # the other end is closed when this process ends, and then that one does
    subprocess.Popen([sys.executable, __file__, str(folder / "socket")], stdin=until)
    os.environ["JUPYTER_PATH"] = str(folder)
    return folder


def serve(place: str) -> list[str]:
    """Returns in each process that is forked for a client, in its folder, with its environment and files: what it shall
    run.
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
        text += connection.recv(2**20)
    arguments, folder, environment = json.loads(text[:-1])
    child = os.fork()
    if not child:
        connection.close()
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        if "JPY_PARENT_PID" in environment:
            os.environ["JPY_PARENT_PID"] = str(os.getppid())  # a kernel ends where this is not its parent
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace")  # line by line
        return arguments
    connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    if connection in select.select([ended, connection], [], [])[0]:  # it is gone
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def ask(place: str, arguments: list[str]) -> int:
    """The client: has `python` with these arguments run in a forked process; its exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        until = time.monotonic() + 120
        while connection.connect_ex(place):  # it is still importing
            if time.monotonic() > until:
                raise TimeoutError("the process that tests/warm.py has begun does not answer")
            time.sleep(0.05)
        text = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode() + b"\0"
        sent = socket.send_fds(connection, [text], [0, 1, 2])
        connection.sendall(text[sent:])
        answer = connection.makefile()
        child = int(answer.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(child, number))
        return int(answer.readline() or -9)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        code = ask(sys.argv[1], sys.argv[2:])
        sys.exit(code if code >= 0 else 128 - code)
    sys.argv = serve(sys.argv[1])
    code = 1
    try:
        if sys.argv[0] == "-m":
            sys.argv, sys.path[0] = sys.argv[1:], os.getcwd()
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(sys.argv[0]).parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(end.code if isinstance(end.code, str) else "", end="", file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # what an interpreter does at its end, except to take all that it has imported apart
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
