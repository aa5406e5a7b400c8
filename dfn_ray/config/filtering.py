"""The recipe of a filtering run: `dfn-ray filter`, `score`, `select`, `materialize`, `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from dfn_ray.config.caption_score import Captions
from dfn_ray.config.checks import Target
from dfn_ray.config.execution import Execution, Prices
from dfn_ray.config.networks import Decode, Network, Scorers
from dfn_ray.config.pool import Pool, Rules
from dfn_ray.config.sections import require_rules, section
from dfn_ray.config.selection import Calibration, Select
from dfn_ray.errors import RecipeError


@section
class Recipe:
    """A filtering run: a pool, networks that score it, and the samples to keep."""

    run_uri: Target
    """Folder or object prefix of the run. It is created, or resumed if it contains the run of this
    recipe."""
    pool: Pool
    """`[pool]`: the pool to filter."""
    networks: tuple[Network, ...] = ()
    """`[[networks]]`: the networks that score, at least one, with distinct names. None are needed
    if a uid list selects."""
    rules: Rules = field(default_factory=Rules)
    """`[rules]`: metadata rules."""
    decode: Decode = field(default_factory=Decode)
    """`[decode]`: decoding of images."""
    captions: Captions = field(default_factory=Captions)
    """`[captions]`: the score of pairs with several captions."""
    scorers: Scorers = field(default_factory=Scorers)
    """`[scorers]`: the actors that run the networks."""
    select: Select = field(default_factory=lambda: Select(keep_fraction=0.15))
    """`[select]`: the samples to keep. Default: the best 15 %, as in DFN-2B."""
    calibration: Calibration = field(default_factory=Calibration)
    """`[calibration]`: the estimate of the range of scores in which the threshold will be; samples
    in it wait for the selection."""
    execution: Execution = field(default_factory=Execution)
    """`[execution]`: sizes of parts, rounds, and limits."""
    prices: Prices | None = None
    """`[prices]`: prices of cluster and storage. None: `dfn-ray plan` shows no money."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        names = [network.name for network in self.networks]
        if len(set(names)) != len(names):
            yield f"networks: need distinct names, got {', '.join(names)}"
        if self.select.network is not None and self.select.network not in names:
            yield f"select.network: need one of {', '.join(names)}, got {self.select.network!r}"
        prices = self.prices
        if prices and prices.budget is not None and self.scorers.gpus and not prices.gpu_hour:
            yield "prices.gpu_hour: need a price above 0 for a budget with GPU scorers, got 0"

    @property
    def deciding_network(self) -> str:
        """Name of the network whose score decides. Raises RecipeError if the recipe has none."""
        return self.select.network or self.require_networks()[0].name

    def require_networks(self) -> tuple[Network, ...]:
        """The networks of a recipe that scores. Raises RecipeError if it has none."""
        if not self.networks:
            raise RecipeError(["networks: need at least one [[networks]], got none"])
        return self.networks
