"""Calls for worker processes, in a module that they import quickly."""

import os
import pickle
import signal
import time

import synthaug


def describe_modules(name):
    return synthaug.__file__, __import__(name).__file__, os.environ["PYTHONSAFEPATH"]


def act(argument):
    """Do in a worker what the argument names."""
    verb, *more = argument
    if verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "exit":
        os._exit(*more)
    if verb == "sleep":
        time.sleep(*more)
    if verb == "fail":
        raise more[0]
    if verb == "fail strangely":
        raise Unsendable(print)
    if verb == "print":
        print("this is no answer", flush=True)
        return more[0]
    return os.getpid()


class Unsendable(Exception):
    def __reduce__(self):
        return pickle.loads, (b"",)
