"""The command line, ``fastdeploy-diffusion``."""

__all__ = ["main"]


def main() -> None:
    """Run this process's command line and end the process with the command's exit code.

    0: done; 1: something failed; 2: what was given cannot be used; 130: interrupted with Ctrl-C.
    """
    try:
        # Imports take long enough to be interrupted, so all of them are in here.
        from fastdeploy_diffusion.cli.interruption import watch_interrupts

        watch_interrupts()
        from fastdeploy_diffusion.cli.app import run

        run()
    except (Exception, KeyboardInterrupt) as error:
        from fastdeploy_diffusion.cli.interruption import end_interrupted, was_interrupted

        if not isinstance(error, KeyboardInterrupt) and not was_interrupted():
            raise
        end_interrupted()
