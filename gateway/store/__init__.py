"""What outlives a request: SQLite files below DATA_DIR, worked on off the event loop."""
