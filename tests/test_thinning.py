"""Few rows that stand for many: counts of pairs, equal chances, sizes."""

import numpy as np
import pandas as pd
import pytest

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._table import TableCodec
from skvae._thinning import _halved, n_halvings, thinned


def _rows(n, rng, sizes=(2, 3, 4, 11)):
    return np.column_stack([rng.integers(k, size=n) for k in sizes])


def _pair_counts(rows):
    width = rows.max() + 1
    cells = np.eye(width)[rows].reshape(len(rows), -1)
    return cells.T @ cells / len(rows)


@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_rows_kept_are_some_of_the_rows_once_each(times):
    rows = _rows(40 * times, np.random.default_rng(0))
    kept = thinned(rows, 40, np.random.default_rng(1))
    assert len(kept) == len(set(kept)) == 40
    assert 0 <= kept.min() <= kept.max() < len(rows)


@pytest.mark.parametrize(("n", "times"), [(300, 8), (300, 32), (3000, 4)])
def test_pairs_of_kept_rows_are_nearer_to_all_than_of_random_ones(n, times):
    rng = np.random.default_rng(0)
    rows = _rows(n * times, rng)
    whole = _pair_counts(rows)
    kept = _pair_counts(rows[thinned(rows, n, rng)])
    chance = [
        np.abs(_pair_counts(rows[rng.permutation(len(rows))[:n]]) - whole).sum()
        for _ in range(20)
    ]
    assert np.abs(kept - whole).sum() < 0.7 * min(chance)


def test_no_other_choice_within_one_pair_of_rows_is_more_even():
    rng = np.random.default_rng(0)
    rows = _rows(2 * 100, rng)
    pairs = rng.permutation(200).reshape(100, 2)
    first = np.eye(11)[rows].reshape(200, -1)
    is_first = _halved(first, pairs, rng) == pairs[:, 0]

    def unevenness(choice):
        kept = np.where(choice, pairs[:, 0], pairs[:, 1])
        return ((_pair_counts(rows[kept]) - _pair_counts(rows)) ** 2).sum()

    least = unevenness(is_first)
    for i in range(100):
        other = is_first.copy()
        other[i] = not other[i]
        assert unevenness(other) >= least - 1e-12


@pytest.mark.slow
def test_each_row_has_the_same_chance():
    rows = _rows(48, np.random.default_rng(0))
    rows[0] = 1, 2, 3, 10
    times = np.zeros(48)
    for seed in range(2000):
        times[thinned(rows, 12, np.random.default_rng(seed))] += 1
    # 2000 draws with the chance 1/4: four standard deviations are 77.
    assert np.abs(times - 500).max() < 77


@pytest.mark.parametrize("times", [1, 2, 8])
def test_of_the_rows_drawn_for_the_same_one_is_kept(times):
    told = np.random.default_rng(2).integers(3, size=(40, 1))
    rows = _rows(40 * times, np.random.default_rng(0))
    kept = thinned(rows, 40, np.random.default_rng(1), told)
    np.testing.assert_array_equal(kept % 40, np.arange(40))


def test_what_rows_are_drawn_for_goes_evenly_with_them():
    rng = np.random.default_rng(0)
    told = rng.integers(3, size=(300, 1))
    rows = _rows(8 * 300, rng)
    both = np.hstack([rows, np.tile(told, (8, 1))])
    whole = _pair_counts(both)
    kept = _pair_counts(both[thinned(rows, 300, rng, told)])
    parts = np.split(both, 8)
    chance = [np.abs(_pair_counts(part) - whole).sum() for part in parts]
    assert np.abs(kept - whole).sum() < 0.7 * min(chance)


@pytest.mark.slow
def test_each_row_drawn_for_the_same_has_the_same_chance():
    rows = _rows(48, np.random.default_rng(0))
    rows[0] = 1, 2, 3, 10
    told = np.arange(12)[:, None] % 2
    times = np.zeros(48)
    for seed in range(2000):
        times[thinned(rows, 12, np.random.default_rng(seed), told)] += 1
    assert np.abs(times - 500).max() < 77


def test_equal_rows_are_halved_at_random():
    rows = np.zeros((64, 3), dtype=np.int64)
    kept = [set(thinned(rows, 32, np.random.default_rng(s))) for s in range(2)]
    assert kept[0] != kept[1]


@pytest.mark.parametrize(
    ("n", "d", "times"),
    [
        (1, 5, 5),
        (768, 5, 5),
        (769, 5, 4),
        (12_288, 5, 1),
        (12_289, 5, 0),
        (10**6, 5, 0),
        (1024, 128, 2),
        (1, 2000, 5),
        (1, 2001, 0),
    ],
)
def test_only_small_samples_are_worth_it(n, d, times):
    assert n_halvings(n, d) == times


def test_few_codes_are_groups_and_many_are_merged():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "few": rng.choice(list("abcdefgh"), 4000, p=[0.86] + [0.02] * 7),
            "many": rng.choice(60, 4000).astype(str),
            "number": rng.normal(size=4000),
            "gaps": np.where(rng.random(4000) < 0.1, np.nan, rng.normal(size=4000)),
        }
    )
    codec = TableCodec().fit(frame)
    codes = codec.encode(frame)
    groups = codec.groups(codes)
    np.testing.assert_array_equal(groups[:, 0], codes[:, 0])
    assert groups.max(axis=0).tolist() == [7, 15, 15, 16]
    assert (np.bincount(groups[:, 2]) > 4000 / 16 / 2).all()
    np.testing.assert_array_equal(groups[:, 3] == 16, frame["gaps"].isna())


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], 400, p=[0.6, 0.3, 0.1])
    size = rng.gamma(2.0, 1 + (kind == "c"))
    size[rng.random(400) < 0.2] = np.nan
    return pd.DataFrame({"size": size, "kind": kind, "flag": rng.random(400) < 0.3})


def _conditional(model, n, seed):
    rows, kind = model.sample(n, random_state=seed)
    return rows.assign(kind=kind)


def _plain(model, n, seed):
    return model.sample(n, random_state=seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [VAE, AutoencoderTransformer, ConditionalVAE])
def test_a_small_sample_has_the_shares_of_a_large_one(kind, frame):
    model = kind(2, max_iter=10, random_state=0)
    if kind is ConditionalVAE:
        model.fit(frame.drop(columns="kind"), frame["kind"])
    else:
        model.fit(frame)
    sample = _conditional if kind is ConditionalVAE else _plain

    def shares(rows):
        groups = rows.assign(size=rows["size"].isna())
        return groups.value_counts(normalize=True).sort_index()

    large = shares(sample(model, 50_000, 0))
    small = [sample(model, 200, s) for s in range(10)]
    off = [shares(s).sub(large, fill_value=0).abs().sum() for s in small]
    many = sample(model, 20_000, 1)
    usual = [
        shares(many.sample(200, random_state=s)).sub(large, fill_value=0).abs().sum()
        for s in range(10)
    ]
    assert np.mean(off) < 0.6 * np.mean(usual)
    assert {len(s) for s in small} == {200}
