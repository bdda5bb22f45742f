from fastconv import data as data
from fastconv import nn as nn
from fastconv import plots as plots
from fastconv.columns import col2im as col2im
from fastconv.columns import im2col as im2col
from fastconv.columns import sliding_windows as sliding_windows
from fastconv.estimator import CNNClassifier as CNNClassifier
from fastconv.functional import conv2d as conv2d
from fastconv.functional import conv2d_input_grad as conv2d_input_grad
from fastconv.functional import conv2d_weight_grad as conv2d_weight_grad
from fastconv.functional import plan_conv2d as plan_conv2d
from fastconv.plan import Conv2dPlan as Conv2dPlan
from fastconv.pooling.maximum import max_pool2d as max_pool2d
from fastconv.pooling.maximum import max_pool2d_grad as max_pool2d_grad
from fastconv.pooling.mean import adaptive_avg_pool2d as adaptive_avg_pool2d
from fastconv.pooling.mean import adaptive_avg_pool2d_grad as adaptive_avg_pool2d_grad
from fastconv.pooling.mean import avg_pool2d as avg_pool2d
from fastconv.pooling.mean import avg_pool2d_grad as avg_pool2d_grad
from fastconv.pooling.problem import Pool2dProblem as Pool2dProblem
from fastconv.pooling.registry import pool_algorithms as pool_algorithms
from fastconv.problem import Conv2dProblem as Conv2dProblem
from fastconv.registry import algorithms as algorithms
from fastconv.threads import get_num_threads as get_num_threads
from fastconv.threads import set_num_threads as set_num_threads
from fastconv.transposed import conv_transpose2d as conv_transpose2d

__version__: str
