"""What a person sees on standard error while the job runs, and how the process ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("movielens_pipeline")

CHARACTERS_SHOWN = 120


class Phases(logging.Handler):
    """Keeps the seconds of each phase that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Adds to a phase what the record of one says."""
        name = getattr(record, "phase", None)
        if name:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + getattr(record, "seconds", 0.0), 3)


def log_to_standard_error(phases: Phases) -> None:
    """Has the job's messages go to standard error, as they are, and the seconds of its phases be kept."""
    log.handlers = [logging.StreamHandler(sys.stderr), phases]
    log.setLevel(logging.INFO)
    log.propagate = False


def count_of(number: int, noun: str) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """`0.9 MB`, of bytes."""
    return f"{size / 1e6:,.1f} MB"


def shortened(line: str) -> str:
    """A line for the terminal: control characters escaped, cut where it gets long."""
    return repr(line[:CHARACTERS_SHOWN]) + ("..." if len(line) > CHARACTERS_SHOWN else "")


@contextmanager
def phase(name: str, *, timer: bool) -> Iterator[Callable[[str], None]]:
    """Logs what was done and the seconds it took; with `timer`, a terminal shows that it is under way."""
    started = time.monotonic()
    results: list[str] = []
    finished = threading.Event()

    def tick() -> None:
        while not finished.wait(0.5):
            sys.stderr.write(f"\r{name}: {time.monotonic() - started:.0f} s ")
            sys.stderr.flush()
        sys.stderr.write("\r\x1b[K")

    ticker = threading.Thread(target=tick, daemon=True)
    if timer and sys.stderr.isatty():
        ticker.start()
    try:
        yield results.append
    finally:
        finished.set()
        if ticker.is_alive():
            ticker.join()
    seconds = time.monotonic() - started
    log.info("%s: %s in %.1f s", name, ", ".join(results), seconds, extra={"phase": name, "seconds": seconds})


# --------------------------------------------------------------------------------------------------------------------
# The end of the process

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_STOP = 1.0


def catch_signals(say: Callable[[int], object]) -> None:
    """Has Ctrl-C, SIGTERM and SIGHUP end the run: at the next chance tidily, after a second in any case.

    `say` is what there is to say of an exit status, where nobody else will come to it. Python handles signals in its
    main thread alone, so a run in another thread catches none.
    """
    if not in_main_thread():
        return

    def end(status: int) -> None:
        say(status)
        os._exit(status)

    def stop(number: int, _frame: object) -> None:
        for caught in STOP_SIGNALS:
            signal.signal(caught, signal.SIG_IGN)
        log.error("movielens_pipeline: interrupted")
        deadline = threading.Timer(SECONDS_TO_STOP, end, [128 + number])
        deadline.daemon = True
        deadline.start()
        raise KeyboardInterrupt(number)

    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)


def in_main_thread() -> bool:
    """Whether this thread is the one in which Python handles signals."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Keeps anybody from handling signals in another way: with Spark's handler an interrupt is a call that failed."""
    if not in_main_thread():
        yield
        return
    place, here = signal.signal, os.getpid()

    def keep(number: signal.Signals, handler: Any) -> Any:
        # in the child that is to become Java, which ignores interrupts, it is as ever
        return signal.getsignal(number) if os.getpid() == here else place(number, handler)

    signal.signal = keep  # type: ignore[assignment]  # for a while
    try:
        yield
    finally:
        signal.signal = place


@contextmanager
def signals_let_go(*, own_process: bool) -> Iterator[None]:
    """Puts back, at its end, what signals did before; none does anything where the process ends then anyway."""
    handlers = [(number, signal.getsignal(number)) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in handlers if in_main_thread() else ():
            signal.signal(number, signal.SIG_IGN if own_process else handler)


def use_utf8() -> None:
    """Starts this process over in Python's UTF-8 mode if the locale has another encoding, as de_DE.ISO-8859-1 has.

    Python decodes the bytes of paths by the locale, while engines take UTF-8. A process with PYTHONUTF8 goes on as it
    is.
    """
    if sys.getfilesystemencoding() != "utf-8" and "PYTHONUTF8" not in os.environ and sys.executable:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def open_standard_streams() -> None:
    """Has the standard streams lead nowhere that were closed by who started the process.

    Otherwise the first file that is opened takes their place, and what engines say goes into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) in range(3):  # each takes the lowest number that is free
        pass
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def leave(status: int) -> NoReturn:
    """Ends the process at once: after an interrupt an idle thread of the Connect client would keep it for good."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody listens any more
            stream.flush()
    os._exit(status)
