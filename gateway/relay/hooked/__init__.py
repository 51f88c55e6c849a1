"""Hooks around requests that other servers answer: the request before it goes out, the answer as
it comes back. Nothing of this runs where there are no hooks."""
