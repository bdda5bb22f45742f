"""The operators of graphs, a file for each kind."""

from fastconv.graph.operators import (
    convolution_nodes,
    elementwise_nodes,
    matrix_nodes,
    normalization_nodes,
    pooling_nodes,
    shape_nodes,
)

#: The modules that register operators.
ALL = (
    convolution_nodes,
    elementwise_nodes,
    matrix_nodes,
    normalization_nodes,
    pooling_nodes,
    shape_nodes,
)
