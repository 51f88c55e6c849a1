"""Side-by-side measurements against other engines. Programs to run, not timed tests."""
