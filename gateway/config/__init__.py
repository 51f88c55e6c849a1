"""The configuration as one value: read, checked, shown, compared, and exchanged while serving."""
