"""Admission: which work an engine takes on next, who waits for it, and who is sent away."""
