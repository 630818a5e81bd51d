"""The process inside the sandbox: it runs a student's notebook and answers questions about it.

Written by hand; started by `_sandbox.py` as `python -m deepfake_course._worker LIMITS`. It is given code cells without
hidden tests, and it is asked to call functions. It decides nothing: marks are given by another process, which checks
the answers. What student code writes to the screen is kept to `KEPT` characters a cell, and never reaches the channel.
"""
import ctypes
import json
import os
import signal
import sys
import traceback
from contextlib import contextmanager

KEPT, PICTURE = 20_000, 400_000  # characters of text and of one picture that are kept from a cell


def limit(limits):
    """No more than this for the process and its children; as root, also become somebody with no rights."""
    import resource

    for name in ("AS", "DATA", "FSIZE", "NOFILE", "NPROC", "CORE"):
        if (value := limits.get(name)) is not None:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if (user := limits.get("user")) is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(4, 0, 0, 0, 0)  # not dumpable: other processes of this user cannot look in
        keyctl = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
        if keyctl:  # a session keyring of its own, in place of the teacher's
            libc.syscall(ctypes.c_long(keyctl), ctypes.c_long(1), None)


class Kept:
    """A stream that keeps the beginning and forgets the rest."""

    encoding, errors, closed = "utf-8", "replace", False

    def __init__(self):
        self.parts, self.left = [], KEPT

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        if self.left > 0:
            self.parts.append(text[: self.left])
            self.left -= len(text)
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        pass

    def isatty(self):
        return False

    def text(self):
        return "".join(self.parts) + ("\n[more was written and is left out]\n" if self.left < 0 else "")


class TooSlow(BaseException):
    """Raised in student code when its time is over; no `except Exception` holds it."""


PATIENCE = 4  # a busy machine may need so many times as long as the processor works


@contextmanager
def seconds(number):
    """Stop what runs inside after so many seconds of the processor, or `PATIENCE` times as many on the clock."""
    def stop(*_):
        raise TooSlow(f"stopped after {number} s: is there a loop without an end?")

    if not hasattr(signal, "setitimer"):  # Windows: the time of the whole notebook is limited from outside
        yield
        return
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, number), (signal.SIGALRM, signal.ITIMER_REAL, PATIENCE * number))
    for sign, timer, limit in timers:
        signal.signal(sign, stop)
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)


class Notebook:
    """IPython without a front end."""

    def __init__(self):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        self.shell = InteractiveShell.instance(config=config)
        self.shell.showtraceback = lambda *args, **options: None

    def run(self, source, limit):
        """Outputs of one cell, as a notebook file has them."""
        from IPython.core.displayhook import CapturingDisplayHook
        from IPython.core.displaypub import CapturingDisplayPublisher

        shell, out, err, rich = self.shell, Kept(), Kept(), []
        hook, publisher = shell.display_trap.hook, shell.display_pub
        shell.display_trap.hook = CapturingDisplayHook(shell=shell, outputs=rich)
        shell.display_pub = CapturingDisplayPublisher()
        kept, error = (sys.stdout, sys.stderr), None
        sys.stdout, sys.stderr = out, err
        try:
            with seconds(limit):
                done = shell.run_cell(source, store_history=False)
            error = done.error_before_exec or done.error_in_exec
        except BaseException as wrong:
            error = wrong
        finally:
            sys.stdout, sys.stderr = kept
            rich = shell.display_pub.outputs + rich
            shell.display_trap.hook, shell.display_pub = hook, publisher
        return _outputs(out, err, rich, error)

    def variable(self, name):
        return self.shell.user_ns[name]


def _outputs(out, err, rich, error):
    cells = [{"output_type": "stream", "name": name, "text": stream.text()}
             for name, stream in (("stdout", out), ("stderr", err)) if stream.parts]
    for one in rich:
        data = {kind: text for kind, text in (one.get("data") or {}).items()
                if isinstance(text, str) and len(text) < (PICTURE if kind.startswith("image/") else KEPT)}
        if data:
            cells.append({"output_type": "display_data", "metadata": {}, "data": data})
    if error is not None:
        cells.append(_error(error))
    return cells


def _error(error):
    try:
        lines = [line for line in traceback.format_exception(error) if "interactiveshell.py" not in line][-12:]
        return {"output_type": "error", "ename": type(error).__name__, "evalue": str(error)[:KEPT],
                "traceback": [line[:KEPT] for line in lines]}
    except Exception:  # an exception whose text raises one
        return {"output_type": "error", "ename": type(error).__name__, "evalue": "", "traceback": []}


def _answer(notebook, order):
    """What there is to say to one order."""
    if order["do"] == "run":
        return [notebook.run(source, order["seconds"]) for source in order["cells"]]
    if order["do"] == "value":
        return notebook.variable(order["name"])
    given = [notebook.variable(arg["name"]) if isinstance(arg, dict) and set(arg) == {"name"} else arg
             for arg in order["args"]]
    with seconds(order["seconds"]):
        return notebook.variable(order["name"])(*given, **order["options"])


def serve(read, write):
    """Orders come in, answers go out, until the channel closes."""
    from ._wire import pack, receive

    notebook, me = Notebook(), os.getpid()
    while True:
        try:
            order = receive(read)
        except EOFError:
            return
        if order["do"] == "fork":  # a copy of all that has been run; it serves until it is told to end
            child = os.fork()
            if child:
                os.waitpid(child, 0)
            else:
                me = os.getpid()
                write(pack({"ok": True}))
            continue
        if order["do"] == "end":
            write(pack({"ok": True}))
            os._exit(0)
        sys.stdout, sys.stderr = Kept(), Kept()
        try:
            answer = pack({"ok": _answer(notebook, order)})
        except KeyError as error:
            missing = error.args == (order.get("name"),)
            answer = pack({"missing": order["name"]} if missing else {"error": _error(error)})
        except BaseException as error:
            answer = pack({"error": _error(error)})
        if os.getpid() != me:  # a child that student code made: it has no say
            os._exit(0)
        write(answer)


def main():
    inward, outward = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(nothing, place)
    if sys.platform == "win32":
        import msvcrt

        for place in (inward, outward):
            msvcrt.setmode(place, os.O_BINARY)
    limit(json.loads(sys.argv[1]))

    def read(length):
        parts = []
        while length and (part := os.read(inward, min(length, 1 << 20))):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def write(data):
        view = memoryview(data)
        while view:
            view = view[os.write(outward, view[: 1 << 20]):]

    serve(read, write)


if __name__ == "__main__":
    main()
