"""What test_loop.py runs in a process of its own: a training run that is killed, not stopped.

Arguments: run directory, steps after which the process kills itself.
"""

import os
import signal
import sys

import jax
from tiny_training import CONFIG, Small, pictures

from jdiff.training import loop

RUN, STEPS = sys.argv[1], int(sys.argv[2])
programs, done = loop.programs, 0


def killing(*arguments):
    compiled = programs(*arguments)

    def call(state, shared):
        global done
        if done >= STEPS:
            os.kill(os.getpid(), signal.SIGKILL)
        done += int(shared[1])
        return compiled.call(state, shared)

    return compiled._replace(call=call)


loop.programs = killing
loop.train(Small(), pictures(), CONFIG, key=jax.random.key(0), run_dir=RUN, progress=False)
