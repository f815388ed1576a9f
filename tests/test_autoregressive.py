"""Heads that see the columns before them: enumerated densities, draws, gaps."""

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._autoregressive import (
    AutoregressiveLikelihood,
    ContextPenalty,
    _AddContext,
)
from skvae._smoothing import BinSmoother
from skvae._table_heads import GaussianHeads
from skvae._table_likelihood import TableLikelihood

SIZES = (3, 4, 2)
RUNS = ([3, 4, 5, 6],)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _heads(**options):
    return AutoregressiveLikelihood(
        SIZES,
        width=2,
        bin_runs=RUNS,
        **{"smoothing": 0.7, **options},
        generator=_generator(),
        dtype=torch.float64,
    ).double()


@pytest.fixture(params=[(), ((0, 4, 1.5), (2, 7, 2.0), (5, 8, 3.0))])
def likelihood(request):
    heads = _heads(excluded=request.param)
    with torch.no_grad():
        heads.weight.normal_(std=2.0, generator=_generator(1))
    return heads.eval()


@pytest.fixture
def every_row():
    return torch.tensor(list(itertools.product(*map(range, SIZES))))


@pytest.fixture
def raw():
    return torch.randn(1, sum(SIZES), generator=_generator(2), dtype=torch.float64)


def _probabilities(likelihood, rows, raw):
    return likelihood.log_prob(rows, raw.expand(len(rows), -1)).exp()


def test_probabilities_of_all_rows_add_up_to_one(likelihood, every_row, raw):
    total = _probabilities(likelihood, every_row, raw).sum()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_there_is_no_context_before_training(every_row, raw):
    heads = _heads()
    plain = TableLikelihood(SIZES)
    rows = raw.expand(len(every_row), -1)
    torch.testing.assert_close(
        heads.log_prob(every_row, rows), plain.log_prob(every_row, rows)
    )


def test_a_column_depends_on_the_columns_before_it_alone(likelihood, raw):
    rows = torch.tensor([[0, 1, 0], [0, 1, 1], [0, 2, 1], [1, 2, 1]])
    given = likelihood._given(rows, raw.expand(4, -1), True)
    first, second, third = given.split(SIZES, dim=1)
    assert torch.equal(first, raw[:, :3].expand(4, -1))
    assert torch.equal(second[0], second[1])
    assert torch.equal(second[0], second[2])
    assert not torch.allclose(second[2], second[3])
    assert torch.equal(third[0], third[1])
    assert not torch.allclose(third[1], third[2])


def test_cells_add_up_to_rows(likelihood, every_row, raw):
    rows = raw.expand(len(every_row), -1)
    cells = likelihood.log_prob_columns(every_row, rows)
    torch.testing.assert_close(cells.sum(1), likelihood.log_prob(every_row, rows))


@pytest.mark.parametrize("leading", [(), (3,)])
def test_gradients_are_those_of_the_graph(leading):
    raw = torch.randn(*leading, 5, 7, generator=_generator(), dtype=torch.float64)
    entries = torch.randn(7, 2, generator=_generator(1), dtype=torch.float64)
    weight = torch.randn(6, 7, generator=_generator(2), dtype=torch.float64)
    index = torch.randint(7, (5, 3), generator=_generator(3))
    inputs = [t.requires_grad_() for t in (raw, entries, weight)]
    assert torch.autograd.gradcheck(lambda *t: _AddContext.apply(*t, index), inputs)


@pytest.mark.parametrize("leading", [(), (2,)])
def test_gradients_of_the_context_are_those_of_finite_differences(
    likelihood, every_row, leading
):
    rows = every_row[::4]
    raw = torch.randn(*leading, len(rows), 9, generator=_generator(4)).double()
    inputs = [t.detach().clone() for t in (likelihood.entries, likelihood.weight, raw)]

    def log_prob(entries, weight, raw):
        own = {"entries": entries, "weight": weight}
        return torch.func.functional_call(likelihood, own, (rows, raw))

    likelihood.forward = likelihood.log_prob
    assert torch.autograd.gradcheck(log_prob, [t.requires_grad_() for t in inputs])
    likelihood.forward = lambda: likelihood.squared_norm()

    def penalty(weight):
        return torch.func.functional_call(likelihood, {"weight": weight}, ())

    assert torch.autograd.gradcheck(penalty, inputs[1])
    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(penalty, inputs[1], one)


def test_drawn_rows_have_the_enumerated_probabilities(likelihood, every_row, raw):
    n = 20_000
    ranks = torch.rand(n, 3, generator=_generator(), dtype=torch.float64)
    unknown = torch.full((3,), -1)
    codes = likelihood.complete(unknown, raw.expand(n, -1), ranks)[0]
    place = (codes * torch.tensor([8, 2, 1])).sum(1)
    found = torch.bincount(place, minlength=24).numpy()
    expected = _probabilities(likelihood, every_row, raw).detach().numpy() * n
    assert chisquare(found, expected / expected.sum() * n).pvalue > 0.001


def test_even_draws_have_the_margins(likelihood, every_row, raw):
    codes = likelihood.draw(raw.expand(4000, -1), _generator())
    wanted = _probabilities(likelihood, every_row, raw)
    for j, size in enumerate(SIZES):
        margin = torch.stack([wanted[every_row[:, j] == c].sum() for c in range(size)])
        found = torch.bincount(codes[:, j], minlength=size) / 4000
        np.testing.assert_allclose(found, margin.detach(), atol=0.02)


@pytest.mark.parametrize("known", [(1, -1, 0), (-1, 2, 1), (-1, -1, 1), (2, 3, -1)])
def test_weights_of_completed_rows_average_to_the_marginal(
    likelihood, every_row, raw, known
):
    known = torch.tensor(known)
    fits = ((every_row == known) | (known < 0)).all(1)
    expected = _probabilities(likelihood, every_row[fits], raw)
    n = 20_000
    ranks = torch.rand(n, 3, generator=_generator(), dtype=torch.float64)
    codes, log_prob, logits = likelihood.complete(known, raw.expand(n, -1), ranks)
    assert bool(((codes == known) | (known < 0)).all())
    assert log_prob.exp().mean().item() == pytest.approx(expected.sum().item(), rel=0.1)
    # Weighted, completed rows follow the conditional distribution.
    share = torch.softmax(log_prob, 0).unsqueeze(1)
    codes = codes.unsqueeze(1)
    found = likelihood.counts(codes, share)
    wanted = torch.zeros(sum(SIZES), dtype=torch.float64)
    weight = (expected / expected.sum()).detach()
    for j in range(3):
        place = every_row[fits][:, j] + likelihood.offsets[j]
        wanted.index_add_(0, place, weight)
    np.testing.assert_allclose(found[0].detach(), wanted, atol=0.03)
    # So does what is expected, where all that is known lies to the left.
    usual = likelihood.expected(codes, logits.unsqueeze(1), share)[0].detach()
    last = int((known >= 0).nonzero().max())
    free = slice(int(likelihood.offsets[last + 1]), None) if last < 2 else slice(0, 0)
    np.testing.assert_allclose(usual[free], wanted[free], atol=0.03)


def test_cells_not_known_at_the_end_change_nothing(likelihood, every_row, raw):
    known = torch.tensor([[1, 2, -1]])
    fits = (every_row[:, :2] == known[:, :2]).all(1)
    expected = _probabilities(likelihood, every_row[fits], raw).sum()
    torch.testing.assert_close(likelihood.log_prob(known, raw).exp()[0], expected)


def test_probabilities_of_codes_sum_to_one(likelihood, every_row, raw):
    rows = raw.expand(len(every_row), -1)
    for found in (likelihood.mean(raw), likelihood.probabilities(every_row, rows)):
        for part in found.split(SIZES, dim=1):
            torch.testing.assert_close(part.sum(1), torch.ones_like(part[:, 0]))


def test_draws_do_not_depend_on_the_axes(likelihood, raw):
    ranks = torch.rand(6, 3, generator=_generator(), dtype=torch.float64)
    x = torch.tensor([[1, -1, -1], [-1, 2, -1], [-1, -1, -1]])
    flat = raw.expand(6, -1)
    codes, fit, _ = likelihood.complete(x.repeat(2, 1), flat, ranks)
    stacked = likelihood.complete(x, flat.view(2, 3, -1), ranks.view(2, 3, 3))
    assert torch.equal(codes.view(2, 3, 3), stacked[0])
    torch.testing.assert_close(fit.view(2, 3), stacked[1])


def test_normal_heads_stay_normal():
    scores = np.linspace(-1.5, 1.5, 4)
    head = {"first": 3, "scores": list(scores), "shares": [0.25] * 4}
    heads = _heads(smoothing=0.0, gaussian=[head])
    with torch.no_grad():
        heads.weight.normal_(generator=_generator(1))
    free = torch.randn(1, 9, generator=_generator(2), dtype=torch.float64)
    raw = GaussianHeads([head], torch.float64)(free)
    rows = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    given = heads._given(rows, raw.expand(3, -1), True)[:, 3:7].detach().numpy()
    fits = [np.polyfit(scores, row, 3) for row in given]
    np.testing.assert_allclose([f[0] for f in fits], 0, atol=1e-9)
    # The variance is that of the code, only the mean has a context.
    np.testing.assert_allclose([f[1] for f in fits], fits[0][1], atol=1e-9)
    assert np.ptp([f[2] for f in fits]) > 0.1


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    n = 1200
    kind = rng.integers(0, 6, n)
    width = rng.normal(size=n).round(2)
    return pd.DataFrame(
        {
            "width": width,
            "kind": kind,
            "name": pd.Categorical(np.array(list("uvwxyz"))[kind]),
            "length": (width + kind + rng.normal(size=n) * 0.1).round(2),
            "side": rng.choice(["left", "right"], n),
        }
    )


@pytest.fixture(scope="module")
def model(frame):
    # One component cannot hold two numbers: what it lacks goes from cell to cell.
    return VAE(1, max_iter=100, random_state=0).fit(frame)


@pytest.mark.slow
def test_columns_that_repeat_each_other_are_drawn_alike(model):
    rows = model.sample(1000, random_state=0)
    same = np.array(list("uvwxyz"))[rows["kind"]] == rows["name"]
    assert same.mean() > 0.9
    rest = rows["length"] - rows["width"] - rows["kind"]
    apart = [rows[c].var() for c in ("length", "width", "kind")]
    assert rest.std() < 0.4 * np.sqrt(sum(apart))


def test_gaps_are_filled_from_columns_on_both_sides(model, frame):
    gaps = frame.astype({"kind": "float64"})
    gaps.loc[:199, "kind"] = np.nan
    gaps.loc[200:399, "name"] = np.nan
    filled = model.impute(gaps)
    assert (filled["kind"] == frame["kind"])[:200].mean() > 0.95
    assert (filled["name"] == frame["name"])[200:400].mean() > 0.95
    pd.testing.assert_frame_equal(model.impute(gaps[:7]), filled[:7])


def test_rows_on_request_follow_from_columns_on_both_sides(model, frame):
    rows = model.sample(500, random_state=0, given={"name": "y", "side": "left"})
    assert (rows["kind"] == 4).mean() > 0.9
    assert set(rows["side"]) == {"left"}
    real = frame.loc[frame["name"] == "y", "length"]
    assert abs(rows["length"].mean() - real.mean()) < 0.3


def test_a_loaded_model_draws_the_same_rows(model, frame):
    copy = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(
        copy.sample(50, random_state=1), model.sample(50, random_state=1)
    )
    assert copy.score(frame) == model.score(frame)


@pytest.mark.slow
def test_classes_are_drawn_with_columns_that_agree(frame):
    model = ConditionalVAE(1, max_iter=80, random_state=0)
    model.fit(frame.drop(columns="side"), frame["side"])
    rows, _ = model.sample(300, y="left", random_state=0)
    same = np.array(list("uvwxyz"))[rows["kind"]] == rows["name"]
    assert same.mean() > 0.9


def _width_of(model):
    return model._architecture.table.entry_width


@pytest.mark.slow
def test_which_models_have_a_context(frame):
    one = {"max_iter": 1, "random_state": 0}
    assert _width_of(VAE(**one).fit(frame)) == 8
    # Codes are all a deterministic model has.
    assert _width_of(AutoencoderTransformer(**one).fit(frame)) == 0
    own = torch.nn.LazyLinear(VAE(**one).fit(frame)._module.likelihood.n_outputs)
    assert _width_of(VAE(decoder=own, **one).fit(frame)) == 0
    wide = pd.concat([frame] * 6, axis=1)
    wide.columns = [f"c{j}" for j in range(30)]
    assert _width_of(VAE(**one).fit(wide)) == 8
    # Many columns of few codes say less, and those of many codes as little as can be.
    narrow = pd.concat([frame["side"]] * 100, axis=1)
    narrow.columns = range(100)
    assert _width_of(VAE(**one).fit(narrow)) == 5
    narrow = pd.concat([narrow] * 3, axis=1)
    narrow.columns = range(300)
    assert _width_of(VAE(**one).fit(narrow)) == 0
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.normal(size=(2000, 100))).add_prefix("c")
    numbers["group"] = "a"
    assert _width_of(VAE(**one).fit(numbers)) == 2


def test_the_penalty_counts_smoothed_weights():
    """A variance of one before smoothing is that of `variances` after it."""
    smoother = BinSmoother(RUNS, 0.7, sum(SIZES), torch.float64)
    variances = smoother.variances(torch.ones(sum(SIZES), dtype=torch.float64))
    matrix = smoother(torch.eye(sum(SIZES), dtype=torch.float64))
    torch.testing.assert_close(variances, matrix.square().sum(0))
    likelihood = _heads()
    with torch.no_grad():
        likelihood.weight.fill_(2.0)
    expected = 4 * variances.sum() * len(likelihood.weight)
    torch.testing.assert_close(likelihood.squared_norm().detach(), expected)


def test_rows_held_out_do_not_pay_the_penalty(model, frame):
    module = model._module
    batch = {k: torch.as_tensor(v) for k, v in _arrays(model, frame[:20]).items()}
    penalty = ContextPenalty(1.0)
    assert not penalty(module.eval(), module(**batch)).any()
    module.train()
    paid = penalty(module, module(**batch))
    module.eval()
    assert (paid == module.likelihood.squared_norm()).all()
    assert paid.shape == (20,)


def _arrays(model, frame):
    return model._columns.to_rows(frame, np.float32)


def test_few_rows_move_context_weights_less(frame):
    def norm(n):
        model = VAE(2, max_iter=2000 // n, random_state=0, early_stopping=False)
        model.fit(frame[:n])
        return float(model._module.likelihood.squared_norm().detach().sqrt())

    few, many = norm(40), norm(1000)
    assert few < 0.1 * many, (few, many)
