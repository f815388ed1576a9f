"""Fitted models as files: one safetensors file, or ONNX for other runtimes.

A pickle runs code when it is loaded; a file written by `save` holds numbers and JSON
only, and does not depend on the version of torch.
"""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import erfcx
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skvae._autoencoder import AutoencoderTransformer
from skvae._base import BaseAutoencoder
from skvae._conditional_vae import ConditionalVAE
from skvae._contractive import ContractiveAutoencoder
from skvae._denoising import DenoisingAutoencoder
from skvae._table import PLAIN_FORMS
from skvae._vae import VAE

__all__ = ["load", "save", "to_onnx"]

_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        AutoencoderTransformer,
        ConditionalVAE,
        ContractiveAutoencoder,
        DenoisingAutoencoder,
        VAE,
    )
}
_FORMS: dict[type, tuple[Any, Any]] = {
    **PLAIN_FORMS,
    torch.device: (lambda v: [str(v)], torch.device),
}
_READERS = {kind.__name__: read for kind, (_, read) in _FORMS.items()}
_EXTRA = "pip install 'skvae[export]'"
# Operators that ONNX Runtime has for float32 only, and that none stand in for.
_SINGLE_PRECISION = {
    "AveragePool",
    "Celu",
    "Conv",
    "ConvTranspose",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
}
_ERF_DEGREE = 24


def save(estimator: Any, path: str | PathLike[str]) -> None:
    """Write a fitted estimator to one safetensors file.

    Parameters
    ----------
    estimator : object
        A fitted estimator of this package. Its parameters must be plain values: own
        modules and callbacks cannot be stored.
    path : str or path-like
        File to write.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError
        If a parameter is not a plain value.

    See Also
    --------
    load : The way back.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAE
    >>> from skvae.persistence import load, save
    >>> X, _ = load_wine(return_X_y=True)
    >>> vae = VAE(2, max_iter=3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     save(vae, Path(folder) / "vae.safetensors")
    ...     same = load(Path(folder) / "vae.safetensors")
    >>> bool((same.transform(X) == vae.transform(X)).all())  # doctest: +SKIP
    True
    """
    save_file = _safetensors("save_file")
    if _CLASSES.get(type(estimator).__name__) is not type(estimator):
        raise TypeError(
            f"save writes {sorted(_CLASSES)}. Got {type(estimator).__name__}, which "
            "load could not make again. Use pickle."
        )
    check_is_fitted(estimator)
    tensors: dict[str, np.ndarray] = {}
    state = _encoded(estimator.__getstate__(), tensors, type(estimator).__name__)
    header = {"class": type(estimator).__name__, "state": json.dumps(state)}
    save_file(tensors, str(path), metadata=header)


def load(path: str | PathLike[str]) -> Any:
    """Read an estimator that `save` wrote.

    Parameters
    ----------
    path : str or path-like
        File to read.

    Returns
    -------
    estimator : object
        The fitted estimator.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    ValueError
        If the file is damaged, or was not written by `save`.

    See Also
    --------
    save : Write the file.

    Examples
    --------
    >>> from skvae.persistence import load
    >>> model = load("vae.safetensors")  # doctest: +SKIP
    """
    safe_open = _safetensors("safe_open")
    try:
        with safe_open(str(path), framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{Path(path)} is not a readable safetensors file.") from error
    name = header.get("class", "")
    if name not in _CLASSES or "state" not in header:
        raise ValueError(
            f"{Path(path)} was not written by skvae.persistence.save: it names the "
            f"class {name!r}."
        )
    estimator: Any = object.__new__(_CLASSES[name])
    estimator.__setstate__(_decoded(json.loads(header["state"]), tensors))
    return estimator


def _safetensors(name: str) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"This needs safetensors: {_EXTRA}.") from error
    return getattr(safetensors, name, None) or getattr(safetensors.numpy, name)


def _encoded(value: Any, tensors: dict[str, np.ndarray], where: str) -> Any:
    """Return a value as JSON, its numeric arrays put aside as tensors."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf":
            name = f"array{len(tensors)}"
            tensors[name] = np.ascontiguousarray(value)
            return {"tensor": name, "shape": list(value.shape)}
        if value.dtype.kind in "mM":
            # Moments are counts of a unit, which the type names.
            value, dtype = value.astype(np.int64), value.dtype
            return {"array": value.tolist(), "dtype": dtype.str}
        cells = _encoded(value.tolist(), tensors, where)
        return {"array": cells, "dtype": value.dtype.str}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(v, tensors, where) for v in value]}
    if isinstance(value, list):
        return [_encoded(v, tensors, where) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        items = {k: _encoded(v, tensors, f"{where}.{k}") for k, v in value.items()}
        return {"dict": items}
    if isinstance(value, dict) and all(isinstance(k, str | int) for k in value):
        pairs = [[k, _encoded(v, tensors, f"{where}.{k}")] for k, v in value.items()]
        return {"pairs": pairs}
    return _encoded_object(value, tensors, where)


def _encoded_object(value: Any, tensors: dict[str, np.ndarray], where: str) -> Any:
    """Return a level or a device, which is no plain value, as JSON."""
    if type(value) in _FORMS:
        write, read = _FORMS[type(value)]
        parts = write(value)
        if read(*parts) == value:
            cells = [_encoded(part, tensors, where) for part in parts]
            return {"object": type(value).__name__, "parts": cells}
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which cannot be stored as plain "
        "values. Use pickle, or fit without it."
    )


def _decoded(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decoded(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].reshape(value["shape"])
    if "array" in value:
        return np.array(_decoded(value["array"], tensors), dtype=value["dtype"])
    if "object" in value:
        return _READERS[value["object"]](*_decoded(value["parts"], tensors))
    if "pairs" in value:
        return {k: _decoded(v, tensors) for k, v in value["pairs"]}
    if "tuple" in value:
        return tuple(_decoded(v, tensors) for v in value["tuple"])
    return {k: _decoded(v, tensors) for k, v in value["dict"].items()}


class _Encoder(nn.Module):
    """Rows in the user's units to codes."""

    center: Tensor
    scale: Tensor

    def __init__(self, estimator: Any):
        super().__init__()
        self.module = estimator.net_.module_
        columns = estimator._columns
        self.register_buffer("center", torch.as_tensor(columns.center))
        self.register_buffer("scale", torch.as_tensor(columns.scale))

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.module.encoder_input((x - self.center) / self.scale)
        return self.module.posterior(inputs)[0]


class _Decoder(nn.Module):
    """Codes to expected rows in the user's units."""

    center: Tensor
    scale: Tensor

    def __init__(self, estimator: Any):
        super().__init__()
        self.module = estimator.net_.module_
        columns = estimator._columns
        self.low, self.high = columns.low, columns.high
        self.register_buffer("center", torch.as_tensor(columns.center))
        self.register_buffer("scale", torch.as_tensor(columns.scale))

    def forward(self, z: Tensor) -> Tensor:
        x = self.module.likelihood.mean(self.module.decode(z))
        if self.low is not None:
            x = x.clamp(self.low, self.high)
        return x * self.scale + self.center


def to_onnx(
    estimator: Any, path: str | PathLike[str], *, which: str = "encoder"
) -> None:
    """Export the encoder or the decoder of a fitted model to ONNX.

    The exported graph takes any number of rows in the dtype the model was fitted in,
    scaling included: the encoder computes `transform`, the decoder
    `inverse_transform`.

    Parameters
    ----------
    estimator : object
        A fitted estimator on complete numeric data.
    path : str or path-like
        File to write.
    which : {"encoder", "decoder"}, default="encoder"
        What to export.

    Raises
    ------
    ImportError
        If onnx or onnxscript is not installed.
    TypeError
        If `estimator` is no autoencoder, such as an imputer.
    ValueError
        If `which` is unknown, the model is one of a table or of missing cells, or one
        of float64 has layers that ONNX Runtime knows in float32 only (convolutions).

    See Also
    --------
    save : Store the whole estimator.

    Examples
    --------
    >>> from skvae.persistence import to_onnx
    >>> to_onnx(model, "encoder.onnx")  # doctest: +SKIP
    """
    if not isinstance(estimator, BaseAutoencoder):
        raise TypeError(
            f"to_onnx exports autoencoders. Got {type(estimator).__name__}; of what "
            "wraps an autoencoder, export its estimator_."
        )
    check_is_fitted(estimator)
    if which not in ("encoder", "decoder"):
        raise ValueError(f"which must be 'encoder' or 'decoder'. Got {which!r}.")
    columns = estimator._columns
    if columns.kind != "numeric" or columns.has_missing:
        raise ValueError(
            "to_onnx exports models of complete numeric data; this one was fitted on "
            "a table or on rows with missing cells."
        )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"This needs onnx and onnxscript: {_EXTRA}.") from error
    graph = _Encoder(estimator) if which == "encoder" else _Decoder(estimator)
    width = estimator.n_features_in_
    if which == "decoder":
        width = estimator.n_components_ + estimator._n_conditions
    parameter = next(graph.parameters())
    rows = torch.zeros(2, width, dtype=parameter.dtype, device=parameter.device)
    program = torch.export.export(
        graph.eval(),
        (rows,),
        dynamic_shapes=({0: torch.export.Dim("n_samples")},),
    )
    double = parameter.dtype == torch.float64
    if double:
        program = program.run_decompositions(_in_double_precision())
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        # Its optimiser takes numbers below 1e-8 for zeros.
        optimize=not double,
        custom_translation_table={torch.ops.aten.scalar_tensor.default: _scalar},
    )
    assert exported is not None
    if double:
        _refuse_single_precision({node.op_type for node in exported.model.graph})
    exported.save(str(path))


def _scalar(s: float, dtype: int = 1) -> Any:
    """Return a number as a constant of ONNX; torch's exporter rounds it to float32."""
    import onnx
    import onnxscript

    kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    value = onnx.numpy_helper.from_array(np.asarray(s, dtype=kind))
    return onnxscript.opset18.Constant(value=value)


def _refuse_single_precision(operators: set[str]) -> None:
    found = sorted(operators & _SINGLE_PRECISION)
    if found:
        raise ValueError(
            f"to_onnx: ONNX Runtime has no {found} in float64, the dtype of this "
            "model. Fit it on X.astype(np.float32)."
        )


def _in_double_precision() -> dict[Any, Any]:
    """Return operators that ONNX Runtime has in float32 only, by others."""
    known = torch.export.default_decompositions()
    known.update(
        {
            torch.ops.aten.elu.default: _elu,
            torch.ops.aten.erf.default: _erf,
            torch.ops.aten.gelu.default: _gelu,
            torch.ops.aten.leaky_relu.default: _leaky_relu,
            torch.ops.aten.softplus.default: _softplus,
        }
    )
    return known


def _elu(
    x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> Tensor:
    low = alpha * torch.expm1(input_scale * x.clamp(max=0.0))
    return scale * (x.clamp(min=0.0) + low)


def _leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    # max(x, 0) + log(1 + exp(-beta |x|)) / beta
    return x.clamp(min=0.0) + torch.log1p(torch.exp(-beta * x.abs())) / beta


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + torch.tanh(inner))
    return 0.5 * x * (1 + _erf(x * math.sqrt(0.5)))


def _erf(x: Tensor) -> Tensor:
    # erf(x) = 1 - t exp(-x^2 + p(2t - 1)), t = 2 / (2 + x), x > 0, for a polynomial p
    # (Numerical Recipes, third edition, section 6.2.2).
    t = 2 / (2 + x.abs())
    u = 2 * t - 1
    last, earlier = torch.zeros_like(x), torch.zeros_like(x)
    for coefficient in reversed(_erf_coefficients()):
        last, earlier = 2 * u * last - earlier + coefficient, last
    tail = t * torch.exp(last - u * earlier - x * x)
    return torch.sign(x) * (1 - tail)


def _erf_coefficients() -> list[float]:
    """Return p as a Chebyshev series: that of log(erfc(x) exp(x^2) / t)."""

    def values(u: np.ndarray) -> np.ndarray:
        t = (u + 1) / 2
        return np.log(erfcx(2 / t - 2) / t)

    chebyshev: Any = np.polynomial.chebyshev
    return chebyshev.chebinterpolate(values, _ERF_DEGREE).tolist()
