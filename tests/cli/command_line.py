"""The command line, run in this process."""

from typer.testing import CliRunner

from fastdeploy_diffusion.cli import progress
from fastdeploy_diffusion.cli.app import app

# How long a build takes here must not change what a command prints.
progress.SECONDS_BETWEEN_LINES = 3600.0


def run(*words, code=0):
    """Run a command that must exit with ``code``, with a traceback only where it was asked for."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.stdout, result.stderr)
    assert ("Traceback" in result.stderr) == ("--debug" in words)
    return result
