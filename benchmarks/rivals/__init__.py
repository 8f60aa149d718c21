"""pipemill beside the ways that people serve pipelines today: `scripts/bench rivals`."""
