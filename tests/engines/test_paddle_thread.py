"""Threads that never end, and go from one session to the next."""

import gc
import os
import threading
import warnings
import weakref

import pytest

from fastdeploy_diffusion.engines.paddle_thread import give_back, take_thread


def test_a_thread_that_is_given_back_is_taken_again():
    thread, other = take_thread(), take_thread()
    assert other is not thread
    give_back(thread)
    assert take_thread() is thread
    give_back(other)
    give_back(thread)


def test_a_thread_gives_what_functions_return_and_raise():
    thread = take_thread()
    assert thread.call(threading.get_ident) == thread.call(threading.get_ident)
    assert thread.call(threading.get_ident) != threading.get_ident()
    for error in (KeyError("name"), KeyboardInterrupt()):

        def fail(error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            thread.call(fail)
        assert caught.value is error
    seen = []
    thread.begin(lambda: seen.append(1))
    assert thread.call(lambda: list(seen)) == [1]
    give_back(thread)


def test_a_thread_keeps_nothing_of_what_it_did():
    class Thing:
        pass

    thread, thing = take_thread(), Thing()
    gone = weakref.ref(thing)
    thread.call(lambda kept=thing: kept)
    del thing
    thread.call(gc.collect)  # whoever is called next has let go of the last
    assert gone() is None
    give_back(thread)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_runs_without_the_threads_of_its_parent():
    thread, idle = take_thread(), take_thread()
    give_back(idle)
    parent = thread.call(os.getpid)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, from 3.12 on
        child = os.fork()
    if child == 0:
        ran = thread.call(os.getpid), take_thread().call(os.getpid)
        thread.begin(os.abort)
        os.write(writing, str(ran).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert answer.read() == str((child, child))
    os.waitpid(child, 0)
    assert thread.call(os.getpid) == parent
    give_back(thread)
