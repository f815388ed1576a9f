"""Columns that exclude or imply each other: found, and kept in every row drawn."""

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._table import TableCodec

N = 400
JOBS = ["clerk", "cook", "pilot", "tailor"]


def _people(n=N, seed=0):
    """Jobs and marital status as dummies, wages, and steps of schooling."""
    rng = np.random.default_rng(seed)
    job = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    school = rng.integers(0, 4, n)
    widowed, divorced = rng.random(n) < 0.25, rng.random(n) < 0.4
    frame = pd.DataFrame({name: (job == k).astype(int) for k, name in enumerate(JOBS)})
    frame["wage"] = np.round(rng.normal(10 + 3 * job, 2), 2)
    # At most one of these two; the third says what the first does.
    frame["widowed"] = pd.Categorical(np.where(widowed, "yes", "no"))
    frame["divorced"] = divorced & ~widowed
    frame["mourns"] = np.where(widowed, "black", "colours")
    for k, name in enumerate(["primary", "secondary", "college"]):
        frame[name] = (school > k).astype(float)
    return frame


def _groups(frame):
    codec = TableCodec().fit(frame)
    return [[codec.names[j] for j in joint.members] for joint in codec.joint]


def _agrees(rows):
    one_job = rows[JOBS].sum(axis=1) == 1
    status = ~((rows["widowed"] == "yes") & rows["divorced"])
    status &= (rows["widowed"] == "yes") == (rows["mourns"] == "black")
    steps = (rows["primary"] >= rows["secondary"]) & (
        rows["secondary"] >= rows["college"]
    )
    return one_job & status & steps


@pytest.fixture(scope="module")
def people():
    return _people()


@pytest.fixture(scope="module")
def vae(people):
    return VAE(max_iter=5, random_state=0).fit(people)


def test_groups_are_found(people):
    assert _groups(people) == [
        JOBS,
        ["primary", "secondary", "college"],
        ["widowed", "divorced"],
    ]


def test_a_level_that_implies_one_of_another_code_stays_with_its_own():
    rng = np.random.default_rng(0)
    area, soil = (
        rng.choice(4, 2000, p=[0.45, 0.05, 0.44, 0.06]),
        rng.integers(2, 9, 2000),
    )
    # The first soil is that of one area, the second of two.
    soil = np.where((area == 0) & (rng.random(2000) < 0.1), 0, soil)
    soil = np.where((area < 2) & (rng.random(2000) < 0.1), 1, soil)
    areas = {f"area{k}": (area == k).astype(int) for k in range(4)}
    soils = {f"soil{k}": (soil == k).astype(int) for k in range(9)}
    frame = pd.DataFrame({"height": rng.normal(size=2000), **areas, **soils})
    assert _groups(frame) == [list(areas), list(soils)]


@pytest.mark.parametrize("seed", range(5))
def test_independent_columns_are_not_joined(seed):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.02, 0.5, 30)
    assert _groups(pd.DataFrame((rng.random((300, 30)) < share).astype(int))) == []


@pytest.mark.parametrize(("n", "n_levels"), [(300, 8), (700, 12)])
def test_small_levels_are_found_together(n, n_levels):
    level = np.random.default_rng(0).integers(0, n_levels, n)
    dummies = pd.get_dummies(level).add_prefix("is ")
    assert _groups(dummies) == [list(dummies.columns)]


def test_one_row_that_does_otherwise_is_believed(people):
    people = people.copy()
    people.loc[0, JOBS] = 1
    assert all("clerk" not in group for group in _groups(people))


def test_columns_with_gaps_are_left_alone(people):
    people = people.astype(dict.fromkeys(JOBS, float))
    people.loc[:20, JOBS] = np.nan
    assert all("clerk" not in group for group in _groups(people))


def test_rules_beyond_the_rows_that_are_searched_are_checked(monkeypatch):
    monkeypatch.setattr("skvae._table._joint._CELLS", 0)
    frame = _people(20_000)[JOBS]
    assert _groups(frame) == [JOBS]
    # Not among 8192 rows of 20 000 chosen evenly.
    frame.loc[3, JOBS] = 1
    found = [name for group in _groups(frame) for name in group]
    assert len(found) < len(JOBS)


def test_samples_keep_to_the_rules(people, kind):
    rich = people["wage"] > 12
    model = kind(max_iter=3, random_state=0).fit(people, rich)
    drawn = model.sample(1000, random_state=0)
    drawn, told = (drawn[0], (rich,)) if kind is ConditionalVAE else (drawn, ())
    assert _agrees(drawn).all()
    assert (drawn.dtypes == people.dtypes).all()
    assert list(drawn.columns) == list(people.columns)
    assert _agrees(model.reconstruct(people, *told)).all()


@pytest.mark.slow
def test_shares_of_levels_are_kept(people):
    model = VAE(max_iter=30, random_state=0).fit(people)
    drawn = model.sample(4000, random_state=0)
    np.testing.assert_allclose(drawn[JOBS].mean(), people[JOBS].mean(), atol=0.03)
    wages = [np.average(f["wage"], weights=f["tailor"]) for f in (people, drawn)]
    assert wages[1] == pytest.approx(wages[0], rel=0.1)


def test_numpy_rows(people):
    rows = people[JOBS].to_numpy()
    model = VAE(likelihood="table", max_iter=3, random_state=0).fit(rows)
    assert (model.sample(200, random_state=0).sum(axis=1) == 1).all()
    assert model.cell_losses(rows).shape == rows.shape


def test_given_level_rules_the_others_out(vae):
    drawn = vae.sample(200, given={"pilot": 1}, random_state=0)
    assert (drawn["pilot"] == 1).all()
    assert _agrees(drawn).all()
    drawn = vae.sample(500, given={"clerk": 0, "cook": 0}, random_state=0)
    assert (drawn[["clerk", "cook"]] == 0).all(axis=None)
    assert _agrees(drawn).all()
    assert 0 < drawn["tailor"].mean() < drawn["pilot"].mean()


@pytest.mark.parametrize("model", ["vae", "deterministic"])
def test_missing_cells_are_filled_by_the_rules(people, vae, model):
    if model == "deterministic":
        vae = AutoencoderTransformer(2, max_iter=3, random_state=0).fit(people)
    holes = people.astype(dict.fromkeys(JOBS, float))
    hot = holes[JOBS].to_numpy().argmax(axis=1)
    for i in range(100):
        holes.loc[i, JOBS[hot[i]]] = np.nan
    holes.loc[100:150, JOBS] = np.nan
    holes.loc[151:200, ["widowed", "mourns"]] = None
    filled = vae.impute(holes, random_state=0)
    assert _agrees(filled).all()
    assert (filled.loc[:99, JOBS] == people.loc[:99, JOBS]).all(axis=None)


def test_a_pattern_nobody_had_is_unlikely_but_scored(people, vae):
    odd = people.head(3).copy()
    odd.loc[0, JOBS] = 1
    scores = vae.score_samples(odd)
    usual = vae.score_samples(people.head(3))
    assert np.isfinite(scores).all()
    assert scores[0] < usual[0] - 5
    np.testing.assert_array_equal(scores[1:], usual[1:])
    assert vae.transform(odd).shape == (3, vae.n_components_)


def test_likelihoods_of_all_patterns_sum_to_one(people):
    """What is said of members, one after the other, is a distribution."""
    jobs = people[JOBS]
    model = VAE(1, max_iter=3, random_state=0).fit(jobs.assign(wage=people["wage"]))
    codec, likelihood = model._columns.codec, model._module.likelihood
    cells = np.array(list(itertools.product([0, 1], repeat=4)))
    rows = pd.DataFrame(cells, columns=JOBS).assign(wage=people["wage"][0])
    x = torch.as_tensor(codec.encode(rows)).long()
    raw = model._module.decode(torch.zeros(len(x), 1))
    with torch.no_grad():
        each = likelihood.log_prob_columns(model._columns.own_cells(x), raw)
    total = each[:, : len(JOBS)].sum(1).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_cell_losses_add_up(people, vae):
    losses = vae.cell_losses(people)
    assert losses.shape == people.shape
    model = vae._module
    codec = vae._columns.codec
    x = torch.as_tensor(codec.encode(people)).long()
    values = torch.as_tensor(codec.encode_values(people, x.numpy())).float()
    with torch.no_grad():
        mean, _ = model.posterior(model.features(x, values))
        whole = model.likelihood.log_prob(x, model.decode(mean))
    np.testing.assert_allclose(losses.sum(axis=1), -whole, rtol=1e-3, atol=0.2)


def test_saved_models_draw_the_same(vae):
    again = pickle.loads(pickle.dumps(vae))
    pd.testing.assert_frame_equal(
        again.sample(50, random_state=1), vae.sample(50, random_state=1)
    )
    codec = vae._columns.codec
    state = TableCodec.from_state(codec.get_state())
    assert [c.get_state() for c in state.joint] == [c.get_state() for c in codec.joint]


@settings(max_examples=30, deadline=None)
@given(
    n_levels=st.integers(2, 6),
    none=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_dummies_become_one_column(n_levels, none, seed):
    rng = np.random.default_rng(seed)
    level = rng.permutation(np.arange(300) % (n_levels + none))
    dummies = pd.get_dummies(level)[list(range(n_levels))]
    dummies["noise"] = rng.random(300) < 0.5
    codec = TableCodec().fit(dummies)
    followers = {entry.child for entry in codec.derived}
    # Two dummies of two levels determine each other without a third column.
    free = [j for j in range(n_levels) if j not in followers]
    assert len(free) <= 1
    codes = codec.encode(dummies)
    np.testing.assert_array_equal(
        codec.decode(codes, rng).to_numpy(), dummies.to_numpy()
    )
