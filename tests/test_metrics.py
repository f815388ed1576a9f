"""Metrics agree with their definitions, computed another way."""

import itertools

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from skvae import metrics

SEEDS = [0, 1, 2]


def mixed_table(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n) + shift
    level = np.where(rng.random(n) < 0.7, "low", "high").astype(object)
    level[x > 1] = "high"
    return pd.DataFrame(
        {
            "x": x,
            "y": 0.8 * x + 0.6 * rng.normal(size=n),
            "level": level,
            "flag": rng.random(n) < 0.4,
        }
    )


def with_gaps(frame, seed, share=0.2):
    frame = frame.copy()
    rows = np.random.default_rng(seed).random(len(frame)) < share
    frame.loc[rows, "x"] = np.nan
    frame.loc[rows[::-1], "level"] = None
    return frame


# -- shape -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_shape_error_of_numbers_is_the_ks_statistic_of_scipy(seed):
    real, fake = mixed_table(200, seed), mixed_table(150, seed + 10, shift=0.3)
    errors = metrics.shape_errors(real, fake)
    for name in ("x", "y"):
        expected = stats.ks_2samp(real[name], fake[name]).statistic
        assert errors[name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_shape_error_of_categories_is_the_total_variation(seed):
    real = with_gaps(mixed_table(200, seed), seed)
    fake = with_gaps(mixed_table(150, seed + 10), seed + 1, share=0.5)
    shares = [
        f["level"].value_counts(normalize=True, dropna=False).to_dict()
        for f in (real, fake)
    ]
    shares = [{str(k): v for k, v in s.items()} for s in shares]
    levels = set(shares[0]) | set(shares[1])
    expected = 0.5 * sum(abs(shares[0].get(k, 0) - shares[1].get(k, 0)) for k in levels)
    error = metrics.shape_errors(real, fake)["level"]
    assert error == pytest.approx(expected, abs=1e-12)


def test_shape_error_of_numbers_counts_the_missing_rate():
    real = np.array([[1.0], [2.0], [3.0], [4.0]])
    fake = np.array([[1.0], [2.0], [np.nan], [np.nan]])
    assert metrics.shape_error(real, fake) == 0.5


def test_shape_error_is_the_mean_over_columns():
    real, fake = mixed_table(60, 0), mixed_table(60, 1)
    errors = metrics.shape_errors(real, fake)
    assert list(errors) == list(real.columns)
    mean = np.mean(list(errors.values()))
    assert metrics.shape_error(real, fake) == pytest.approx(mean)


# -- association -----------------------------------------------------------------------


def contingency_variation(real, fake, a, b):
    def binned(frame, name):
        if frame[name].dtype.kind != "f":
            return frame[name].astype(str)
        edges = np.histogram_bin_edges(real[name], bins=10)
        edges[0], edges[-1] = -np.inf, np.inf
        return pd.cut(frame[name], edges, right=False).astype(str)

    def shares(frame):
        cells = binned(frame, a).to_numpy() + "|" + binned(frame, b).to_numpy()
        return pd.Series(cells).value_counts(normalize=True)

    return 0.5 * shares(real).sub(shares(fake), fill_value=0).abs().sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_association_errors_agree_with_a_second_implementation(seed):
    real, fake = mixed_table(200, seed), mixed_table(150, seed + 10, shift=0.5)
    errors = metrics.association_errors(real, fake)
    expected = np.zeros((4, 4))
    for i, j in itertools.combinations(range(4), 2):
        a, b = real.columns[i], real.columns[j]
        if (i, j) == (0, 1):
            rhos = [np.corrcoef(f[a], f[b])[0, 1] for f in (real, fake)]
            expected[i, j] = abs(rhos[0] - rhos[1]) / 2
        else:
            expected[i, j] = contingency_variation(real, fake, a, b)
        expected[j, i] = expected[i, j]
    np.testing.assert_allclose(errors, expected, atol=1e-12)
    mean = expected[np.triu_indices(4, 1)].mean()
    assert metrics.association_error(real, fake) == pytest.approx(mean, abs=1e-12)


def test_correlation_uses_the_rows_where_both_are_known():
    x = np.arange(6.0)
    real = np.column_stack([x, x])
    fake = np.column_stack([x, -x])
    fake[0, 0] = fake[5, 1] = np.nan
    assert metrics.association_error(real, fake) == pytest.approx(1.0)


def test_association_with_a_constant_is_zero():
    real = np.column_stack([np.ones(5), np.arange(5.0)])
    assert metrics.association_error(real, real[::-1]) == 0.0


def test_association_of_many_levels_needs_no_dense_table():
    levels = np.arange(3000).astype(str)
    real = pd.DataFrame({"a": levels, "b": levels})
    fake = pd.DataFrame({"a": levels, "b": np.roll(levels, 1)})
    assert metrics.association_error(real, real) == 0.0
    assert metrics.association_error(real, fake) == pytest.approx(1.0)


# -- containers and columns ------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_pandas_and_polars_give_the_same_figures(seed):
    real = with_gaps(mixed_table(80, seed), seed)
    fake = with_gaps(mixed_table(80, seed + 10), seed + 3)
    both = [pl.from_pandas(frame) for frame in (real, fake)]
    assert metrics.shape_errors(real, fake) == metrics.shape_errors(*both)
    assert metrics.association_error(real, fake) == metrics.association_error(*both)
    assert metrics.exact_copies(real, real) == metrics.exact_copies(*both[:1] * 2)


def test_category_type_equals_strings():
    real, fake = mixed_table(50, 0), mixed_table(50, 1)
    as_category = real.astype({"level": "category"})
    assert metrics.shape_errors(as_category, fake) == metrics.shape_errors(real, fake)


def test_column_order_does_not_matter():
    real, fake = mixed_table(50, 0), mixed_table(50, 1)
    turned = fake[fake.columns[::-1]]
    assert metrics.shape_errors(real, turned) == metrics.shape_errors(real, fake)


def test_other_columns_are_an_error():
    real = mixed_table(10, 0)
    with pytest.raises(ValueError, match=r"lacks \['y'\] and adds \['z'\]"):
        metrics.shape_error(real, real.rename(columns={"y": "z"}))


def test_unknown_categorical_feature_is_an_error():
    real = mixed_table(10, 0)
    with pytest.raises(ValueError, match=r"unknown columns \['town'\]"):
        metrics.shape_error(real, real, categorical_features=["town"])


def test_text_in_a_column_of_numbers_is_an_error():
    real = mixed_table(10, 0)
    with pytest.raises(ValueError, match="Column 'x' holds numbers in the first"):
        metrics.shape_error(real, real.assign(x="a"))


def test_empty_tables_are_an_error():
    with pytest.raises(ValueError, match="at least 1 row"):
        metrics.shape_error(np.empty((0, 2)), np.empty((0, 2)))


# -- utility and detection -------------------------------------------------------------


def test_utility_of_the_real_rows_is_the_real_utility():
    real, holdout = mixed_table(300, 0), mixed_table(200, 1)
    score = metrics.utility_score(real, holdout, real, "y", random_state=0)
    assert score.synthetic == score.real
    assert 0.3 < score.real < 0.64  # 0.64 is the share of y's variance that x explains


def test_utility_of_shuffled_labels_is_chance():
    real, holdout = mixed_table(400, 0), mixed_table(400, 1)
    broken = real.assign(
        level=real["level"].to_numpy()[np.random.default_rng(0).permutation(400)]
    )
    score = metrics.utility_score(real, holdout, broken, "level", random_state=0)
    assert score.real > 0.6
    assert score.synthetic == pytest.approx(0.5, abs=0.12)


def test_utility_without_a_class_in_the_synthetic_rows_is_chance():
    real, holdout = mixed_table(100, 0), mixed_table(100, 1)
    single = real.assign(level="low")
    score = metrics.utility_score(real, holdout, single, "level", random_state=0)
    assert score.synthetic == 0.5


def test_utility_of_three_classes_averages_over_classes():
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    frame = pd.DataFrame(
        {"x": x, "c": np.array(["a", "b", "c"])[np.digitize(x, [-0.5, 0.5])]}
    )
    score = metrics.utility_score(
        frame[:200], frame[200:400], frame[400:], "c", random_state=0
    )
    assert score.synthetic > 0.98


@pytest.mark.parametrize("target", ["x", "level"])
@pytest.mark.parametrize("n_known", [0, 1])
def test_utility_of_a_target_that_the_holdout_lacks_is_nan(target, n_known):
    real, holdout = mixed_table(60, 0), mixed_table(60, 1)
    holdout[target] = holdout[target].where(holdout.index < n_known)
    score = metrics.utility_score(real, holdout, real, target, random_state=0)
    assert np.isnan(score).all()


def test_unknown_target_is_an_error():
    real = mixed_table(10, 0)
    with pytest.raises(ValueError, match="target='price' is not a column"):
        metrics.utility_score(real, real, real, "price")


def test_detection_finds_a_broken_dependence():
    real = mixed_table(400, 0)
    rng = np.random.default_rng(0)
    independent = real.apply(lambda c: c.to_numpy()[rng.permutation(len(c))])
    auc = metrics.detection_auc(mixed_table(400, 1), independent, random_state=0)
    # Five standard deviations (0.02 each) above chance.
    assert auc > 0.6


def test_detection_of_real_rows_is_chance():
    auc = metrics.detection_auc(
        mixed_table(500, 1), mixed_table(800, 2), random_state=0
    )
    # Standard deviation of an AUC of 500 against 500 rows is about 0.018.
    assert auc == pytest.approx(0.5, abs=0.06)


def test_detection_takes_more_levels_than_boosting_does():
    levels = np.arange(400).astype(str)
    frame = pd.DataFrame({"a": levels})
    assert 0 <= metrics.detection_auc(frame, frame, random_state=0) <= 1


def test_detection_of_copies_of_the_training_rows_is_below_chance():
    """A copy sits in another fold with the other label: hence the hold-out."""
    real = mixed_table(300, 0)
    assert metrics.detection_auc(real, real, random_state=0) < 0.4


def test_detection_needs_two_rows():
    with pytest.raises(ValueError, match="at least 2"):
        metrics.detection_auc(np.ones((1, 2)), np.ones((5, 2)))


@pytest.mark.parametrize("seed", SEEDS)
def test_same_random_state_gives_the_same_figures(seed):
    real, fake = mixed_table(80, seed), mixed_table(60, seed + 10)
    first = metrics.detection_auc(real, fake, random_state=seed)
    assert first == metrics.detection_auc(real, fake, random_state=seed)
    first = metrics.beta_recall(real, fake, max_rows=30, random_state=seed)
    assert first == metrics.beta_recall(real, fake, max_rows=30, random_state=seed)


# -- coverage and privacy --------------------------------------------------------------


def one_hot_pair(real, fake):
    numbers, words = ["x", "y"], ["level", "flag"]
    low, width = real[numbers].min(), real[numbers].max() - real[numbers].min()
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    encoder.fit(pd.concat([real, fake])[words].astype(str))
    return [
        np.hstack([(f[numbers] - low) / width, encoder.transform(f[words].astype(str))])
        for f in (real, fake)
    ]


def naive_alpha_beta(X, S):
    """Follow the definition with full distance matrices and loops."""
    levels = np.linspace(0, 1, 30)
    center, synthetic_center = X.mean(axis=0), S.mean(axis=0)
    own = cdist(X, X)
    np.fill_diagonal(own, np.inf)
    other = cdist(X, S)
    nearest = other.argmin(axis=1)
    spread = np.linalg.norm(S[nearest] - synthetic_center, axis=1)
    covered = other.min(axis=1) <= own.min(axis=1)
    radii = np.quantile(np.linalg.norm(X - center, axis=1), levels)
    precision = [np.mean(np.linalg.norm(S - center, axis=1) <= r) for r in radii]
    recall = [np.mean(covered & (spread <= q)) for q in np.quantile(spread, levels)]
    step = levels[1] - levels[0]
    return [1 - 2 * np.abs(levels - c).sum() * step for c in (precision, recall)]


@pytest.mark.parametrize("seed", SEEDS)
def test_alpha_and_beta_agree_with_one_hot_loops(seed):
    real, fake = mixed_table(120, seed), mixed_table(120, seed + 10, shift=0.4)
    alpha, beta = naive_alpha_beta(*one_hot_pair(real, fake))
    # A rounding of the last digit may move one row across one of 30 radii.
    assert metrics.alpha_precision(real, fake) == pytest.approx(alpha, abs=1e-3)
    assert metrics.beta_recall(real, fake) == pytest.approx(beta, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_closest_record_share_agrees_with_one_hot_distances(seed):
    real, holdout = mixed_table(90, seed), mixed_table(90, seed + 10)
    fake = mixed_table(70, seed + 20)
    R, S = one_hot_pair(real, fake)
    _, H = one_hot_pair(real, holdout)
    near, far = (
        cdist(S, R, "cityblock").min(axis=1),
        cdist(S, H, "cityblock").min(axis=1),
    )
    share = metrics.distance_to_closest_record_share(real, holdout, fake)
    assert share == pytest.approx(np.mean(near < far), abs=1e-9)


@pytest.mark.parametrize("max_rows", [0, -1])
def test_closest_record_share_needs_a_row(max_rows):
    real = mixed_table(30, 0)
    with pytest.raises(ValueError, match="at least 1 is needed"):
        metrics.distance_to_closest_record_share(
            real, real, real, max_rows=max_rows, random_state=0
        )


def test_closest_record_share_is_one_half_for_ties():
    real = mixed_table(30, 0)
    assert metrics.distance_to_closest_record_share(real, real, real) == 0.5


def test_closest_record_share_is_fair_to_a_small_holdout():
    rows = mixed_table(1600, 0)
    share = metrics.distance_to_closest_record_share(
        rows[:1000], rows[1000:1200], rows[1200:], random_state=0
    )
    # 400 rows: a standard deviation of 0.025.
    assert share == pytest.approx(0.5, abs=0.09)


def test_exact_copies_are_counted_in_every_kind_of_cell():
    real = with_gaps(mixed_table(50, 0), 0)
    fake = pd.concat([real[:10], mixed_table(30, 5)])
    assert metrics.exact_copies(real, fake) == 0.25


def test_a_row_with_one_other_cell_is_no_copy():
    real = mixed_table(50, 0)
    assert metrics.exact_copies(real, real.assign(flag=~real["flag"])) == 0.0


def test_missing_cells_and_unknown_levels_have_distances():
    real = with_gaps(mixed_table(60, 0), 0)
    fake = mixed_table(60, 1).assign(level="new")
    assert np.isfinite(metrics.beta_recall(real, fake))
    assert np.isfinite(metrics.alpha_precision(real, fake))


def test_columns_of_categories_alone_have_distances():
    real = mixed_table(40, 0)[["level", "flag"]]
    assert metrics.beta_recall(real, real) > 0.5
    assert metrics.distance_to_closest_record_share(real, real, real) == 0.5


# -- report ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    real, holdout = (with_gaps(mixed_table(150, s), s) for s in (0, 1))
    fake = mixed_table(150, 2).assign(level="new")
    fake["x"] = fake["x"] + 100
    return metrics.QualityReport(real, holdout, fake, "y", random_state=0)


def test_report_holds_the_measures_of_the_functions(report):
    real, holdout = (with_gaps(mixed_table(150, s), s) for s in (0, 1))
    fake = mixed_table(150, 2).assign(level="new")
    fake["x"] = fake["x"] + 100
    assert report.shape_error == metrics.shape_error(real, fake)
    assert report.association_error == metrics.association_error(real, fake)
    assert report.exact_copies == metrics.exact_copies(real, fake)
    expected = metrics.shape_error(real, holdout)
    assert report.holdout_scores["shape_error"] == expected


def test_report_counts_impossible_cells(report):
    assert report.out_of_range >= 0.5  # every x, and perhaps some y
    assert report.unseen_levels == 0.5  # every level, no flag
    real = with_gaps(mixed_table(150, 0), 0)
    expected = real.isna().mean().max()
    assert report.missing_rate_error == pytest.approx(expected)
    assert report.detection_auc > 0.99


def test_report_prints_every_measure_and_the_worst_column(report):
    text = str(report)
    assert "detection AUC" in text
    assert "worst column: " in text
    assert "QualityReport(shape_error=" in repr(report)
    assert text.count("\n") == 14


def test_report_becomes_json(report):
    import json

    figures = json.loads(json.dumps(report.to_dict()))
    assert figures["utility_ratio"] == pytest.approx(
        figures["utility"] / figures["utility_real"]
    )
    assert set(figures["column_errors"]) == {"x", "y", "level", "flag"}


def test_report_without_a_target_has_no_utility():
    rows = mixed_table(60, 0)
    report = metrics.QualityReport(rows[:20], rows[20:40], rows[40:], random_state=0)
    assert report.utility is None
    assert report.utility_ratio is None
    assert "utility" not in str(report)


def test_report_of_equal_tables_names_a_pair():
    rows = mixed_table(30, 0)
    text = str(metrics.QualityReport(rows, rows, rows, random_state=0))
    assert "worst pair: x, y (0.00% association error)" in text


def test_report_has_no_ratio_of_a_utility_that_is_not_above_zero():
    noise = np.random.default_rng(0).normal(size=(3, 100, 2))
    report = metrics.QualityReport(*noise, target=0, random_state=0)
    assert report.utility_real < 0
    assert report.utility_ratio is None


def test_report_without_a_figure_is_json():
    import json

    rows = np.random.default_rng(0).normal(size=(3, 20, 1))
    report = metrics.QualityReport(*rows, target=0, random_state=0)
    assert np.isnan(report.utility)
    figures = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert figures["utility"] is figures["utility_real"] is None
    assert figures["utility_ratio"] is figures["holdout_scores"]["utility"] is None


@pytest.mark.parametrize("n", [2, 5])
def test_report_takes_tiny_tables(n):
    rows = with_gaps(mixed_table(3 * n, 0), 0)
    report = metrics.QualityReport(
        rows[:n], rows[n : 2 * n], rows[2 * n :], "level", random_state=0
    )
    assert 0 <= report.detection_auc <= 1


def test_report_draws_columns_and_pairs(report):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    display = report.plot()
    assert len(display.axes_[0].patches) == 4
    assert display.axes_[1].images[0].get_array().shape == (4, 4)
    matplotlib.pyplot.close(display.figure_)


def test_the_colours_of_pairs_without_errors_begin_at_zero():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    table = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0] * 5, "b": list("xyxz") * 5})
    display = metrics.QualityReport(table, table, table, random_state=0).plot()
    (image,) = display.axes_[1].get_images()
    assert image.get_clim() == (0.0, 1.0)
    matplotlib.pyplot.close(display.figure_)


# -- codes -----------------------------------------------------------------------------


def test_active_components_compare_the_variance_of_the_means():
    codes = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 0.2, 0.05]
    assert metrics.active_components(codes).tolist() == [True, True, False]
    assert metrics.active_components(codes, threshold=0.1).tolist() == [
        True,
        False,
        False,
    ]


def test_mutual_information_gap_is_one_for_separate_factors():
    factors = np.array(list(itertools.product(range(3), range(4))) * 5)
    assert metrics.mutual_information_gap(factors[:, ::-1], factors) == pytest.approx(1)


def test_mutual_information_gap_is_zero_for_a_code_held_twice():
    factors = np.arange(20) % 4
    codes = np.column_stack([factors, -factors]).astype(float)
    assert metrics.mutual_information_gap(codes, factors) == pytest.approx(0)


def test_mutual_information_gap_of_a_constant_factor_is_an_error():
    with pytest.raises(ValueError, match="Factor 0 is constant"):
        metrics.mutual_information_gap(np.eye(4), np.zeros(4))


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_reconstruction_r2_of_pca_is_its_explained_variance(n_components):
    X = mixed_table(100, 0)[["x", "y"]].assign(z=lambda f: f.x**2).to_numpy()
    pca = PCA(n_components).fit(X)
    expected = pca.explained_variance_ratio_.sum()
    assert metrics.reconstruction_r2_score(pca, X) == pytest.approx(expected, abs=1e-9)


class Shifted:
    """Rows come back a step off in their second column."""

    def reconstruct(self, X):
        return np.add(X, [0.0, 1.0])


# The mean of three times 0.1 is not 0.1.
@pytest.mark.parametrize("constant", [0.1, 2.0])
def test_reconstruction_r2_counts_errors_in_constant_columns(constant):
    X = np.array([[-1.0, constant], [0.0, constant], [1.0, constant]])
    # Three squared errors of 1 in the second column, 2 of variation in the first.
    assert metrics.reconstruction_r2_score(Shifted(), X) == pytest.approx(1 - 3 / 2)


@pytest.mark.parametrize("n", [1, 3])
def test_reconstruction_r2_of_rows_that_do_not_differ(n):
    X = np.full((n, 2), 0.1)
    assert metrics.reconstruction_r2_score(Shifted(), X) == 0
    assert metrics.reconstruction_r2_score(FunctionTransformer(), X) == 1


def test_reconstruction_r2_needs_rows_of_one_shape():
    class Short:
        def reconstruct(self, X):
            return X[:1]

    with pytest.raises(ValueError, match=r"shape of X, \(3, 2\). Got \(1, 2\)"):
        metrics.reconstruction_r2_score(Short(), np.ones((3, 2)))


def test_reconstruction_r2_prefers_reconstruct():
    class Identity:
        def reconstruct(self, X):
            return X

    assert metrics.reconstruction_r2_score(Identity(), [[1.0], [2.0]]) == 1.0


@pytest.mark.parametrize(
    "metric",
    [
        metrics.shape_errors,
        metrics.association_error,
        metrics.alpha_precision,
        metrics.exact_copies,
        metrics.detection_auc,
    ],
)
def test_columns_of_one_name_are_refused(metric):
    table = mixed_table(20, 0)
    twice = table.set_axis(["x", "y", "level", "level"], axis=1)
    message = "names of their own; 'level' is the name of 2"
    for tables in ((twice, twice), (table, twice)):
        with pytest.raises(ValueError, match=message):
            metric(*tables)
