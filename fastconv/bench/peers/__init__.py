"""Other libraries beside fastconv: ``fastconv bench --peers``.

`runtimes` says how each computes a convolution, `worker` is the process it lives in, `contest`
lets them take turns, `standing` sums up and `report` prints.
"""
