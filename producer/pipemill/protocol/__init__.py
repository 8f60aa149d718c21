"""The wire contract: every name, key, state and document that crosses Redis. A leaf; imports only errors.

Jobs are standard Celery messages (protocol 2, JSON), as kombu's Redis transport stores them: any Celery client can
enqueue, and any Celery worker could read what our clients enqueue. Results are Celery's own documents under Celery's
own keys: ``AsyncResult`` reads them. Everything else lives under one prefix, ``pipemill:``.
"""

from pipemill.protocol.history import History, Incident, IncidentKind
from pipemill.protocol.messages import (
    Job,
    decode_arguments,
    decode_message,
    encode_arguments,
    encode_message,
    message_bytes,
    message_id,
    message_tenant,
    split_deliveries,
)
from pipemill.protocol.results import Result, Usage, decode_result, dumps, encode_failure, encode_success
from pipemill.protocol.states import JobStatus, Outcome

__all__ = [
    "History",
    "Incident",
    "IncidentKind",
    "Job",
    "JobStatus",
    "Outcome",
    "Result",
    "Usage",
    "decode_arguments",
    "decode_message",
    "decode_result",
    "dumps",
    "encode_arguments",
    "encode_failure",
    "encode_message",
    "encode_success",
    "message_bytes",
    "message_id",
    "message_tenant",
    "split_deliveries",
]
