"""Tables in a network: codes in, one block of categorical heads out.

Each column of a table is a categorical variable over its codes (levels, repeated
values, quantile bins, "missing"). The encoder sees every column's normal score, an
embedding of its code, and where the row lies in a mixture fitted beforehand; the
decoder gives one block of logits that holds the heads of all columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skvae._embedding import Embedding
from skvae._networks import LinearPlusMLP
from skvae._smoothing import BinSmoother, SmoothedNetwork
from skvae._table import Known, TableCodec, concat_rows
from skvae._table_heads import GaussianHeads
from skvae._thinning import n_halvings, thinned
from skvae.corruptions import GaussianNoise

_EMBEDDING = 4
# Components and bits a component of the curve that orders codes for drawing.
_CURVE_DIMS, _CURVE_BITS = 4, 4
# Draws that margins are measured on, and how often they are moved.
_MARGIN_DRAWS, _MARGIN_CHUNK, _MARGIN_ROUNDS = 8192, 2048, 3
# Added to shares, so that a code nobody drew moves by a finite step.
_MARGIN_FLOOR = 1e-5


@dataclass
class TableArchitecture:
    """Everything that decides the heads of a table.

    Parameters
    ----------
    sizes : list of int
        Codes of each column.
    bin_runs : list of list of int
        Positions, in the block of logits, of bins that are neighbours.
    smoothing : float
        Standard deviation of the decoder's smoothing kernel, in bins.
    gaussian : list of dict
        Columns whose logits are normal; see `GaussianHeads`.
    derived : list of dict
        Columns whose code follows from others; see `TableLikelihood`.
    excluded : list of (int, int, float)
        Pairs of codes that never come together, and what that costs in nats.
    entry_width : int
        Length of the embedding of a code in the context of later columns; 0 is no
        context.
    context_penalty : float
        Weight of `ContextPenalty`.
    prior_penalty : float
        Weight of `PriorPenalty`; 0 of a prior that is not a mixture.
    scores : list of float, default=()
        Normal score of each code, whose parabolas the smoothing leaves alone.
    """

    sizes: list[int]
    bin_runs: list[list[int]]
    smoothing: float
    gaussian: list[dict[str, Any]]
    derived: list[dict[str, Any]]
    excluded: list[tuple[int, int, float]]
    entry_width: int
    context_penalty: float
    prior_penalty: float
    scores: Sequence[float] = ()


class TableColumns:
    """A fitted table codec in the role of `NumericColumns`.

    Parameters
    ----------
    codec : TableCodec
        Fitted codec.
    """

    kind = "table"
    has_missing = False
    tolerates_missing = True
    low = high = None
    # Codes are not scaled.
    is_identity = True
    log_jacobian = np.zeros(1)

    def __init__(self, codec: TableCodec):
        self.codec = codec

    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        return {"codec": self.codec.get_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TableColumns:
        """Make the columns from plain values."""
        return cls(TableCodec.from_state(state["codec"]))

    def to_rows(self, X: Any, dtype: Any) -> dict[str, np.ndarray]:
        """Return the codes and normal scores of rows."""
        rows = self.coded(X, dtype)
        unknown = (rows["x"] < 0).any(axis=0)
        if unknown.any():
            name = self.codec.columns[int(unknown.argmax())].name
            raise ValueError(
                f"Column {name!r} has missing cells, but had none in training. Fill "
                "them first, by `impute` for example, or fit on rows that have some."
            )
        return rows

    def coded(
        self, X: Any, dtype: Any, *, unknown_missing: bool = False
    ) -> dict[str, np.ndarray]:
        """Return codes and normal scores of rows; -1 is a cell that is not known."""
        codes = self.codec.encode(X, unknown_missing=unknown_missing)
        values = self.codec.encode_values(X, codes).astype(dtype)
        return {"x": codes.astype(np.int64), "values": values}

    def own_cells(self, codes: Tensor) -> Tensor:
        """Return codes as if only the cells of the table were known.

        The log-likelihoods of the members of a joint column, each given those before,
        add up to that of the joint column.
        """
        d = len(self.codec.columns)
        return torch.cat([codes[:, :d], torch.full_like(codes[:, d:], -1)], dim=1)

    def point(self, likelihood: Any, raw: Tensor) -> Any:
        """Return the mode of categories and the median of numbers."""
        probabilities = likelihood.mean(raw).double().cpu().numpy()
        return self.codec.decode_point(probabilities)

    def joined(self, parts: list[Any]) -> Any:
        """Join blocks of restored rows."""
        return concat_rows(parts)

    @staticmethod
    def in_container(rows: Any, container: Any, like: Any = None) -> Any:
        """Return restored rows as they are: the codec knows their container."""
        return rows

    def draw(
        self, likelihood: Any, raw: Tensor, generator: torch.Generator
    ) -> np.ndarray:
        """Draw the codes of rows from the heads."""
        return likelihood.draw(raw, generator).cpu().numpy()

    @staticmethod
    def order(z: Tensor) -> Tensor:
        """Return an order of codes in which neighbours are alike.

        A Morton curve through the first few components, which matter most: draws that
        cover [0, 1] evenly over consecutive rows then cover it evenly everywhere.
        """
        dims = min(_CURVE_DIMS, z.shape[1])
        ranks = z[:, :dims].argsort(dim=0).argsort(dim=0)
        cells = ranks * (1 << _CURVE_BITS) // len(z)
        key = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        for bit in range(_CURVE_BITS):
            for dim in range(dims):
                key |= ((cells[:, dim] >> bit) & 1) << (bit * dims + dims - 1 - dim)
        return key.argsort(stable=True)

    def n_to_draw(self, n: int) -> int:
        """Return how many rows to draw for n that stand for them."""
        return n << n_halvings(n, len(self.codec.sizes))

    def drawn(
        self,
        codes: np.ndarray,
        generator: torch.Generator,
        n: int | None = None,
        known: Known | None = None,
        groups: np.ndarray | None = None,
    ) -> Any:
        """Return drawn codes, or n of them, as rows; values are drawn within a code.

        Conditions, as `groups`, are those of the n rows to keep.
        """
        seed = torch.randint(
            2**31 - 1, (), generator=generator, device=generator.device
        )
        rng = np.random.default_rng(int(seed))
        if n is not None and n < len(codes):
            codes = codes[thinned(self.codec.groups(codes), n, rng, groups)]
        return self.codec.decode(codes, rng, known=known)


class TableFeatures(nn.Module):
    """What the encoder sees of coded rows.

    Parameters
    ----------
    sizes : sequence of int
        Codes of each column.
    n_mixture, n_components : int
        Components of the mixture, and of the code.
    """

    offsets: Tensor
    code_values: Tensor
    log_probs: Tensor
    log_weights: Tensor
    positions: Tensor

    def __init__(self, sizes: Any, n_mixture: int, n_components: int):
        super().__init__()
        sizes = np.asarray(sizes, dtype=np.int64)
        total = int(sizes.sum())
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.register_buffer("offsets", torch.as_tensor(offsets))
        self.register_buffer("code_values", torch.zeros(total + 1))
        # The last row stands for a cell that is not known, of likelihood one.
        self.register_buffer("log_probs", torch.zeros(total + 1, n_mixture))
        self.register_buffer("log_weights", torch.zeros(n_mixture))
        self.register_buffer("positions", torch.zeros(n_mixture, n_components))
        self.embedding = nn.Parameter(torch.zeros(total, _EMBEDDING))
        self.n_columns = len(sizes)
        self.n_components = n_components
        self.n_out = len(sizes) * (1 + _EMBEDDING) + n_components

    def index(self, codes: Tensor) -> Tensor:
        """Return where codes stand in the concatenated list of codes."""
        return torch.where(codes < 0, len(self.code_values) - 1, codes + self.offsets)

    def responsibilities(self, codes: Tensor) -> Tensor:
        """Return the posterior weights of the mixture's components."""
        return self._responsibilities(self.index(codes))

    def _responsibilities(self, index: Tensor) -> Tensor:
        joint = nn.functional.embedding_bag(index, self.log_probs, mode="sum")
        return torch.softmax(joint.add_(self.log_weights), dim=-1)

    def forward(
        self,
        codes: Tensor,
        values: Tensor | None = None,
        corruption: Any = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the encoder's input, of corrupted codes where asked for."""
        blurs = isinstance(corruption, GaussianNoise)
        clean = codes
        if corruption is not None and not blurs:
            codes = corruption(codes, generator)
        index = self.index(codes)
        if values is None:
            values = self.code_values[index]
        elif codes is not clean:
            values = torch.where(codes == clean, values, self.code_values[index])
        padded = nn.functional.pad(self.embedding, (0, 0, 0, 1))
        embedded = Embedding.apply(padded, index).flatten(1)
        start = self._responsibilities(index) @ self.positions
        out = torch.cat([start, values.to(start.dtype), embedded], dim=-1)
        # Codes cannot be a little off: normal noise goes on what they are read as.
        return corruption(out, generator) if blurs else out


class TableDecoder(nn.Module):
    """Linear path plus an MLP whose logits are smoothed over neighbouring bins.

    Parameters
    ----------
    n_in, n_out : int
        Width of the code and of the block of logits.
    hidden_layer_sizes : tuple of int
        Hidden units.
    activation : str
        Activation of the hidden units.
    bin_runs : sequence of sequence of int
        Positions, in the block of logits, of bins that are neighbours.
    width : float
        Standard deviation of the smoothing, in bins; 0 is none.
    gaussian : sequence of dict
        Columns whose logits are normal; see `GaussianHeads`.
    scores : sequence of float, default=()
        Normal score of each code; see `kernel_of`.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        hidden_layer_sizes: tuple[int, ...],
        activation: str,
        *,
        bin_runs: Any = (),
        width: float = 3.0,
        gaussian: Any = (),
        scores: Any = (),
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.linear = LinearPlusMLP(
            n_in, n_out, (), activation, generator=generator, dtype=dtype
        )
        self.mlp = LinearPlusMLP(
            n_in,
            n_out,
            hidden_layer_sizes,
            activation,
            linear=False,
            dropout=dropout,
            generator=generator,
            dtype=dtype,
        )
        self.smoother = BinSmoother(bin_runs, width, n_out, dtype, scores)
        self.heads = GaussianHeads(gaussian, dtype) if gaussian else None
        self._joined: SmoothedNetwork | None = None

    def forward(self, z: Tensor) -> Tensor:
        """Return the block of logits."""
        joined = self._joined_network(z)
        logits = self._plain_logits(z) if joined is None else joined.run(z)
        return logits if self.heads is None else self.heads(logits)

    def _plain_logits(self, z: Tensor) -> Tensor:
        """Return the block of logits, each path by itself."""
        return self.linear(z) + self.smoother(self.mlp(z))

    def _joined_network(self, z: Tensor) -> SmoothedNetwork | None:
        """Return both paths as one node, None where they need ordinary operations."""
        sources = (self.mlp.grad_buffers, self.linear.grad_buffers)
        plain = None in sources or not torch.is_grad_enabled()
        if plain or self.mlp.dropout or torch.is_autocast_enabled(z.device.type):
            return None
        if self._joined is None or self._joined.sources != sources:
            self._joined = SmoothedNetwork(
                self.mlp, self.linear, self.smoother, self._plain_logits
            )
        return self._joined

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_joined": None}


def match_margins(
    module: Any,
    frequencies: np.ndarray,
    generator: torch.Generator,
    condition: Tensor | None = None,
) -> None:
    """Move the biases of the logits until drawn rows have the margins of the data.

    Training comes near them, from a part of the rows. The share of each code over
    draws of the prior is compared with that among all rows, a few times over.

    Parameters
    ----------
    module : AutoencoderModule
        A trained table module, changed in place.
    frequencies : ndarray of shape (n_codes,)
        Share of each code in its column.
    generator : torch.Generator
        Draws the codes.
    condition : Tensor of shape (n_rows, n_conditions) or None, default=None
        Conditions to draw under.
    """
    if not isinstance(module.decoder, TableDecoder):
        return
    bias: Any = module.decoder.linear.bias
    wanted = torch.as_tensor(frequencies).to(bias)
    with torch.no_grad():
        n = _MARGIN_DRAWS if condition is None else len(condition)
        z = module.prior_distribution(condition).draw(n, generator).to(bias)
        parts = z.split(_MARGIN_CHUNK)
        conditions = [None] * len(parts)
        if condition is not None:
            conditions = list(condition.split(_MARGIN_CHUNK))
        moves = torch.ones_like(bias, dtype=torch.bool)
        heads = module.decoder.heads
        for place in () if heads is None else heads.places:
            moves[place] = False
        for _ in range(_MARGIN_ROUNDS):
            found = torch.zeros_like(wanted)
            for part, known in zip(parts, conditions, strict=True):
                raw = module.decode(part, known)
                found += module.likelihood.margins(raw, generator).sum(dim=0) / n
            step = torch.log((wanted + _MARGIN_FLOOR) / (found + _MARGIN_FLOOR))
            bias += step * moves
