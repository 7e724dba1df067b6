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


class LastLine:
    """The summary of a run as the last line of standard output: said once, where it is asked for."""

    def __init__(self, summary: Summary, *, wanted: bool) -> None:
        self.summary = summary
        self.unsaid = threading.Semaphore(1 if wanted else 0)

    def say(self, status: int) -> int:
        """Says it for an exit status; the one to leave with, which is a failure where it cannot be said."""
        if not self.unsaid.acquire(blocking=False):
            return status
        summary = self.summary
        summary.exit_status, summary.finished = status, utc_now()
        summary.seconds["all"] = summary.elapsed()
        try:
            print(json.dumps(summary.to_dict()), flush=True)
        except OSError as error:
            reason = str(error.strerror).lower()
            terminal.log.error(
                "movielens_pipeline: error: the summary cannot be written to standard output (%s); outcome: %s",
                reason, summary.outcome,
            )  # fmt: skip
            return status or EXIT_FAILURE
        return status

    def say_interrupted(self, status: int) -> None:
        """Says it where the run does not come to its own end after a signal."""
        self.summary.error = "interrupted"
        self.say(status)


def ended(work: Callable[[Summary], None], *, own_process: bool, summarized: bool) -> int:
    """Does the work and returns the exit status; what it raises that is expected becomes a line on standard error.

    The work fills a summary, which is the last line of standard output where it is asked for. Signals that end the run
    are caught from the beginning. What is not expected has its traceback printed where the process is the job's own,
    and is raised where not.
    """
    phases = terminal.Phases()
    summary = Summary(seconds={"phases": phases.seconds, "all": None})
    terminal.log_to_standard_error(phases)
    last_line = LastLine(summary, wanted=summarized)
    status = EXIT_DONE
    try:
        with terminal.signals_let_go(own_process=own_process):
            terminal.catch_signals(last_line.say_interrupted)
            work(summary)
    except PipelineError as error:
        terminal.log.error("movielens_pipeline: error: %s", error)
        status, summary.error = error.status, str(error)
    except KeyboardInterrupt as stop:
        status, summary.error = 128 + int(stop.args[0] if stop.args else signal.SIGINT), "interrupted"
    except SystemExit as left:  # --help and --version, or a usage error that was said
        if left.code:
            summary.error = str(left.__cause__)
            last_line.say(int(left.code))
        raise
    except Exception as error:
        status, summary.error = EXIT_FAILURE, f"{type(error).__name__}: {error}".splitlines()[0]
        if not own_process:
            last_line.say(status)
            raise
        terminal.log.error("%s", traceback.format_exc().rstrip())  # survives a stream that takes none
    return last_line.say(status)
