"""A request to end, which long loops hear."""

import threading

STOP = threading.Event()  # set when the process was asked to end (SIGTERM): loops save and raise `Stopped`
