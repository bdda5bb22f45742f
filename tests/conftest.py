"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# What this user's programs may choose is not what is tested.
os.environ.pop("FASTCONV_PRECISION", None)
os.environ["FASTCONV_TUNING"] = "off"

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
