"""Tests of the worker's media."""
