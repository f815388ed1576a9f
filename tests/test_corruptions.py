"""Corruptions: rates, values, dtypes, randomness and errors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skvae.corruptions import (
    CORRUPTIONS,
    CallableCorruption,
    Corruption,
    GaussianNoise,
    Masking,
    SaltAndPepper,
    Swap,
    make_corruption,
)

N_ROWS, N_FEATURES = 2000, 10


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _rows(dtype=torch.float64):
    x = torch.empty((N_ROWS, N_FEATURES), dtype=dtype)
    return x.normal_(generator=_generator(9))


def _make(name, level=0.3):
    low, high = torch.full((N_FEATURES,), -9.0), torch.full((N_FEATURES,), 9.0)
    return make_corruption(name, level, low=low, high=high)


def _assert_rate(hits, rate):
    n = hits.numel()
    error = 5 * math.sqrt(rate * (1 - rate) / n)
    assert abs(float(hits.double().mean()) - rate) < error


each_corruption = pytest.mark.parametrize("name", sorted(CORRUPTIONS))
each_cellwise = pytest.mark.parametrize("name", ["masking", "salt_and_pepper", "swap"])


# -- what all of them share ----------------------------------------------------------
@each_corruption
def test_level_zero_gives_the_rows_themselves(name):
    x, generator = _rows(), _generator()
    before = generator.get_state()
    assert _make(name, 0.0)(x, generator) is x
    assert torch.equal(generator.get_state(), before)


@each_corruption
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rows_given_are_left_as_they_are(name, dtype):
    x = _rows(dtype)
    before = x.clone()
    corrupted = _make(name)(x, _generator())
    assert torch.equal(x, before)
    assert not torch.equal(corrupted, x)
    assert corrupted.shape == x.shape
    assert corrupted.dtype == dtype
    assert corrupted.data_ptr() != x.data_ptr()


@each_corruption
def test_noise_repeats_with_its_generator_and_leaves_the_global_one(name):
    x, corruption = _rows(), _make(name)
    before = torch.get_rng_state()
    first = corruption(x, _generator(1))
    assert torch.equal(first, corruption(x, _generator(1)))
    assert not torch.equal(first, corruption(x, _generator(2)))
    assert torch.equal(before, torch.get_rng_state())


@each_corruption
def test_one_generator_gives_fresh_noise_at_every_call(name):
    x, corruption, generator = _rows(), _make(name), _generator()
    assert not torch.equal(corruption(x, generator), corruption(x, generator))


@each_cellwise
@pytest.mark.parametrize("level", [0.05, 0.5, 1.0])
def test_the_share_of_changed_cells_is_the_level(name, level):
    # Continuous rows: a changed cell keeps its value with probability zero.
    x = _rows()
    changed = _make(name, level)(x, _generator()) != x
    if level == 1.0:
        assert changed.all()
        return
    _assert_rate(changed, level)
    counts = changed.double().sum(0)
    spread = math.sqrt(N_ROWS * level * (1 - level))
    assert ((counts - N_ROWS * level).abs() < 5 * spread).all()


@each_cellwise
def test_the_cells_of_a_row_are_changed_independently(name):
    x = _rows()
    changed = (_make(name, 0.3)(x, _generator()) != x).double()
    both = changed[:, 0] * changed[:, 1]
    _assert_rate(both, 0.09)


@each_cellwise
def test_the_same_cells_are_changed_in_both_dtypes(name):
    x = _rows(torch.float32)
    single = _make(name)(x, _generator())
    double = _make(name)(x.double(), _generator())
    assert torch.equal(single.double(), double)


# -- gaussian ------------------------------------------------------------------------
def test_gaussian_noise_is_normal_with_the_level_as_standard_deviation():
    x = _rows()
    noise = (GaussianNoise(0.4)(x, _generator()) - x).numpy().ravel()
    assert stats.kstest(noise, stats.norm(scale=0.4).cdf).pvalue > 1e-3


def test_gaussian_noise_may_exceed_one_standard_deviation():
    x = _rows()
    noise = GaussianNoise(3.0)(x, _generator()) - x
    assert float(noise.std()) == pytest.approx(3.0, rel=5 / math.sqrt(2 * x.numel()))


def test_gaussian_noise_refuses_codes():
    with pytest.raises(ValueError, match=r"needs floating point rows. Got torch.int64"):
        GaussianNoise(0.1)(torch.ones(2, 2).long(), _generator())


# -- masking -------------------------------------------------------------------------
def test_masked_cells_are_zero_by_default():
    x = _rows()
    corrupted = Masking(0.4)(x, _generator())
    assert (corrupted[corrupted != x] == 0).all()


def test_masked_cells_take_the_fill_of_their_column():
    fill = torch.arange(N_FEATURES) + 100
    corrupted = Masking(1.0, fill)(_rows(), _generator())
    assert torch.equal(corrupted, fill.double().expand(N_ROWS, -1))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_codes_are_masked_by_a_code(dtype):
    x = torch.randint(0, 5, (N_ROWS, N_FEATURES), generator=_generator()).to(dtype)
    corrupted = make_corruption("masking", 0.25, fill=7)(x, _generator(1))
    assert corrupted.dtype == dtype
    _assert_rate(corrupted == 7, 0.25)
    assert torch.equal(corrupted[corrupted != 7], x[corrupted != 7])


# -- salt and pepper -----------------------------------------------------------------
def test_half_of_the_noise_is_salt_and_half_is_pepper():
    low = torch.arange(N_FEATURES, dtype=torch.float64) - 50
    high = low + 100
    corrupted = SaltAndPepper(0.3, low, high)(_rows(), _generator())
    _assert_rate(corrupted == low, 0.15)
    _assert_rate(corrupted == high, 0.15)


def test_salt_and_pepper_takes_one_range_for_all_columns():
    corrupted = SaltAndPepper(1.0, 0.0, 16.0)(_rows(), _generator())
    assert corrupted.unique().tolist() == [0.0, 16.0]


# -- swap ----------------------------------------------------------------------------
@given(st.integers(2, 12), st.integers(0, 10_000))
def test_swapped_cells_come_from_another_row_of_their_column(n_rows, seed):
    x = torch.arange(n_rows * 3, dtype=torch.float64).reshape(n_rows, 3)
    corrupted = Swap(1.0)(x, _generator(seed))
    donor, column = corrupted // 3, corrupted % 3
    assert torch.equal(column, torch.arange(3).double().expand(n_rows, 3))
    assert (donor != torch.arange(n_rows)[:, None]).all()


def test_every_other_row_is_as_likely_to_give_its_value():
    x = torch.arange(5.0)[:, None].expand(5, 4000).contiguous()
    corrupted = Swap(1.0)(x, _generator())
    for row in range(5):
        counts = torch.bincount(corrupted[row].long(), minlength=5)
        assert counts[row] == 0
        others = [int(count) for i, count in enumerate(counts) if i != row]
        assert stats.chisquare(others).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_codes_are_swapped_as_numbers_are(dtype):
    x = torch.arange(100).repeat(3, 1).T.contiguous().to(dtype)
    corrupted = Swap(0.5)(x, _generator())
    assert corrupted.dtype == dtype
    _assert_rate(corrupted != x, 0.5)


def test_a_single_row_has_nothing_to_swap_with():
    x = torch.ones(1, 3)
    corrupted = Swap(1.0)(x, _generator())
    assert torch.equal(corrupted, x)
    assert corrupted is not x


# -- functions -----------------------------------------------------------------------
def test_a_function_gets_the_generator_and_cannot_change_the_rows():
    x, generator, seen = _rows(), _generator(), []
    before = x.clone()

    def zero(rows, generator):
        seen.append(generator)
        return rows.zero_()

    corrupted = CallableCorruption(zero)(x, generator)
    assert seen == [generator]
    assert torch.equal(corrupted, torch.zeros_like(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, generator: x.tolist(), "must give a torch tensor. Got list"),
        (lambda x, generator: x[:1], r"must keep shape \(3, 2\) and torch.float32"),
        (lambda x, generator: x.double(), r"Got \(3, 2\) and torch.float64"),
    ],
)
def test_a_function_has_to_keep_shape_and_dtype(function, message):
    with pytest.raises(ValueError, match=message):
        CallableCorruption(function)(torch.zeros(3, 2), _generator())


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_function_that_gives_no_numbers_is_blamed_itself(value):
    def function(x, generator):
        x[1, 0] = float(value)
        return x

    with pytest.raises(ValueError, match=f"give finite numbers. Got {value} from"):
        CallableCorruption(function)(torch.zeros(3, 2), _generator())


@pytest.mark.parametrize("code", [-2, 3])
def test_a_function_of_codes_has_to_give_codes(code):
    def function(x, generator):
        x[1, 0] = code
        return x

    x = torch.tensor([[0, 4], [-1, 0]])
    corruption = make_corruption(function, 0.0, n_codes=[3, 5])
    with pytest.raises(ValueError, match=rf"to 2 in column 0 of a table. Got {code}"):
        corruption(x, _generator())
    hide = make_corruption(lambda x, generator: x * 0 - 1, 0.0, n_codes=[3, 5])
    assert bool((hide(x, _generator()) == -1).all())


# -- make_corruption -----------------------------------------------------------------
@each_corruption
def test_a_name_gives_its_class_and_level(name):
    corruption = _make(name, 0.2)
    assert type(corruption) is CORRUPTIONS[name]
    assert corruption.level == 0.2


def test_a_corruption_is_given_back_and_a_function_wrapped():
    own = Masking(0.1)
    assert make_corruption(own, 0.9) is own
    wrapped = make_corruption(lambda x, generator: x + 1, 0.0)
    assert torch.equal(wrapped(torch.zeros(1, 1), _generator()), torch.ones(1, 1))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("blur", 0.1), r"corruption must be one of \['gaussian', .* Got 'blur'"),
        ((3, 0.1), "corruption must be callable. Got 3"),
        (("masking", 1.5), r"level of Masking must be in \[0, 1\]. Got 1.5"),
        (("swap", -0.1), r"level of Swap must be in \[0, 1\]. Got -0.1"),
        (("masking", math.nan), r"level of Masking must be in \[0, 1\]. Got nan"),
        (("gaussian", -1.0), "level of GaussianNoise must be non-negative and finite"),
        (("gaussian", math.inf), "level of GaussianNoise must be non-negative"),
        (("masking", "x"), r"level of Masking must be in \[0, 1\]. Got 'x'"),
        (("swap", None), r"level of Swap must be in \[0, 1\]. Got None"),
        (("gaussian", "x"), "level of GaussianNoise must be .* finite. Got 'x'"),
        (("salt_and_pepper", [0.1], 0, 1), r"SaltAndPepper must be .* Got \[0.1\]"),
        (("salt_and_pepper", 0.1), "needs low and high.* Got low=None, high=None"),
    ],
)
def test_a_wrong_corruption_is_named(args, message):
    name, level, *ends = args
    with pytest.raises(ValueError, match=message):
        make_corruption(name, level, **dict(zip(("low", "high"), ends)))


def test_the_base_has_no_noise_of_its_own():
    with pytest.raises(NotImplementedError):
        Corruption(0.5)(torch.zeros(1, 1), _generator())
