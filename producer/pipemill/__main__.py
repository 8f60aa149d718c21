"""``python -m pipemill``: the command line."""

from pipemill.cli import main

main()
