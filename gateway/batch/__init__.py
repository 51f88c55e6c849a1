"""Files that clients upload, and batches of requests worked off in the background.

files.py      uploaded and produced files: rows in SQLite, content below DATA_DIR
batches.py    batches and the results of their lines
schema.py     the tables of both
validate.py   whether an input file is a batch
line.py       one line, answered by the handler that serves the same path over HTTP
pace.py       when a line may run: never at the cost of people who wait
runner.py     every batch from validation to its files, across restarts
"""
