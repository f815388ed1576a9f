"""Files of fitted models hold plain values and give the same model back."""

import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import torch

from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    ContractiveAutoencoder,
    ConvDecoder,
    ConvEncoder,
    DenoisingAutoencoder,
)
from skvae._fused import ACTIVATIONS
from skvae.imputation import AutoencoderImputer
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


def _levels():
    """Return levels that are no plain values."""
    first, rome = datetime(2024, 1, 1, 9), ZoneInfo("Europe/Rome")
    hours = [timedelta(hours=h) for h in range(4)]
    moments = [first + h for h in hours]
    offsets = [
        m.replace(tzinfo=timezone(h)) for m, h in zip(moments, hours, strict=True)
    ]
    return {
        "interval": list(pd.cut(range(4), 4)),
        "interval of moments": list(pd.interval_range(pd.Timestamp(first), periods=4)),
        "date": pd.Categorical([date(2024, 1, 1 + d) for d in range(4)]),
        "Timestamp": pd.Categorical(moments),
        "zoned Timestamp": pd.Categorical(pd.DatetimeIndex(moments, tz=rome)),
        "datetime": pd.Series(offsets, dtype=object),
        "Timedelta": pd.Categorical(hours),
        "time": pd.Categorical([m.time() for m in moments]),
        "period": pd.Categorical(pd.period_range("2024-01", periods=4, freq="M")),
        "decimal": pd.Categorical([Decimal(f"1.{d}0") for d in range(4)]),
        "bytes": [b"a", b"b", b"c", b"d"],
        "uuid": [uuid.UUID(int=i) for i in range(4)],
    }


@pytest.mark.parametrize("name", list(_levels()))
def test_saved_table_model_keeps_its_levels(name, tmp_path):
    levels = pd.Series(_levels()[name])
    column = levels.iloc[np.arange(80) % 4].reset_index(drop=True)
    table = pd.DataFrame({"c": column, "x": np.arange(80) / 4})
    model = VAE(max_iter=2, random_state=0).fit(table)
    save(model, tmp_path / "table.safetensors")
    again = load(tmp_path / "table.safetensors")
    drawn, same = (m.sample(50, random_state=1) for m in (model, again))
    pd.testing.assert_frame_equal(same, drawn)
    assert [type(v) for v in same["c"]] == [type(v) for v in drawn["c"]]
    asked = column[1]
    assert (again.sample(2, given={"c": asked}, random_state=0)["c"] == asked).all()


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
        (np.array([Fraction(1, 3)], dtype=object), "Fraction"),
        (1j, "complex"),
        (np.datetime64("2024-01-01"), "datetime64"),
    ],
)
def test_cells_that_are_no_plain_values_are_refused(tmp_path, wine, value, kind):
    model = ConditionalVAE(2, max_iter=3, random_state=0).fit(wine, wine[:, 0])
    model.classes_ = value
    with pytest.raises(TypeError, match=f"classes_ holds a {kind}, .* Use pickle"):
        save(model, tmp_path / "conditional.safetensors")


def test_a_device_is_saved(tmp_path, wine):
    device = torch.device("cpu")
    model = VAE(2, max_iter=1, device=device, random_state=0).fit(wine)
    save(model, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").device == device


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


def test_onnx_of_what_wraps_an_autoencoder_is_refused_with_the_remedy(wine, tmp_path):
    imputer = AutoencoderImputer(VAE(2, max_iter=1, random_state=0)).fit(wine)
    with pytest.raises(TypeError, match=r"AutoencoderImputer; .* its estimator_"):
        to_onnx(imputer, tmp_path / "x.onnx")
    with pytest.raises(TypeError, match=r"exports autoencoders\. Got type"):
        to_onnx(VAE, tmp_path / "x.onnx")


def _run(model, path, which, rows):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    to_onnx(model, path / f"{which}.onnx", which=which)
    session = onnxruntime.InferenceSession(str(path / f"{which}.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: np.array(rows)})
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"likelihood": "poisson"},
        *({"activation": a, "init": "random"} for a in sorted(ACTIVATIONS)),
    ],
)
def test_exported_graph_computes_transform_and_its_inverse(
    tmp_path, wine, parameters, dtype
):
    X = (wine.round() if "likelihood" in parameters else wine).astype(dtype)
    model = VAE(2, max_iter=3, random_state=0, hidden_layer_sizes=(8,), **parameters)
    codes = model.fit_transform(X)
    # What a graph in single precision may lose in either.
    close = {"rtol": 1e-9, "atol": 1e-9} if dtype == np.float64 else {"rtol": 1e-3}
    np.testing.assert_allclose(_run(model, tmp_path, "encoder", X), codes, **close)
    np.testing.assert_allclose(
        _run(model, tmp_path, "decoder", codes), model.inverse_transform(codes), **close
    )


def test_operators_in_double_precision_are_those_of_torch():
    from torch.nn import functional as F

    from skvae import persistence

    x = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    for found, expected in (
        (persistence._erf(x), torch.erf(x)),
        (persistence._gelu(x), F.gelu(x)),
        (persistence._gelu(x, "tanh"), F.gelu(x, approximate="tanh")),
        (persistence._softplus(x, 3.0, 1e9), F.softplus(x, 3.0, 1e9)),
        (persistence._elu(x, 0.7), F.elu(x, 0.7)),
        (persistence._leaky_relu(x, 0.2), F.leaky_relu(x, 0.2)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_convolutions_in_double_precision_are_refused(tmp_path, digits):
    pytest.importorskip("onnxscript")
    X = digits[:100]
    model = AutoencoderTransformer(2, max_iter=1, random_state=0)
    model.set_params(encoder=ConvEncoder((8, 8)), decoder=ConvDecoder((8, 8)))
    with pytest.raises(ValueError, match=r"no \['Conv'\] in float64.*np.float32"):
        to_onnx(model.fit(X), tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())
    X = X.astype(np.float32)
    codes = model.fit_transform(X)
    found = _run(model, tmp_path, "encoder", X)
    np.testing.assert_allclose(found, codes, rtol=1e-3, atol=1e-4)
