"""What may be wrong with a broker, a catalogue and a machine: looked at by thin adapters, judged by pure functions."""

from pipemill.doctor.examination import examine
from pipemill.doctor.findings import Finding, Verdict, worst

__all__ = ["Finding", "Verdict", "examine", "worst"]
