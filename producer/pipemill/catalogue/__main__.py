"""``python -m pipemill.catalogue`` prints the reference of the catalogue in Markdown."""

from __future__ import annotations

import sys

from pipemill.catalogue.reference import reference

if __name__ == "__main__":
    sys.stdout.write(reference())
