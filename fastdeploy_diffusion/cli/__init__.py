"""The command line, ``fastdeploy-diffusion``."""

from fastdeploy_diffusion.cli.interruption import end_interrupted, watch_interrupts

__all__ = ["main"]


def main() -> None:
    """Run this process's command line and end the process with the command's exit code.

    0: done; 1: something failed; 2: what was given cannot be used; 130: interrupted with Ctrl-C.
    """
    try:
        watch_interrupts()
        # Here, for it takes long enough to be interrupted.
        from fastdeploy_diffusion.cli.app import run

        run()
    except KeyboardInterrupt:
        end_interrupted()
