"""Products with folded matrices give what the module gives, and notice changes."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._inference import FoldedDecoder


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) * 5 + 1e4


def _by_module(model, X):
    module = model.net_.module_
    columns = model._columns
    x = torch.as_tensor((X - columns.center) / columns.scale)
    with torch.no_grad():
        return module.posterior(x)[0].numpy()


VARIANTS = [
    AutoencoderTransformer(2),
    AutoencoderTransformer(2, hidden_layer_sizes=()),
    AutoencoderTransformer(2, init="random", activation="gelu"),
    AutoencoderTransformer(3, penalty="kl"),
    AutoencoderTransformer(2, scale=None, tied_weights=True),
    VAE(2),
    VAE(2, init="random", hidden_layer_sizes=(8, 4)),
]


@pytest.mark.parametrize("model", VARIANTS, ids=str)
def test_codes_are_those_of_the_module(model, rows):
    model.set_params(max_iter=3, random_state=0).fit(rows)
    assert model._folded is not None
    expected = _by_module(model, rows)
    np.testing.assert_allclose(model.transform(rows), expected, rtol=1e-9, atol=1e-9)


def test_codes_of_a_conditional_model_are_those_of_the_module(rows):
    y = np.arange(len(rows)) % 3
    model = ConditionalVAE(2, max_iter=3, random_state=0).fit(rows, y)
    np.testing.assert_allclose(
        model.transform(rows), _by_module(model, rows), rtol=1e-9, atol=1e-9
    )


def test_weights_changed_by_hand_are_noticed(rows):
    model = AutoencoderTransformer(2, max_iter=2, random_state=0).fit(rows)
    before = model.transform(rows)
    with torch.no_grad():
        model.net_.module_.encoder.bias += 1
    np.testing.assert_allclose(model.transform(rows), before + 1, rtol=1e-9)


def test_codes_between_epochs_are_of_that_epoch(rows):
    """A model used by a callback, then trained on, must not keep old matrices."""
    model = AutoencoderTransformer(2, max_iter=2, random_state=0).fit(rows)
    model.partial_fit(rows)
    np.testing.assert_allclose(
        model.transform(rows), _by_module(model, rows), rtol=1e-9, atol=1e-9
    )


def test_a_pickled_model_encodes_to_the_same_bits(rows):
    model = AutoencoderTransformer(2, max_iter=2, random_state=0).fit(rows)
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded._folded is not None
    np.testing.assert_array_equal(loaded.transform(rows), model.transform(rows))


def test_read_only_and_strided_rows_are_encoded(rows):
    model = AutoencoderTransformer(2, max_iter=2, random_state=0).fit(rows)
    expected = model.transform(rows)[::2]
    frozen = rows.copy()
    frozen.flags.writeable = False
    np.testing.assert_allclose(model.transform(frozen[::2]), expected, rtol=1e-9)
    np.testing.assert_allclose(
        model.transform(np.asfortranarray(rows))[::2], expected, rtol=1e-9
    )


def test_rows_are_not_changed(rows):
    model = AutoencoderTransformer(
        2,
        scale=None,
        hidden_layer_sizes=(4,),
        activation="relu",
        max_iter=2,
        random_state=0,
    ).fit(rows)
    before = rows.copy()
    model.transform(rows)
    np.testing.assert_array_equal(rows, before)


DRAWN = [
    VAE(2),
    VAE(2, noise="feature", prior="normal"),
    VAE(2, noise=0.05, hidden_layer_sizes=()),
    VAE(2, noise="shared", activation="gelu", init="random"),
    VAE(2, scale=None),
    AutoencoderTransformer(2),
    ConditionalVAE(2),
]


@pytest.mark.parametrize("model", DRAWN, ids=str)
@pytest.mark.parametrize("case", ["far", "unit"])
def test_drawn_rows_are_those_of_the_likelihood(model, case, rows):
    """The noise is drawn in one order, so that even the rows agree."""
    X = rows if case == "far" else (rows - rows.min()) / np.ptp(rows)
    model = clone(model).set_params(max_iter=3, random_state=0)
    model.fit(X, np.arange(len(X)) % 3)
    module, columns = model.net_.module_, model._columns
    folded = FoldedDecoder.of(module, columns)
    z = np.random.default_rng(0).normal(size=(1500, module.decoder.n_in)) * 2
    z = torch.from_numpy(z)
    with torch.no_grad():
        drawn = folded.draw(z, torch.Generator().manual_seed(1))
        generator, expected = torch.Generator().manual_seed(1), []
        for part in z.split(1024):
            raw = module.decode(part)
            expected.append(columns.draw(module.likelihood, raw, generator))
    np.testing.assert_allclose(drawn, np.concatenate(expected), rtol=1e-9, atol=1e-9)


def test_a_missing_cell_is_refused_although_none_was_looked_for(rows):
    model = AutoencoderTransformer(2, max_iter=2, random_state=0).fit(rows)
    gap = rows[:3].copy()
    gap[1, 2] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        model.transform(gap)


def test_threads_do_not_share_the_memory_of_layers(rows):
    model = AutoencoderTransformer(2, max_iter=2, random_state=0).fit(rows)
    expected = [model.transform(rows[i : i + 1]) for i in range(len(rows))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: model.transform(rows[i : i + 1]), range(300)))
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))
    few, more = model.transform(rows[:3]), model.transform(rows[:5])
    np.testing.assert_allclose(few, more[:3], rtol=1e-9)
