"""Scores of classes and of numbers, against scikit-learn and SciPy."""

import numpy as np
import pytest

from mjx.metrics.scores import classification_scores, ranks, regression_scores


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("there", [7, 2])
def test_scores_of_classes_are_those_of_scikit_learn(classes, there):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.RandomState(classes)
    labels = random.randint(0, min(classes, there), 200)
    found = np.where(random.rand(200) < 0.6, labels, random.randint(0, min(classes, there), 200))
    theirs = {
        "accuracy": metrics.accuracy_score(labels, found),
        "macro_f1": metrics.f1_score(labels, found, average="macro"),
        "matthews": metrics.matthews_corrcoef(labels, found),
        **({"f1": metrics.f1_score(labels, found)} if classes == 2 else {}),
    }
    assert classification_scores(found, labels, classes) == pytest.approx(theirs, abs=1e-12)


def test_one_class_for_all_has_no_correlation():
    scores = classification_scores(np.zeros(4, np.int32), np.array([0, 1, 0, 1]), 2)
    assert scores == {"accuracy": 0.5, "f1": 0.0, "macro_f1": pytest.approx(1 / 3), "matthews": 0.0}


def test_scores_of_numbers_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.RandomState(0)
    labels = random.randint(0, 9, 300).astype(np.float32)  # with ties
    found = (labels + 3 * random.randn(300)).astype(np.float32)
    scores = regression_scores(found, labels)
    assert scores["pearson"] == pytest.approx(stats.pearsonr(found, labels)[0], abs=1e-6)
    assert scores["spearman"] == pytest.approx(stats.spearmanr(found, labels)[0], abs=1e-9)
    np.testing.assert_array_equal(ranks(labels), stats.rankdata(labels))
    assert np.isnan(regression_scores(np.ones(3), np.arange(3.0))["pearson"])
