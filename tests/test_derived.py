"""Columns that another one determines: found, obeyed, heard, kept when stored."""

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._autoregressive import AutoregressiveLikelihood
from skvae._table import TableCodec
from skvae._table_likelihood import TableLikelihood

SIZES = (4, 3, 2, 3)
# The last column follows from the first, the third from the second.
DERIVED = [
    {
        "child": 3,
        "parent": 0,
        "codes": [2, 0, 0, 1],
        "exceptions": 1e-3,
        "direction": 0,
    },
    {
        "child": 2,
        "parent": 0,
        "codes": [0, 1, 1, 1],
        "exceptions": 2e-3,
        "direction": 0,
    },
]
ROWS = torch.tensor(list(itertools.product(*map(range, SIZES))))


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["independent", "hearing"])
def likelihood(request):
    if request.param == "independent":
        return TableLikelihood(SIZES, DERIVED, torch.float64).double().eval()
    heads = AutoregressiveLikelihood(
        SIZES,
        width=2,
        bin_runs=[[4, 5, 6]],
        smoothing=0.7,
        derived=DERIVED,
        generator=_generator(),
        dtype=torch.float64,
    ).double()
    with torch.no_grad():
        heads.weight.normal_(std=2.0, generator=_generator(1))
    return heads.eval()


@pytest.fixture
def raw():
    return torch.randn(1, sum(SIZES), generator=_generator(2), dtype=torch.float64)


def _probabilities(likelihood, raw):
    return likelihood.log_prob(ROWS, raw.expand(len(ROWS), -1)).exp().detach()


def test_probabilities_of_all_rows_add_up_to_one(likelihood, raw):
    total = _probabilities(likelihood, raw).sum()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_child_has_its_code_but_for_the_exceptions(likelihood, raw):
    p = _probabilities(likelihood, raw)
    for entry in DERIVED:
        follows = torch.tensor(entry["codes"])[ROWS[:, 0]] == ROWS[:, entry["child"]]
        assert p[follows].sum().item() == pytest.approx(1 - entry["exceptions"])


def test_drawn_children_follow_their_parents(likelihood, raw):
    rows = likelihood.draw(raw.expand(500, -1), _generator())
    assert len(rows[:, 0].unique()) == 4
    for entry in DERIVED:
        follows = torch.tensor(entry["codes"])[rows[:, 0]]
        assert torch.equal(rows[:, entry["child"]], follows)


def test_mean_is_the_marginal_of_every_column(likelihood, raw):
    p = _probabilities(likelihood, raw)
    mean = likelihood.mean(raw)[0].split(SIZES)
    # What a column hears on average is exact where nothing is heard.
    exact = range(4) if type(likelihood) is TableLikelihood else (0, 2, 3)
    for j in exact:
        margin = torch.stack([p[ROWS[:, j] == c].sum() for c in range(SIZES[j])])
        torch.testing.assert_close(mean[j].detach(), margin)


@pytest.mark.parametrize(
    "known",
    [
        (-1, -1, 1, -1),
        (-1, -1, -1, 0),
        (-1, -1, 0, 2),
        (-1, 1, 1, 0),
        (2, -1, -1, 0),
        (1, 0, -1, -1),
    ],
)
def test_weights_of_completed_rows_average_to_the_marginal(likelihood, raw, known):
    known = torch.tensor(known)
    fits = ((known == ROWS) | (known < 0)).all(1)
    expected = _probabilities(likelihood, raw)[fits]
    n = 20_000
    ranks = torch.rand(n, 4, generator=_generator(), dtype=torch.float64)
    codes, log_prob, logits = likelihood.complete(known, raw.expand(n, -1), ranks)
    assert bool(((codes == known) | (known < 0)).all())
    found = log_prob.exp().mean().item()
    assert found == pytest.approx(expected.sum().item(), rel=0.05)
    share = torch.softmax(log_prob, 0).unsqueeze(1)
    usual = likelihood.expected(codes.unsqueeze(1), logits.unsqueeze(1), share)[0]
    wanted = torch.stack([expected[ROWS[fits][:, 0] == c].sum() for c in range(4)])
    # Columns to the right are heard by weights alone.
    if known[0] < 0 and (type(likelihood) is TableLikelihood or known[1] < 0):
        first = usual.detach()[:4]
        np.testing.assert_allclose(first, wanted / wanted.sum(), atol=0.03)


def test_cells_that_contradict_each_other_are_completed(likelihood, raw):
    known = torch.tensor([-1, -1, 1, 2])
    ranks = torch.rand(50, 4, generator=_generator(), dtype=torch.float64)
    codes, log_prob, logits = likelihood.complete(known, raw.expand(50, -1), ranks)
    assert bool((codes[:, 2:] == known[2:]).all())
    assert bool(torch.isfinite(log_prob).all() & torch.isfinite(logits).all())


def test_gradients_are_those_of_finite_differences(likelihood, raw):
    rows = ROWS[::7]
    torch.autograd.gradcheck(
        lambda r: likelihood.log_prob(rows, r),
        raw.expand(len(rows), -1).clone().requires_grad_(),
    )


# -- tables ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    n = 600
    zone = rng.choice([f"zone {i}" for i in range(12)], n)
    number = rng.integers(1, 4, n)
    wage = np.round(rng.gamma(2.0, 300.0, n) + 200 * number, 2)
    gap = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    return pd.DataFrame(
        {
            "borough": pd.Series(zone).map(lambda z: "ABC"[int(z[5:]) % 3]),
            "class": np.array(["first", "second", "third"])[number - 1],
            "zone": zone,
            "number": number,
            "wage": wage,
            "log_wage": np.log(wage),
            "minus_wage": -wage,
            "gap": gap,
            "has_gap": np.isnan(gap),
        }
    )


def _derived(frame):
    codec = TableCodec().fit(frame)
    return {
        codec.names[e.child]: (codec.names[e.parent], e.direction)
        for e in codec.derived
    }


def test_dependences_of_a_table_are_found(frame):
    assert _derived(frame) == {
        "borough": ("zone", 0),
        "number": ("class", 0),
        "log_wage": ("wage", 1),
        "minus_wage": ("wage", -1),
        "has_gap": ("gap", 0),
    }


def test_one_exception_is_enough_to_doubt(frame):
    doubtful = frame[["class", "number"]].copy()
    doubtful.loc[7, "number"] = 1 + doubtful.loc[7, "number"] % 3
    assert _derived(doubtful) == {}


def test_chance_is_not_taken_for_a_rule():
    rng = np.random.default_rng(0)
    names = pd.Series([f"name {i}" for i in range(200)])
    rare = np.arange(200) < 1
    few = pd.DataFrame({"name": names, "flag": rng.random(200) < 0.5, "rare": rare})
    assert _derived(few) == {}
    coins = pd.DataFrame(rng.integers(0, 2, (20, 30))).add_prefix("c")
    assert _derived(coins) == {}


def test_a_gap_is_not_derived_from_a_value():
    """Such a rule would fill gaps with gaps."""
    rng = np.random.default_rng(0)
    asked = rng.choice(["yes", "no"], 300)
    answer = pd.Series(np.where(asked == "yes", "a", None), dtype=object)
    assert "answer" not in _derived(pd.DataFrame({"asked": asked, "answer": answer}))


@pytest.fixture(scope="module", params=[VAE, AutoencoderTransformer])
def model(request, frame):
    return request.param(2, max_iter=15, random_state=0).fit(frame)


def _check_rules(rows):
    zones = rows["zone"].str[5:].astype(int) % 3
    assert (zones.map(lambda i: "ABC"[i]) == rows["borough"]).all()
    numbers = rows["class"].map({"first": 1, "second": 2, "third": 3})
    assert (numbers == rows["number"]).all()
    np.testing.assert_allclose(rows["log_wage"], np.log(rows["wage"]), rtol=1e-2)
    np.testing.assert_allclose(rows["minus_wage"], -rows["wage"], atol=0.02)
    assert (rows["gap"].isna() == rows["has_gap"]).all()


def test_samples_keep_the_rules(model, frame):
    rows = model.sample(2000, random_state=0)
    assert (rows.dtypes == frame.dtypes).all()
    assert rows["wage"].nunique() > 500
    _check_rules(rows)
    copy = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(copy.sample(2000, random_state=0), rows)


def test_a_row_that_breaks_a_rule_scores_low(model, frame):
    broken = frame[:5].copy()
    broken["number"] = 1 + broken["number"] % 3
    whole, less = model.score_samples(frame[:5]), model.score_samples(broken)
    if isinstance(model, VAE):
        assert (whole - less > 4).all()
    losses = model.cell_losses(broken)
    number = np.asarray(losses)[:, list(frame).index("number")]
    assert (number > 4).all()


def test_gaps_are_filled_by_the_rules(model, frame):
    gaps = frame.astype({"number": "float64"})
    gaps.loc[:49, ["class", "log_wage"]] = None
    gaps.loc[50:99, ["number", "wage"]] = None
    gaps.loc[100:149, "zone"] = None
    filled = model.impute(gaps)
    assert (filled["class"][:50] == frame["class"][:50]).all()
    assert (filled["number"][50:100] == frame["number"][50:100]).all()
    # What goes together within a code is filled to the digit.
    np.testing.assert_allclose(
        filled["log_wage"][:50], frame["log_wage"][:50], atol=2e-3
    )
    np.testing.assert_allclose(filled["wage"][50:100], frame["wage"][50:100], atol=0.02)
    drawn = model.impute(gaps, n_samples=2, random_state=0)[1]
    np.testing.assert_allclose(drawn["wage"][50:100], frame["wage"][50:100], atol=0.02)
    zones = filled["zone"][100:150].str[5:].astype(int) % 3
    assert (zones.map(lambda i: "ABC"[i]) == frame["borough"][100:150]).all()


def test_rows_on_request_keep_the_rules(frame):
    model = VAE(2, max_iter=15, random_state=0).fit(frame)
    rows = model.sample(200, random_state=0, given={"number": 2, "borough": "A"})
    _check_rules(rows)
    assert set(rows["class"]) == {"second"}
    assert set(rows["zone"]) <= {"zone 0", "zone 3", "zone 6", "zone 9"}


def test_a_gap_that_a_rule_asks_for_is_filled_too(frame):
    """Who has no gap in training says nothing of what fills this one."""
    model = VAE(2, max_iter=2, random_state=0).fit(frame)
    drawn = model.impute(frame, n_samples=2, random_state=0)
    for filled in (model.impute(frame), *drawn):
        assert filled["gap"].notna().all()


@pytest.mark.parametrize("name", ["wage", "minus_wage"])
def test_a_number_on_request_sets_those_that_go_with_it(frame, name):
    model = VAE(2, max_iter=2, random_state=0).fit(frame)
    rows = model.sample(20, random_state=0, given={name: frame[name].iloc[3]})
    np.testing.assert_allclose(rows["wage"], frame["wage"].iloc[3], atol=0.02)
    np.testing.assert_allclose(rows["minus_wage"], frame["minus_wage"][3], atol=0.02)
    np.testing.assert_allclose(rows["log_wage"], frame["log_wage"][3], atol=2e-3)


def test_ranks_are_those_that_values_are_drawn_at(frame):
    codec = TableCodec().fit(frame)
    codes = codec.encode(frame)
    ranks = codec.known(frame, codes).ranks
    assert sorted(codec.names[j] for j in ranks) == ["log_wage", "minus_wage", "wage"]
    for j, rank in ranks.items():
        back = codec.columns[j].draw(codes[:, j], rank)
        np.testing.assert_allclose(back, frame.iloc[:, j], rtol=1e-9)


def test_equal_dates_stay_equal():
    rng = np.random.default_rng(0)
    day = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 900, 300), "h")
    frame = pd.DataFrame({"day": day, "again": day, "x": rng.normal(size=300)})
    model = VAE(2, max_iter=2, random_state=0).fit(frame)
    rows = model.sample(300, random_state=0)
    assert (rows["day"] == rows["again"]).all()
    asked = model.sample(5, random_state=0, given={"again": day[7]})
    assert (asked["day"] == day[7]).all()
    gaps = frame.assign(again=frame["again"].mask(np.arange(300) < 20))
    filled = model.impute(gaps)
    # Hours within a bin are known to the hour.
    apart = (filled["again"] - frame["day"]).abs()
    assert apart.max() <= pd.Timedelta("1h")


def test_classes_keep_the_rules(frame):
    model = ConditionalVAE(2, max_iter=5, random_state=0)
    model.fit(frame.drop(columns="class"), frame["class"])
    rows, _ = model.sample(300, random_state=0)
    np.testing.assert_allclose(rows["log_wage"], np.log(rows["wage"]), rtol=1e-2)


def test_a_head_that_was_asked_for_is_learned(frame):
    model = VAE(2, likelihood={"log_wage": "gaussian"}, max_iter=1, random_state=0)
    derived = model.fit(frame)._architecture.table.derived
    assert list(frame).index("log_wage") not in {e["child"] for e in derived}


# -- flags of what is missing ----------------------------------------------------------
@pytest.fixture(scope="module")
def payments():
    """Amounts and days, of which those that are paid come again, in weeks."""
    rng = np.random.default_rng(0)
    n = 1000
    is_paid = rng.random(n) < 0.4
    amount, days = (1 + rng.gamma(2, 50, n).round(d) for d in (2, 0))
    paid = {"paid": amount, "weeks": (days / 7).round(1)}
    paid = {name: np.where(is_paid, own, np.nan) for name, own in paid.items()}
    return pd.DataFrame({"amount": amount, "days": days, **paid}), is_paid


def _share_off(rows):
    known = rows.dropna()
    assert len(known) > 20
    if "paid" in rows:
        return (known.amount != known.paid).mean()
    return ((known.days / 7 - known.weeks).abs() > 0.0501).mean()


@pytest.mark.parametrize("names", [["amount", "paid"], ["days", "weeks"]])
@pytest.mark.parametrize(
    ("yes", "no"), [("paid", "open"), (True, False), (1, 0), (0.5, 1.5)]
)
def test_a_flag_of_missing_cells_hides_no_rule(payments, names, yes, no):
    frame, is_paid = payments
    frame = frame[names].assign(status=np.where(is_paid, yes, no))
    codec = TableCodec().fit(frame)
    assert [(e.child, e.parent) for e in codec.derived] == [(2, 1)]
    for own in (codec, TableCodec.from_state(codec.get_state())):
        drawn = own.decode(own.encode(frame), np.random.default_rng(0))
        assert _share_off(drawn) == 0
        pd.testing.assert_series_equal(drawn.status, frame.status)
