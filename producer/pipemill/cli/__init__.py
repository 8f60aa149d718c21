"""The command line. Its commands are loaded when they are called, so that ``pipemill --help`` is quick."""

from pipemill.cli.entry import main

__all__ = ["main"]
