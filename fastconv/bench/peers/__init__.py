"""Other libraries beside fastconv: ``fastconv bench --peers``.

`peer_runtimes` lists them, `inference_peers` and `training_peers` say how each computes a
convolution, `peer_process` is the process it lives in, `compare_peers` lets them take turns,
`standings` sums up and `peers_report` prints.
"""
