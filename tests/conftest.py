"""Settings that all tests share."""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

# What this user's programs may choose is not what is tested.
os.environ.pop("FASTCONV_PRECISION", None)
os.environ["FASTCONV_TUNING"] = "off"
# Programs that tests run say nothing of the compiler.
os.environ["FASTCONV_QUIET"] = "1"
# PyTorch's threads would go on turning after each small product, on the cores of other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same examples in every run, so that a failure can be repeated. No deadline: the first call of
# a kernel compiles it. `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "repeatable",
    deadline=None,
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("repeatable")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let the collector of garbage pass by what lives as long as the tests.

    They are hundreds of thousands of objects. And a kernel's compilation makes so many, few of
    them garbage, that a tenth of it would be spent on looking at them again and again.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
