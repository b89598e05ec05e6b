"""Processes of their own, for tests of what processes do to each other.

They are forked from one that has imported PyTorch already: importing it takes seconds of each new process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

PRELOADED = ["features.cache", "ml_backend.store", "tests.brightness"]


@cache
def context() -> ForkServerContext:
    """Where the processes come from; a function that they run, and its arguments, are pickled."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(PRELOADED)
    return forked


def start(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Starts a function in a process of its own."""
    process = context().Process(target=function, args=arguments)
    process.start()
    return process


def run_at_once(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function returns in several processes that begin it at the same moment."""
    barrier, answers = context().Barrier(count), context().SimpleQueue()
    processes = [start(_answer, barrier, answers, function, arguments) for _ in range(count)]
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    for answer in found:
        if isinstance(answer, Exception):
            raise answer
    return found


def _answer(barrier: Any, answers: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    barrier.wait()
    try:
        answers.put(function(*arguments))
    except Exception as error:
        answers.put(error)
