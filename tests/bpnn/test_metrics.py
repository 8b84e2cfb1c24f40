"""Metrics against scikit-learn where it is installed, and against values worked out by hand."""
import math

import numpy as np
import pytest

from bpnn.train import metrics as M
from bpnn.train import streaming as S

RNG = np.random.default_rng(0)


def problem(samples, classes, seed=0):
    """Scores (rounded, so that some are equal) that lean towards the true classes."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, samples)
    scores = rng.normal(size=(samples, classes))
    scores[np.arange(samples), target] += 1.0
    return np.round(scores, 1), target


def batches(array, size):
    return [array[i : i + size] for i in range(0, len(array), size)]


def stream(metric, input, target, size=7):
    for x, y in zip(batches(input, size), batches(target, size), strict=True):
        metric.update(x, y)
    return metric.compute()


# By hand -------------------------------------------------------------------------------------------------------------


def test_confusion_matrix_has_rows_true_columns_predicted():
    matrix = M.confusion_matrix(np.array([1, 1, 0, 2]), np.array([0, 1, 0, 1]))
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_precision_recall_f1_by_hand():
    target = np.array([1, 1, 1, 0, 0])
    output = np.array([1, 0, 0, 1, 0])  # one hit, one false alarm, two misses
    assert M.precision(output, target) == 1 / 2
    assert M.recall(output, target) == 1 / 3
    assert M.f1(output, target) == pytest.approx(2 / 5)
    assert M.accuracy(output, target) == 2 / 5


def test_regression_by_hand():
    output, target = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    assert M.mean_squared_error(output, target) == pytest.approx(5 / 3)
    assert M.mean_absolute_error(output, target) == 1.0
    assert M.r2(output, target) == pytest.approx(1 - 5 / 2)


def test_auc_of_perfect_reversed_and_constant_scores():
    target = np.array([0, 0, 1, 1])
    assert M.roc_auc(np.array([0.1, 0.2, 0.3, 0.4]), target) == 1.0
    assert M.roc_auc(np.array([0.4, 0.3, 0.2, 0.1]), target) == 0.0
    assert M.roc_auc(np.array([0.5, 0.5, 0.5, 0.5]), target) == 0.5


def test_scores_in_dimension_one_as_cross_entropy_has_them():
    scores, target = RNG.normal(size=(4, 3, 5)), RNG.integers(0, 3, (4, 5))
    assert M.accuracy(scores, target) == np.mean(scores.argmax(1) == target)


def test_two_classes_by_threshold():
    target = np.array([0, 1, 1, 0])
    assert M.accuracy(np.array([0.2, 0.5, 0.9, 0.7]), target) == 0.75
    assert M.accuracy(np.array([-2.0, 0.1, 3.0, -0.1]), target, threshold=0.0) == 1.0


def test_ignored_targets_are_left_out():
    output, target = np.array([0, 1, 1, 0]), np.array([0, -100, 0, -100])
    assert M.accuracy(output, target, ignore_index=-100) == 0.5
    assert M.confusion_matrix(output, target, ignore_index=-100).tolist() == [[1, 1], [0, 0]]


def test_no_samples_give_nan():
    none, scores = np.zeros(0, np.int64), np.zeros((0, 3))
    assert math.isnan(M.accuracy(none, none))
    assert math.isnan(M.top_k_accuracy(scores, none))
    assert math.isnan(M.roc_auc(scores, none))
    assert math.isnan(M.mean_squared_error(np.zeros(0), np.zeros(0)))
    assert M.confusion_matrix(scores, none).tolist() == [[0] * 3] * 3
    for metric in (S.Accuracy(), S.TopKAccuracy(1), S.ROCAUC(), S.MeanSquaredError(), S.R2()):
        assert math.isnan(metric.compute())


def test_r2_edges():
    assert math.isnan(M.r2(np.array([1.0]), np.array([1.0])))
    assert M.r2(np.array([2.0, 2.0]), np.array([2.0, 2.0])) == 1.0
    assert M.r2(np.array([1.0, 2.0]), np.array([2.0, 2.0])) == 0.0


def test_streaming_r2_keeps_its_digits_far_from_zero():
    target = 1e8 + RNG.normal(size=300)
    output = target + 0.1 * RNG.normal(size=300)
    assert stream(S.R2(), output, target, 10) == pytest.approx(M.r2(output, target), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: M.accuracy(np.zeros((3, 2)), np.zeros(4, np.int64)), "input: expected shape"),
        (lambda: M.accuracy(np.zeros(3), np.zeros(3)), "target: expected class indices"),
        (lambda: M.accuracy(np.zeros((2, 3)), np.array([0, 3])), "class 3 is out of range"),
        (lambda: M.confusion_matrix(np.array([0, 1]), np.array([0, -1])), "expected classes"),
        (lambda: M.precision(np.array([0, 2]), np.array([0, 1])), "'binary' needs classes 0 and 1"),
        (lambda: M.f1(np.array([0]), np.array([0]), "mean"), "average"),
        (lambda: M.mean_squared_error(np.zeros((3, 1)), np.zeros(3)), "one shape"),
        (lambda: M.roc_auc(np.zeros(2), np.array([0, 2])), "target"),
        (lambda: M.top_k_accuracy(np.zeros((2, 3)), np.array([0, 1]), 0), "k"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


# Streaming equals all at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 31, 100])
def test_streaming_equals_functions(samples):
    scores, target = problem(samples, 4)
    assert stream(S.Accuracy(), scores, target) == M.accuracy(scores, target)
    assert stream(S.TopKAccuracy(2), scores, target) == M.top_k_accuracy(scores, target, 2)
    assert (stream(S.ConfusionMatrix(), scores, target) == M.confusion_matrix(scores, target)).all()
    for average in ("micro", "macro", "weighted"):
        assert stream(S.Precision(average), scores, target) == M.precision(scores, target, average)
        assert stream(S.Recall(average), scores, target) == M.recall(scores, target, average)
        assert stream(S.F1(average), scores, target) == M.f1(scores, target, average)
    np.testing.assert_equal(stream(S.ROCAUC(), scores, target), M.roc_auc(scores, target))
    output, truth = RNG.normal(size=(2, samples, 3))
    assert stream(S.MeanSquaredError(), output, truth) == pytest.approx(M.mean_squared_error(output, truth))
    assert stream(S.MeanAbsoluteError(), output, truth) == pytest.approx(M.mean_absolute_error(output, truth))
    assert stream(S.R2(), output, truth) == pytest.approx(M.r2(output, truth), nan_ok=True)


def test_confusion_matrix_grows_with_the_classes_seen():
    metric = S.ConfusionMatrix()
    metric.update(np.array([0, 1]), np.array([1, 1]))
    metric.update(np.array([3]), np.array([2]))
    assert metric.compute().shape == (4, 4)
    assert metric.compute().sum() == 3


@pytest.mark.parametrize(
    "make", [S.Accuracy, S.ConfusionMatrix, lambda: S.F1("macro"), S.ROCAUC, lambda: S.TopKAccuracy(2)]
)
def test_state_goes_on_where_it_was(make):
    scores, target = problem(40, 3)
    whole, first, second = make(), make(), make()
    whole.update(scores, target)
    first.update(scores[:15], target[:15])
    second.load_state_dict(first.state_dict())
    second.update(scores[15:], target[15:])
    np.testing.assert_equal(second.compute(), whole.compute())
    second.reset()
    np.testing.assert_equal(second.compute(), make().compute())


def test_state_of_regression_metrics():
    output, target = RNG.normal(size=(2, 40, 2))
    for make in (S.MeanSquaredError, S.MeanAbsoluteError, S.R2):
        whole, first, second = make(), make(), make()
        stream(whole, output, target, 15)
        stream(first, output[:15], target[:15], 15)
        second.load_state_dict(first.state_dict())
        stream(second, output[15:], target[15:], 15)
        assert second.compute() == whole.compute()


# Against scikit-learn ------------------------------------------------------------------------------------------------


@pytest.fixture
def sk():
    return pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("samples", [1, 31, 200])
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
def test_classification_as_scikit_learn(sk, samples, classes, zero_division):
    scores, target = problem(samples, classes, seed=samples + classes)
    output = scores.argmax(1)
    assert M.accuracy(scores, target) == pytest.approx(sk.accuracy_score(target, output))
    expected = sk.confusion_matrix(target, output, labels=range(classes))
    assert (M.confusion_matrix(scores, target) == expected).all()
    for one, other in ((M.precision, sk.precision_score), (M.recall, sk.recall_score), (M.f1, sk.f1_score)):
        for average in ("micro", "macro", "weighted", *(["binary"] if classes == 2 else [])):
            expected = other(target, output, average=average, zero_division=zero_division)
            assert one(output, target, average, zero_division) == pytest.approx(expected, nan_ok=True)
        each = one(output, target, None, zero_division)
        expected = other(target, output, average=None, zero_division=zero_division, labels=range(len(each)))
        np.testing.assert_allclose(each, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "case", [([0, 0], [0, 0]), ([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, 0], [0, 0]), ([2, 2], [0, 1])]
)
@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
def test_absent_classes_as_scikit_learn(sk, case, average, zero_division):
    output, target = map(np.array, case)
    for one, other in ((M.precision, sk.precision_score), (M.recall, sk.recall_score), (M.f1, sk.f1_score)):
        expected = other(target, output, average=average, zero_division=zero_division)
        np.testing.assert_equal(one(output, target, average, zero_division), expected)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_as_scikit_learn(sk, k):
    scores, target = problem(300, 6)  # rounded: many ties
    expected = sk.top_k_accuracy_score(target, scores, k=k, labels=range(6))
    assert M.top_k_accuracy(scores, target, k) == pytest.approx(expected)


def test_auc_as_scikit_learn(sk):
    scores, target = problem(300, 2)
    assert M.roc_auc(scores[:, 1], target) == pytest.approx(sk.roc_auc_score(target, scores[:, 1]))
    scores, target = problem(300, 5)
    chances = np.round(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), 6)
    chances[:, 0] += 1 - chances.sum(1)
    for average in ("macro", "weighted", None):
        expected = sk.roc_auc_score(target, chances, multi_class="ovr", average=average)
        np.testing.assert_allclose(M.roc_auc(chances, target, average), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2,), (31,), (32, 1), (33, 4)])
def test_regression_as_scikit_learn(sk, shape):
    output, target = RNG.normal(size=(2, *shape))
    if len(shape) == 2 and shape[1] > 2:
        target[:, 1] = 3.0  # a constant output, fitted badly
        target[:, 2] = output[:, 2] = 3.0  # and one fitted exactly
    assert M.mean_squared_error(output, target) == pytest.approx(sk.mean_squared_error(target, output))
    assert M.mean_absolute_error(output, target) == pytest.approx(sk.mean_absolute_error(target, output))
    assert M.r2(output, target) == pytest.approx(sk.r2_score(target, output))
