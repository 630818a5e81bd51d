"""What the lesson `01_metrics` does not say about itself: refusals, ties, random comparisons."""
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as oracle
from scipy.stats import binomtest, trim_mean
from sklearn.calibration import calibration_curve

from deepfake_course import metrics as m

Y, P = np.array([0, 0, 1, 1]), np.array([.1, .6, .4, .9])
SCORED = [m.confusion, m.accuracy, m.balanced_accuracy, m.classification_report, m.roc, m.auc,
          m.eer, m.choose_threshold, m.precision_recall, m.average_precision, m.log_loss, m.brier,
          m.calibration, m.ece, m.bootstrap_ci, lambda y, p: m.delong_test(y, p, p),
          lambda y, p: m.shift_report(y, p, Y, P), lambda y, p: m.shift_report(Y, P, y, p)]
BOTH = [m.balanced_accuracy, m.classification_report, m.roc, m.auc, m.eer, m.choose_threshold,
        m.precision_recall, m.average_precision, m.bootstrap_ci, lambda y, p: m.delong_test(y, p, p),
        lambda y, p: m.shift_report(y, p, Y, P), lambda y, p: m.prior_baseline(y)]
PROBABILITY = [m.log_loss, m.brier, m.calibration, m.ece, lambda y, p: m.shift_report(Y, P, y, p),
               lambda y, p: m.bootstrap_ci(y, p, metric="log_loss")]


def world(seed, n=None, decimals=None):
    "Labels and scores with many ties, both classes present."
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(4, 120))
    y = rng.integers(0, 2, n)
    y[:4] = [0, 1, 0, 1]
    score = 1/(1 + np.exp(-rng.normal(size=n) - y))
    return y, score.round(int(rng.integers(1, 4)) if decimals is None else decimals)


@pytest.mark.parametrize("function", SCORED)
@pytest.mark.parametrize("y, score, message", [
    ([0, 1, 1], [.1, .2], "one label and one score each"),
    ([[0], [1]], [[.1], [.2]], "one label and one score each"),
    ([0, 1], [[.1], [.2]], r"pass flat arrays: y.ravel\(\)"),
    (["0", "1"], [.1, .2], "holds 0, 1 as text"),
    ([], [], "empty"),
    ([0, 2], [.1, .2], "holds 2"),
    ([-1, 1], [.1, .2], "recode"),
    (["REAL", "FAKE"], [.1, .2], "holds FAKE, REAL"),
    ([0, np.nan], [.1, .2], "holds nan"),
    ([0, 1], [.1, np.nan], "1 scores are NaN"),
    ([0, 1], [np.inf, .1], "infinite"),
])
def test_wrong_table_is_refused(function, y, score, message):
    with pytest.raises(ValueError, match=message):
        function(y, score)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(function, label):
    with pytest.raises(ValueError, match=f"all 3 labels are {label}"):
        function([label]*3, [.1, .2, .3])


@pytest.mark.parametrize("function", PROBABILITY)
@pytest.mark.parametrize("score", [[-.1, .2], [.3, 1.5]])
def test_a_score_that_is_no_probability_is_refused(function, score):
    with pytest.raises(ValueError, match="sigmoid"):
        function([0, 1], score)


@pytest.mark.parametrize("call, message", [
    (lambda: m.choose_threshold(Y, P, how="best"), "'youden' or 'fpr'"),
    (lambda: m.choose_threshold(Y, P, how="fpr", max_fpr=5), "max_fpr"),
    (lambda: m.calibration(Y, P, bins=0), "at least one bin"),
    (lambda: m.pool_clips(["a", "a"], [.1, .2], how="median"), "trimmed"),
    (lambda: m.pool_clips(["a"], [.1, .2]), "one label and one score"),
    (lambda: m.pool_clips([], []), "empty"),
    (lambda: m.pool_clips(["a", None], [.1, .2]), "no clip name"),
    (lambda: m.pool_clips(["a", "a"], [.1, np.nan]), "NaN"),
    (lambda: m.wilson(5, 4), "successes"),
    (lambda: m.wilson(0, 0), "n >= 1"),
    (lambda: m.wilson(1, 2, level=95), "level"),
    (lambda: m.bootstrap_indices(0), "n >= 1"),
    (lambda: m.bootstrap_indices(3, draws=0), "draws >= 1"),
    (lambda: m.bootstrap_indices(3, strata=[0, 1]), "names 2 clips"),
    (lambda: m.bootstrap_ci(Y, P, groups=["a"]), "4 group names"),
    (lambda: m.bootstrap_ci(Y, P, groups=["a", "b", "c", None]), "4 group names"),
    (lambda: m.bootstrap_ci(Y, P, level=95), "level"),
    (lambda: m.bootstrap_ci(Y, P, draws=0), "draws >= 1"),
    (lambda: m.bootstrap_ci(Y, P, metric="gini"), "metric is"),
    (lambda: m.bootstrap_ci(Y, P, groups=list("aaab"), stratified=True), "one label a group"),
    (lambda: m.bootstrap_ci([0, 1], [.1, .9]), "use stratified=True"),
    (lambda: m.bootstrap_ci([0, 1], [.1, .9], stratified=True), "1 group of a class"),
    (lambda: m.bootstrap_ci(Y, P, groups=["a"]*4), "an interval needs two or more"),
    (lambda: m.bootstrap_ci([1], [.9], metric="accuracy"), "an interval needs two or more"),
    (lambda: m.bootstrap_ci(Y, P, metric=lambda y, p: np.nan, stratified=True), "the metric gives NaN"),
    (lambda: m.bootstrap_ci(Y, P, metric=lambda y, p: np.nan), "the metric gives NaN"),
    (lambda: m.delong_test([0, 1, 1], [.1, .2, .3], [.1, .2, .3]), "at least two"),
    (lambda: m.delong_test(Y, [0, 0, 1, 1], [1, 1, 0, 0]), "no spread"),
    (lambda: m.at_prevalence(.9, .1, 1.2), "shares"),
    (lambda: m.at_prevalence(0, 0, .5), "nothing is ever called fake"),
    (lambda: m.running_average([1, 2], 0), "window"),
    (lambda: m.running_average([1, np.nan], 2), "finite"),
])
def test_wrong_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("seed", range(40))
def test_curves_and_areas_equal_scikit_learn(seed):
    y, p = world(seed)
    for ours, theirs in zip(m.roc(y, p), oracle.roc_curve(y, p, drop_intermediate=False)):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    precision, recall, thresholds = oracle.precision_recall_curve(y, p)
    np.testing.assert_allclose(m.precision_recall(y, p)[0], precision[::-1], atol=1e-12)
    np.testing.assert_allclose(m.precision_recall(y, p)[1], recall[::-1], atol=1e-12)
    np.testing.assert_allclose(m.precision_recall(y, p)[2][1:], thresholds[::-1])
    assert m.auc(y, p) == pytest.approx(oracle.roc_auc_score(y, p), abs=1e-12)
    assert m.average_precision(y, p) == pytest.approx(oracle.average_precision_score(y, p), abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_calls_and_probabilities_equal_scikit_learn(seed):
    y, p = world(seed)
    cut = float(np.random.default_rng(seed).choice([*p, *np.sort(p)[[-1, -1, -2, 0]], 2]))
    call = p >= cut
    np.testing.assert_array_equal(m.confusion(y, p, cut), oracle.confusion_matrix(y, call))
    assert m.accuracy(y, p, cut) == pytest.approx(oracle.accuracy_score(y, call))
    assert m.balanced_accuracy(y, p, cut) == pytest.approx(oracle.balanced_accuracy_score(y, call))
    theirs = oracle.classification_report(y, call, output_dict=True, zero_division=0)
    ours = m.classification_report(y, p, cut)
    for row, name in (("real", "0"), ("fake", "1"), ("macro", "macro avg"), ("weighted", "weighted avg")):
        expected = [theirs[name][k] for k in ("precision", "recall", "f1-score", "support")]
        np.testing.assert_allclose(ours.loc[row].to_numpy(float), expected, atol=1e-12)
    assert m.log_loss(y, p) == pytest.approx(oracle.log_loss(y, p), abs=1e-9)
    assert m.brier(y, p) == pytest.approx(oracle.brier_score_loss(y, p), abs=1e-12)
    true, said = calibration_curve(y, p, n_bins=10)
    table = m.calibration(y, p)
    np.testing.assert_allclose(table[["true", "said"]].to_numpy(), np.c_[true, said], atol=1e-12)
    assert table["n"].sum() == len(y) and (table["said"] <= table["high"] + 1e-12).all()
    assert m.ece(y, p) == pytest.approx(np.average(abs(true - said), weights=table["n"]))


@pytest.mark.parametrize("seed", range(40))
def test_eer_lies_where_the_interpolated_curve_balances(seed):
    y, p = world(seed)
    rate, threshold = m.eer(y, p)
    fpr, tpr, _ = m.roc(y, p)
    grid = np.linspace(0, 1, 200001)
    at = np.interp(grid, np.arange(len(fpr))/(len(fpr) - 1), fpr + tpr - 1)
    place = np.argmax(at >= 0)/200000*(len(fpr) - 1)
    assert rate == pytest.approx(np.interp(place, np.arange(len(fpr)), fpr), abs=1e-3)
    assert 0 <= rate <= 1 and threshold in p
    mistakes = ((p >= threshold)[y == 0].mean(), (p < threshold)[y == 1].mean())
    assert min(mistakes) - 1e-12 <= rate <= max(mistakes) + 1e-12


@pytest.mark.parametrize("score, rate", [([.1, .2, .8, .9], 0), ([.9, .8, .2, .1], 1), ([.5]*4, .5)])
def test_eer_at_the_extremes(score, rate):
    assert m.eer(Y, score)[0] == rate


@pytest.mark.parametrize("seed", range(20))
def test_reversed_scores_mirror_the_auc(seed):
    y, p = world(seed)
    assert m.auc(y, -p) == pytest.approx(1 - m.auc(y, p))
    assert m.auc(y, np.log(p + 1)) == pytest.approx(m.auc(y, p))


def test_precision_of_a_single_accusation():
    assert m.classification_report(Y, P, .9).loc["fake", "precision"] == 1
    assert m.classification_report(Y, P, 2).loc["fake", "precision"] == 0


def test_log_loss_of_certain_mistakes_is_finite():
    assert m.log_loss([1], [0.]) == pytest.approx(oracle.log_loss([1], [0.], labels=[0, 1]))
    assert m.log_loss([1, 0], [1., 0.]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_fpr", [0, .1, .5, 1])
def test_chosen_threshold_keeps_its_promise(seed, max_fpr):
    y, p = world(seed)
    cut = m.choose_threshold(y, p, how="fpr", max_fpr=max_fpr)
    assert (p[y == 0] >= cut).mean() <= max_fpr
    hits = (p[y == 1] >= cut).mean()
    assert all((p[y == 1] >= other).mean() <= hits for other in p if (p[y == 0] >= other).mean() <= max_fpr)
    best = m.choose_threshold(y, p)
    assert m.balanced_accuracy(y, p, best) >= max(m.balanced_accuracy(y, p, other) for other in p) - 1e-12


def test_nobody_can_be_accused():
    assert m.choose_threshold([0, 1], [.9, .1], how="fpr", max_fpr=.5) == np.inf
    assert m.confusion([0, 1], [.9, .1], np.inf).to_numpy().tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("fakes, reals", [(40, 20), (10, 30), (3179, 454), (1, 1)])
def test_baselines_are_what_a_constant_gets(fakes, reals):
    y = np.repeat([1, 0], [fakes, reals])
    table = m.prior_baseline(y)
    for name, function in (("accuracy", m.accuracy), ("balanced_accuracy", m.balanced_accuracy),
                           ("auc", m.auc), ("average_precision", m.average_precision),
                           ("log_loss", m.log_loss), ("log_loss_of_half", m.log_loss), ("brier", m.brier)):
        constant = np.full(len(y), table.loc[name, "always_says"])
        assert function(y, constant) == pytest.approx(table.loc[name, "value"])
    assert m.eer(y, np.full(len(y), .3))[0] == table.loc["eer", "value"]


@pytest.mark.parametrize("seed", range(10))
def test_pooling_equals_a_loop_over_clips(seed):
    rng = np.random.default_rng(seed)
    clip = rng.integers(0, 12, 300).astype(str)
    score = rng.choice([.05, .1, .5, .85, .9], 300, p=[.4, .2, .1, .1, .2]).round(2)

    def confident(p):
        if (p > .8).sum() > .4*len(p):
            return p[p > .8].mean()
        return p[p < .2].mean() if (p < .2).sum() > .9*len(p) else p.mean()

    loops = {"mean": np.mean, "max": np.max, "fraction": lambda p: (p >= .5).mean(),
             "trimmed": lambda p: trim_mean(p, .1), "confident": confident}
    for how, function in loops.items():
        ours = m.pool_clips(clip, score, how)
        assert list(ours.index) == list(dict.fromkeys(clip))
        np.testing.assert_allclose(ours, [function(score[clip == name]) for name in ours.index])


@pytest.mark.parametrize("right, n", [(0, 1), (1, 1), (21, 24), (0, 50), (50, 50), (333, 1000)])
@pytest.mark.parametrize("level", [.8, .95, .99])
def test_wilson_equals_scipy(right, n, level):
    known = binomtest(right, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(m.wilson(right, n, level), (known.low, known.high), atol=1e-12)


@pytest.mark.parametrize("strata", [None, [0, 1, 1, 0, 2, 2, 2]])
def test_draws_do_not_depend_on_the_block_size(strata):
    whole = m.bootstrap_indices(7, 50, seed=5, strata=strata)
    rng = np.random.default_rng(5)
    parts = [m.bootstrap_indices(7, k, rng, strata) for k in (1, 2, 3, 7, 13, 24)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert whole.shape == (50, 7) and whole.min() == 0 and whole.max() == 6
    if strata is not None:
        np.testing.assert_array_equal(np.array(strata)[whole], np.tile(strata, (50, 1)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("metric, function", [
    ("auc", oracle.roc_auc_score), ("accuracy", lambda y, p: np.mean(y == (p >= .5))),
    ("brier", oracle.brier_score_loss), ("log_loss", lambda y, p: oracle.log_loss(y, p, labels=[0, 1]))])
def test_bootstrap_equals_the_obvious_loop(seed, metric, function):
    y, p = world(seed, n=300)
    p = p.clip(.001, .999)
    loop = [function(y[rows], p[rows]) for rows in m.bootstrap_indices(300, 450, seed=seed)]
    expected = (function(y, p), *np.quantile(loop, [.05, .95]))
    np.testing.assert_allclose(m.bootstrap_ci(y, p, metric=metric, draws=450, level=.9, seed=seed),
                               expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", ["auc", "accuracy", m.auc, lambda y, p: m.eer(y, p)[0]])
@pytest.mark.parametrize("stratified", [False, True])
def test_bootstrap_draws_whole_clips(metric, stratified):
    table = m.simulate_scores(9).query("database == 'away'").sample(frac=1, random_state=1)
    y, p = table["y"].to_numpy(), table["score_b"].to_numpy()
    code, names = pd.factorize(table["clip"])
    rows_of = [np.flatnonzero(code == i) for i in range(len(names))]
    label = np.array([y[rows[0]] for rows in rows_of])
    function = {"auc": oracle.roc_auc_score, "accuracy": m.accuracy}.get(metric, metric)
    loop = []
    for draw in m.bootstrap_indices(len(names), 60, 2, label if stratified else None):
        rows = np.concatenate([rows_of[i] for i in draw])
        loop.append(function(y[rows], p[rows]))
    ours = m.bootstrap_ci(y, p, groups=table["clip"], metric=metric, draws=60, seed=2, stratified=stratified)
    np.testing.assert_allclose(ours, (function(y, p), *np.quantile(loop, [.025, .975])), rtol=0, atol=1e-9)


def test_draws_of_one_class_are_left_out_and_reported():
    y, p = [0, 0, 0, 0, 1, 1, 1], [.1, .2, .3, .6, .4, .7, .8]
    with pytest.warns(UserWarning, match="draws hold one class only and are left out"):
        value, low, high = m.bootstrap_ci(y, p, draws=500)
    assert 0 <= low <= value <= high <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.bootstrap_ci(y, p, draws=500, stratified=True)


def test_nan_of_the_metric_is_told_from_draws_of_one_class():
    y, p = np.repeat([0, 1], 20), np.linspace(0, 1, 40)
    fails = iter([np.nan]*3)
    with pytest.warns(UserWarning, match="the metric gives NaN for 3 of 100 draws"):
        m.bootstrap_ci(y, p, metric=lambda y, p: next(fails, .5), draws=100)
    with pytest.raises(ValueError, match="hold one class only: use stratified=True"):
        m.bootstrap_ci([0, 0, 1, 1], P, metric=m.auc, draws=100)
    assert m.bootstrap_ci([1]*4, P, metric=m.accuracy) == m.bootstrap_ci([1]*4, P, metric="accuracy")


def test_a_perfect_detector_has_no_width():
    assert m.bootstrap_ci(np.repeat([0, 1], 30), np.repeat([.1, .9], 30)) == (1, 1, 1)


def slow_delong(y, a, b):
    "The definition: every pair of a fake and a real clip."
    wins = []
    for p in (a, b):
        wins.append((p[y == 1][:, None] > p[y == 0]) + (p[y == 1][:, None] == p[y == 0])/2)
    by_fake, by_real = (np.cov([w.mean(axis) for w in wins]) for axis in (1, 0))
    covariance = by_fake/(y == 1).sum() + by_real/(y == 0).sum()
    return np.sqrt(covariance[0, 0] + covariance[1, 1] - 2*covariance[0, 1])


@pytest.mark.parametrize("seed", range(20))
def test_delong_equals_its_definition(seed):
    y, a = world(seed)
    b = (a + np.random.default_rng(seed).normal(0, .3, len(y))).round(1)
    test = m.delong_test(y, a, b)
    assert test["auc_a"] == pytest.approx(oracle.roc_auc_score(y, a))
    assert test["auc_b"] == pytest.approx(oracle.roc_auc_score(y, b))
    assert test["se"] == pytest.approx(slow_delong(y, a, b), abs=1e-12)
    assert m.delong_test(y, b, a)["p"] == pytest.approx(test["p"]) and 0 <= test["p"] <= 1


def test_delong_is_right_when_nothing_is_there():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 40)
    p = [m.delong_test(y, y + rng.normal(0, 1, 80), y + rng.normal(0, 1, 80))["p"] for _ in range(400)]
    assert .02 < np.mean(np.array(p) < .05) < .09


@pytest.mark.parametrize("prevalence, ppv", [(.5, .9/1.0), (.001, .9/(.9 + 99.9)), (0, 0), (1, 1)])
def test_base_rates_follow_bayes(prevalence, ppv):
    row = m.at_prevalence(.9, .1, prevalence)
    assert row["ppv"] == pytest.approx(ppv)
    assert row["right_alarms"] + row["missed"] == pytest.approx(1000*prevalence)


@pytest.mark.parametrize("seed", range(10))
def test_shift_parts_add_up_and_mean_what_they_say(seed):
    (y, p), (v, q) = world(seed, 90, 3), world(seed + 50, 70, 3)
    cut = m.choose_threshold(y, p)
    lost = m.shift_report(y, p, v, q, cut)["accuracy_lost"]
    assert lost[["ranking", "threshold", "prevalence"]].sum() == pytest.approx(lost["total"])
    assert lost["total"] == pytest.approx(m.accuracy(y, p, cut) - m.accuracy(v, q, cut))
    same = m.shift_report(y, p, y, p, cut)["accuracy_lost"]
    assert (same == 0).all()
    pushed = m.shift_report(y, p, y, p**3, cut)["accuracy_lost"]
    assert pushed["ranking"] == pytest.approx(0) and pushed["threshold"] >= 0


def test_running_average_equals_a_loop():
    values = np.random.default_rng(0).normal(size=50)
    table = m.running_average(values, 7)
    windows = [values[max(0, i - 6):i + 1] for i in range(50)]
    np.testing.assert_allclose(table["mean"], [w.mean() for w in windows])
    np.testing.assert_allclose(table["spread"], [w.std() for w in windows], atol=1e-7)
    assert not table.isna().any().any()


def test_inputs_may_be_lists_series_or_booleans_and_stay_unchanged():
    y, p = world(1)
    y0, p0 = y.copy(), p.copy()
    expected = m.auc(y, p)
    for labels, scores in ((list(y), list(p)), (pd.Series(y, index=range(5, 5 + len(y))), pd.Series(p)),
                           (y.astype(bool), p), (y.astype(float), p.astype(np.float64))):
        assert m.auc(labels, scores) == expected
        m.bootstrap_ci(labels, scores, draws=20, stratified=True)
    np.testing.assert_array_equal(y, y0)
    np.testing.assert_array_equal(p, p0)


def test_sample_is_what_the_generator_makes():
    from deepfake_course.core import sample
    table = pd.read_csv(sample("scores.csv"))
    pd.testing.assert_frame_equal(m.simulate_scores(), table, atol=1.01e-4)
    assert (table.groupby("clip")["y"].nunique() == 1).all() and len(table) == 1440
    assert table.groupby("database")["person"].nunique().tolist() == [10, 10]


@pytest.mark.parametrize("function, value", [(m.clip_auc, .957), (m.poster_accuracy, .875)])
def test_headlines(function, value):
    row = function()
    assert row.lesson == "metrics" and row.value == pytest.approx(value, abs=.001)
    assert row.low < row.value < row.high
