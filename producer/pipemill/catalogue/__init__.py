"""The catalogue: one typed file that names the broker, the queues, their pipelines and their limits."""

from pipemill.catalogue.broker import DEFAULT_BROKER, BrokerUrl
from pipemill.catalogue.load import find_catalogue, find_mistakes, load_catalogue, resolve_broker
from pipemill.catalogue.mistakes import Mistake
from pipemill.catalogue.model import BatchSettings, Catalogue, LimitSettings, QueueSettings
from pipemill.catalogue.reference import reference
from pipemill.catalogue.rules import BUILTIN_MODELS, Source, check_queue_name
from pipemill.catalogue.signing import SigningSettings
from pipemill.catalogue.worker import WorkerSettings

__all__ = [
    "BUILTIN_MODELS",
    "DEFAULT_BROKER",
    "BatchSettings",
    "BrokerUrl",
    "Catalogue",
    "LimitSettings",
    "Mistake",
    "QueueSettings",
    "SigningSettings",
    "Source",
    "WorkerSettings",
    "check_queue_name",
    "find_catalogue",
    "find_mistakes",
    "load_catalogue",
    "reference",
    "resolve_broker",
]
