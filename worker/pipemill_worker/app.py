"""``celery -A pipemill_worker.app worker -Q NAME``: the same worker that ``pipemill worker NAME`` starts."""

from pipemill_worker.celery_host import create_app

app = create_app()
