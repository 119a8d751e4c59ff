"""The torture run: a stream of events through the whole stack while everything that can fail does, and the proof afterwards.

`python -m bench.torture --help` (or `make torture`). Nothing of it is part of the product: faults inside the services are
patches that `child.py` applies to the child process alone.
"""
