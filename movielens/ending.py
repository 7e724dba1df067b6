"""How a run ends: with an exit status, a line that says why where it failed, and a summary where one is asked for."""

from __future__ import annotations

import json
import signal
import threading
import traceback
from typing import TYPE_CHECKING

from movielens import terminal
from movielens.contract import EXIT_DONE, EXIT_FAILURE, PipelineError
from movielens.runs import utc_now
from movielens.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[int], None]


def ended(work: Callable[[Summary, Say], None], *, own_process: bool, summarized: bool) -> int:
    """Does the work and returns the exit status; what it raises that is expected becomes a line on standard error.

    The work fills a summary, which is the last line of standard output where it is asked for. It is given a function
    that says it for an exit status, in case that the work does not come to its own end. What is not expected has its
    traceback printed where the process is the job's own, and is raised where not.
    """
    phases = terminal.Phases()
    summary = Summary(seconds={"phases": phases.seconds, "all": None})
    terminal.log_to_standard_error(phases)
    unsaid = threading.Semaphore(1 if summarized else 0)

    def say(status: int) -> None:
        if unsaid.acquire(blocking=False):
            summary.exit_status, summary.finished = status, utc_now()
            summary.seconds["all"] = summary.elapsed()
            print(json.dumps(summary.to_dict()), flush=True)

    status = EXIT_DONE
    try:
        with terminal.signals_restored():
            work(summary, say)
    except PipelineError as error:
        terminal.log.error("movielens_pipeline: error: %s", error)
        status, summary.error = error.status, str(error)
    except KeyboardInterrupt as stop:
        status, summary.error = 128 + int(stop.args[0] if stop.args else signal.SIGINT), "interrupted"
    except SystemExit as left:  # --help and --version, or a usage error that was said
        if left.code:
            summary.error = str(left.__cause__)
            say(int(left.code))
        raise
    except Exception as error:
        status, summary.error = EXIT_FAILURE, f"{type(error).__name__}: {error}".splitlines()[0]
        if not own_process:
            say(status)
            raise
        traceback.print_exc()
    say(status)
    return status
