"""The edge: connections, bodies, one object per request, and the outermost application."""
