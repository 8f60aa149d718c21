"""The worker of pipemill: a Celery worker that runs Hugging Face pipelines in shared micro-batches."""
