"""Files of fitted models hold plain values and give the same model back."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)
from skvae.persistence import load, save, to_onnx

safetensors = pytest.importorskip("safetensors")


def _table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.normal(size=120).round(2),
            "n": rng.integers(0, 5, 120),
            "c": pd.Categorical(rng.choice(["a", "b"], 120)),
        }
    )


@pytest.mark.parametrize(
    "estimator",
    [
        AutoencoderTransformer(2, max_iter=3, random_state=0),
        DenoisingAutoencoder(2, max_iter=3, random_state=0, init="layerwise"),
        ContractiveAutoencoder(2, max_iter=3, random_state=0, tied_weights=True),
        VAE(2, max_iter=3, random_state=0, hidden_layer_sizes=(8,)),
    ],
)
def test_saved_model_gives_the_same_bits(estimator, tmp_path, wine):
    estimator.fit(wine)
    save(estimator, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.transform(wine), estimator.transform(wine))
    assert again.score(wine) == estimator.score(wine)
    assert again.get_params() == estimator.get_params()


def test_saved_table_model_draws_the_same_rows(tmp_path):
    table = _table()
    model = VAE(max_iter=3, random_state=0).fit(table)
    save(model, tmp_path / "table.safetensors")
    again = load(tmp_path / "table.safetensors")
    pd.testing.assert_frame_equal(
        again.sample(50, random_state=1), model.sample(50, random_state=1)
    )


def test_saved_conditional_model_keeps_string_classes(tmp_path, wine):
    y = np.repeat(["low", "high"], [100, 78])
    model = ConditionalVAE(2, max_iter=3, random_state=0).fit(wine, y)
    save(model, tmp_path / "conditional.safetensors")
    again = load(tmp_path / "conditional.safetensors")
    np.testing.assert_array_equal(again.predict(wine), model.predict(wine))


@pytest.mark.parametrize("dtype", ["M8[s]", "M8[D]", "M8[ns]", "m8[us]"])
def test_saved_conditional_model_keeps_classes_that_are_moments(tmp_path, wine, dtype):
    y = np.repeat([17_000, 18_000], [100, 78]).astype(dtype)
    model = ConditionalVAE(2, max_iter=3, random_state=0).fit(wine, y)
    save(model, tmp_path / "conditional.safetensors")
    again = load(tmp_path / "conditional.safetensors")
    assert again.classes_.dtype == y.dtype
    np.testing.assert_array_equal(again.classes_, model.classes_)
    np.testing.assert_array_equal(again.predict(wine), model.predict(wine))


def test_saved_conditional_model_keeps_a_table_with_moments(tmp_path, wine):
    days = pd.to_datetime(np.repeat(["2024-01-01", "2025-01-01"], [100, 78]))
    y = pd.DataFrame({"day": days, "number": wine[:, 0]})
    model = ConditionalVAE(2, max_iter=3, random_state=0).fit(wine, y)
    save(model, tmp_path / "conditional.safetensors")
    again = load(tmp_path / "conditional.safetensors")
    drawn, same = (m.sample(5, random_state=0)[1] for m in (model, again))
    pd.testing.assert_frame_equal(same, drawn)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.array([datetime(2024, 1, 1)], dtype=object), "datetime"),
        (np.array([b"up"]), "bytes"),
        (np.datetime64("2024-01-01"), "datetime64"),
    ],
)
def test_cells_that_are_no_plain_values_are_refused(tmp_path, wine, value, kind):
    model = ConditionalVAE(2, max_iter=3, random_state=0).fit(wine, wine[:, 0])
    model.classes_ = value
    with pytest.raises(TypeError, match=f"classes_ holds a {kind}, .* Use pickle"):
        save(model, tmp_path / "conditional.safetensors")


def test_objects_are_refused_by_name(tmp_path, wine):
    model = AutoencoderTransformer(
        2, max_iter=1, random_state=np.random.RandomState(0)
    ).fit(wine)
    with pytest.raises(TypeError, match=r"random_state holds a RandomState"):
        save(model, tmp_path / "model.safetensors")


def test_damaged_file_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match=r"broken\.safetensors is not a readable"):
        load(path)


def test_foreign_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="was not written by"):
        load(tmp_path / "other.safetensors")


def test_unknown_part_is_refused(wine, tmp_path):
    model = AutoencoderTransformer(2, max_iter=0, random_state=0).fit(wine)
    with pytest.raises(ValueError, match="which must be"):
        to_onnx(model, tmp_path / "x.onnx", which="middle")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_exported_graph_computes_transform_and_its_inverse(tmp_path, wine):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = VAE(2, max_iter=3, random_state=0, hidden_layer_sizes=(8,)).fit(wine)
    codes = model.transform(wine)
    for which, given, expected in (
        ("encoder", wine, codes),
        ("decoder", codes, model.inverse_transform(codes)),
    ):
        path = tmp_path / f"{which}.onnx"
        to_onnx(model, path, which=which)
        session = onnxruntime.InferenceSession(str(path))
        name = session.get_inputs()[0].name
        (found,) = session.run(None, {name: np.array(given)})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
