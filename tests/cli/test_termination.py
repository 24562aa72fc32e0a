"""SIGTERM within a long command, and what it does afterwards."""

import os
import signal

import pytest

from fastdeploy_diffusion.cli.interruption import interrupt_on_termination


# It would end the worker of a run in several processes.
@pytest.mark.serial
def test_sigterm_interrupts_within_the_block_and_is_as_before_after_it():
    def handle(*_):
        raise AssertionError("not within the block")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with pytest.raises(KeyboardInterrupt), interrupt_on_termination():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handle
        with interrupt_on_termination():
            assert signal.getsignal(signal.SIGTERM) is not handle
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, before)
