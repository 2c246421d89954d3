"""What the tests share: callers, checks, servers and judges."""
