"""CNNClassifier is a scikit-learn estimator, and a good one."""

from __future__ import annotations

from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

import fastconv


@parametrize_with_checks([fastconv.CNNClassifier(epochs=20, filters=(8,), random_state=0)])
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)
