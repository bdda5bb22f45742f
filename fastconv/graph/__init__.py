"""Networks as graphs: values and nodes, the passes that rewrite them, and how they run.

The operators and their attributes are those of ONNX, in the newest form of each. `fastconv.onnx`
makes graphs from files and `fastconv.nn` from layers; passes fuse, fold and remove nodes; a plan of
memory gives every value its place in one arena; and a network runs the steps that result.
"""
