"""Policy: pure functions without broker, clock or model."""
