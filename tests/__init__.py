"""What the job promises, as its users see it."""

import os
import signal

# Both engines in one process: gRPC, which sail's client needs, would now and then end a process that is forked in order
# to start Java. It reads this when it is imported, and never again.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A shell has what it runs in the background ignore interrupts, and all that is started from there would
signal.signal(signal.SIGINT, signal.default_int_handler)
