"""The Celery host, as far as no worker process is needed."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, signature
from celery.result import AsyncResult, GroupResult
from redis.exceptions import OutOfMemoryError

from pipemill.address import address_of
from pipemill.errors import InferenceFailed, JobCancelled, MalformedJob, SignatureRefused
from pipemill.protocol import Job, decode_message, names
from pipemill.signing import Keyring, Verifier
from pipemill_worker.celery_host.application import celery_url, create_app
from pipemill_worker.celery_host.canvas import Canvas, passes
from pipemill_worker.celery_host.host import Host, retry_policy
from pipemill_worker.celery_host.tuning import ACCELERATOR_MAX_COST, CPU_MAX_COST, CPU_PACKED_COST, batch_limits
from pipemill_worker.policy.retries import RetryPolicy

CATALOGUE = """
broker: redis://:hunter2@localhost:6379/3
queues:
  echo: {task: echo}
  small:
    task: echo
    batch: {max_tokens: 7}
    retry: {max_attempts: 9, backoff_seconds: 0.5, max_backoff_seconds: 7, jitter: false, errors: any}
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> str:
    """A catalogue's file."""
    file = tmp_path / "pipemill.yaml"
    file.write_text(CATALOGUE, "utf-8")
    return str(file)


@pytest.fixture
def canvas() -> Canvas:
    """Celery's canvas on an application without a broker."""
    return Canvas(Celery("test", broker="memory://", backend="cache+memory://"))


def job(**embedded: Any) -> Job:
    """A job with something after it."""
    return Job(
        id="first",
        queue="echo",
        inputs="x",
        parameters={},
        eta=None,
        expires=None,
        ignore_result=False,
        by_reference=False,
        headers={"id": "first", "root_id": "root", "task": names.TASK_NAME},
        canvas={"callbacks": None, "errbacks": None, "chain": None, "chord": None, **embedded},
        priority=0,
    )


def infer(queue: str, **options: Any) -> dict[str, Any]:
    """A signature of a job, as it crosses the wire."""
    return dict(signature(names.TASK_NAME, queue=queue, **options))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("rediss://host:6379/0", "rediss://host:6379/0"),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
    ],
)
def test_broker_urls_are_written_as_celery_wants_them(url: str, expected: str) -> None:
    """Only Unix sockets differ."""
    assert celery_url(address_of(url, {})) == expected


def test_the_application_takes_json_only_and_one_database_for_all(catalogue: str) -> None:
    """No pickle is ever read, results lie beside the queues, and no password stands in the settings."""
    conf = create_app(catalogue).conf
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert conf.broker_url == conf.result_backend
    assert conf.broker_url.startswith("redis://localhost:6379/3?credential_provider=")
    assert [queue.name for queue in conf.task_queues] == ["echo", "small"]


def test_celery_signs_in_without_having_the_password_in_its_settings(catalogue: str) -> None:
    """Its broker connections and its result backend get it from us, each time they connect."""
    app = create_app(catalogue)
    with app.connection_for_write() as connection:
        assert "hunter2" not in f"{vars(connection)}{app.conf.humanize(with_defaults=True, censored=False)}"
        provider = connection.credential_provider
    name, _, attribute = provider.partition(":")
    assert getattr(import_module(name), attribute)().get_credentials() == ("hunter2",)
    assert app.backend.connparams["credential_provider"].get_credentials() == ("hunter2",)
    with pytest.raises(AttributeError, match="no attribute 'of_address_999'"):
        _ = import_module(name).of_address_999


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h/0", False),
        ("rediss://h/0", {"ssl_cert_reqs": "required", "ssl_check_hostname": True}),
    ],
)
def test_celery_asks_for_certificates_as_we_do(tmp_path: Path, url: str, expected: Any) -> None:
    """Where kombu would take any certificate, it is told to check."""
    file = tmp_path / "pipemill.yaml"
    file.write_text(f"broker: {url}\nqueues: {{echo: {{task: echo}}}}", "utf-8")
    conf = create_app(str(file)).conf
    assert (conf.broker_use_ssl, conf.redis_backend_use_ssl) == (expected, expected or None)


def test_what_follows_a_signed_job_is_signed_with_its_key() -> None:
    """Whoever signed the job signed its link, too; what follows an unsigned job isn't signed."""
    keyring = Keyring(text=f"acme-1 {'x' * 32}")
    signing = Canvas(Celery("test", broker="memory://", backend="cache+memory://"), keyring)
    check = partial(Verifier(keyring=keyring, required=True, max_age_seconds=60).check, now=0.0)
    first = job(callbacks=[infer("other", priority=4)])
    with pytest.raises(SignatureRefused, match="takes signed jobs only"):
        decode_message(signing.follow(first, "x", None)[0][1], "other", lambda *told: check(told[0], "other", told[1]))
    first.signed_by = "acme-1"
    ((key, message),) = signing.follow(first, "x", None)
    following = decode_message(message, "other", lambda *told: check(told[0], "other", told[1]))
    assert (key, following.signed_by) == (names.list_key("other", 3), "acme-1")


@pytest.mark.parametrize("queue", ["pipemill:queues", "celery-task-meta-x", "_kombu.binding.x", "unacked"])
def test_nothing_follows_into_a_key_that_is_no_queue(canvas: Canvas, queue: str) -> None:
    """A link can't have the worker write where leases, results and bindings are."""
    with pytest.raises(MalformedJob, match="isn't a queue"):
        canvas.follow(job(callbacks=[infer(queue)]), "x", None)


def test_a_bad_catalogue_ends_the_worker_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is printed by its path; the exit code says configuration."""
    file = tmp_path / "bad.yaml"
    file.write_text("queues: {echo: {task: ecko}}", "utf-8")
    with pytest.raises(SystemExit) as ended:
        _ = create_app(str(file)).conf.broker_url
    assert ended.value.code == 4
    assert "queues.echo.task" in capsys.readouterr().err


def test_the_token_budget_is_the_catalogues_or_the_devices(catalogue: str) -> None:
    """Before anything is measured, a CPU gets little, an accelerator much, and the catalogue has the last word."""
    queues = Host(catalogue).catalogue.queues
    assert batch_limits(queues["echo"], "cpu").max_cost == CPU_MAX_COST
    packed = batch_limits(queues["echo"], "cpu", packed=True)
    assert (packed.max_cost, packed.packed) == (CPU_PACKED_COST, True)
    assert batch_limits(queues["echo"], "cuda:0").max_cost == ACCELERATOR_MAX_COST
    assert batch_limits(queues["small"], "cuda:0").max_cost == 7


def test_links_become_messages_with_the_answer(canvas: Canvas) -> None:
    """Each link is a message in its own queue and priority list, with the answer as its inputs."""
    callbacks = [infer("echo"), infer("other", priority=4)]
    found = dict(canvas.follow(job(callbacks=callbacks), {"label": "good"}, None))
    assert set(found) == {"echo", names.list_key("other", 3)}
    linked = decode_message(found["echo"], "echo")
    assert linked.inputs == {"label": "good"}
    assert (linked.headers["parent_id"], linked.headers["root_id"]) == ("first", "root")


def test_a_chain_goes_on_with_its_rest(canvas: Canvas) -> None:
    """The next member gets the answer, and carries the members after it."""
    rest = list(reversed([dict(each) for each in chain(infer_sig("b"), infer_sig("c")).tasks]))
    ((key, message),) = canvas.follow(job(chain=rest), "answer", None)
    following = decode_message(message, key)
    assert (key, following.inputs) == ("b", "answer")
    assert [each["options"]["queue"] for each in following.canvas["chain"]] == ["c"]


def infer_sig(queue: str) -> Any:
    """A signature as an object."""
    return signature(names.TASK_NAME, queue=queue)


def test_errbacks_get_the_jobs_id_when_it_fails_and_only_then(canvas: Canvas) -> None:
    """A failure sends errbacks and no links; a cancelled job sends neither."""
    both = job(callbacks=[infer("well")], errbacks=[infer("badly")])
    ((key, message),) = canvas.follow(both, None, InferenceFailed("no"))
    assert (key, decode_message(message, key).inputs) == ("badly", "first")
    assert list(canvas.follow(both, None, JobCancelled("gone"))) == []


def test_a_canvas_that_cannot_be_read_is_the_jobs_own_fault(canvas: Canvas) -> None:
    """Nonsense in a message fails that job, with an error that says so."""
    with pytest.raises(MalformedJob, match="can't be followed"):
        canvas.follow(job(callbacks=[{"nonsense": 1}]), "answer", None)


def test_a_chord_that_would_wait_for_itself_is_failed(canvas: Canvas) -> None:
    """A header with canvases of its own is joined by waiting for results, which would stop the worker."""
    app = canvas._app
    GroupResult("header", [AsyncResult("first", app=app)], app=app).save()
    part = job(chord=infer("body", task_id="body-id"))
    part.headers["group"] = "header"
    with pytest.raises(MalformedJob, match="flat group"):
        canvas.follow(part, "answer", None)
    assert app.AsyncResult("body-id").state == "FAILURE"


@pytest.mark.parametrize("name", [names.QUEUES_KEY, names.result_key("x"), "_kombu.binding.x", "unacked"])
def test_nothing_follows_into_the_brokers_own_keys(canvas: Canvas, name: str) -> None:
    """A link to what is no queue fails its job: it would be pushed with the worker's rights, or refused for ever."""
    with pytest.raises(MalformedJob, match="isn't a queue"):
        canvas.follow(job(callbacks=[infer(name)]), "answer", None)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (redis.ConnectionError("away"), True),
        (redis.TimeoutError("slow"), True),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), True),
        (redis.ResponseError("value is not a valid float script: 1f, on @user_script:12."), False),
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), False),
        (redis.DataError("Invalid input of type: 'list'"), False),
        (ValueError("no number"), False),
    ],
)
def test_only_the_brokers_own_trouble_is_waited_for(problem: Exception, expected: bool) -> None:  # noqa: FBT001  # a parameter of pytest
    """What a chord asks for and the broker can't do fails the job: tried again, it would hold up its lane for ever."""
    assert passes(problem) is expected


def test_a_queue_says_when_it_tries_again(catalogue: str) -> None:
    """A lane's policy is its queue's; left out, what may pass is tried three times."""
    queues = Host(catalogue).catalogue.queues
    assert retry_policy(queues["small"]) == RetryPolicy(
        max_attempts=9, backoff_seconds=0.5, max_backoff_seconds=7.0, jitter=False, any_failure=True
    )
    assert retry_policy(queues["echo"]) == RetryPolicy(max_attempts=3)
