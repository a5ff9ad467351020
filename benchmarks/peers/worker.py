"""What all workers share: the messages. The head of __init__.py says what they are.

Workers run under Pythons that may lack jdiff, and even jax: this file needs neither.
"""

import json
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

Steps = Callable[[int], float]


def serve(build: Callable[[dict[str, Any]], tuple[dict[str, Any], Steps]]) -> None:
    """Runs a worker until its input ends.

    Args:
      build: arguments -> (what to say when ready, n -> seconds per step of n steps); warm. What
        it cannot import makes a skipped worker; other errors end it, told on stderr.
    """
    messages = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no message

    def say(**message: Any) -> None:
        print(json.dumps(message), file=messages, flush=True)

    try:
        about, steps = build(json.loads(sys.argv[1]))
    except ImportError as error:
        say(skipped=f"Python {platform.python_version()}: {error}")
        return
    say(ready=True, **about)
    for line in sys.stdin:
        say(seconds_per_step=steps(int(line)))


def choice(arguments: dict[str, Any], name: str, accepted: tuple[str, ...]) -> str:
    """One of the arguments that are words."""
    value = arguments[name]
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}; got {value!r}.")
    return value
