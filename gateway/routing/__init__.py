"""Which target answers a request: configuration, choice, health, discovery."""
