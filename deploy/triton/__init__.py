"""Triton model repositories: written from a model, checked, and run on CPU.

``kinds`` choose what a source becomes, ``configs`` build the config.pbtxt of each model,
``checks`` and ``wiring`` hold them against the graphs and against each other, ``repository``
writes and reads folders, ``schema`` is Triton's own protobuf schema and ``server`` its server.
``served`` holds the Python models that are copied into a repository.
"""
