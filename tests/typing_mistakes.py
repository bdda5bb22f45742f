"""Mistakes that type checkers find: mypy and pyright each reject every line marked as wrong.

`tests/test_typing.py` runs them. This file is never run.
"""

import numpy as np
from numpy.typing import NDArray

import fastconv
from fastconv import data, nn
from fastconv.typing import Padding

x = np.ones((1, 1, 8, 8), np.float32)
weight = np.ones((1, 1, 3, 3), np.float32)

fastconv.conv2d(x, weight, padding="sam")  # wrong
fastconv.conv2d(x, weight, padding="SAME")  # wrong
fastconv.conv2d(x, weight, padding=(1, 1, 1))  # wrong
fastconv.conv2d(x, weight, padding=0.5)  # wrong
fastconv.conv2d(x, weight, stride="2")  # wrong
fastconv.conv2d(x, weight, stride=2.0)  # wrong
fastconv.conv2d(x, weight, dilation=(1, 2, 3))  # wrong
fastconv.conv2d(x, weight, strides=2)  # wrong
fastconv.conv2d(x, weight, groups=None)  # wrong
fastconv.conv2d(x, weight, algorithm="winograd")  # wrong
fastconv.conv2d(x, weight, activation="rleu")  # wrong
fastconv.conv2d(x, weight, activation="clip")  # wrong
fastconv.conv2d(x, weight, activation=("leaky_relu", "0.1"))  # wrong
fastconv.conv2d(x)  # wrong
fastconv.conv2d(x, None)  # wrong
fastconv.conv2d_weight_grad(x, (1, 1, 3, 3), x, algorithm="depthwise")  # wrong
fastconv.conv2d_weight_grad(x, "1133", x)  # wrong
fastconv.conv2d_backward(x, weight, x, need=["weights"])  # wrong
fastconv.conv2d_backward(x, weight, x, need=["bias"]).bias.sum()  # wrong
fastconv.conv_transpose2d(x, weight, padding="same")  # wrong
fastconv.algorithms("backward")  # wrong
fastconv.set_precision("low")  # wrong
fastconv.set_num_threads("all")  # wrong
fastconv.max_pool2d(x, 2, algorithm="im2col")  # wrong
fastconv.max_pool2d(x, "2")  # wrong
fastconv.max_unpool2d(x, x, 2, padding="same")  # wrong
fastconv.adaptive_avg_pool2d(x, None)  # wrong
fastconv.im2col(x)  # wrong
fastconv.conv3d(x, weight)  # wrong

plan = fastconv.plan_conv2d((1, 1, 8, 8), weight)
plan(x, out=np.empty((1, 1, 6, 6)))  # wrong
plan(x, bias=x)  # wrong
print(plan.algorithms)  # wrong
fastconv.plan_conv2d(x, weight)  # wrong
fastconv.plan_conv2d((1, 1, 8, 8), weight, max_pool=3)  # wrong
y = fastconv.conv2d(x, weight)
exact: NDArray[np.float64] = y  # wrong
padding: Padding = "full"  # wrong

nn.Conv2d(1, 8, 3, padding_mode="mirror")  # wrong
nn.Conv2d(1, 8, 3, padding="sam")  # wrong
nn.Conv2d("1", 8, 3)  # wrong
nn.ConvTranspose2d(1, 8, 3, padding="same")  # wrong
nn.Sequential([nn.ReLU()])  # wrong
nn.Sequential(nn.ReLU)  # wrong
nn.CrossEntropyLoss(reduction="none")  # wrong
nn.init.kaiming_normal((2, 3), mode="fan")  # wrong
nn.init.gain("rleu")  # wrong
model = nn.Linear(2, 2)
nn.fit(model, x, [0], progress="bars")  # wrong
nn.fit(model, x, [0], optimizer=nn.Adam)  # wrong
nn.fit(model, x, [0], loss="mse")  # wrong
nn.SGD(model.parameters(), lr="0.1")  # wrong
nn.StepLR(model, 3)  # wrong
nn.load(model)  # wrong

data.load_idx(".", "validation")  # wrong
data.load_image_folder(".", size=8, mode="CMYK")  # wrong
data.flip(x, 0)  # wrong
data.batches(x, x, "2")  # wrong
fastconv.CNNClassifier(optimizer="rmsprop")  # wrong
fastconv.CNNClassifier(filters=8)  # wrong
