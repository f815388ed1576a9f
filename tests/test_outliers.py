"""AutoencoderOutlierDetector: scikit-learn's contract, the threshold, what it finds."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skvae import VAE, AutoencoderTransformer
from skvae._optimizer import FlatAdamW
from skvae.outliers import AutoencoderOutlierDetector

VARIANTS = [
    AutoencoderOutlierDetector(VAE(max_iter=5)),
    AutoencoderOutlierDetector(VAE(max_iter=5), contamination=0.2),
    AutoencoderOutlierDetector(AutoencoderTransformer(max_iter=5)),
    AutoencoderOutlierDetector(AutoencoderTransformer(max_iter=5, init="random")),
]


@pytest.mark.numpy_global_rng
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(VARIANTS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def rows():
    """Rows on a line, and ten that keep their margins but leave it."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(300, 1))
    X = t * [1.0, 2.0, -3.0] + 0.1 * rng.normal(size=(300, 3))
    X[:10] = np.column_stack([X[rng.permutation(300)[:10], j] for j in range(3)])
    X[:10, 2] *= -1
    return X, np.arange(300) < 10


def test_rows_off_the_line_are_found_by_default(rows):
    X, wrong = rows
    detector = AutoencoderOutlierDetector(random_state=0).fit(X)
    assert roc_auc_score(wrong, -detector.score_samples(X)) > 0.9


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_contamination_is_the_share_of_training_rows_called_outliers(
    rows, contamination
):
    model = VAE(1, max_iter=5, random_state=0)
    detector = AutoencoderOutlierDetector(model, contamination=contamination)
    labels = detector.fit(rows[0]).predict(rows[0])
    assert set(labels) == {-1, 1}
    assert abs((labels == -1).mean() - contamination) <= 1 / len(labels)


def test_auto_threshold_is_a_fence_below_the_median(rows):
    detector = AutoencoderOutlierDetector(VAE(1, max_iter=5, random_state=0))
    scores = detector.fit(rows[0]).score_samples(rows[0])
    spread = np.median(np.abs(scores - np.median(scores))) / 0.6745
    assert detector.offset_ == pytest.approx(np.median(scores) - 3.5 * spread)


def test_decision_is_negative_exactly_where_predict_says_outlier(rows):
    detector = AutoencoderOutlierDetector(VAE(1, max_iter=5, random_state=0))
    detector.fit(rows[0])
    decision = detector.decision_function(rows[0])
    np.testing.assert_array_equal(decision < 0, detector.predict(rows[0]) == -1)


def test_scores_are_those_of_the_estimator(rows):
    model = VAE(1, max_iter=5, random_state=0)
    detector = AutoencoderOutlierDetector(model).fit(rows[0])
    expected = model.fit(rows[0]).score_samples(rows[0])
    np.testing.assert_array_equal(detector.score_samples(rows[0]), expected)


def test_feature_scores_point_at_the_wrong_cell(rows):
    detector = AutoencoderOutlierDetector(random_state=0).fit(rows[0])
    row = np.array([[0.0, 9.0, 0.0]])
    assert detector.feature_scores(row).argmax() == 1


def test_the_estimator_given_is_cloned(rows):
    model = VAE(1, max_iter=5)
    detector = AutoencoderOutlierDetector(model, random_state=3).fit(rows[0])
    assert not hasattr(model, "net_")
    assert detector.estimator_.random_state == 3


def test_a_frozen_estimator_is_not_fitted_again(rows):
    model = VAE(1, max_iter=5, random_state=0).fit(rows[0])
    detector = AutoencoderOutlierDetector(FrozenEstimator(model)).fit(rows[0][:99])
    np.testing.assert_array_equal(
        detector.score_samples(rows[0]), model.score_samples(rows[0])
    )


def test_default_stops_before_rare_clusters_are_learned(rows):
    detector = AutoencoderOutlierDetector(random_state=0).fit(rows[0])
    steps = detector.estimator_.max_iter * np.ceil(270 / 128)
    assert detector.estimator_.prior == "normal"
    assert 200 <= steps <= 400


@pytest.mark.parametrize("n", [10, 60, 127, 300])
def test_default_takes_about_300_steps_of_few_rows_too(rows, n, monkeypatch):
    steps = []
    step = FlatAdamW.quick_step
    monkeypatch.setattr(FlatAdamW, "quick_step", lambda o, s: steps.append(step(o, s)))
    AutoencoderOutlierDetector(random_state=0).fit(rows[0][:n])
    # It may stop early, and of the rows some are held out.
    assert 60 <= len(steps) <= 400


@pytest.mark.slow
def test_default_beats_the_reconstruction_error_where_outliers_are_a_cluster():
    X, y = load_breast_cancer(return_X_y=True)
    rows = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:20]]
    X, wrong = X[rows], y[rows] == 0
    ours = AutoencoderOutlierDetector(random_state=0).fit(X)
    error = AutoencoderTransformer(10, random_state=0).fit(X)
    area = roc_auc_score(wrong, -ours.score_samples(X))
    assert area > roc_auc_score(wrong, -error.score_samples(X))
    assert area > 0.85


def test_frames_with_categories_and_gaps_are_scored():
    rng = np.random.default_rng(0)
    size = rng.integers(0, 3, 120)
    X = pd.DataFrame({"size": pd.Categorical.from_codes(size, ["s", "m", "l"])})
    X["price"] = size * 10 + rng.normal(size=120)
    X.loc[3, "price"] = np.nan
    model = VAE(2, max_iter=30, random_state=0)
    detector = AutoencoderOutlierDetector(model).fit(X)
    odd = pd.DataFrame({"size": ["s", "l"], "price": [20.0, 20.0]})
    odd["size"] = odd["size"].astype(X["size"].dtype)
    low, high = detector.score_samples(odd)
    assert low < high
    assert list(detector.feature_names_in_) == ["size", "price"]


def test_what_lies_beyond_the_training_rows_of_a_table_is_odd():
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, 300), "D")
    frame = pd.DataFrame(
        {
            "count": rng.integers(1, 20, 300),
            "pay": rng.normal(50, 9, 300).round(2),
            "day": days,
            "text": days.strftime("%Y-%m-%d"),
            "town": rng.choice(["Rome", "Oslo"], 300),
            "same": 3.0,
        }
    )
    detector = AutoencoderOutlierDetector(VAE(2, max_iter=5, random_state=0))
    detector.fit(frame)
    inside = detector.score_samples(frame)
    np.testing.assert_array_equal(inside, detector.estimator_.score_samples(frame))
    rows, cells = frame[:5], detector.feature_scores(frame[:5])
    farther = {
        "count": [25, 10**9],
        "pay": [-60.0, -1e9],
        "day": [pd.Timestamp("2026-01-01"), pd.Timestamp("2100-01-01")],
        "text": ["2026-01-01", "2100-01-01"],
        "same": [5.0, 1e3],
    }
    for name, (near, far) in farther.items():
        scores = [detector.score_samples(rows.assign(**{name: v})) for v in (near, far)]
        assert (scores[0] > scores[1]).all()
        assert (detector.predict(rows.assign(**{name: far})) == -1).all()
        more = detector.feature_scores(rows.assign(**{name: far})) - cells
        assert (more.argmax(axis=1) == list(frame).index(name)).all()
    # Two standard deviations beyond the highest number cost 2 log 3 nats.
    spread = detector.estimator_._columns.codec.columns[1].spread
    assert spread == pytest.approx(frame["pay"].std(ddof=0), rel=0.05)
    ends = [frame["pay"].max() + k * spread for k in (0, 2)]
    at_end, beyond = (detector.score_samples(rows.assign(pay=v)) for v in ends)
    np.testing.assert_allclose(at_end - beyond, 2 * np.log(3), rtol=1e-3)


def test_drops_into_a_pipeline_and_a_grid_search(rows):
    X, wrong = rows
    model = AutoencoderOutlierDetector(VAE(1, max_iter=3, random_state=0))
    labels = make_pipeline(StandardScaler(), model).fit_predict(X)
    assert labels.shape == (len(X),)
    grid = {"contamination": [0.02, 0.1], "estimator__n_components": [1, 2]}
    search = GridSearchCV(model, grid, scoring="f1_macro", cv=2)
    search.fit(X, np.where(wrong, -1, 1))
    assert set(search.best_params_) == set(grid)


@pytest.mark.parametrize("contamination", [0, 0.6, "some"])
def test_contamination_out_of_range_is_refused(rows, contamination):
    detector = AutoencoderOutlierDetector(contamination=contamination)
    with pytest.raises(ValueError, match="'contamination' parameter"):
        detector.fit(rows[0])


def test_an_estimator_without_scores_is_refused(rows):
    with pytest.raises(ValueError, match="'estimator' parameter"):
        AutoencoderOutlierDetector(StandardScaler()).fit(rows[0])


def test_bad_rows_leave_a_fitted_detector_as_it_was(rows):
    X = rows[0]
    detector = AutoencoderOutlierDetector(VAE(1, max_iter=3, random_state=0)).fit(X)
    before = detector.score_samples(X)
    with pytest.raises(ValueError, match="infinity"):
        detector.fit(np.full((60, 3), np.inf))
    np.testing.assert_array_equal(detector.score_samples(X), before)
