"""Levels that never come together: counted, and hardly ever drawn together."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skvae import VAE
from skvae._excluded import ExcludedPairs
from skvae._table import TableCodec
from skvae._table._exclusions import find_exclusions


def _passengers(n=300, seed=0):
    """Nobody who travels alone has family aboard."""
    rng = np.random.default_rng(seed)
    alone = rng.random(n) < 0.5
    siblings = np.where(alone, 0, rng.integers(0, 3, n))
    return pd.DataFrame(
        {
            "siblings": siblings,
            "fare": np.round(rng.lognormal(3 + siblings, 0.5), 2),
            "cabin": rng.choice(list("ABC"), n),
            "alone": np.where(alone, "yes", "no"),
        }
    )


def _impossible(rows):
    return (rows["siblings"] > 0) & (rows["alone"] == "yes")


@pytest.fixture(scope="module")
def passengers():
    return _passengers()


@pytest.fixture(scope="module")
def vae(passengers):
    return VAE(max_iter=40, random_state=0).fit(passengers)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=4),
    n=st.integers(1, 200),
    seed=st.integers(0, 1000),
)
def test_exclusions_are_the_empty_cells_of_all_cross_tables(sizes, n, seed):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 5, n)
    codes = np.column_stack([np.where(base < 3, base, 0) % s for s in sizes])
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    left_out = [int(offsets[-1])]
    expected = []
    for i, j in itertools.combinations(range(len(sizes)), 2):
        for a, b in itertools.product(range(sizes[i]), range(sizes[j])):
            first, second = codes[:, i] == a, codes[:, j] == b
            rows = first.sum() * second.sum() / n
            asked = offsets[j] + b not in left_out
            if rows >= 6 and not (first & second).any() and asked:
                expected.append((offsets[i] + a, offsets[j] + b, np.log1p(rows)))
    found = find_exclusions(codes, np.array(sizes), left_out)
    np.testing.assert_allclose(sorted(found), sorted(expected))


def test_pairs_of_levels_are_found(passengers):
    codec = TableCodec().fit(passengers)
    pairs = {
        tuple(
            int(np.searchsorted(codec.offsets, p, side="right")) - 1 for p in pair[:2]
        )
        for pair in codec.exclusions
    }
    assert pairs == {(0, 3)}
    assert len(codec.exclusions) == 2


def test_many_rows_find_it_out_by_themselves():
    assert TableCodec().fit(_passengers(3000)).exclusions == []


def test_tables_too_wide_for_a_context_are_not_asked():
    codes = np.repeat(np.eye(2, dtype=int), 150, axis=0)
    wide = np.tile(codes, (1, 129))
    assert find_exclusions(wide[:, :256], np.full(256, 2), [])
    assert find_exclusions(wide, np.full(258, 2), []) == []


def test_bins_and_followers_are_not_asked(passengers):
    twice = passengers.assign(company=passengers["alone"].map({"yes": 0, "no": 1}))
    codec = TableCodec().fit(twice)
    assert [entry.child for entry in codec.derived] == [4]
    assert len(codec.exclusions) == 2


@pytest.mark.parametrize("leading", [(), (3,)])
def test_terms_are_those_of_all_pairs(leading):
    pairs = [(0, 3, 1.0), (1, 3, 0.5), (1, 6, 2.0), (4, 6, 0.25)]
    layer = ExcludedPairs(pairs, 7, torch.float64)
    positions = torch.tensor([[0, 3, 5], [1, 4, 6], [2, 4, 5]]).expand(*leading, 3, 3)
    terms = layer(positions)
    expected = torch.zeros(3, 7, dtype=torch.float64)
    for row, (first, second, nats) in itertools.product(range(3), pairs):
        if first in positions[..., row, :]:
            expected[row, second] -= nats
    torch.testing.assert_close(terms, expected.expand(*leading, 3, 7))
    torch.testing.assert_close(layer.terms_of(1, 3), layer.terms[layer.place[[1, 2]]])


@pytest.mark.slow
def test_impossible_rows_are_hardly_drawn(passengers, vae, monkeypatch):
    usual = VAE(max_iter=40, random_state=0)
    with monkeypatch.context() as patch:
        patch.setattr("skvae._table._codec.find_exclusions", lambda *_: [])
        usual.fit(passengers)
    share = [
        _impossible(model.sample(2000, random_state=0)).mean() for model in (usual, vae)
    ]
    assert share[1] < share[0] / 2
    assert share[1] < 0.01


def test_pairs_nobody_had_are_unlikely_but_possible(passengers, vae):
    odd = passengers[passengers["siblings"] == 2].head(3).assign(alone="yes")
    scores = vae.score_samples(odd)
    assert np.isfinite(scores).all()
    assert (scores < vae.score_samples(odd.assign(alone="no")) - 1).all()
    drawn = vae.sample(5, given={"siblings": 2, "alone": "yes"}, random_state=0)
    assert _impossible(drawn).all()
    filled = vae.impute(odd.assign(fare=np.nan), random_state=0)
    assert filled["fare"].notna().all()


def test_what_is_missing_heeds_what_is_known(passengers, vae):
    holes = passengers.copy()
    holes.loc[holes["alone"] == "yes", "siblings"] = np.nan
    drawn = vae.impute(holes, n_samples=4, random_state=0)
    share = np.mean([_impossible(rows).mean() for rows in drawn])
    assert share < 0.01


def test_normal_heads_stay_normal(passengers):
    model = VAE(max_iter=2, random_state=0, likelihood={"siblings": "gaussian"}).fit(
        passengers[["alone", "fare", "cabin", "siblings"]]
    )
    assert model._columns.codec.exclusions
    assert not model._module.likelihood.excluding


def test_state_keeps_them(passengers):
    codec = TableCodec().fit(passengers)
    assert TableCodec.from_state(codec.get_state()).exclusions == codec.exclusions


def _loans(n=600):
    """Rows with a loan have its amount, rate and kind; the others have none of them."""
    rng = np.random.default_rng(0)
    has = rng.random(n) < 0.35
    kind = pd.Series(rng.choice(["fixed", "open"], n))
    frame = {"amount": rng.lognormal(3, 1, n), "rate": rng.uniform(1, 9, n)}
    frame = pd.DataFrame(frame).round(2).assign(kind=kind)
    frame.loc[~has, :] = None
    return frame.assign(has=has, income=rng.lognormal(2, 1, n).round(2))


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_cells_that_are_missing_together_are_drawn_so(named):
    loans = _loans() if named else _loans().drop(columns="has")
    model = VAE(max_iter=30, random_state=0).fit(loans)
    asked = [None, {"rate": 4.0}, {"amount": None}, *[{"has": False}] * named]
    for given_ in asked:
        rows = model.sample(500, given=given_, random_state=0)
        filled = rows[["amount", "rate", "kind"]].notna().sum(axis=1)
        assert (~filled.isin([0, 3])).mean() <= 0.02
        if given_ == {"has": False}:
            assert (filled > 0).mean() <= 0.02


def test_known_codes_are_excluded_as_one():
    codec = TableCodec().fit(_loans()[["amount", "rate"]])
    first, size = codec.offsets, codec.sizes
    gone = first + codec.missing_code
    pairs = {(gone[0], first[1] + p) for p in range(size[1] - 1)}
    pairs |= {(p, gone[1]) for p in range(size[0] - 1)}
    assert {pair[:2] for pair in codec.exclusions} == pairs
    assert len({pair[2] for pair in codec.exclusions}) == 1


def test_too_many_pairs_are_not_listed(monkeypatch):
    monkeypatch.setattr("skvae._table._exclusions._MAX_PAIRS", 10)
    assert TableCodec().fit(_loans()[["amount", "rate"]]).exclusions == []


def _matches(n, teams=20):
    """Return matches: nobody plays at home and away."""
    rng = np.random.default_rng(0)
    home = rng.integers(teams, size=n)
    away = (home + rng.integers(1, teams, n)) % teams
    names = np.array([f"Team {k}" for k in range(teams)])
    goals = rng.poisson(1.5, n)
    return pd.DataFrame({"home": names[home], "goals": goals, "away": names[away]})


def _equal(rows):
    return (rows["home"] == rows["away"]).mean()


@pytest.mark.parametrize("n", [700, 2500])
def test_columns_that_are_never_equal_are_hardly_drawn_so(n):
    matches = _matches(n)
    model = VAE(max_iter=2, random_state=0).fit(matches)
    assert _equal(model.sample(2000, random_state=0)) < 0.005
    given_ = model.sample(500, given={"away": "Team 3"}, random_state=0)
    assert _equal(given_) < 0.005


def test_columns_that_are_equal_once_may_be():
    matches = _matches(2500)
    matches.loc[0, "away"] = matches.loc[0, "home"]
    assert TableCodec().fit(matches).exclusions == []
    # So few rows are equal by chance in none.
    assert TableCodec().fit(_matches(500)).exclusions == []


def test_missing_cells_of_many_rows_keep_their_rule():
    loans = _loans(3000)
    codec = TableCodec().fit(loans.drop(columns="has"))
    columns = np.searchsorted(codec.offsets, np.array(codec.exclusions)[:, :2], "right")
    assert {tuple(pair) for pair in (columns - 1).tolist()} == {(0, 1), (0, 2), (1, 2)}
    model = VAE(max_iter=5, random_state=0).fit(loans)
    rows = model.sample(2000, random_state=0)
    filled = rows[["amount", "rate", "kind"]].notna().sum(axis=1)
    assert (filled != 3 * rows["has"]).mean() <= 0.01
