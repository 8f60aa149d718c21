"""The store: jobs and results on Redis or Valkey, and the seam that a double stands in for."""
