"""The rivals' servers, each as its documentation advises; they run in `.venv-rivals`, which has no pipemill."""
