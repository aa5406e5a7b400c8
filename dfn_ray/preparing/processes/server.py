"""The process that forks workers: it holds no device, and imports what they need once."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import warnings
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa
from PIL import Image

import dfn_ray.preparing.prepare  # noqa: F401  for the workers
from dfn_ray.images.isolation import die_with
from dfn_ray.preparing.processes.memory import Block
from dfn_ray.preparing.processes.messages import Progress
from dfn_ray.preparing.processes.serve import serve

FORK, STATUS = "fork", "status"
START = "from dfn_ray.preparing.processes.server import main; main()"


def main() -> None:
    """Answers the owner's commands on the descriptor that argument 1 names, until it closes it."""
    control = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner ends this process
    pa.set_cpu_count(1)
    pa.set_io_thread_count(2)
    warnings.simplefilter("ignore")  # Pillow's, of strange files
    Image.MAX_IMAGE_PIXELS = None  # decode.max_pixels fails with a reason
    Image.init()
    gc.freeze()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            command, process = control.recv()
            if command == FORK:
                control.send(_fork(control))
            else:
                _, status = os.waitpid(process, 0)
                control.send(status)
    os._exit(0)  # its children die with it


def _fork(control: Connection) -> int:
    descriptors = [reduction.recv_handle(control) for _ in range(2)]
    parent = os.getpid()
    process = os.fork()
    if process:
        for descriptor in descriptors:
            os.close(descriptor)
        return process
    status = 1
    try:
        die_with(parent)
        control.close()
        faulthandler.disable()  # the owner reports a death
        progress = Block(descriptors[1], Progress.SIZE)
        progress.close_descriptor()
        serve(Connection(descriptors[0]), Progress(progress.array((3,), np.float64)))
        status = 0
    finally:
        os._exit(status)
